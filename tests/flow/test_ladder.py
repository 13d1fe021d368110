"""Nobody stays unwarned: the ladder, the amended alert, the technologist."""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from pydicom import Dataset

from tests import builders
from tests.conftest import Webhook, make_tiny_bundle, until
from tests.flow.conftest import Start, ended, events, push, view_of
from triage.config import load
from triage.flow.alert import acknowledge
from triage.service import Service, running

Running = Callable[..., AbstractContextManager[Service]]


def ladder(webhook: Webhook, *waits_s: float, first: str | None = None) -> str:
    """A ladder whose rungs differ by the address that they call."""
    return json.dumps(
        [
            {
                "contacts": [
                    {"name": f"Dr {letter}", "urls": [f"{(first if letter == 'A' else None) or webhook.url}"]}
                ],
                "wait_s": wait_s,
            }
            for letter, wait_s in zip("ABC", waits_s, strict=False)
        ]
    )


def called(service: Service, images: Sequence[Dataset]) -> list[tuple[int, str, bool]]:
    view = view_of(service, images)
    if view.alert is None:
        return []
    return [(page.rung, page.contact, page.taken) for page in service.line.store.pages(view.alert.id)]


@pytest.fixture
def judging(tmp_path: Path) -> Running:
    """The service with a network that always answers the same probability."""

    def run(probability: float, **settings: str) -> AbstractContextManager[Service]:
        folder = tmp_path / f"tiny-{probability}"
        environment = {
            "STORE__DIR": str(tmp_path / "data"),
            "DICOM__PORT": "0",
            "DICOM__QUIET_S": "2",
            "MODEL__PATH": str(folder if folder.exists() else make_tiny_bundle(folder, probability)),
        } | settings
        return running(load(None, {f"TRIAGE_{key}": value for key, value in environment.items()}))

    return run


def two_batches() -> tuple[list[Dataset], list[Dataset]]:
    """A series that looks whole, and one more slice on its top that comes late."""
    images = builders.dwi_series(slices=21, promise=False)
    return images[:20] + images[21:41], [images[20], images[41]]


def test_the_ladder_is_climbed_and_its_last_rung_repeated(
    start: Start, webhook: Webhook, tmp_path: Path
) -> None:
    service = start(ALERTS__LADDER=ladder(webhook, 0.2, 0.2, 0.2))
    images = builders.dwi_series()
    push(service, images, tmp_path / "s")
    until(lambda: len(called(service, images)) >= 5, what="five pages")
    assert called(service, images)[:5] == [
        (0, "Dr A", True), (1, "Dr B", True), (2, "Dr C", True), (2, "Dr C", True), (2, "Dr C", True),
    ]  # fmt: skip
    assert "Nobody has acknowledged since the first call" in webhook.messages[-1]["message"]
    assert "Nobody has acknowledged" not in webhook.messages[0]["message"]


def test_a_rung_that_nothing_reaches_is_left_at_once(start: Start, webhook: Webhook, tmp_path: Path) -> None:
    service = start(ALERTS__LADDER=ladder(webhook, 600, 600, first="json://127.0.0.1:9/dead"))
    images = builders.dwi_series()
    push(service, images, tmp_path / "s")
    until(lambda: webhook.messages, what="the page to the second rung")
    until(lambda: len(called(service, images)) == 2, what="the record")
    assert called(service, images) == [(0, "Dr A", False), (1, "Dr B", True)]


def test_everybody_on_a_rung_is_called_together(start: Start, webhook: Webhook, tmp_path: Path) -> None:
    contacts = [{"name": f"Dr {letter}", "urls": [webhook.url]} for letter in "AB"]
    service = start(ALERTS__LADDER=json.dumps([{"contacts": contacts, "wait_s": 600}]))
    images = builders.dwi_series()
    push(service, images, tmp_path / "s")
    until(lambda: len(called(service, images)) == 2, what="both")
    assert sorted(called(service, images)) == [(0, "Dr A", True), (0, "Dr B", True)]


def test_without_a_ladder_the_alert_stays_open_and_a_later_start_pages(
    judging: Running, webhook: Webhook, tmp_path: Path
) -> None:
    images = builders.dwi_series()
    with judging(0.9) as service:
        push(service, images, tmp_path / "s")
        assert ended(service, images).alert is not None
    with judging(0.9, ALERTS__URLS=webhook.url) as service:
        # The workflow of the first start waits for news; an answer is news, so is nothing for a while.
        view = view_of(service, images)
        assert view.alert is not None
        service.line.engine.tell(f"alert-{view.alert.id}", "news", "")
        until(lambda: webhook.messages, what="the page")


