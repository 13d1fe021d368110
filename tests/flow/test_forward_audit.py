"""The repository is told everything, in order, whatever happens to it or to us."""

import contextlib
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.conftest import until
from tests.syslog_receiver import Certificates, Repository, make_certificates
from triage.config import load
from triage.core.audit import OURSELVES, Action, Deed
from triage.core.audit_kinds import AuditSource
from triage.edges.store import Arrival, AuditTrail, Store
from triage.edges.syslog import open_syslog
from triage.flow.forward_audit import AuditForwarder
from triage.service import running

T0 = datetime(2026, 1, 1, 3, 0, tzinfo=UTC)
SOURCE = AuditSource(host="stroke1", url="https://stroke.example", ae_title="TRIAGE")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(f"sqlite:///{tmp_path}/t.db")
    yield store
    store.close()


@pytest.fixture
def trail(store: Store) -> AuditTrail:
    return AuditTrail(store.engine)


@pytest.fixture
def repository(certificates: Certificates) -> Iterator[Callable[..., Repository]]:
    with contextlib.ExitStack() as stack:

        def make(**settings) -> Repository:
            made = Repository(certificates, **settings)
            stack.callback(made.stop)
            return made

        yield make


@pytest.fixture
def forward(trail: AuditTrail, certificates: Certificates) -> Iterator[Callable[..., AuditForwarder]]:
    with contextlib.ExitStack() as stack:

        def start(receiver: Repository) -> AuditForwarder:
            connection = open_syslog(receiver.address, ca=certificates.ca)
            forwarder = AuditForwarder(trail, connection, SOURCE, pause_s=0.05)
            forwarder.start()
            stack.callback(forwarder.stop)
            return forwarder

        yield start


def record(trail: AuditTrail, *details: object) -> None:
    for detail in details:
        said = Deed(actor="kim", action=Action.STUDY_VIEWED, series_id=1, detail=str(detail))
        trail.record(said, T0)


def document(message: bytes) -> ET.Element:
    return ET.fromstring(message.split(b"\xef\xbb\xbf", 1)[1])


def told(receiver: Repository) -> list[str | None]:
    path = "EventIdentification/EventOutcomeDescription"
    return [document(message).findtext(path) for message in receiver.messages]


