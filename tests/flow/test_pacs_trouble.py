"""A PACS, channels and a mail server that misbehave: late, once, and to somebody."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydicom import Dataset

from tests import builders
from tests.conftest import free_port, until
from tests.peers import CANNOT_UNDERSTAND, OUT_OF_RESOURCES, SUCCESS, Cutter, Mailbox, Pacs, Pagers
from triage.config import load
from triage.core.lifecycle import ReportState
from triage.edges.dimse import send_files
from triage.edges.store import Report, SeriesView
from triage.flow.deliver import resend
from triage.service import Service, running

Start = Callable[..., Service]


@pytest.fixture
def start(tmp_path: Path, tiny_bundle: Path) -> Iterator[Start]:
    """Start the service in this process; keyword arguments are environment variables without TRIAGE_."""
    with ExitStack() as stack:

        def run(**settings: str) -> Service:
            environment = {
                "STORE__DIR": str(tmp_path / "data"),
                "STORE__RESERVE_BYTES": "0",
                "DICOM__PORT": "0",
                "DICOM__QUIET_S": "10",
                "MODEL__PATH": str(tiny_bundle),
                "PACS__RETRY_FIRST_S": "0.1",
                "PACS__RETRY_LONGEST_S": "0.5",
            } | settings
            config = load(None, {f"TRIAGE_{key}": value for key, value in environment.items()})
            return stack.enter_context(running(config))

        yield run


@pytest.fixture
def pacs() -> Iterator[Pacs]:
    pacs = Pacs(free_port()).open()
    yield pacs
    pacs.close()


@pytest.fixture
def pagers() -> Iterator[Pagers]:
    pagers = Pagers().open()
    yield pagers
    pagers.close()


def push(service: Service, images: Sequence[Dataset], folder: Path) -> str:
    """Send a series and return its UID."""
    paths = sorted(builders.write(images, folder).iterdir())
    to = ("TRIAGE", "127.0.0.1", service.scp.port)
    assert {status for _, status in send_files(paths, to=to, calling_ae="SCANNER", timeout_s=30)} == {0}
    return str(images[0].SeriesInstanceUID)


def view_of(service: Service, series_uid: str) -> SeriesView:
    view = service.line.store.view_by_uid(series_uid)
    assert view is not None
    return view


def report_in(service: Service, series_uid: str, holds: Callable[[Report], object], what: str) -> Report:
    def found() -> Report | None:
        report = view_of(service, series_uid).report
        return report if report is not None and holds(report) else None

    report: Report = until(found, what=what)
    return report


def stored(service: Service, series_uid: str) -> Report:
    return report_in(service, series_uid, lambda report: report.state is ReportState.STORED, "the report")


def test_a_pacs_that_was_down_the_whole_time_gets_every_report_once(
    start: Start, pacs: Pacs, tmp_path: Path
) -> None:
    pacs.close()
    service = start(PACS__ADDRESS=pacs.address)
    uids = [push(service, builders.dwi_series(slices=8), tmp_path / str(number)) for number in range(3)]
    for uid in uids:
        report_in(service, uid, lambda report: report.attempts >= 2, "two tries in vain")

    pacs.open()

    sent = {stored(service, uid).sop_instance_uid for uid in uids}
    assert sorted(report.sop_instance_uid for report in pacs.stored) == sorted(sent)


def busy(pacs: Pacs) -> None:
    pacs.status = lambda: OUT_OF_RESOURCES


def stalling(pacs: Pacs) -> None:
    pacs.stall_s = 3.0


def rejecting(pacs: Pacs) -> None:
    pacs.rejects = True


@pytest.mark.parametrize("mood", [busy, stalling, rejecting])
def test_a_pacs_in_a_mood_gets_the_same_report_when_it_is_over(
    start: Start, pacs: Pacs, tmp_path: Path, mood: Callable[[Pacs], None]
) -> None:
    mood(pacs)
    service = start(PACS__ADDRESS=pacs.address, PACS__TIMEOUT_S="1")
    uid = push(service, builders.dwi_series(slices=8), tmp_path / "s")
    delayed = report_in(service, uid, lambda report: report.attempts >= 2, "two tries in vain")
    assert delayed.state is ReportState.PENDING

    pacs.status, pacs.stall_s, pacs.rejects = lambda: SUCCESS, 0.0, False

    report = stored(service, uid)
    assert report.sop_instance_uid == delayed.sop_instance_uid
    assert set(pacs.tried) == {report.sop_instance_uid}
    events = [event.event for event in view_of(service, uid).timeline]
    assert events.count("report_delayed") == events.count("report_stored") == 1


@pytest.mark.parametrize(
    "where",
    [{"our_bytes": 1}, {"our_bytes": 150}, {"our_bytes": 1500}, {"our_bytes": 6000}, {"answers": 2}],
    ids=["at once", "in the request", "in the command", "in the data set", "before the answer"],
)
def test_a_line_to_the_pacs_that_breaks_delays_the_report_and_makes_no_second_one(
    start: Start, pacs: Pacs, tmp_path: Path, where: dict[str, int]
) -> None:
    line = Cutter(pacs.port, **where)
    service = start(PACS__ADDRESS=f"PACS@127.0.0.1:{line.port}", PACS__TIMEOUT_S="5")
    uid = push(service, builders.dwi_series(slices=8), tmp_path / "s")
    until(lambda: line.cuts >= 2, what="two broken tries")
    assert view_of(service, uid).report.state is ReportState.PENDING  # type: ignore[union-attr]

    line.is_cut = False

    report = stored(service, uid)
    # Before the answer, the PACS has it already: the same UID again is the same object to it.
    assert {each.sop_instance_uid for each in pacs.stored} == {report.sop_instance_uid}
    line.close()


def test_a_report_that_is_refused_for_good_is_shown_and_delivered_when_asked_for_again(
    start: Start, pacs: Pacs, tmp_path: Path
) -> None:
    pacs.status = lambda: CANNOT_UNDERSTAND
    service = start(PACS__ADDRESS=pacs.address)
    uid = push(service, builders.dwi_series(slices=8), tmp_path / "s")
    failed = report_in(service, uid, lambda report: report.state is ReportState.FAILED, "the refusal")
    assert [row[0] for row in service.line.store.undelivered()] == [failed.id]
    assert failed.last_error is not None
    assert "0xC000" in failed.last_error

    pacs.status = lambda: SUCCESS
    assert resend(service.line, failed.id, "Dr Ada Lovelace")

    assert stored(service, uid).sop_instance_uid == failed.sop_instance_uid
    assert [report.sop_instance_uid for report in pacs.stored] == [failed.sop_instance_uid]
    assert service.line.store.undelivered() == []


def test_a_report_is_given_up_after_its_time_and_delivered_when_asked_for_again(
    start: Start, pacs: Pacs, tmp_path: Path
) -> None:
    pacs.close()
    service = start(PACS__ADDRESS=pacs.address, PACS__GIVE_UP_AFTER_S="2")
    uid = push(service, builders.dwi_series(slices=8), tmp_path / "s")
    failed = report_in(service, uid, lambda report: report.state is ReportState.FAILED, "the last try")
    assert failed.attempts >= 2

    pacs.open()
    assert resend(service.line, failed.id, "Dr Ada Lovelace")
    assert stored(service, uid).sop_instance_uid == failed.sop_instance_uid


def test_asked_for_while_it_is_on_its_way_a_report_is_not_sent_beside_itself(
    start: Start, pacs: Pacs, tmp_path: Path
) -> None:
    busy(pacs)
    service = start(PACS__ADDRESS=pacs.address)
    uid = push(service, builders.dwi_series(slices=8), tmp_path / "s")
    pending = report_in(service, uid, lambda report: report.attempts, "a try in vain")
    assert not resend(service.line, pending.id, "Dr Ada Lovelace")


def ladder(*rungs: tuple[Sequence[tuple[str, Sequence[str]]], float]) -> str:
    return json.dumps(
        [
            {"contacts": [{"name": name, "urls": list(urls)} for name, urls in contacts], "wait_s": wait_s}
            for contacts, wait_s in rungs
        ]
    )


@pytest.mark.parametrize("trouble", ["refuses", "fails", "stalls"])
def test_a_channel_in_trouble_delays_nobody_else(
    start: Start, pagers: Pagers, tmp_path: Path, trouble: str
) -> None:
    pagers.mood["fails"] = 500
    pagers.stall_s["stalls"] = 120.0
    bad = (
        f"json://127.0.0.1:{free_port()}/nobody"
        if trouble == "refuses"
        else pagers.url(trouble, rto="120", cto="5")
    )
    service = start(
        ALERTS__LADDER=ladder(
            ([("bad", [bad]), ("good", [pagers.url("good")]), ("both", [bad, pagers.url("both")])], 0.2)
        )
    )
    uid = push(service, builders.dwi_series(slices=8), tmp_path / "s")
    # Both would wait two minutes for the channel that stalls, were it waited for.
    until(lambda: pagers.of("good") and pagers.of("both"), timeout_s=60, what="pages past the bad channel")
    until(lambda: len(pagers.of("good")) >= 2, timeout_s=60, what="the next call")
    view = view_of(service, uid)
    assert view.alert is not None
    taken = {page.contact: page.taken for page in service.line.store.pages(view.alert.id)}
    assert taken["good"]
    assert taken["both"]
    assert not taken.get("bad", False)


def test_a_page_arrives_by_mail(start: Start, tmp_path: Path) -> None:
    mailbox = Mailbox()
    address = f"mailto://127.0.0.1:{mailbox.port}?from=triage@hospital.example&to=oncall@hospital.example"
    service = start(ALERTS__URLS=f"{address}&mode=insecure")
    images = builders.dwi_series(slices=8)
    uid = push(service, images, tmp_path / "s")
    until(lambda: mailbox.letters, what="the letter")
    until(
        lambda: "alert_sent" in [event.event for event in view_of(service, uid).timeline], what="its record"
    )
    letter = mailbox.letters[0]
    assert "To: oncall@hospital.example" in letter
    assert "Suspected large infarct" in letter
    assert "/series/1" in letter
    for secret in (*str(builders.NAME).split("^"), builders.PATIENT_ID, uid, str(images[0].StudyInstanceUID)):
        assert secret not in letter
    mailbox.close()
