"""One installation of the service, started and killed any number of times."""

import http.client
import json
import os
import select
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.soak.killed_at import Point

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-for-the-soak-alone"


class Launcher:
    """The process that forks services; see `tests.soak.killed_at`."""

    def __init__(self) -> None:
        environment = dict(os.environ) | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.soak.killed_at"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT,
        )  # fmt: skip

    def start(
        self, environment: Mapping[str, str], log: Path, point: Point | None = None, passage: int = 1
    ) -> "Life":
        """A service, armed to kill itself where a point is given."""
        chosen = None if point is None else (point.target, point.when)
        request = {"environment": dict(environment), "log": str(log), "point": chosen, "passage": passage}
        return Life(self, self._ask(request))

    def reap(self, pid: int) -> int:
        """How a service ended that has ended: its exit status, or minus the signal."""
        return self._ask({"reap": pid})

    def close(self) -> None:
        """End; every service must have ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def _ask(self, request: Mapping[str, Any]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@dataclass(slots=True)
class Life:
    """One process of the service."""

    launcher: Launcher
    pid: int
    _status: int | None = None
    _handle: int = -1

    def __post_init__(self) -> None:
        self._handle = os.pidfd_open(self.pid)

    @property
    def is_over(self) -> bool:
        if self._status is None:
            ended = select.poll()
            ended.register(self._handle, select.POLLIN)
            if not ended.poll(0):
                return False
            os.close(self._handle)
            self._status = self.launcher.reap(self.pid)
        return True

    @property
    def status(self) -> int:
        """Its exit status, or minus the signal that ended it."""
        assert self._status is not None
        return self._status

    def end(self, number: signal.Signals = signal.SIGKILL, timeout_s: float = 60.0) -> int:
        """Send the signal, wait for the end, and say how it ended."""
        if not self.is_over:
            signal.pidfd_send_signal(self._handle, number)
        deadline = time.monotonic() + timeout_s
        while not self.is_over:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the service did not end in {timeout_s:g} s")
            time.sleep(0.01)
        return self.status


def request(
    url: str, body: Mapping[str, Any] | None = None, *, token: str = TOKEN, timeout_s: float = 10.0
) -> int:
    """The HTTP status of a request that carries the token; 0 where nobody answered."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    try:
        asked = urllib.request.Request(url, data=data, headers=headers)
        with urllib.request.urlopen(asked, timeout=timeout_s) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return int(error.code)
    except (OSError, http.client.HTTPException):
        return 0


def error_page(url: str) -> str:
    """What a page that cannot be shown says; empty where nothing is wrong with it."""
    try:
        asked = urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(asked, timeout=10):
            return ""
    except urllib.error.HTTPError as error:
        return error.read().decode()
