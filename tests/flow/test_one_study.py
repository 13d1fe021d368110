"""One study, end to end, with stock peers: storescu sends, Orthanc receives, a webhook is called."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread

from tests import builders
from tests.browser import open_browser
from tests.conftest import Orthanc, ServiceProcess, Webhook, storescu, until
from triage.core.access import Role
from triage.edges.dimse import Status, send_files
from triage.phantom.dicom import write_study

ENDED = ("assessed", "not_assessed", "ignored")
MakeService = Callable[..., ServiceProcess]
Case = Callable[[str], Path]


def ended(series: dict) -> bool:
    return series["state"] in ENDED


def uid_of(folder: Path) -> str:
    first = min(path for path in folder.iterdir() if path.is_file())
    return str(dcmread(first, stop_before_pixels=True).SeriesInstanceUID)


def events(series: dict) -> list[str]:
    return [line["event"] for line in series["timeline"]]


def test_large_stroke_reaches_page_pacs_and_pager(
    service_process: MakeService, orthanc: Orthanc, webhook: Webhook, released_bundle: Path, tmp_path: Path
) -> None:
    service = service_process(
        PACS__ADDRESS=orthanc.address, ALERTS__URLS=webhook.url, MODEL__PATH=str(released_bundle)
    )
    service.start()
    write_study(tmp_path / "study", aspects=3, seed=1, heads=None)
    uid = uid_of(tmp_path / "study")

    storescu(tmp_path / "study", service.dicom_port)

    series = service.wait_for(
        uid,
        lambda found: found["report"]["state"] == "stored" and found["alert"]["state"] == "sent",
        "report and alert",
    )
    assert series["state"] == "assessed"
    assert series["outcome"]["category"] == "ASPECTS_1_6"
    assert series["volume"]["kind"] == "TRACE"
    story = events(series)
    assert story[0] == "first_instance"
    assert {"last_instance", "complete", "analysed", "report_stored", "alert_sent"} <= set(story)
    whole = next(line for line in series["timeline"] if line["event"] == "complete")
    assert "no instance for" not in whole["detail"], "closed by its geometry, not by waiting"

    (instance,) = orthanc.instances()
    report = dcmread(io.BytesIO(orthanc.bytes_of(f"/instances/{instance}/file")))
    assert report.SOPInstanceUID == series["report"]["sop_instance_uid"]
    assert report.StudyInstanceUID == series["study_instance_uid"]

    (message,) = webhook.messages
    assert "ASPECTS 1-6" in message["title"]
    assert "Development weights" in message["message"]
    assert f"{service.address}/series/1" in message["message"]

    service.add_account("Dr Ada", "four sober walruses", Role.READER)
    with open_browser(tmp_path) as browser:
        # The link in the alert, opened by somebody who is not logged in yet.
        browser.open(f"{service.address}/series/1")
        assert "ASPECTS" not in browser.html
        browser.log_in("Dr Ada", "four sober walruses")
        study_page = browser.html
        browser.open(service.address)
        worklist = browser.html
        assert browser.complaints == []
    for page in (worklist, study_page):
        assert "ASPECTS 1-6" in page
    assert "Development weights" in study_page
    assert series["model"]["version"] in study_page


def test_small_stroke_is_reported_and_nobody_is_called(
    service_process: MakeService, orthanc: Orthanc, webhook: Webhook, released_bundle: Path, tmp_path: Path
) -> None:
    service = service_process(
        PACS__ADDRESS=orthanc.address, ALERTS__URLS=webhook.url, MODEL__PATH=str(released_bundle)
    )
    service.start()
    write_study(tmp_path / "study", aspects=9, seed=1, heads=None)

    storescu(tmp_path / "study", service.dicom_port)

    series = service.wait_for(
        uid_of(tmp_path / "study"), lambda found: found["report"]["state"] == "stored", "the report"
    )
    assert series["outcome"]["category"] == "ASPECTS_7_10"
    assert series["alert"]["state"] == "none"
    assert webhook.messages == []


@pytest.mark.parametrize(
    ("name", "state", "reason", "kind", "slices"),
    [
        ("siemens-e11-mosaic", "assessed", None, "DIRECTIONAL_MEAN", 25),
        ("philips-achieva-2008-classic", "assessed", None, "TRACE", 60),
        ("siemens-xa60-enhanced-b1000", "not_assessed", "NOT_AXIAL", None, None),
        ("negative-ge-fmri", "ignored", None, None, None),
    ],
)
def test_real_series_ends_as_it_should(
    service_process: MakeService,
    orthanc: Orthanc,
    released_bundle: Path,
    case: Case,
    name: str,
    state: str,
    reason: str | None,
    kind: str | None,
    slices: int | None,
) -> None:
    service = service_process(PACS__ADDRESS=orthanc.address, MODEL__PATH=str(released_bundle))
    service.start()
    uid = uid_of(case(name))

    storescu(case(name), service.dicom_port)

    series = service.wait_for(uid, ended, "an end")
    assert series["state"] == state
    assert series["outcome"]["reason"] == reason
    assert (series["volume"] or {}).get("kind") == kind
    assert (series["volume"] or {}).get("slices") == slices
    if state == "ignored":
        assert series["report"] == {"state": "none", "sop_instance_uid": None}
        assert orthanc.instances() == []
    else:
        service.wait_for(uid, lambda found: found["report"]["state"] == "stored", "the report")
        assert len(orthanc.instances()) == 1


def test_no_identifier_in_logs_alerts_or_error_pages(
    service_process: MakeService, orthanc: Orthanc, webhook: Webhook, tiny_bundle: Path, tmp_path: Path
) -> None:
    service = service_process(
        PACS__ADDRESS=orthanc.address, ALERTS__URLS=webhook.url, MODEL__PATH=str(tiny_bundle)
    )
    service.start()
    images = builders.dwi_series()
    storescu(builders.write(images, tmp_path / "study"), service.dicom_port)
    service.wait_for(
        images[0].SeriesInstanceUID,
        lambda found: found["report"]["state"] == "stored" and found["alert"]["state"] == "sent",
        "report and alert",
    )
    unknown_uid = images[0].SeriesInstanceUID + ".9"
    assert service.series(unknown_uid) is None
    service.stop()

    told = service.log.read_text() + "".join(map(str, webhook.messages))
    for secret in (
        "Nightingale",
        builders.PATIENT_ID,
        str(images[0].SeriesInstanceUID),
        str(images[0].StudyInstanceUID),
    ):
        assert secret not in told


def test_no_identifier_in_the_log_when_something_fails(
    service_process: MakeService, tiny_bundle: Path, tmp_path: Path
) -> None:
    service = service_process(MODEL__PATH=str(tiny_bundle), PACS__ADDRESS="PACS@127.0.0.1:9")
    service.start()
    images = builders.dwi_series()
    folder = builders.write(images, tmp_path / "study")
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes().replace(b"\x10\x00\x40\x00CS", b"\x10\x00\x40\x00ZZ"))
    # storescu does not send what it cannot parse; there are senders that do.
    to = ("TRIAGE", "127.0.0.1", service.dicom_port)
    statuses = {s for _, s in send_files(sorted(folder.iterdir()), to=to, calling_ae="S", timeout_s=10)}
    assert statuses == {Status.SUCCESS}
    service.wait_for(images[0].SeriesInstanceUID, ended, "an end")
    service.stop()
    told = service.log.read_text()
    assert "report_not_built" in told
    assert "Traceback" not in told
    for secret in ("Nightingale", builders.PATIENT_ID, str(images[0].SeriesInstanceUID)):
        assert secret not in told


def test_report_waits_for_a_pacs_that_is_down(
    service_process: MakeService, tiny_bundle: Path, tmp_path: Path
) -> None:
    from tests.conftest import free_port, running_orthanc

    port = free_port()
    service = service_process(PACS__ADDRESS=f"ORTHANC@127.0.0.1:{port}", MODEL__PATH=str(tiny_bundle))
    service.start()
    images = builders.dwi_series()
    storescu(builders.write(images, tmp_path / "study"), service.dicom_port)
    uid = images[0].SeriesInstanceUID
    series = service.wait_for(uid, lambda found: "report_delayed" in events(found), "the first failed try")
    assert series["report"]["state"] == "pending"

    with running_orthanc(tmp_path / "orthanc", port, free_port()) as pacs:
        stored = service.wait_for(uid, lambda found: found["report"]["state"] == "stored", "the report")
        assert until(lambda: len(pacs.instances())) == 1
        (instance,) = pacs.instances()
        tags = pacs.get(f"/instances/{instance}/simplified-tags")
        assert tags["SOPInstanceUID"] == stored["report"]["sop_instance_uid"]
