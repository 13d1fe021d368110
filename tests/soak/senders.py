"""Modalities: they send, they know what was acknowledged, and most of them send the rest again."""

import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path

from pydicom import Dataset

from tests import builders
from triage.edges.dimse import send_files
from triage.errors import TriageError

SLICES = 8


class Habit(Enum):
    """How a modality behaves."""

    RETRIES = auto()
    """Sends again what was not acknowledged, until it is."""

    GIVES_UP = auto()
    """Sends nothing again after the service was gone."""

    IS_LATE = auto()
    """Holds three slices back until it has seen the first result; retries like the others."""

    LOST_ONE = auto()
    """Never had one of the slices; retries the others."""


@dataclass(slots=True)
class SentSeries:
    """One series, and what its modality knows of it."""

    series_uid: str
    study_uid: str
    habit: Habit
    paths: dict[str, Path]
    late: dict[str, Path] = field(default_factory=dict)
    acknowledged: dict[str, float] = field(default_factory=dict)
    statuses: set[int] = field(default_factory=set)
    is_given_up: bool = False

    def waiting(self) -> list[tuple[str, Path]]:
        """What the modality still wants to send."""
        if self.is_given_up:
            return []
        return [(uid, path) for uid, path in self.paths.items() if uid not in self.acknowledged]

    def send_late(self) -> None:
        """The slices that were held back are sent from now on."""
        self.paths |= self.late
        self.late = {}


def make_series(folder: Path, habit: Habit, *, study_uid: str | None = None, promise: bool) -> SentSeries:
    """A series that the tiny network finds urgent, as files.

    promise: whether its headers say when it is whole.
    """
    images = builders.dwi_series(slices=SLICES, promise=promise and habit is not Habit.LOST_ONE)
    if study_uid is not None:
        for image in images:
            image.StudyInstanceUID = study_uid
    builders.write(images, folder)
    paths = {
        str(image.SOPInstanceUID): path for image, path in zip(images, sorted(folder.iterdir()), strict=True)
    }
    weighted = [str(image.SOPInstanceUID) for image in images if image.DiffusionBValue]
    late: dict[str, Path] = {}
    if habit is Habit.LOST_ONE:
        del paths[weighted[len(weighted) // 2]]
    if habit is Habit.IS_LATE:
        late = {uid: paths.pop(uid) for uid in weighted[-3:]}
    first: Dataset = images[0]
    return SentSeries(str(first.SeriesInstanceUID), str(first.StudyInstanceUID), habit, paths, late)


def send(
    series: SentSeries, items: Sequence[tuple[str, Path]], port: int, *, associations: int, rng: random.Random
) -> None:
    """Send the items over several associations at once; what is answered 0x0000 is kept as acknowledged."""
    shares = [items[start::associations] for start in range(associations)]
    with ThreadPoolExecutor(associations) as pool:
        list(pool.map(lambda share: _send_share(series, share, port), filter(None, shares)))


def _send_share(series: SentSeries, share: Sequence[tuple[str, Path]], port: int) -> None:
    uid_of = {path: uid for uid, path in share}
    try:
        for path, status in send_files(
            list(uid_of), to=("TRIAGE", "127.0.0.1", port), calling_ae="SCANNER", timeout_s=30
        ):
            series.statuses.add(status)
            if status == 0:
                series.acknowledged.setdefault(uid_of[path], time.time())
    except (TriageError, OSError):
        # The service is gone; its modality finds out what was not acknowledged.
        return


class Modalities:
    """A thread that sends what is waiting for as long as the service lives."""

    def __init__(self, rng: random.Random) -> None:
        self.all: list[SentSeries] = []
        self._rng = rng
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, port: int) -> None:
        """Send from now on."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, args=(port,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """The service is gone, or about to be; some give up."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        for series in self.all:
            if series.habit is Habit.GIVES_UP and series.waiting():
                series.is_given_up = True

    def release_late(self, is_ended: Callable[[str], bool]) -> None:
        """Whoever has seen a first result sends what was held back."""
        for series in self.all:
            if series.late and not series.waiting() and is_ended(series.series_uid):
                series.send_late()

    @property
    def is_done(self) -> bool:
        """Whether nobody wants to send anything more."""
        return not any(series.late or series.waiting() for series in self.all)

    def acknowledged(self) -> Iterable[str]:
        """Every SOP Instance UID that was answered with success."""
        return [uid for series in self.all for uid in series.acknowledged]

    def _run(self, port: int) -> None:
        while not self._stopping.is_set():
            for series in self.all:
                items = series.waiting()
                if items and not self._stopping.is_set():
                    send(series, items, port, associations=self._rng.randint(1, 3), rng=self._rng)
            self._stopping.wait(0.05)
