"""What is wrong with the service itself is seen, shown, told to the operator, and ends when it is over."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from pydicom import Dataset
from sqlalchemy import text

from tests import builders
from tests.conftest import Webhook, until
from tests.flow.conftest import Pacs, Start, ended, events, push, view_of
from triage.core.lifecycle import ReportState, SeriesState
from triage.core.trouble import Trouble
from triage.edges.dimse import Status
from triage.edges.store import Report
from triage.errors import BundleError
from triage.flow import watch
from triage.flow.alert import acknowledge
from triage.flow.deliver import resend
from triage.flow.free import free_finished
from triage.flow.line import Line
from triage.flow.watch import find, look, tell_operators
from triage.service import Service


def troubles(line: Line) -> dict[Trouble, str]:
    return {kind: detail for kind, _, detail in find(line, line.now())}


def titles(webhook: Webhook) -> list[str]:
    return [message["title"] for message in webhook.messages]


def report_of(service: Service, images: Sequence[Dataset]) -> Report:
    report = view_of(service, images).report
    assert report is not None
    return report


def later(line: Line, **ahead: float) -> Line:
    """The same line, some time from now."""
    then = line.now() + timedelta(**ahead)
    return replace(line, now=lambda: then)


def quiet(start: Start, **settings: str) -> Service:
    """A service whose watch does not look by itself, so that the test does."""
    return start(WATCH__LOOK_EVERY_S="3600", STORE__RESERVE_BYTES="0", **settings)


def test_a_service_with_nothing_to_do_has_no_trouble(start: Start) -> None:
    assert troubles(quiet(start).line) == {}


def test_a_series_without_an_outcome_is_trouble_after_the_configured_time(
    start: Start, tmp_path: Path
) -> None:
    line = (service := quiet(start, DICOM__QUIET_S="600")).line
    push(service, builders.dwi_series(promise=False), tmp_path / "s")
    assert troubles(line) == {}
    assert "1 series without an outcome" in troubles(later(line, seconds=601))[Trouble.SERIES_STUCK]


def test_a_long_queue_is_trouble(start: Start, tmp_path: Path) -> None:
    service = quiet(start, DICOM__QUIET_S="600", WATCH__QUEUE_LIMIT="1")
    for number in range(2):
        push(service, builders.dwi_series(slices=2, promise=False), tmp_path / str(number))
    assert "2 series" in troubles(service.line)[Trouble.QUEUE_LONG]


def test_a_report_that_waits_is_trouble_and_one_given_up_is_another(start: Start, tmp_path: Path) -> None:
    service = quiet(
        start, PACS__ADDRESS="PACS@127.0.0.1:9", PACS__RETRY_FIRST_S="0.1", PACS__GIVE_UP_AFTER_S="5"
    )
    images = builders.dwi_series()
    push(service, images, tmp_path / "s")
    ended(service, images)
    assert set(troubles(later(service.line, minutes=11))) >= {Trouble.REPORT_DELAYED}
    until(lambda: Trouble.REPORT_UNDELIVERED in troubles(service.line), what="giving up")
    assert Trouble.REPORT_DELAYED not in troubles(later(service.line, minutes=11))
    assert Trouble.REPORT_UNDELIVERED not in troubles(later(service.line, days=8))


def test_a_report_given_up_can_be_sent_again_under_the_same_uid(
    start: Start, small_pacs: Pacs, tmp_path: Path
) -> None:
    small_pacs.answer = Status.CANNOT_UNDERSTAND
    service = quiet(start, PACS__ADDRESS=small_pacs.address)
    images = builders.dwi_series()
    push(service, images, tmp_path / "s")
    until(lambda: service.line.store.undelivered(), what="the refusal")
    ((report_id, series_id, error),) = service.line.store.undelivered()
    assert (series_id, "0xC000" in error) == (view_of(service, images).series.id, True)

    small_pacs.answer = Status.SUCCESS
    assert resend(service.line, report_id, "Dr Kim")
    assert not resend(service.line, report_id, "Dr Lee") or small_pacs.received

    until(lambda: small_pacs.received, what="the report")
    until(lambda: report_of(service, images).state is ReportState.STORED, what="the record")
    assert small_pacs.received[0].SOPInstanceUID == report_of(service, images).sop_instance_uid
    assert "report_requeued" in events(view_of(service, images))


def test_a_report_requeued_behind_the_services_back_is_taken_up_by_its_sweep(
    start: Start, small_pacs: Pacs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_SWEEP_EVERY_S", 0.3)
    service = start(PACS__ADDRESS=small_pacs.address)
    images = builders.dwi_series()
    push(service, images, tmp_path / "s")
    view = until(
        lambda: (v := view_of(service, images)).report and v.report.stored_at and v, what="it stored"
    )
    service.line.store.requeue_report(view.report.id, service.line.now(), "the command line")
    until(lambda: len(small_pacs.received) == 2, what="the report again")
    assert small_pacs.received[0].SOPInstanceUID == small_pacs.received[1].SOPInstanceUID


def test_a_result_without_a_report_is_trouble(start: Start, tmp_path: Path) -> None:
    service = quiet(start)
    images = builders.dwi_series()
    push(service, images, tmp_path / "s")
    ended(service, images)
    with service.line.store.engine.execution_options(write=True).begin() as connection:
        connection.execute(text("DELETE FROM report"))
    assert "1 results without a report" in troubles(service.line)[Trouble.REPORT_NOT_BUILT]


def test_a_page_that_no_channel_takes_is_trouble_after_a_minute(start: Start, tmp_path: Path) -> None:
    service = quiet(start, ALERTS__URLS="json://127.0.0.1:9/dead")
    images = builders.dwi_series()
    push(service, images, tmp_path / "s")
    ended(service, images)
    assert Trouble.PAGE_NOT_TAKEN not in troubles(service.line)
    assert Trouble.PAGE_NOT_TAKEN in troubles(later(service.line, seconds=61))


def test_an_alert_that_nobody_answers_is_trouble_until_somebody_does(
    start: Start, webhook: Webhook, tmp_path: Path
) -> None:
    service = quiet(start, ALERTS__URLS=webhook.url)
    images = builders.dwi_series()
    push(service, images, tmp_path / "s")
    until(lambda: "alert_sent" in events(view_of(service, images)), what="the page")
    assert Trouble.ALERT_UNANSWERED in troubles(later(service.line, minutes=11))
    acknowledge(service.line, view_of(service, images).series.id, "Dr Kim")
    assert troubles(later(service.line, minutes=11)) == {}


def test_an_alert_with_nobody_on_call_is_trouble_at_once(start: Start, tmp_path: Path) -> None:
    service = quiet(start)
    images = builders.dwi_series()
    push(service, images, tmp_path / "s")
    ended(service, images)
    assert troubles(service.line)[Trouble.NOBODY_ON_CALL] == "1 alerts are open"


def test_a_sender_that_falls_silent_is_trouble_for_a_week(start: Start, tmp_path: Path) -> None:
    service = quiet(start)
    push(service, builders.dwi_series(slices=2), tmp_path / "s")
    assert Trouble.SENDER_SILENT not in troubles(later(service.line, hours=23))
    assert "SCANNER" in troubles(later(service.line, hours=25))[Trouble.SENDER_SILENT]
    assert Trouble.SENDER_SILENT not in troubles(later(service.line, days=9))


def test_silent_senders_can_be_left_alone(start: Start, tmp_path: Path) -> None:
    service = quiet(start, WATCH__TRAFFIC_STOP_S="0")
    push(service, builders.dwi_series(slices=2), tmp_path / "s")
    assert Trouble.SENDER_SILENT not in troubles(later(service.line, days=2))


def test_below_the_reserve_new_images_are_refused_and_the_operator_knows(
    start: Start, tmp_path: Path
) -> None:
    service = quiet(start)
    images = builders.dwi_series(slices=2)
    push(service, images[:2], tmp_path / "s")
    store = service.line.config.store.model_copy(update={"reserve_bytes": 10**18})
    low = replace(service.line, config=service.line.config.model_copy(update={"store": store}))
    assert "images are refused" in troubles(low)[Trouble.DISK_LOW]
    store = service.line.config.store.model_copy(update={"reserve_bytes": 1})
    assert Trouble.DISK_LOW not in troubles(
        replace(low, config=low.config.model_copy(update={"store": store}))
    )


def test_an_image_that_would_go_into_the_reserve_is_refused_before_it_is_written(
    start: Start, tmp_path: Path
) -> None:
    service = start(STORE__RESERVE_BYTES=str(10**18))
    assert push(service, builders.dwi_series(slices=2), tmp_path / "s") == {Status.OUT_OF_RESOURCES}
    assert not list((tmp_path / "data" / "inbox").rglob("*.dcm"))


def test_a_model_that_fails_its_golden_case_answers_nothing_until_it_succeeds(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = quiet(start)
    model = service.line.model

    def fail(_model: object) -> float:
        raise BundleError("golden case gives 0.1")

    with monkeypatch.context() as broken:
        broken.setattr("triage.edges.inference.check_golden", fail)
        model.check()
    assert "golden case failed" in troubles(service.line)[Trouble.MODEL_FAILED]
    images = builders.dwi_series()
    push(service, images, tmp_path / "s")
    view = ended(service, images)
    assert view.series.state is SeriesState.NOT_ASSESSED
    assert view.result is not None
    assert view.result.reason == "INFERENCE_FAILED"
    model.check()
    assert Trouble.MODEL_FAILED not in troubles(service.line)


def test_the_operator_is_told_once_then_again_after_a_while_then_that_it_is_over(
    start: Start, webhook: Webhook, tmp_path: Path
) -> None:
    line = (service := quiet(start, ALERTS__OPERATOR_URLS=webhook.url)).line
    images = builders.dwi_series()
    push(service, images, tmp_path / "s")
    series_id = ended(service, images).series.id

    for _ in range(3):
        look(line)
        tell_operators(line)
    assert titles(webhook) == ["triage: 1 operational trouble"]
    assert "NOBODY_ON_CALL: An alert is open" in webhook.messages[0]["message"]
    assert builders.PATIENT_ID not in str(webhook.messages)

    tell_operators(later(line, seconds=3700))
    assert len(titles(webhook)) == 2

    acknowledge(line, series_id, "Dr Kim")
    look(later(line, seconds=3710))
    assert line.watchbook.open_problems() == []
    tell_operators(later(line, seconds=3720))
    assert len(titles(webhook)) == 2
    tell_operators(later(line, seconds=3710 + 700))
    assert titles(webhook)[2] == "triage: trouble is over"


def test_an_operator_who_cannot_be_reached_is_told_at_the_next_look(
    start: Start, webhook: Webhook, tmp_path: Path
) -> None:
    webhook.status = 500
    line = (service := quiet(start, ALERTS__OPERATOR_URLS=webhook.url)).line
    images = builders.dwi_series()
    push(service, images, tmp_path / "s")
    ended(service, images)
    look(line)
    tell_operators(line)
    webhook.status = 204
    tell_operators(line)
    tell_operators(line)
    assert len(webhook.messages) == 2


def test_trouble_that_comes_back_soon_was_never_over(start: Start) -> None:
    line = quiet(start).line
    found = {(Trouble.DISK_LOW, ""): "low"}
    at = line.now()
    line.watchbook.seen(found, at)
    line.watchbook.seen({}, at + timedelta(minutes=1))
    line.watchbook.seen(found, at + timedelta(minutes=2))
    (problem,) = line.watchbook.open_problems()
    assert problem.opened_at == at
    line.watchbook.seen({}, at + timedelta(minutes=3))
    line.watchbook.seen(found, at + timedelta(minutes=30))
    (problem,) = line.watchbook.open_problems()
    assert problem.opened_at == at + timedelta(minutes=30)


def test_a_failing_duty_does_not_end_the_watch(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[datetime] = []

    def fail(line: Line) -> None:
        looks.append(line.now())
        raise OSError("the disk")

    monkeypatch.setattr(watch, "look", fail)
    service = start(WATCH__LOOK_EVERY_S="0.1")
    until(lambda: len(looks) > 2, what="three looks")
    assert service.watch.is_alive


def test_a_watch_that_can_see_nothing_tells_the_operator_from_memory(
    start: Start, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(line: Line) -> None:
        raise OSError("the database")

    monkeypatch.setattr(watch, "look", fail)
    monkeypatch.setattr(watch, "_BLIND_FOR_S", 0.3)
    start(WATCH__LOOK_EVERY_S="0.1", ALERTS__OPERATOR_URLS=webhook.url)
    until(lambda: webhook.messages, what="the cry")
    assert "WATCH_BLIND" in webhook.messages[0]["message"]
    assert "(OSError" in webhook.messages[0]["message"]


def kept(tmp_path: Path) -> Sequence[Path]:
    data = tmp_path / "data"
    return [*(data / "inbox").rglob("*.dcm"), *(data / "volumes").glob("*.npz")]


def test_what_is_long_finished_is_freed_and_its_result_stays(
    start: Start, small_pacs: Pacs, tmp_path: Path
) -> None:
    service = quiet(start, PACS__ADDRESS=small_pacs.address)
    images = builders.dwi_series()
    push(service, images, tmp_path / "s")
    series_id = ended(service, images).series.id
    until(lambda: small_pacs.received, what="the report")
    in_8_days = later(service.line, days=8)
    free_finished(in_8_days)
    assert len(kept(tmp_path)) == 41, "the alert is open: nothing is finished"

    acknowledge(service.line, series_id, "Dr Kim")
    until(lambda: report_of(service, images).state is ReportState.STORED, what="the record")
    free_finished(service.line)
    assert len(kept(tmp_path)) == 41, "too early"
    free_finished(in_8_days)
    assert kept(tmp_path) == []
    view = view_of(service, images)
    assert view.result is not None
    assert (view.result.category, events(view)[-1]) == ("ASPECTS_1_6", "freed")

    free_finished(in_8_days)
    assert events(view_of(service, images)).count("freed") == 1


def test_freed_images_that_come_again_are_kept_and_freed_again(start: Start, tmp_path: Path) -> None:
    service = quiet(start, MODEL__THRESHOLD="calm")
    images = builders.dwi_series()
    push(service, images, tmp_path / "s")
    ended(service, images)
    free_finished(later(service.line, days=8))
    assert kept(tmp_path) == []
    assert push(service, images, tmp_path / "s") == {Status.SUCCESS}
    assert len(kept(tmp_path)) == 40
    assert view_of(service, images).series.revision == 1
    free_finished(later(service.line, days=8))
    assert kept(tmp_path) == []


def test_other_bytes_for_a_freed_image_are_kept_out(start: Start, tmp_path: Path) -> None:
    service = quiet(start, MODEL__THRESHOLD="calm")
    images = builders.dwi_series()
    push(service, images, tmp_path / "s")
    ended(service, images)
    free_finished(later(service.line, days=8))
    images[0].PixelData = bytes(len(images[0].PixelData))
    assert push(service, images[:1], tmp_path / "other") == {Status.DIFFERENT_CONTENT}


def test_an_image_that_comes_after_the_others_were_freed_leaves_the_result_as_it_is(
    start: Start, tmp_path: Path
) -> None:
    service = quiet(start, MODEL__THRESHOLD="calm")
    images = builders.dwi_series(slices=21, promise=False)
    late = [images[20], images[41]]
    push(service, images[:20] + images[21:41], tmp_path / "s")
    ended(service, images)
    free_finished(later(service.line, days=8))
    assert push(service, late, tmp_path / "late") == {Status.SUCCESS}
    until(lambda: "nothing_new" in events(view_of(service, images)), what="a look at it")
    view = view_of(service, images)
    assert view.result is not None
    assert (view.series.revision, view.result.category) == (1, "ASPECTS_7_10")


def test_nothing_is_freed_where_retention_is_off(start: Start, tmp_path: Path) -> None:
    service = quiet(start, MODEL__THRESHOLD="calm", STORE__RETENTION_DAYS="0")
    images = builders.dwi_series()
    push(service, images, tmp_path / "s")
    ended(service, images)
    free_finished(later(service.line, days=800))
    assert len(kept(tmp_path)) == 41
