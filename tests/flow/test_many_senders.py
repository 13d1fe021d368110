"""Many senders at once, on either database: one result a series, nothing lost, nothing doubled."""

import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Barrier

import pytest

from tests.conftest import free_port, until
from tests.peers import SUCCESS, Pacs
from tests.soak.books import Books, lost_instances
from tests.soak.harness import Trial
from tests.soak.kills import chosen_kills
from tests.soak.lives import Launcher
from tests.soak.senders import Habit, SentSeries, make_series
from triage.config import load
from triage.edges.dimse import send_files
from triage.service import Service, running

Start = Callable[..., Service]


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgresql_url"))
    return f"sqlite:///{tmp_path}/triage.db"


@pytest.fixture
def pacs() -> Iterator[Pacs]:
    pacs = Pacs(free_port()).open()
    yield pacs
    pacs.close()


@pytest.fixture
def service(tmp_path: Path, tiny_bundle: Path, pacs: Pacs, database_url: str) -> Iterator[Service]:
    environment = {
        "STORE__DIR": str(tmp_path / "data"),
        "STORE__DATABASE_URL": database_url,
        "STORE__RESERVE_BYTES": "0",
        "DICOM__PORT": "0",
        # Nobody is judged before the last one has sent, however slow the machine is.
        "DICOM__QUIET_S": "30",
        "DICOM__MAX_ASSOCIATIONS": "200",
        "DICOM__MAX_ASSOCIATIONS_PER_PEER": "200",
        "PACS__ADDRESS": pacs.address,
        "MODEL__PATH": str(tiny_bundle),
    }
    with ExitStack() as stack:
        config = load(None, {f"TRIAGE_{key}": value for key, value in environment.items()})
        yield stack.enter_context(running(config))


def push_at_once(service: Service, shares: Sequence[Sequence[Path]]) -> set[int]:
    """Every share over an association of its own, all at the same moment; the statuses."""
    together = Barrier(len(shares))
    to = ("TRIAGE", "127.0.0.1", service.scp.port)

    def push(share: Sequence[Path]) -> set[int]:
        together.wait()
        return {status for _, status in send_files(share, to=to, calling_ae="SCANNER", timeout_s=120)}

    with ThreadPoolExecutor(len(shares)) as pool:
        return set().union(*pool.map(push, shares))


def check_once(service: Service, pacs: Pacs, all_series: Sequence[SentSeries], data: Path) -> None:
    """Each series has one result, one report at the PACS, and each instance once."""
    books = Books(service.line.config.store.database_url.get_secret_value())
    until(lambda: len(pacs.stored) >= len(all_series), timeout_s=120, what="the reports")
    until(lambda: books.unfinished() == len(all_series), timeout_s=120, what="everything but the pages")
    assert books.count("SELECT count(*) FROM series") == len(all_series)
    assert books.count("SELECT count(*) FROM result") == len(all_series)
    assert books.count("SELECT count(*) FROM result WHERE category = 'ASPECTS_1_6'") == len(all_series)
    sent = {uid for series in all_series for uid in series.paths}
    assert books.count("SELECT count(*) FROM instance") == len(sent)
    assert list(lost_instances(books, data / "inbox", sent)) == []
    arrived = sorted(uid for report in pacs.stored for uid in report.series_uids)
    assert arrived == sorted(series.series_uid for series in all_series)


def series_in(folder: Path, number: int) -> list[SentSeries]:
    return [make_series(folder / str(each), Habit.RETRIES, promise=True) for each in range(number)]


def test_the_same_images_on_many_associations_at_once_are_one_series(
    service: Service, pacs: Pacs, tmp_path: Path
) -> None:
    (series,) = all_series = series_in(tmp_path, 1)
    assert push_at_once(service, [list(series.paths.values())] * 8) == {SUCCESS}
    check_once(service, pacs, all_series, tmp_path / "data")


def test_studies_interleaved_over_many_associations_are_told_apart(
    service: Service, pacs: Pacs, tmp_path: Path
) -> None:
    all_series = series_in(tmp_path, 3)
    paths = [path for series in all_series for path in series.paths.values()]
    random.Random(1).shuffle(paths)
    assert push_at_once(service, [paths[start::16] for start in range(16)]) == {SUCCESS}
    check_once(service, pacs, all_series, tmp_path / "data")


def test_a_hundred_and_twenty_associations_at_once_are_all_served(
    service: Service, pacs: Pacs, tmp_path: Path
) -> None:
    all_series = series_in(tmp_path, 8)
    paths = [path for series in all_series for path in series.paths.values()]
    assert push_at_once(service, [paths[start::120] for start in range(120)]) == {SUCCESS}
    check_once(service, pacs, all_series, tmp_path / "data")


def test_killed_on_postgresql_no_promise_is_broken(
    postgresql_url: str, tiny_bundle: Path, tmp_path: Path
) -> None:
    launcher = Launcher()
    trial = Trial(tmp_path, tiny_bundle, launcher, seed=2, database_url=postgresql_url)
    kills = [kill for kill in chosen_kills() if "Store." in str(kill.point) and "commit" in str(kill.point)]
    try:
        summary = trial.run(kills)
    finally:
        trial.close()
        launcher.close()
    assert summary.broken == []
