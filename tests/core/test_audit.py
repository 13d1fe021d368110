"""What the audit trail says, and how the hospital's repository is told."""

import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage.core.audit import OURSELVES, Action, Deed, Entry, as_json_line, printable
from triage.core.audit_kinds import KINDS, AuditSource
from triage.core.audit_message import StudyIdentity, audit_message

AT = datetime(2026, 3, 1, 8, 30, tzinfo=timezone(timedelta(hours=1)))
SOURCE = AuditSource(host="stroke1", url="https://stroke.example", ae_title="TRIAGE", pacs="ARCHIVE")
STUDY = StudyIdentity("1.2.3", "4711", "Doe^Jane")

CODED = {"csd-code", "codeSystemName", "originalText"}
# PS3.15 A.5.1.1: element -> (attributes that it must have, attributes that it may have,
# children in order: name, least, most).
MANY = 1_000
SCHEMA: dict[str, tuple[set[str], set[str], list[tuple[str, int, int]]]] = {
    "AuditMessage": (
        set(),
        set(),
        [
            ("EventIdentification", 1, 1),
            ("ActiveParticipant", 1, MANY),
            ("AuditSourceIdentification", 1, 1),
            ("ParticipantObjectIdentification", 0, MANY),
        ],
    ),
    "EventIdentification": (
        {"EventDateTime", "EventOutcomeIndicator"},
        {"EventActionCode"},
        [("EventID", 1, 1), ("EventTypeCode", 0, MANY), ("EventOutcomeDescription", 0, 1)],
    ),
    "EventOutcomeDescription": (set(), set(), []),
    "ActiveParticipant": (
        {"UserID", "UserIsRequestor"},
        {"AlternativeUserID", "UserName", "NetworkAccessPointID", "NetworkAccessPointTypeCode"},
        [("RoleIDCode", 0, MANY), ("MediaIdentifier", 0, 1)],
    ),
    "MediaIdentifier": (set(), set(), [("MediaType", 1, 1)]),
    "AuditSourceIdentification": (
        {"AuditSourceID"},
        {"AuditEnterpriseSiteID"},
        [("AuditSourceTypeCode", 0, MANY)],
    ),
    "AuditSourceTypeCode": ({"csd-code"}, CODED, []),
    "ParticipantObjectIdentification": (
        {"ParticipantObjectID"},
        {"ParticipantObjectTypeCode", "ParticipantObjectTypeCodeRole"},
        [
            ("ParticipantObjectIDTypeCode", 1, 1),
            ("ParticipantObjectName", 1, 1),
            ("ParticipantObjectDetail", 0, MANY),
            ("ParticipantObjectDescription", 0, MANY),
        ],
    ),
    "ParticipantObjectName": (set(), set(), []),
    "ParticipantObjectDescription": (set(), set(), [("SOPClass", 0, MANY)]),
    "SOPClass": ({"NumberOfInstances"}, {"UID"}, []),
    **{
        name: (CODED, {"displayName"}, [])
        for name in ("EventID", "EventTypeCode", "RoleIDCode", "MediaType", "ParticipantObjectIDTypeCode")
    },
}


def check(element: ET.Element) -> None:
    demanded, allowed, children = SCHEMA[element.tag]
    assert demanded <= set(element.attrib) <= demanded | allowed, element.tag
    order = [name for name, _, _ in children]
    found = [child.tag for child in element]
    assert found == sorted(found, key=order.index), element.tag
    for name, least, most in children:
        assert least <= found.count(name) <= most, (element.tag, name)
    for child in element:
        check(child)


def message(deed: Deed, study: StudyIdentity | None = None) -> ET.Element:
    content = audit_message(Entry(1, AT, deed), SOURCE, study)
    content.decode("utf-8")
    return ET.fromstring(content)


def deed(action: Action, **other) -> Deed:
    return replace(Deed(actor="kim", action=action, address="10.0.0.7", series_id=42), **other)


def participants(root: ET.Element) -> dict[str, set[str]]:
    """User ID -> the codes of its roles."""
    return {
        found.attrib["UserID"]: {role.attrib["csd-code"] for role in found.iter("RoleIDCode")}
        for found in root.iter("ActiveParticipant")
    }


def objects(root: ET.Element) -> dict[str, str]:
    """Code of the identifier's type -> the identifier."""
    return {
        found[0].attrib["csd-code"]: found.attrib["ParticipantObjectID"]
        for found in root.iter("ParticipantObjectIdentification")
    }


@pytest.mark.parametrize("actor", ["kim", OURSELVES])
@pytest.mark.parametrize("study", [STUDY, StudyIdentity("", "", ""), None])
@pytest.mark.parametrize("action", Action)
def test_every_message_keeps_to_the_schema(action: Action, study: StudyIdentity | None, actor: str) -> None:
    root = message(deed(action, actor=actor, detail="why"), study)
    assert root.tag == "AuditMessage"
    check(root)
    requestors = [found.attrib["UserIsRequestor"] for found in root.iter("ActiveParticipant")]
    assert requestors.count("true") <= 1
    assert set(requestors) <= {"true", "false"}


