"""The line in this process: what one object, one repeat, one late slice, one answer does."""

import io
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event

import pytest
from pydicom import Dataset, dcmwrite
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    EnhancedSRStorage,
    ImplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)
from pynetdicom import AE, _config, evt
from sqlalchemy import text

from tests import builders
from tests.conftest import Webhook, make_tiny_bundle, until
from tests.flow.conftest import Pacs, Start, ended, events, push, view_of
from triage.config import load
from triage.core import escalation
from triage.core.audit import Action
from triage.core.lifecycle import AlertState, ReportState, SeriesState
from triage.edges.dimse import ReceivedObject, Status, echo, send, send_files
from triage.errors import BundleError, ConfigError, PeerUnavailable, ReportRefused
from triage.flow.alert import acknowledge
from triage.flow.gather import Gatherer
from triage.flow.receive import receive
from triage.service import Service, open_chosen_model, running


def test_echo_is_answered(start: Start) -> None:
    service = start()
    echo(to=("TRIAGE", "127.0.0.1", service.scp.port), calling_ae="TEST", timeout_s=5)


def test_who_may_send_is_what_the_configuration_says(start: Start) -> None:
    service = start(DICOM__ALLOWED_AE_TITLES="MR1, MR2", DICOM__ALLOWED_ADDRESSES="127.0.0.0/8")
    to = ("TRIAGE", "127.0.0.1", service.scp.port)
    echo(to=to, calling_ae="MR2", timeout_s=5)
    with pytest.raises(PeerUnavailable, match="rejected the association"):
        echo(to=to, calling_ae="MR3", timeout_s=5)