def test_a_result_that_becomes_urgent_says_what_it_was_before(
    judging: Running, webhook: Webhook, tmp_path: Path
) -> None:
    images, late = two_batches()
    with judging(0.1, ALERTS__URLS=webhook.url) as service:
        push(service, images, tmp_path / "s")
        assert ended(service, images).alert is None
    with judging(0.9, ALERTS__URLS=webhook.url) as service:
        push(service, late, tmp_path / "late")
        ended(service, images, revision=2)
        until(lambda: webhook.messages, what="the page")
    assert webhook.messages[0]["title"] == ("Stroke triage: changed from DWI-ASPECTS 7-10 to DWI-ASPECTS 1-6")


def test_an_open_alert_whose_result_changes_is_told_at_once_to_whoever_was_called(
    judging: Running, webhook: Webhook, tmp_path: Path
) -> None:
    images, late = two_batches()
    settings = {"ALERTS__LADDER": ladder(webhook, 0.2, 600)}
    with judging(0.9, **settings) as service:
        push(service, images, tmp_path / "s")
        until(lambda: len(webhook.messages) == 2, what="two rungs called")
        until(lambda: len(called(service, images)) == 2, what="the record")
    with judging(0.1, **settings) as service:
        push(service, late, tmp_path / "late")
        until(lambda: len(webhook.messages) == 4, what="the amended pages")
        until(lambda: len(called(service, images)) == 4, what="the record")
        assert [contact for _, contact, _ in called(service, images)[2:]] == ["Dr A", "Dr B"]
        view = view_of(service, images)
        assert service.line.store.open_alerts() == 1
        assert "alert_amended" in events(view)
    told = webhook.messages[-1]["message"]
    assert "changed from DWI-ASPECTS 1-6 to DWI-ASPECTS 7-10" in told
    assert "A smaller infarct is not ruled out" in told


def test_an_acknowledged_result_that_changes_calls_again_and_one_that_stays_does_not(
    judging: Running, webhook: Webhook, tmp_path: Path
) -> None:
    images, late = two_batches()
    with judging(0.9, ALERTS__URLS=webhook.url) as service:
        push(service, images, tmp_path / "s")
        series_id = ended(service, images).series.id
        until(lambda: webhook.messages, what="the page")
        assert acknowledge(service.line, series_id, "Dr Kim")
        paged = len(webhook.messages)
        push(service, late[1:], tmp_path / "late")
        ended(service, images, revision=2)
        assert service.line.store.open_alerts() == 0
    with judging(0.1, ALERTS__URLS=webhook.url) as service:
        more = builders.dwi_series(slices=22, promise=False)
        topmost = more[-1]
        topmost.StudyInstanceUID, topmost.SeriesInstanceUID = (
            images[0].StudyInstanceUID,
            images[0].SeriesInstanceUID,
        )
        topmost.FrameOfReferenceUID = images[0].FrameOfReferenceUID
        push(service, [topmost], tmp_path / "later")
        ended(service, images, revision=3)
        until(lambda: len(webhook.messages) > paged, what="the correction")
        assert service.line.store.open_alerts() == 1
    assert webhook.messages[-1]["title"].startswith("Stroke triage: changed from DWI-ASPECTS 1-6 to")


def test_two_series_of_one_study_make_one_alert(start: Start, webhook: Webhook, tmp_path: Path) -> None:
    service = start(ALERTS__URLS=webhook.url, ALERTS__REPEAT_S="600")
    first, second = builders.dwi_series(), builders.dwi_series()
    for image in second:
        image.StudyInstanceUID = first[0].StudyInstanceUID
    push(service, first, tmp_path / "1")
    until(lambda: webhook.messages, what="the page")
    push(service, second, tmp_path / "2")
    view = ended(service, second)
    assert service.line.store.open_alerts() == 1
    assert acknowledge(service.line, view.series.id, "Dr Kim")
    for images in (first, second):
        assert events(view_of(service, images))[-1] == "acknowledged"


def test_the_technologist_is_told_of_a_series_that_was_not_assessed(
    start: Start, webhook: Webhook, tmp_path: Path
) -> None:
    service = start(ALERTS__TECHNOLOGIST_URLS=webhook.url)
    images = builders.dwi_series()
    del images[-5]
    push(service, images, tmp_path / "s")
    until(lambda: "technologist_told" in events(view_of(service, images)), what="the notice")
    (told,) = webhook.messages
    assert told["title"] == "Stroke triage: a series was not analysed (INCOMPLETE)"
    assert "neither suspected nor ruled out" in told["message"]


def test_a_technologist_who_cannot_be_reached_is_tried_again(
    start: Start, webhook: Webhook, tmp_path: Path
) -> None:
    webhook.status = 500
    service = start(ALERTS__TECHNOLOGIST_URLS=webhook.url, PACS__RETRY_FIRST_S="0.1")
    images = builders.dwi_series()
    del images[-5]
    push(service, images, tmp_path / "s")
    until(lambda: webhook.messages, what="the first try")
    webhook.status = 204
    until(lambda: "technologist_told" in events(view_of(service, images)), what="the notice")
