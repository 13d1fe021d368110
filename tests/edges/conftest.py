"""A listening SCP, and a look at what it leaves behind."""

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests import builders
from tests.conftest import until
from triage.edges.dimse import Admission, ReceivedObject, Scp, Status, Tls, echo, send_files, start_scp


@dataclass(slots=True)
class Receiver:
    """An SCP called TRIAGE and what came to it."""

    scp: Scp
    received: list[ReceivedObject] = field(default_factory=list)

    @property
    def port(self) -> int:
        return self.scp.port

    @property
    def to(self) -> tuple[str, str, int]:
        return "TRIAGE", "127.0.0.1", self.port

    def answers(self) -> bool:
        """Whether C-ECHO is answered; raises PeerUnavailable otherwise."""
        echo(to=self.to, calling_ae="GOOD", timeout_s=10)
        return True


Listen = Callable[..., Receiver]


@pytest.fixture(autouse=True)
def _no_word_of_pynetdicom() -> Iterator[None]:
    # As triage.edges.telemetry.start_logging has it.
    logger = logging.getLogger("pynetdicom")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Start an SCP; keyword arguments are those of Admission. No thread may outlive it."""
    before = set(threading.enumerate())
    started: list[Scp] = []

    def start(
        *, tls: Tls | None = None, store: Callable[[ReceivedObject], Status] | None = None, **limits: Any
    ) -> Receiver:
        received: list[ReceivedObject] = []

        def keep(instance: ReceivedObject) -> Status:
            received.append(instance)
            return store(instance) if store else Status.SUCCESS

        scp = start_scp(
            ae_title="TRIAGE", host="127.0.0.1", port=0, store=keep, admission=Admission(**limits), tls=tls
        )
        started.append(scp)
        return Receiver(scp, received)

    yield start
    for scp in started:
        scp.stop()
    until(lambda: set(threading.enumerate()) <= before, timeout_s=20, what="the SCP's threads to end")


@dataclass(frozen=True, slots=True)
class Study:
    """Images on disk."""

    paths: tuple[Path, ...]

    def send(self, receiver: Receiver, calling_ae: str = "GOOD") -> set[int]:
        """Send all of it and return the statuses."""
        sent = send_files(self.paths, to=receiver.to, calling_ae=calling_ae, timeout_s=30)
        return {status for _, status in sent}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Two small MR images."""
    images = builders.dwi_series(slices=1)
    return Study(tuple(sorted(builders.write(images, tmp_path / "study").iterdir())))
