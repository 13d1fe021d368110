"""The service in the process of the test, a small PACS, and how to send to them."""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from tests import builders
from tests.conftest import until
from triage.config import load
from triage.core.lifecycle import SeriesState
from triage.edges.dimse import ReceivedObject, Scp, Status, send_files, start_scp
from triage.edges.store import SeriesView
from triage.service import Service, running

Start = Callable[..., Service]


@pytest.fixture
def start(tmp_path: Path, tiny_bundle: Path) -> Iterator[Start]:
    """Start the service in this process; keyword arguments are environment variables without TRIAGE_."""
    with ExitStack() as stack:

        def run(**settings: str) -> Service:
            environment = {
                "STORE__DIR": str(tmp_path / "data"),
                "DICOM__HOST": "127.0.0.1",
                "DICOM__PORT": "0",
                "DICOM__QUIET_S": "0.5",
                "MODEL__PATH": str(tiny_bundle),
            } | settings
            config = load(None, {f"TRIAGE_{key}": value for key, value in environment.items()})
            return stack.enter_context(running(config))

        yield run


class Pacs:
    """A receiving PACS whose answer can be set."""

    def __init__(self) -> None:
        self.received: list[Dataset] = []
        self.answer = Status.SUCCESS
        self.scp: Scp = start_scp(ae_title="PACS", host="127.0.0.1", port=0, store=self._store)

    def _store(self, instance: ReceivedObject) -> Status:
        if self.answer is Status.SUCCESS:
            self.received.append(dcmread(io.BytesIO(instance.content)))
        return self.answer

    @property
    def address(self) -> str:
        return f"PACS@127.0.0.1:{self.scp.port}"


@pytest.fixture
def small_pacs() -> Iterator[Pacs]:
    pacs = Pacs()
    yield pacs
    pacs.scp.stop()


def push(service: Service, images: Sequence[Dataset], folder: Path) -> set[int]:
    """Send the images by C-STORE and return the statuses."""
    paths = sorted(builders.write(images, folder).iterdir())
    to = ("TRIAGE", "127.0.0.1", service.scp.port)
    return {status for _, status in send_files(paths, to=to, calling_ae="SCANNER", timeout_s=10)}


def view_of(service: Service, images: Sequence[Dataset]) -> SeriesView:
    view = service.line.store.view_by_uid(images[0].SeriesInstanceUID)
    assert view is not None
    return view


def ended(service: Service, images: Sequence[Dataset], revision: int = 1) -> SeriesView:
    def end() -> SeriesView | None:
        view = view_of(service, images)
        waiting = view.series.state in (SeriesState.RECEIVING, SeriesState.ANALYSING)
        return None if waiting or view.series.revision < revision else view

    return until(end, what="an end")


def events(view: SeriesView) -> list[str]:
    return [event.event for event in view.timeline]
