"""What the operator states and what headers contradict reaches the series' timeline."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests import builders
from tests.conftest import until
from triage.config import load
from triage.core.lifecycle import SeriesState
from triage.edges.dimse import send_files
from triage.edges.store import SeriesView
from triage.service import Service, running

RULE = json.dumps([{"calling_ae": "SCANNER", "series_description": "*", "b_value": 1000}])


@contextmanager
def service_with(tmp_path: Path, bundle: Path, **settings: str) -> Iterator[Service]:
    environment = {
        "STORE__DIR": str(tmp_path / "data"),
        "DICOM__HOST": "127.0.0.1",
        "DICOM__PORT": "0",
        "DICOM__QUIET_S": "0.5",
        "MODEL__PATH": str(bundle),
    } | settings
    with running(load(None, {f"TRIAGE_{key}": value for key, value in environment.items()})) as service:
        yield service


def judged(service: Service, images, folder: Path) -> SeriesView:
    paths = sorted(builders.write(images, folder).iterdir())
    to = ("TRIAGE", "127.0.0.1", service.scp.port)
    assert {status for _, status in send_files(paths, to=to, calling_ae="SCANNER", timeout_s=10)} == {0}

    def end() -> SeriesView | None:
        view = service.line.store.view_by_uid(images[0].SeriesInstanceUID)
        is_over = view and view.series.state not in (SeriesState.RECEIVING, SeriesState.ANALYSING)
        return view if is_over else None

    view: SeriesView = until(end, what="an end")
    return view


def analysed(view: SeriesView) -> str:
    return next(event.detail for event in view.timeline if event.event == "analysed")


def weighted_only(**how):
    images = [image for image in builders.dwi_series(**how) if image.get("DiffusionBValue")]
    assert images
    return images


def test_a_series_without_b_values_is_judged_by_the_operators_rule_and_says_so(tmp_path, tiny_bundle):
    images = weighted_only()
    for image in images:
        del image.DiffusionBValue
    with service_with(tmp_path, tiny_bundle, DICOM__B_VALUE_RULES=RULE) as service:
        view = judged(service, images, tmp_path / "sent")
    assert view.series.state is SeriesState.ASSESSED
    assert "was stated by dicom.b_value_rules in the configuration" in analysed(view)


def test_sources_that_disagree_are_in_the_timeline(tmp_path, tiny_bundle):
    images = weighted_only()
    for image in images:
        image.SequenceName = "*ep_b800t"
    with service_with(tmp_path, tiny_bundle) as service:
        view = judged(service, images, tmp_path / "sent")
    assert view.series.state is SeriesState.ASSESSED
    assert "Siemens sequence name says b=800; the first counts" in analysed(view)


def test_a_volume_beyond_the_limit_is_not_judged(tmp_path, tiny_bundle):
    with service_with(tmp_path, tiny_bundle, DICOM__SERIES_LIMIT_BYTES="10000") as service:
        view = judged(service, weighted_only(), tmp_path / "sent")
    assert view.series.state is SeriesState.NOT_ASSESSED
    assert analysed(view).startswith("not assessed: UNREADABLE")