def test_a_dicom_certificate_that_is_missing_is_named_at_the_start(start: Start, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.pem")
    with pytest.raises(ConfigError, match=r"dicom\.tls_certificate: .* cannot be read"):
        start(DICOM__TLS_CERTIFICATE=missing, DICOM__TLS_KEY=missing)


def test_a_whole_series_is_judged_at_once(start: Start, tmp_path: Path) -> None:
    service = start(DICOM__QUIET_S="60")
    images = builders.dwi_series()
    assert push(service, images, tmp_path / "s") == {Status.SUCCESS}
    view = ended(service, images)
    assert view.result is not None
    assert view.result.category == "ASPECTS_1_6"
    assert view.result.volume_kind == "TRACE"


def test_a_series_without_a_promise_is_judged_when_the_sender_falls_silent(
    start: Start, tmp_path: Path
) -> None:
    service = start()
    images = builders.dwi_series(promise=False)
    push(service, images, tmp_path / "s")
    view = ended(service, images)
    assert view.result is not None
    assert view.result.category == "ASPECTS_1_6"
    assert any(event.detail == "no instance for 0.5 s" for event in view.timeline)


def test_a_missing_slice_is_not_assessed_and_reported_so(
    start: Start, small_pacs: Pacs, tmp_path: Path
) -> None:
    service = start(PACS__ADDRESS=small_pacs.address)
    images = builders.dwi_series()
    del images[-5]
    push(service, images, tmp_path / "s")
    view = ended(service, images)
    assert view.series.state is SeriesState.NOT_ASSESSED
    assert view.result is not None
    assert view.result.reason == "INCOMPLETE"
    assert view.result.category is None
    assert view.alert is None
    until(lambda: small_pacs.received, what="the report")
    assert "NOTASSESSED" in str(small_pacs.received[0])


def test_something_else_is_ignored_without_report_or_alert(
    start: Start, small_pacs: Pacs, tmp_path: Path
) -> None:
    service = start(PACS__ADDRESS=small_pacs.address)
    images = builders.dwi_series(b_values=(0,))
    for image in images:
        del image.DiffusionBValue, image.DiffusionDirectionality
        image.ImageType, image.SeriesDescription, image.ScanningSequence = (
            ["ORIGINAL", "PRIMARY", "M"],
            "t1",
            "GR",
        )
    push(service, images, tmp_path / "s")
    view = ended(service, images)
    assert view.series.state is SeriesState.IGNORED
    assert view.report is None
    assert view.alert is None
    assert small_pacs.received == []


def test_the_same_series_again_changes_nothing(start: Start, tmp_path: Path) -> None:
    service = start()
    images = builders.dwi_series()
    push(service, images, tmp_path / "s")
    before = ended(service, images)
    assert push(service, images, tmp_path / "s") == {Status.SUCCESS}
    after = view_of(service, images)
    assert events(after) == events(before)
    assert after.series.revision == 1
    assert after.series.last_instance_at == before.series.last_instance_at


def test_the_same_instance_in_another_transfer_syntax_is_the_same(start: Start, tmp_path: Path) -> None:
    service = start()
    images = builders.dwi_series(slices=3)
    push(service, images, tmp_path / "s")
    for image in images:
        image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        again = io.BytesIO()
        dcmwrite(again, image, implicit_vr=True, little_endian=True, enforce_file_format=True)
    folder = tmp_path / "implicit"
    folder.mkdir()
    (folder / "0.dcm").write_bytes(again.getvalue())
    to = ("TRIAGE", "127.0.0.1", service.scp.port)
    (status,) = [s for _, s in send_files(folder.iterdir(), to=to, calling_ae="SCANNER", timeout_s=10)]
    assert status == Status.SUCCESS
    assert "conflicting_instance" not in events(view_of(service, images))


def test_other_bytes_under_a_known_uid_are_kept_out_and_recorded(start: Start, tmp_path: Path) -> None:
    service = start()
    images = builders.dwi_series()
    push(service, images, tmp_path / "s")
    ended(service, images)
    kept = service.line.store.contents([images[0].SOPInstanceUID])
    images[0].PixelData = bytes(len(images[0].PixelData))
    assert push(service, images[:1], tmp_path / "other") == {Status.DIFFERENT_CONTENT}
    assert service.line.store.contents([images[0].SOPInstanceUID]) == kept
    assert "conflicting_instance" in events(view_of(service, images))


def test_a_late_slice_makes_a_new_revision_and_a_report_that_names_the_old_one(
    start: Start, small_pacs: Pacs, tmp_path: Path
) -> None:
    service = start(PACS__ADDRESS=small_pacs.address)
    images = builders.dwi_series()
    late = images.pop(-5)
    push(service, images, tmp_path / "s")
    assert ended(service, images).series.state is SeriesState.NOT_ASSESSED
    until(lambda: len(small_pacs.received) == 1, what="the first report")

    push(service, [late], tmp_path / "late")

    view = ended(service, images, revision=2)
    assert view.series.state is SeriesState.ASSESSED
    until(lambda: len(small_pacs.received) == 2, what="the second report")
    first, second = small_pacs.received
    replaced = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert replaced.ReferencedSOPInstanceUID == first.SOPInstanceUID


def test_a_report_that_the_pacs_refuses_is_shown_as_failed(
    start: Start, small_pacs: Pacs, tmp_path: Path
) -> None:
    small_pacs.answer = Status.CANNOT_UNDERSTAND
    service = start(PACS__ADDRESS=small_pacs.address)
    images = builders.dwi_series()
    push(service, images, tmp_path / "s")
    view = until(
        lambda: (v := view_of(service, images)).report and v.report.state is ReportState.FAILED and v,
        what="the refusal",
    )
    assert "0xC000" in view.report.last_error


def test_a_pacs_that_is_short_of_space_is_tried_again(start: Start, small_pacs: Pacs, tmp_path: Path) -> None:
    small_pacs.answer = Status.OUT_OF_RESOURCES
    service = start(PACS__ADDRESS=small_pacs.address, PACS__RETRY_FIRST_S="0.2")
    images = builders.dwi_series()
    push(service, images, tmp_path / "s")
    until(lambda: "report_delayed" in events(view_of(service, images)), what="the first try")
    small_pacs.answer = Status.SUCCESS
    until(lambda: "report_stored" in events(view_of(service, images)), what="the report")
    assert len(small_pacs.received) == 1


def test_a_report_is_given_up_after_the_configured_time(start: Start, tmp_path: Path) -> None:
    service = start(
        PACS__ADDRESS="PACS@127.0.0.1:9", PACS__RETRY_FIRST_S="0.1", PACS__RETRY_LONGEST_S="0.2",
        PACS__GIVE_UP_AFTER_S="0.5",
    )  # fmt: skip
    images = builders.dwi_series()
    push(service, images, tmp_path / "s")
    view = until(
        lambda: (v := view_of(service, images)).report and v.report.state is ReportState.FAILED and v,
        what="giving up",
    )
    assert events(view)[-1] == "report_failed"


def test_pages_repeat_until_someone_answers(start: Start, webhook: Webhook, tmp_path: Path) -> None:
    service = start(ALERTS__URLS=webhook.url, ALERTS__REPEAT_S="0.3")
    images = builders.dwi_series()
    push(service, images, tmp_path / "s")
    until(lambda: len(webhook.messages) >= 3, what="three pages")
    series_id = view_of(service, images).series.id

    assert acknowledge(service.line, series_id, "Dr Kim")
    assert not acknowledge(service.line, series_id, "Dr Lee")
    trail = [entry.deed for entry in service.line.audit.entries()]
    answers = [(deed.actor, deed.series_id) for deed in trail if deed.action is Action.ACKNOWLEDGED]
    assert answers == [("Dr Kim", series_id)]

    view = view_of(service, images)
    assert view.alert is not None
    assert (view.alert.state, view.alert.acknowledged_by) == (AlertState.ACKNOWLEDGED, "Dr Kim")
    paged = until(lambda: len(webhook.messages))
    with pytest.raises(pytest.fail.Exception, match="another page"):
        until(lambda: len(webhook.messages) > paged + 1, timeout_s=1.5, what="another page")


def test_a_channel_that_fails_is_tried_again_and_holds_up_no_other(
    start: Start, webhook: Webhook, tmp_path: Path
) -> None:
    service = start(ALERTS__URLS=f"json://127.0.0.1:9/dead,{webhook.url}")
    images = builders.dwi_series()
    push(service, images, tmp_path / "s")
    until(lambda: webhook.messages, what="the page")
    until(lambda: "alert_sent" in events(view_of(service, images)), what="the record")
    assert "alert_failed" not in events(view_of(service, images))


def test_no_channel_at_all_is_shown_and_does_not_stop_anything(start: Start, tmp_path: Path) -> None:
    service = start(ALERTS__URLS="json://127.0.0.1:9/dead")
    images = builders.dwi_series()
    push(service, images, tmp_path / "s")
    view = until(
        lambda: (v := view_of(service, images)) and "alert_failed" in events(v) and v, what="the failure"
    )
    assert view.alert.state is AlertState.PENDING


def test_private_classes_beside_the_images_are_taken(start: Start, tmp_path: Path) -> None:
    service = start()
    (image,) = builders.dwi_series(slices=1, b_values=(0,))
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = UID("1.3.12.2.1107.5.9.1")
    assert push(service, [image], tmp_path / "s") == {Status.SUCCESS}


@pytest.mark.parametrize("missing", ["SeriesInstanceUID", "StudyInstanceUID"])
def test_what_cannot_be_filed_stays_with_the_sender(start: Start, tmp_path: Path, missing: str) -> None:
    service = start()
    (image,) = builders.dwi_series(slices=1, b_values=(0,))
    delattr(image, missing)
    assert push(service, [image], tmp_path / "s") == {Status.CANNOT_UNDERSTAND}


def test_a_data_set_that_is_not_what_the_command_says_is_refused(start: Start) -> None:
    service = start()
    one, other = builders.dwi_series(slices=2, b_values=(0,))
    content = io.BytesIO()
    dcmwrite(content, one, enforce_file_format=True)
    received = ReceivedObject(one.SOPClassUID, other.SOPInstanceUID, "SCANNER", content.getvalue())
    assert _receive(service, received) is Status.DATA_SET_DOES_NOT_MATCH


def test_noise_is_refused(start: Start) -> None:
    service = start()
    received = ReceivedObject("1.2.840.10008.5.1.4.1.1.4", generate_uid(), "SCANNER", b"\xff" * 500)
    assert _receive(service, received) is Status.CANNOT_UNDERSTAND


def test_a_disk_that_does_not_take_it_is_out_of_resources(start: Start, tmp_path: Path) -> None:
    service = start()
    inbox = tmp_path / "data" / "inbox"
    shutil.rmtree(inbox)
    inbox.write_text("a file where the folder should be")
    (image,) = builders.dwi_series(slices=1, b_values=(0,))
    assert push(service, [image], tmp_path / "s") == {Status.OUT_OF_RESOURCES}


def test_a_closed_database_is_a_failure_and_not_a_success(start: Start, tmp_path: Path) -> None:
    service = start()
    images = builders.dwi_series(slices=1, b_values=(0,))
    with service.line.store.engine.execution_options(write=True).begin() as connection:
        connection.execute(text("ALTER TABLE instance RENAME TO elsewhere"))
    assert push(service, images, tmp_path / "s") == {Status.OUT_OF_RESOURCES}


def test_images_that_are_gone_from_the_disk_are_told_and_not_silent(start: Start, tmp_path: Path) -> None:
    service = start()
    images = builders.dwi_series()
    push(service, images[:-1], tmp_path / "s")
    for path in (tmp_path / "data" / "inbox").rglob("*.dcm"):
        path.unlink()
    push(service, images[-1:], tmp_path / "last")
    view = ended(service, images)
    assert view.series.state is SeriesState.NOT_ASSESSED
    assert view.result is not None
    assert view.result.reason == "UNREADABLE"
    assert view.result.detail == "1 of 20 images could be read back from disk"


@pytest.mark.parametrize("only", [Comprehensive3DSRStorage, EnhancedSRStorage])
def test_the_report_goes_under_the_class_that_the_peer_accepts(only: str) -> None:
    report, alternative = builders.dwi_series(slices=2, b_values=(0,))
    report.SOPClassUID, alternative.SOPClassUID = Comprehensive3DSRStorage, EnhancedSRStorage
    with only_accepting(only) as (to, received):
        assert send(report, to=to, calling_ae="TRIAGE", timeout_s=5, alternative=alternative) == only
    assert received == [only]


def test_a_peer_that_accepts_no_report_at_all_has_refused_it() -> None:
    report, alternative = builders.dwi_series(slices=2, b_values=(0,))
    report.SOPClassUID, alternative.SOPClassUID = Comprehensive3DSRStorage, EnhancedSRStorage
    with only_accepting(MRImageStorage) as (to, _), pytest.raises(ReportRefused, match="accepts none of"):
        send(report, to=to, calling_ae="TRIAGE", timeout_s=5, alternative=alternative)


@contextmanager
def only_accepting(sop_class_uid: str) -> Iterator[tuple[tuple[str, str, int], list[str]]]:
    """A storage SCP for one SOP class: its address, and the classes that it received."""
    received: list[str] = []

    def store(event: evt.Event) -> int:
        received.append(str(event.request.AffectedSOPClassUID))
        return 0

    unrestricted, _config.UNRESTRICTED_STORAGE_SERVICE = _config.UNRESTRICTED_STORAGE_SERVICE, False
    ae = AE("PACS")
    ae.add_supported_context(sop_class_uid)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    assert server is not None
    try:
        yield ("PACS", "127.0.0.1", server.server_address[1]), received
    finally:
        ae.shutdown()
        _config.UNRESTRICTED_STORAGE_SERVICE = unrestricted


def test_a_peer_that_is_not_there_is_transient() -> None:
    (image,) = builders.dwi_series(slices=1, b_values=(0,))
    with pytest.raises(PeerUnavailable, match="could not be reached"):
        send(image, to=("PACS", "127.0.0.1", 9), calling_ae="TRIAGE", timeout_s=2)
    with pytest.raises(PeerUnavailable, match="could not be reached"):
        echo(to=("PACS", "127.0.0.1", 9), calling_ae="TRIAGE", timeout_s=2)


def test_an_unknown_threshold_stops_the_start(tiny_bundle: Path) -> None:
    config = load(None, {"TRIAGE_MODEL__PATH": str(tiny_bundle), "TRIAGE_MODEL__THRESHOLD": "bold"})
    with pytest.raises(ConfigError, match="it has alarming, calm"):
        open_chosen_model(config)


def test_the_threshold_in_use_is_the_configured_one(start: Start, tmp_path: Path) -> None:
    service = start(MODEL__THRESHOLD="calm")
    images = builders.dwi_series()
    push(service, images, tmp_path / "s")
    view = ended(service, images)
    assert view.result is not None
    assert (view.result.category, view.result.threshold) == ("ASPECTS_7_10", 0.95)
    assert view.alert is None


def test_a_bad_bundle_stops_the_start_before_any_port_is_open(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "tiny", golden=0.1)
    config = load(None, {"TRIAGE_MODEL__PATH": str(bundle), "TRIAGE_STORE__DIR": str(tmp_path / "data")})
    with pytest.raises(BundleError, match="golden"), running(config):
        pass


def _receive(service: Service, received: ReceivedObject) -> Status:
    return receive(service.line, service.gatherer, received)


def test_an_alert_that_has_no_workflow_yet_can_be_answered(start: Start) -> None:
    start().line.engine.tell("alert-999", "acknowledged", "")


def test_an_answer_while_no_channel_works_stops_the_pages(
    start: Start, webhook: Webhook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(escalation, "_RETRY_S", 0.3)
    webhook.status = 500
    service = start(ALERTS__URLS=webhook.url)
    images = builders.dwi_series()
    push(service, images, tmp_path / "s")
    view = until(
        lambda: (v := view_of(service, images)) and "alert_failed" in events(v) and v, what="a failed page"
    )
    assert acknowledge(service.line, view.series.id, "Dr Kim")
    until(lambda: not service.line.store.not_answered(), what="the answer")
    webhook.status, tried = 204, len(webhook.messages)
    with pytest.raises(pytest.fail.Exception, match="another page"):
        # One may have been on its way when the answer came.
        until(lambda: len(webhook.messages) > tried + 1, timeout_s=3, what="another page")


def test_one_stalled_channel_does_not_hold_up_the_others(
    start: Start, webhook: Webhook, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        stalled = f"json://127.0.0.1:{silent.getsockname()[1]}/x?rto=60"
        service = start(ALERTS__URLS=f"{stalled},{webhook.url}", ALERTS__REPEAT_S="0.5")
        images = builders.dwi_series()
        push(service, images, tmp_path / "s")
        until(lambda: len(webhook.messages) >= 2, timeout_s=20, what="a second page")
        assert "alert_sent" in events(view_of(service, images))


def test_a_report_that_cannot_be_built_holds_up_neither_outcome_nor_alert(
    start: Start, webhook: Webhook, tmp_path: Path
) -> None:
    service = start(ALERTS__URLS=webhook.url)
    images = builders.dwi_series()
    folder = builders.write(images, tmp_path / "s")
    for path in folder.iterdir():
        # PatientSex with a value representation that does not exist.
        path.write_bytes(path.read_bytes().replace(b"\x10\x00\x40\x00CS", b"\x10\x00\x40\x00ZZ"))
    to = ("TRIAGE", "127.0.0.1", service.scp.port)
    statuses = {s for _, s in send_files(sorted(folder.iterdir()), to=to, calling_ae="S", timeout_s=10)}
    assert statuses == {Status.SUCCESS}
    until(lambda: webhook.messages, what="the page")
    view = ended(service, images)
    assert view.result is not None
    assert view.result.category == "ASPECTS_1_6"


def test_pictures_that_cannot_be_kept_do_not_change_the_outcome(start: Start, tmp_path: Path) -> None:
    service = start()
    (tmp_path / "data" / "volumes").write_text("a file where the folder should be")
    images = builders.dwi_series()
    push(service, images, tmp_path / "s")
    view = ended(service, images)
    assert view.result is not None
    assert view.result.category == "ASPECTS_1_6"


def test_a_database_that_fails_for_a_while_delays_and_loses_nothing(start: Start, tmp_path: Path) -> None:
    service = start()
    images = builders.dwi_series(promise=False)
    push(service, images, tmp_path / "s")
    with service.line.store.engine.execution_options(write=True).begin() as connection:
        connection.execute(text("ALTER TABLE event RENAME TO elsewhere"))
    until(lambda: view_of_state(service, images) is SeriesState.RECEIVING)
    Event().wait(1.5)
    with service.line.store.engine.execution_options(write=True).begin() as connection:
        connection.execute(text("ALTER TABLE elsewhere RENAME TO event"))
    view = ended(service, images)
    assert view.result is not None
    assert view.result.category == "ASPECTS_1_6"


def view_of_state(service: Service, images: Sequence[Dataset]) -> SeriesState:
    found = service.line.store.registration(images[0].SOPInstanceUID)
    assert found is not None
    return service.line.store.series(found.series_id).state


def test_sent_again_after_a_failure_the_series_is_followed(start: Start, tmp_path: Path) -> None:
    service = start()
    images = builders.dwi_series(promise=False)
    # Registered, but the answer was a failure: nobody follows the series yet.
    contents = [io.BytesIO() for _ in images]
    for image, content in zip(images, contents, strict=True):
        dcmwrite(content, image, enforce_file_format=True)

    class Deaf(Gatherer):
        def notice(self, series_id: int, after_instance_id: int) -> None:
            raise OSError("the engine's disk is full")

    def give(gatherer: Gatherer) -> set[Status]:
        return {
            receive(
                service.line,
                gatherer,
                ReceivedObject(i.SOPClassUID, i.SOPInstanceUID, "SCANNER", c.getvalue()),
            )
            for i, c in zip(images, contents, strict=True)
        }

    assert Status.SUCCESS not in give(Deaf(service.line))
    assert give(service.gatherer) == {Status.SUCCESS}
    assert ended(service, images).series.state is SeriesState.ASSESSED


def test_a_file_that_the_disk_lost_is_healed_by_its_sender(start: Start, tmp_path: Path) -> None:
    service = start()
    images = builders.dwi_series(slices=2)
    push(service, images, tmp_path / "s")
    files = list((tmp_path / "data" / "inbox").rglob("*.dcm"))
    files[0].unlink()
    assert push(service, images, tmp_path / "s") == {Status.SUCCESS}
    assert files[0].exists()


def test_a_peer_whose_name_is_unknown_is_tried_again_and_shown(start: Start, tmp_path: Path) -> None:
    service = start(PACS__ADDRESS="PACS@no.such.host.invalid:104", PACS__RETRY_FIRST_S="0.2")
    images = builders.dwi_series()
    push(service, images, tmp_path / "s")
    until(lambda: "report_delayed" in events(view_of(service, images)), what="the failed try")


def test_what_was_abandoned_is_taken_up_at_a_start(
    start: Start, webhook: Webhook, small_pacs: Pacs, tmp_path: Path
) -> None:
    images = builders.dwi_series()
    with ExitStack() as first:
        config = load(
            None,
            {
                "TRIAGE_STORE__DIR": str(tmp_path / "data"),
                "TRIAGE_DICOM__HOST": "127.0.0.1",
                "TRIAGE_DICOM__PORT": "0",
                "TRIAGE_PACS__ADDRESS": "PACS@127.0.0.1:9",
                "TRIAGE_MODEL__PATH": str(make_tiny_bundle(tmp_path / "tiny-0.0.1")),
            },
        )
        service = first.enter_context(running(config))
        push(service, images, tmp_path / "s")
        ended(service, images)
    # The engine's own database is lost; ours is not.
    for path in (tmp_path / "data").glob("triage.engine.db*"):
        path.unlink()

    start(ALERTS__URLS=webhook.url, PACS__ADDRESS=small_pacs.address)

    until(lambda: webhook.messages, what="the page")
    until(lambda: small_pacs.received, what="the report")


def test_an_interrupted_scan_that_looks_whole_is_not_judged(start: Start, tmp_path: Path) -> None:
    service = start()
    images = builders.dwi_series(promise=False)
    push(service, images[:-6], tmp_path / "s")
    view = ended(service, images)
    assert view.result is not None
    assert view.result.reason == "INCOMPLETE"
