"""What is in the audit trail stays in it, in order."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError

from triage.cli import main
from triage.core.audit import OURSELVES, Action, Deed, Entry
from triage.core.audit_message import StudyIdentity
from triage.core.lifecycle import ReportState
from triage.edges.store import Arrival, AuditTrail, Store
from triage.edges.store.tables import Report, Result
from triage.errors import ConfigError

T0 = datetime(2026, 1, 1, 3, 0, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(f"sqlite:///{tmp_path}/t.db")
    yield store
    store.close()


@pytest.fixture
def trail(store: Store) -> AuditTrail:
    return AuditTrail(store.engine)


def deed(action: Action = Action.STUDY_VIEWED, **other) -> Deed:
    return replace(Deed(actor="kim", action=action, address="10.0.0.7", series_id=42), **other)


def fill(trail: AuditTrail, count: int) -> list[Entry]:
    for number in range(count):
        trail.record(deed(detail=str(number)), T0 + timedelta(hours=number))
    return trail.entries()


def arrival(number: int) -> Arrival:
    return Arrival(
        sop_instance_uid=f"1.2.3.{number}",
        series_instance_uid="1.2.3",
        study_instance_uid="1.2",
        calling_ae="SCANNER",
        patient_name="Doe^Jane",
        patient_id="4711",
        description="dwi",
        sha256=f"{number:064d}",
        size_bytes=1,
        header="{}",
    )


def test_an_entry_is_read_as_it_was_recorded(trail: AuditTrail) -> None:
    refused = deed(Action.LOGIN_REFUSED, series_id=None, succeeded=False, detail="password")
    trail.record(refused, T0)
    trail.record(deed(), T0)
    assert trail.entries() == [Entry(1, T0, refused), Entry(2, T0, deed())]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE audit_entry SET actor = 'nobody'",
        "UPDATE audit_entry SET detail = 'x' WHERE id = 1",
        "DELETE FROM audit_entry",
        "INSERT OR REPLACE INTO audit_entry (id, at, actor, address, action, succeeded, detail)"
        " VALUES (1, '2026-01-01', 'nobody', '', 'logged_in', 1, '')",
    ],
)
def test_the_database_refuses_to_change_or_delete(trail: AuditTrail, change: str) -> None:
    kept = fill(trail, 2)
    with trail.engine.connect() as connection, pytest.raises(DatabaseError, match="append-only"):
        connection.execute(sa.text(change))
    assert trail.entries() == kept


def test_what_a_stranger_types_is_shortened_and_cleaned(trail: AuditTrail) -> None:
    trail.record(deed(actor="x" * 500, address="y" * 500, detail="\0\n" + "z" * 5000), T0)
    (entry,) = trail.entries()
    assert (len(entry.deed.actor), len(entry.deed.address), len(entry.deed.detail)) == (80, 64, 2000)
    assert entry.deed.detail.startswith("\ufffd\ufffdz")


def test_the_trail_is_read_by_page_and_by_time(trail: AuditTrail) -> None:
    entries = fill(trail, 1100)
    assert len(entries) == 500
    assert [entry.id for entry in trail.every_entry()] == list(range(1, 1101))
    some = list(trail.every_entry(T0 + timedelta(hours=2), T0 + timedelta(hours=4)))
    assert [entry.deed.detail for entry in some] == ["2", "3"]


def test_forwarding_goes_on_where_it_was(trail: AuditTrail) -> None:
    fill(trail, 5)
    assert [entry.id for entry in trail.not_forwarded(2)] == [1, 2]
    trail.forwarded_up_to(2)
    assert [entry.id for entry in trail.not_forwarded()] == [3, 4, 5]
    trail.forwarded_up_to(1)
    assert [entry.id for entry in trail.not_forwarded(1)] == [3]
    trail.forwarded_up_to(5)
    assert trail.not_forwarded() == []


def test_a_series_is_known_by_its_study_and_patient(store: Store, trail: AuditTrail) -> None:
    series_id = store.register(arrival(1), T0).series_id
    assert trail.study_of(series_id) == StudyIdentity("1.2", "4711", "Doe^Jane")
    assert trail.study_of(series_id + 1) is None


def test_received_images_are_one_entry_an_assessment(store: Store, trail: AuditTrail) -> None:
    for number in (1, 2, 3):
        registration = store.register(arrival(number), T0)
    for _ in range(2):
        store.begin_assessment(registration.series_id, 0, T0, "silence")
    store.register(arrival(4), T0)
    store.begin_assessment(registration.series_id, 3, T0, "silence")
    assert [entry.deed for entry in trail.entries()] == [
        Deed(actor="SCANNER", action=Action.IMAGES_RECEIVED, series_id=1, detail=said)
        for said in ("3 instances", "1 instances")
    ]


def test_a_stored_report_is_one_entry(store: Store, trail: AuditTrail) -> None:
    series_id = store.register(arrival(1), T0).series_id
    with store.engine.begin() as connection:
        result = {"id": 1, "series_id": series_id, "after_instance_id": 0, "up_to_instance_id": 1}
        connection.execute(sa.insert(Result), result)
        report = {
            "id": 1, "result_id": 1, "sop_instance_uid": "9.1", "dicom": b"", "state": ReportState.PENDING,
            "attempts": 0, "created_at": T0, "queued_at": T0,
        }  # fmt: skip
        connection.execute(sa.insert(Report), report)
    for _ in range(2):
        store.report_stored(1, T0, "at ARCHIVE")
    (entry,) = trail.entries()
    sent = Deed(actor=OURSELVES, action=Action.REPORT_SENT, series_id=series_id, detail="at ARCHIVE")
    assert entry.deed == sent


def export(store: Store, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("TRIAGE_STORE__DATABASE_URL", str(store.engine.url))
    return main(["audit", *arguments])


def test_the_export_is_json_lines_and_ends_with_itself(
    store: Store, trail: AuditTrail, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store.register(arrival(1), T0)
    trail.record(deed(series_id=1), T0)
    assert export(store, monkeypatch=monkeypatch) == 0
    output = capsys.readouterr().out
    first, last = map(json.loads, output.splitlines())
    assert (first["action"], first["series"], first["at"]) == ("study_viewed", 1, "2026-01-01T03:00:00+00:00")
    assert (last["action"], last["detail"]) == ("audit_exported", "from the beginning to now")
    assert last["actor"]
    for secret in ("4711", "Doe", "1.2.3"):
        assert secret not in output


def test_a_span_is_exported_to_a_file(
    store: Store, trail: AuditTrail, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fill(trail, 5)
    span = ["--since", "2026-01-01T04:00Z", "--until", "2026-01-01T06:00:00+00:00"]
    out = tmp_path / "some.jsonl"
    assert export(store, *span, "--out", str(out), monkeypatch=monkeypatch) == 0
    assert [json.loads(line)["detail"] for line in out.read_text().splitlines()] == ["1", "2"]
    assert trail.entries()[-1].deed.action is Action.AUDIT_EXPORTED


def test_an_export_of_nothing_says_so_and_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRIAGE_STORE__DIR", str(tmp_path))
    assert main(["audit"]) == 1
    assert "there is no audit trail" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_database_without_a_trail_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sa.create_engine(f"sqlite:///{path}").begin() as connection:
        connection.execute(sa.text("CREATE TABLE other (id INTEGER)"))
    with pytest.raises(ConfigError, match="there is no audit trail"):
        AuditTrail.open(f"sqlite:///{path}")


def test_a_moment_that_is_none_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["audit", "--since", "yesterday"])
    assert "expected ISO 8601" in capsys.readouterr().err
