"""Killed at any point, the line goes on where it was."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import builders
from tests.conftest import ServiceProcess, Webhook, free_port, running_orthanc, storescu
from tests.soak.harness import Trial
from tests.soak.killed_at import Point
from tests.soak.kills import chosen_kills, random_kills
from tests.soak.lives import Launcher
from triage.config import load
from triage.edges.disk import UNFINISHED
from triage.service import running

MakeService = Callable[..., ServiceProcess]


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    launcher = Launcher()
    yield launcher
    launcher.close()


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


def test_whatever_a_crash_left_half_written_is_gone_after_the_next_start(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    for folder in (data, data / "volumes", data / "inbox" / "a0"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{UNFINISHED}half").write_bytes(b"half a vol")
    environment = {"STORE__DIR": str(data), "DICOM__PORT": "0", "MODEL__PATH": str(tiny_bundle)}
    with running(load(None, {f"TRIAGE_{key}": value for key, value in environment.items()})):
        assert list(data.rglob(f"{UNFINISHED}*")) == []


def test_a_page_that_a_crash_would_repeat_is_not_sent_once_somebody_has_answered(
    launcher: Launcher, tiny_bundle: Path, tmp_path: Path
) -> None:
    trial = Trial(tmp_path, tiny_bundle, launcher, seed=1)
    try:
        trial.die_and_answer_before_it_goes_on(Point("triage.edges.store:Store.paged", "after"))
        assert trial.summary.broken == []
    finally:
        trial.close()


def test_killed_at_every_point_and_at_random_no_promise_is_broken(
    launcher: Launcher, tiny_bundle: Path, tmp_path: Path
) -> None:
    trial = Trial(tmp_path, tiny_bundle, launcher, seed=1)
    try:
        summary = trial.run([*chosen_kills(), *random_kills(6, random.Random(1))])
    finally:
        trial.close()
    assert summary.broken == []
    # Otherwise a renamed function would quietly take its kill point away.
    assert summary.never_reached == []
