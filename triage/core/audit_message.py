"""One entry of the audit trail as a DICOM audit message (PS3.15 A.5).

Every message has the same four parts (schema: A.5.1): what happened, who took part, who says so, and what it
was done to. Repositories are searched by patient and study, so a message about a series names both: telling
the hospital's own repository whose data somebody looked at is its purpose. Nothing else tells them outside.

Each message carries our own action as a second event type, so that what the standard does not tell apart
(an acknowledgement and a comment are both changes to a procedure record) can be told apart.
"""

import ipaddress
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from datetime import UTC

from triage.core.audit import OURSELVES, Entry, printable
from triage.core.audit_kinds import (
    AUDIT_LOG_USED,
    KINDS,
    NOT_KNOWN,
    AuditSource,
    Code,
    MessageKind,
    Participant,
    ours,
)

_NAME_LENGTH = 256
_DETAIL_LENGTH = 4000


@dataclass(frozen=True, slots=True)
class StudyIdentity:
    """Whose data it was."""

    study_instance_uid: str
    patient_id: str
    patient_name: str


def audit_message(entry: Entry, source: AuditSource, study: StudyIdentity | None) -> bytes:
    """The entry as an XML document in UTF-8.

    study: of the entry's series; None where it has none.
    """
    kind = KINDS[entry.deed.action]
    root = ET.Element("AuditMessage")
    _add_event(root, entry, kind)
    for participant in kind.participants(entry.deed, source):
        _add_participant(root, participant)
    _add_source(root, source)
    if study is not None:
        _add_study(root, study, f"series {entry.deed.series_id} of {OURSELVES}", kind.sop_class_uid)
        _add_patient(root, study)
    if kind.event is AUDIT_LOG_USED:
        _add_audit_log(root, source)
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document


def _add_event(root: ET.Element, entry: Entry, kind: MessageKind) -> None:
    deed = entry.deed
    event = ET.SubElement(
        root,
        "EventIdentification",
        EventActionCode=kind.action_code,
        EventDateTime=entry.at.astimezone(UTC).isoformat(timespec="milliseconds"),
        EventOutcomeIndicator="0" if deed.succeeded else "4",
    )
    _add_code(event, "EventID", kind.event)
    if kind.type is not None:
        _add_code(event, "EventTypeCode", kind.type)
    _add_code(event, "EventTypeCode", ours(deed.action))
    if deed.detail:
        ET.SubElement(event, "EventOutcomeDescription").text = printable(deed.detail, _DETAIL_LENGTH)


def _add_participant(root: ET.Element, participant: Participant) -> None:
    element = ET.SubElement(
        root,
        "ActiveParticipant",
        UserID=printable(participant.user_id, _NAME_LENGTH),
        UserIsRequestor="true" if participant.is_requestor else "false",
    )
    if participant.ae_title:
        element.set("AlternativeUserID", f"AETITLES={printable(participant.ae_title, _NAME_LENGTH)}")
    if participant.name:
        element.set("UserName", printable(participant.name, _NAME_LENGTH))
    if participant.address:
        element.set("NetworkAccessPointID", printable(participant.address, _NAME_LENGTH))
        element.set("NetworkAccessPointTypeCode", "2" if _is_ip(participant.address) else "1")
    for role in participant.roles:
        _add_code(element, "RoleIDCode", role)
    if participant.media is not None:
        _add_code(ET.SubElement(element, "MediaIdentifier"), "MediaType", participant.media)


def _add_source(root: ET.Element, source: AuditSource) -> None:
    element = ET.SubElement(root, "AuditSourceIdentification", AuditSourceID=f"{OURSELVES}@{source.host}")
    ET.SubElement(element, "AuditSourceTypeCode", {"csd-code": "4"})


def _add_study(root: ET.Element, study: StudyIdentity, name: str, sop_class_uid: str) -> None:
    uid = printable(study.study_instance_uid, _NAME_LENGTH) or NOT_KNOWN
    element = _add_object(root, uid, "2", "3", Code("110180", "Study Instance UID"), name)
    if sop_class_uid:
        described = ET.SubElement(element, "ParticipantObjectDescription")
        ET.SubElement(described, "SOPClass", UID=sop_class_uid, NumberOfInstances="1")


def _add_patient(root: ET.Element, study: StudyIdentity) -> None:
    identifier = printable(study.patient_id, _NAME_LENGTH) or NOT_KNOWN
    name = printable(study.patient_name, _NAME_LENGTH) or NOT_KNOWN
    _add_object(root, identifier, "1", "1", Code("2", "Patient Number", "RFC-3881"), name)


def _add_audit_log(root: ET.Element, source: AuditSource) -> None:
    uri = Code("12", "URI", "RFC-3881")
    _add_object(root, f"{source.url}#audit-trail", "2", "13", uri, "Security Audit Log")


def _add_object(
    root: ET.Element, identifier: str, type_code: str, role: str, id_type: Code, name: str
) -> ET.Element:
    element = ET.SubElement(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=identifier,
        ParticipantObjectTypeCode=type_code,
        ParticipantObjectTypeCodeRole=role,
    )
    _add_code(element, "ParticipantObjectIDTypeCode", id_type)
    ET.SubElement(element, "ParticipantObjectName").text = name
    return element


def _add_code(parent: ET.Element, tag: str, code: Code) -> None:
    ET.SubElement(
        parent,
        tag,
        {"csd-code": code.value, "codeSystemName": code.scheme, "originalText": code.meaning},
    )


def _is_ip(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True