@pytest.mark.parametrize("action", Action)
def test_every_action_can_be_told_apart(action: Action) -> None:
    types = [found.attrib["csd-code"] for found in message(deed(action)).iter("EventTypeCode")]
    assert types[-1] == action.value
    kind = KINDS[action]
    assert types[:-1] == ([kind.type.value] if kind.type else [])


@pytest.mark.parametrize("action", Action)
def test_an_action_fits_its_column(action: Action) -> None:
    assert len(action) <= 32


def test_the_time_is_utc_and_the_outcome_told() -> None:
    event = message(deed(Action.LOGIN_REFUSED, succeeded=False, detail="wrong password"))[0]
    assert event.attrib["EventDateTime"] == "2026-03-01T07:30:00.000+00:00"
    assert event.attrib["EventOutcomeIndicator"] == "4"
    assert event.findtext("EventOutcomeDescription") == "wrong password"
    assert message(deed(Action.LOGGED_IN))[0].attrib["EventOutcomeIndicator"] == "0"


def test_a_viewed_study_is_told_with_its_patient() -> None:
    root = message(deed(Action.STUDY_VIEWED), STUDY)
    assert root.find("EventIdentification/EventID").attrib["csd-code"] == "110103"  # type: ignore[union-attr]
    assert objects(root) == {"110180": "1.2.3", "2": "4711"}
    names = [found.text for found in root.iter("ParticipantObjectName")]
    assert names == ["series 42 of triage", "Doe^Jane"]
    assert set(participants(root)) == {"kim@stroke1", "triage"}


def test_a_login_says_where_it_came_from() -> None:
    (person, *_) = message(deed(Action.LOGGED_IN)).iter("ActiveParticipant")
    assert person.attrib["NetworkAccessPointID"] == "10.0.0.7"
    assert person.attrib["NetworkAccessPointTypeCode"] == "2"
    (person, *_) = message(deed(Action.LOGGED_IN, address="")).iter("ActiveParticipant")
    assert person.attrib["NetworkAccessPointID"] == "stroke1"
    assert person.attrib["NetworkAccessPointTypeCode"] == "1"


def test_received_images_went_from_their_sender_to_us() -> None:
    root = message(deed(Action.IMAGES_RECEIVED, actor="MR1"), STUDY)
    assert participants(root) == {"MR1": {"110153"}, "triage": {"110152"}}


def test_a_report_that_is_sent_again_names_both_ends_the_person_and_the_kind_of_object() -> None:
    root = message(deed(Action.REPORT_RESENT), STUDY)
    assert participants(root) == {"triage": {"110153"}, "ARCHIVE": {"110152"}, "kim@stroke1": set()}
    (sop_class,) = root.iter("SOPClass")
    assert sop_class.attrib["UID"] == "1.2.840.10008.5.1.4.1.1.88.34"


def test_a_download_goes_to_a_medium() -> None:
    root = message(deed(Action.REPORT_DOWNLOADED), STUDY)
    assert participants(root) == {
        "kim@stroke1": {"110152"},
        "triage": {"110153"},
        "download": {"110154"},
    }
    (medium,) = root.iter("MediaType")
    assert medium.attrib["csd-code"] == "110037"


def test_reading_the_trail_names_the_trail() -> None:
    root = message(deed(Action.AUDIT_EXPORTED, series_id=None))
    assert objects(root) == {"12": "https://stroke.example#audit-trail"}
    assert root.findtext("ParticipantObjectIdentification/ParticipantObjectName") == "Security Audit Log"


@given(st.text(max_size=30), st.text(max_size=300), st.text(max_size=30))
def test_whatever_a_peer_or_a_person_writes_the_message_is_xml(actor: str, name: str, detail: str) -> None:
    root = message(deed(Action.STUDY_VIEWED, actor=actor, detail=detail), StudyIdentity("1.2", actor, name))
    check(root)


@given(st.text())
def test_printable_text_is_one_line_without_controls(text: str) -> None:
    said = printable(text, 20)
    assert len(said) == min(len(text), 20)
    assert len(said.splitlines()) <= 1
    assert "\0" not in said


def test_umlauts_and_ideograms_are_printable() -> None:
    assert printable("Müller^Jörg=山田", 99) == "Müller^Jörg=山田"


def test_a_json_line_says_everything_once() -> None:
    line = as_json_line(Entry(7, AT.astimezone(UTC), deed(Action.COMMENTED, detail='says "ü"')))
    assert line == (
        '{"id": 7, "at": "2026-03-01T07:30:00+00:00", "actor": "kim", "address": "10.0.0.7",'
        ' "action": "commented", "series": 42, "succeeded": true, "detail": "says \\"ü\\""}'
    )
