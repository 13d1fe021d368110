"""A disk that is really full: refused rather than lost, and everything goes on when there is room again.

The disk is a small tmpfs. Mounting one takes root, which a user's machine and some containers do not give,
in CI neither; there these tests are skipped.
"""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from dbos._sys_db import SystemDatabase
from pydicom import Dataset

from tests import builders
from tests.conftest import free_port, until
from tests.peers import OUT_OF_RESOURCES, SUCCESS, Pacs, Pagers
from tests.soak.books import Books, lost_instances
from triage.config import load
from triage.core.lifecycle import ENDED
from triage.edges import dimse
from triage.edges.dimse import echo, send_files
from triage.edges.engine import Engine
from triage.edges.store import SeriesView, Store
from triage.flow.alert import acknowledge
from triage.service import Service, running

Start = Callable[..., Service]


@dataclass(frozen=True, slots=True)
class Disk:
    """A mounted disk that can be filled to the last byte, and emptied again."""

    folder: Path

    def fill(self) -> None:
        """No byte is left."""
        with (self.folder / "ballast").open("ab", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(b"\0" * size)

    def free(self) -> None:
        """There is room again."""
        (self.folder / "ballast").unlink(missing_ok=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a disk of its own cannot be mounted here")
    yield Disk(folder)
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def start(disk: Disk, tiny_bundle: Path) -> Iterator[Start]:
    """Start the service on that disk; keyword arguments are environment variables without TRIAGE_."""
    with ExitStack() as stack:
        # Whatever happens, a service must be able to end.
        stack.callback(disk.free)

        def run(**settings: str) -> Service:
            environment = {
                "STORE__DIR": str(disk.folder / "data"),
                "STORE__RESERVE_BYTES": "0",
                "DICOM__PORT": "0",
                "DICOM__QUIET_S": "2",
                "MODEL__PATH": str(tiny_bundle),
                "WATCH__LOOK_EVERY_S": "1",
                "PACS__RETRY_FIRST_S": "0.2",
            } | settings
            config = load(None, {f"TRIAGE_{key}": value for key, value in environment.items()})
            return stack.enter_context(running(config))

        yield run
        disk.free()


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


def push(service: Service, paths: Sequence[Path]) -> list[int]:
    """The status of each file."""
    to = ("TRIAGE", "127.0.0.1", service.scp.port)
    return [status for _, status in send_files(paths, to=to, calling_ae="SCANNER", timeout_s=60)]


def ended(service: Service, images: Sequence[Dataset]) -> SeriesView:
    def end() -> SeriesView | None:
        view = service.line.store.view_by_uid(images[0].SeriesInstanceUID)
        return view if view is not None and view.series.state in ENDED else None

    view: SeriesView = until(end, timeout_s=120, what="an end")
    return view


def judged_whole(service: Service, images: Sequence[Dataset]) -> SeriesView:
    """The end with every image: what was judged before the last one came does not count."""

    def is_whole() -> SeriesView | None:
        view = ended(service, images)
        return view if view.result is not None and view.result.category == "ASPECTS_1_6" else None

    view: SeriesView = until(is_whole, timeout_s=120, what="the whole series")
    return view


def test_a_full_disk_refuses_images_and_takes_them_when_there_is_room(
    start: Start, disk: Disk, tmp_path: Path
) -> None:
    service = start(DICOM__QUIET_S="60")
    images = builders.dwi_series(slices=8)
    paths = sorted(builders.write(images, tmp_path / "sent").iterdir())
    assert set(push(service, paths[:6])) == {SUCCESS}

    disk.fill()
    refused = push(service, paths)
    assert refused[:6] == [SUCCESS] * 6, "what is here already costs nothing"
    assert set(refused[6:]) == {OUT_OF_RESOURCES}
    echo(to=("TRIAGE", "127.0.0.1", service.scp.port), calling_ae="TEST", timeout_s=10)

    disk.free()
    assert set(push(service, paths)) == {SUCCESS}
    view = ended(service, images)
    assert view.result is not None
    assert view.result.category == "ASPECTS_1_6"


def test_a_full_disk_under_the_database_alone_refuses_images_and_loses_none(
    start: Start, disk: Disk, tmp_path: Path
) -> None:
    database_url = f"sqlite:///{disk.folder}/triage.db"
    service = start(STORE__DIR=str(tmp_path / "data"), STORE__DATABASE_URL=database_url)
    images = builders.dwi_series(slices=30, promise=False)
    paths = sorted(builders.write(images, tmp_path / "sent").iterdir())
    disk.fill()
    statuses = push(service, paths)
    assert set(statuses) <= {SUCCESS, OUT_OF_RESOURCES}
    assert OUT_OF_RESOURCES in statuses
    acknowledged = {
        str(image.SOPInstanceUID) for image, status in zip(images, statuses, strict=True) if status == SUCCESS
    }

    disk.free()
    assert list(lost_instances(Books(database_url), tmp_path / "data" / "inbox", acknowledged)) == []
    assert set(push(service, paths)) == {SUCCESS}
    assert judged_whole(service, images).result


MOMENTS: list[tuple[Any, str]] = [
    (Store, "begin_assessment"),
    (Store, "conclude"),
    (Engine, "start_child"),
    (dimse, "send"),
    (Store, "report_stored"),
    (Store, "paged"),
    (Store, "acknowledge"),
    (SystemDatabase, "init_workflow"),
    (SystemDatabase, "record_operation_result"),
    (SystemDatabase, "update_workflow_outcome"),
    (SystemDatabase, "recv_consume"),
]


@pytest.mark.parametrize(("owner", "name"), MOMENTS, ids=[name for _, name in MOMENTS])
def test_a_disk_that_fills_at_any_moment_delays_and_loses_nothing(
    start: Start, disk: Disk, pacs: Pacs, pagers: Pagers, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str,
) -> None:  # fmt: skip
    service = start(PACS__ADDRESS=pacs.address, ALERTS__URLS=pagers.url("oncall"), ALERTS__REPEAT_S="0.5")
    images = builders.dwi_series(slices=8)
    paths = sorted(builders.write(images, tmp_path / "sent").iterdir())
    filled: list[bool] = []
    original = getattr(owner, name)

    def filling(*arguments: Any, **named: Any) -> Any:
        if not filled:
            filled.append(True)
            disk.fill()
        return original(*arguments, **named)

    monkeypatch.setattr(owner, name, filling)

    def is_taken() -> bool:
        return set(push(service, paths)) == {SUCCESS}

    with contextlib.suppress(AssertionError):
        push(service, paths)
    if name == "acknowledge":
        until(lambda: pagers.pages, what="a page")
        with pytest.raises(Exception, match="disk is full"):
            acknowledge(service.line, 1, "Dr Ada Lovelace")
    until(lambda: filled, what="the full disk")
    # Long enough for every step that runs to fail, and to be tried again in vain.
    time.sleep(3.0)
    disk.free()

    until(is_taken, what="all images to be taken")
    view = judged_whole(service, images)
    until(lambda: pacs.stored, timeout_s=120, what="the report")
    until(lambda: pagers.pages, timeout_s=120, what="a page")
    paged = len(pagers.pages)
    until(lambda: len(pagers.pages) > paged, timeout_s=120, what="another page")
    until(lambda: acknowledge(service.line, view.series.id, "Dr Ada Lovelace"), what="the answer")
    books = Books(f"sqlite:///{disk.folder}/data/triage.db")
    until(lambda: books.unfinished() == 0, timeout_s=120, what="everything to end")
    revisions = books.count("SELECT count(*) FROM result WHERE revision IS NOT NULL")
    assert len({report.sop_instance_uid for report in pacs.stored}) == revisions
    after = len(pagers.pages)
    time.sleep(2.0)
    assert len(pagers.pages) <= after + 1
    acknowledged = {str(image.SOPInstanceUID) for image in images}
    assert list(lost_instances(books, disk.folder / "data" / "inbox", acknowledged)) == []


def test_below_the_reserve_new_images_are_refused_before_anything_is_written(
    start: Start, disk: Disk, tmp_path: Path
) -> None:
    images = builders.dwi_series(slices=4)
    paths = sorted(builders.write(images, tmp_path / "sent").iterdir())
    with ExitStack() as first:
        settings = {
            "TRIAGE_STORE__DIR": str(tmp_path / "data"),
            "TRIAGE_STORE__RESERVE_BYTES": "0",
            "TRIAGE_DICOM__PORT": "0",
        }
        known = first.enter_context(running(load(None, settings)))
        assert set(push(known, paths[:2])) == {SUCCESS}
    service = start(STORE__DIR=str(tmp_path / "data"), STORE__RESERVE_BYTES=str(10**18))

    statuses = push(service, paths)

    assert statuses == [SUCCESS] * 2 + [OUT_OF_RESOURCES] * (len(paths) - 2)
    assert len(list((tmp_path / "data" / "inbox").glob("*/*"))) == 2
    echo(to=("TRIAGE", "127.0.0.1", service.scp.port), calling_ae="TEST", timeout_s=10)