def numbers(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def without_repeats(details: Sequence[str | None]) -> list[str | None]:
    return [said for number, said in enumerate(details) if number == 0 or said != details[number - 1]]


def test_what_is_recorded_arrives_in_order_and_once(trail: AuditTrail, repository, forward) -> None:
    receiver = repository()
    receiver.start()
    record(trail, *range(120))
    forward(receiver)
    until(lambda: len(receiver.messages) == 120, what="the first entries")
    record(trail, *range(120, 130))
    until(lambda: len(receiver.messages) == 130, what="the later ones")
    until(lambda: trail.not_forwarded() == [], what="the last note of it")
    assert told(receiver) == numbers(130)
    assert receiver.connections == 1


def test_a_message_names_study_and_patient(store: Store, trail: AuditTrail, repository, forward) -> None:
    arrival = Arrival(
        sop_instance_uid="1.2.3.1", series_instance_uid="1.2.3", study_instance_uid="1.2",
        calling_ae="SCANNER", patient_name="Doe^Jane", patient_id="4711", description="dwi",
        sha256="0" * 64, size_bytes=1, header="{}",
    )  # fmt: skip
    store.register(arrival, T0)
    receiver = repository()
    receiver.start()
    record(trail, "seen")
    forward(receiver)
    until(lambda: receiver.messages, what="the message")
    objects = document(receiver.messages[0]).iter("ParticipantObjectIdentification")
    assert [found.attrib["ParticipantObjectID"] for found in objects] == ["1.2", "4711"]
    assert receiver.messages[0].startswith(
        b"<85>1 2026-01-01T03:00:00.000Z stroke1 triage - DICOM+RFC3881 - "
    )


def test_a_repository_that_was_away_gets_everything_in_order_and_once(
    trail: AuditTrail, repository, forward, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = repository()
    record(trail, *range(3))
    with caplog.at_level("INFO", logger="triage"):
        forward(receiver)
        until(lambda: "audit_forwarding_failed" in caplog.text, what="the failure to be told")
        record(trail, *range(3, 6))
        assert len(trail.not_forwarded()) == 6
        receiver.start()
        until(lambda: trail.not_forwarded() == [], what="everything to be sent")
    until(lambda: len(receiver.messages) == 6, what="everything to arrive")
    assert told(receiver) == numbers(6)
    assert caplog.text.count("audit_forwarding_failed") == 1
    assert caplog.text.count("audit_forwarding_resumed") == 1


@pytest.mark.parametrize("resets", [True, False])
def test_a_repository_that_hangs_up_midway_misses_nothing(
    trail: AuditTrail, repository, forward, resets: bool
) -> None:
    receiver = repository(closes_after=4, resets=resets)
    receiver.start()
    record(trail, *range(20))
    forward(receiver)
    until(lambda: trail.not_forwarded() == [], what="everything to be sent")
    until(lambda: told(receiver)[-1:] == ["19"], what="everything to arrive")
    # Whether the message before the end had arrived is not known to the sender: it may come twice.
    assert without_repeats(told(receiver)) == numbers(20)
    assert len(receiver.messages) <= 21
    assert len(set(receiver.messages)) == 20
    assert receiver.connections == 2


def test_a_restart_of_ours_goes_on_where_it_was(trail: AuditTrail, repository, forward) -> None:
    receiver = repository()
    receiver.start()
    record(trail, 0, 1)
    forward(receiver).stop()
    assert trail.not_forwarded() == []
    record(trail, 2)
    forward(receiver)
    until(lambda: len(receiver.messages) == 3, what="the third entry")
    assert told(receiver) == numbers(3)


def test_what_is_recorded_last_is_sent_before_the_end(trail: AuditTrail, repository, certificates) -> None:
    receiver = repository()
    receiver.start()
    connection = open_syslog(receiver.address, ca=certificates.ca)
    forwarder = AuditForwarder(trail, connection, SOURCE, pause_s=3600)
    forwarder.start()
    record(trail, "last")
    forwarder.stop()
    until(lambda: told(receiver) == ["last"], what="the last entry")


def test_a_stop_does_not_wait_for_a_repository_that_is_away(trail: AuditTrail, repository, forward) -> None:
    record(trail, *range(500))
    forwarder = forward(repository())
    stopped = threading.Thread(target=forwarder.stop)
    stopped.start()
    stopped.join(60)
    assert not stopped.is_alive()
    assert len(trail.not_forwarded()) == 500


def test_a_database_that_is_away_ends_nothing(
    trail: AuditTrail, repository, forward, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = repository()
    receiver.start()
    with trail.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE audit_forwarding RENAME TO elsewhere"))
    forward(receiver)
    until(lambda: "audit_forwarding_failed reason='OperationalError at " in caplog.text, what="the failure")
    with trail.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE elsewhere RENAME TO audit_forwarding"))
    record(trail, "back")
    until(lambda: told(receiver) == ["back"], what="the entry")


def test_a_service_tells_its_start_and_its_stop(
    tmp_path: Path, tiny_bundle: Path, repository, certificates: Certificates
) -> None:
    receiver = repository(demands_client=True)
    receiver.start()
    environment = {
        "STORE__DIR": str(tmp_path / "data"),
        "DICOM__HOST": "127.0.0.1",
        "DICOM__PORT": "0",
        "MODEL__PATH": str(tiny_bundle),
        "AUDIT__SYSLOG_ADDRESS": receiver.address,
        "AUDIT__SYSLOG_CA": str(certificates.ca),
        "AUDIT__TLS_CERTIFICATE": str(certificates.client),
        "AUDIT__TLS_KEY": str(certificates.client_key),
    }
    with running(load(None, {f"TRIAGE_{key}": value for key, value in environment.items()})) as service:
        started, trail = service.line.audit.entries(), service.line.audit
        assert [(entry.deed.actor, entry.deed.action) for entry in started] == [
            (OURSELVES, Action.SERVICE_STARTED)
        ]
    until(lambda: len(receiver.messages) == 2, what="start and stop")
    types = [
        [code.attrib["csd-code"] for code in document(m).iter("EventTypeCode")] for m in receiver.messages
    ]
    assert types == [["110120", "service_started"], ["110121", "service_stopped"]]
    assert trail.not_forwarded() == []
    trail.close()
