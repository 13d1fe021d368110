"""Killed at any point, the line goes on where it was."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import builders
from tests.conftest import ServiceProcess, Webhook, free_port, running_orthanc, storescu

MakeService = Callable[..., ServiceProcess]


@pytest.mark.parametrize("promise", [True, False], ids=["whole at once", "whole by silence"])
def test_killed_after_the_last_instance_the_report_arrives_once(
    service_process: MakeService, tiny_bundle: Path, webhook: Webhook, tmp_path: Path, promise: bool
) -> None:
    pacs_port = free_port()
    service = service_process(
        PACS__ADDRESS=f"ORTHANC@127.0.0.1:{pacs_port}",
        ALERTS__URLS=webhook.url,
        MODEL__PATH=str(tiny_bundle),
    )
    service.start()
    images = builders.dwi_series(promise=promise)
    uid = images[0].SeriesInstanceUID
    storescu(builders.write(images, tmp_path / "study"), service.dicom_port)
    service.kill()

    with running_orthanc(tmp_path / "orthanc", pacs_port, free_port()) as pacs:
        service.start()
        series = service.wait_for(
            uid,
            lambda found: found["report"]["state"] == "stored" and found["alert"]["state"] == "sent",
            "report and alert after the restart",
        )
        assert series["revision"] == 1
        assert len(pacs.instances()) == 1
        assert [line["event"] for line in series["timeline"]].count("analysed") == 1


def test_killed_while_the_pacs_is_down_the_same_report_arrives_and_nobody_is_paged_twice(
    service_process: MakeService, tiny_bundle: Path, webhook: Webhook, tmp_path: Path
) -> None:
    pacs_port = free_port()
    service = service_process(
        PACS__ADDRESS=f"ORTHANC@127.0.0.1:{pacs_port}",
        ALERTS__URLS=webhook.url,
        MODEL__PATH=str(tiny_bundle),
    )
    service.start()
    images = builders.dwi_series()
    uid = images[0].SeriesInstanceUID
    storescu(builders.write(images, tmp_path / "study"), service.dicom_port)
    before = service.wait_for(
        uid,
        lambda found: found["alert"]["state"] == "sent" and found["report"]["state"] == "pending",
        "an alert and a pending report",
    )
    service.kill()

    with running_orthanc(tmp_path / "orthanc", pacs_port, free_port()) as pacs:
        service.start()
        after = service.wait_for(uid, lambda found: found["report"]["state"] == "stored", "the report")
        assert after["report"]["sop_instance_uid"] == before["report"]["sop_instance_uid"]
        assert len(pacs.instances()) == 1
    assert len(webhook.messages) == 1


def test_stopped_politely_an_alert_goes_on_after_the_restart(
    service_process: MakeService, tiny_bundle: Path, webhook: Webhook, tmp_path: Path
) -> None:
    service = service_process(ALERTS__URLS=webhook.url, ALERTS__REPEAT_S="2", MODEL__PATH=str(tiny_bundle))
    service.start()
    images = builders.dwi_series()
    uid = images[0].SeriesInstanceUID
    storescu(builders.write(images, tmp_path / "study"), service.dicom_port)
    service.wait_for(uid, lambda found: found["alert"]["state"] == "sent", "the first page")
    service.stop()
    paged = len(webhook.messages)

    service.start()
    service.wait_for(
        uid, lambda found: sum(e["event"] == "alert_sent" for e in found["timeline"]) > paged, "the next page"
    )
