"""The whole line on one machine: the service, a small PACS, a webhook, and two synthetic studies.

The service is the real one, in a process of its own, reached only by DICOM and HTTP.
"""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pydicom import dcmread

from triage.core.access import Role
from triage.edges.dimse import ReceivedObject, Scp, Status, send_files, start_scp
from triage.edges.store import Accounts, Store
from triage.edges.store.accounts import random_password
from triage.errors import PeerUnavailable
from triage.phantom.dicom import write_study

_STUDIES = ((3, "ASPECTS_1_6"), (9, "ASPECTS_7_10"))
_ACCOUNT = "demo"
_PATIENCE_S = 120.0
_STEPS = {
    "first_instance": "received",
    "complete": "whole",
    "analysed": "result",
    "report_stored": "report stored",
    "alert_sent": "alert sent",
}


@dataclass(slots=True)
class Received:
    """What reached the demo's own PACS and webhook."""

    reports: set[str] = field(default_factory=set)
    alerts: list[str] = field(default_factory=list)


def run(*, once: bool) -> int:
    """Show the line at work until Ctrl-C; with `once`, end with 0 only if everything happened."""
    # Ended by SIGTERM, the demo must take its service along.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    received = Received()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="triage-demo-")))
        pacs = stack.enter_context(_small_pacs(received))
        webhook = stack.enter_context(_webhook(received))
        password = _account(folder / "data")
        service = stack.enter_context(_service(folder / "data", pacs, webhook))
        print(f"Page: {service.page}   DICOM: TRIAGE@127.0.0.1:{service.dicom_port}")
        print(f"Log in as {_ACCOUNT} with the password {password}", flush=True)
        outcomes = [
            _one_study(folder / str(aspects), aspects, expected, service, received)
            for aspects, expected in _STUDIES
        ]
        if once:
            print("Everything happened." if all(outcomes) else "Something did not happen.", flush=True)
            return 0 if all(outcomes) else 1
        print("Running until Ctrl-C.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            service.process.wait()
    return 0


@dataclass(frozen=True, slots=True)
class RunningService:
    """Where the demo's service can be reached."""

    process: "subprocess.Popen[bytes]"
    dicom_port: int
    http_port: int
    token: str

    @property
    def page(self) -> str:
        """The worklist's address."""
        return f"http://127.0.0.1:{self.http_port}"

    def get(self, path: str) -> Any:
        """The JSON at a path, or None while there is none."""
        headers = {"Authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(self.page + path, headers=headers)  # noqa: S310 - our own address
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - our own address
                return json.load(answer)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return None


def _one_study(
    folder: Path, aspects: int, expected: str, service: RunningService, received: Received
) -> bool:
    """Send one synthetic study, print what becomes of it, and say whether all of it was right."""
    paths = write_study(folder, aspects=aspects, seed=1, heads=None)
    uid = str(dcmread(paths[0], stop_before_pixels=True).SeriesInstanceUID)
    print(f"\nSynthetic study with ASPECTS {aspects}, {len(paths)} images", flush=True)
    to = ("TRIAGE", "127.0.0.1", service.dicom_port)
    statuses = {status for _, status in send_files(paths, to=to, calling_ae="SCANNER", timeout_s=30)}
    is_urgent = expected == "ASPECTS_1_6"
    wanted = set(_STEPS) if is_urgent else set(_STEPS) - {"alert_sent"}
    series = _watch(service, uid, wanted)
    happened = {event["event"] for event in series["timeline"]}
    missing = ", ".join(sorted(_STEPS[step] for step in wanted - happened))
    complaints = [
        complaint
        for complaint, holds in (
            ("the service refused images", statuses == {Status.SUCCESS}),
            (f"did not happen: {missing}", not missing),
            (f"expected {expected}, got {series['outcome']}", series["outcome"].get("category") == expected),
            ("the report did not reach the PACS", series["report"]["sop_instance_uid"] in received.reports),
            ("the webhook was not called", bool(received.alerts) or not is_urgent),
        )
        if not holds
    ]
    for complaint in complaints:
        print(f"  FAILED: {complaint}", flush=True)
    return not complaints


def _watch(service: RunningService, uid: str, wanted: set[str]) -> dict[str, Any]:
    """Print the series' steps as they happen, and return its JSON once all wanted ones have."""
    series: dict[str, Any] = {"timeline": [], "outcome": {}, "report": {"sop_instance_uid": None}}
    seen: set[str] = set()
    deadline = time.monotonic() + _PATIENCE_S
    while not wanted <= seen and time.monotonic() < deadline:
        series = service.get(f"/api/series/{uid}") or series
        for event in series["timeline"]:
            step = event["event"]
            if step in _STEPS and step not in seen:
                seen.add(step)
                print(f"  {event['at'][11:23]}  {_STEPS[step]:<14} {event['detail']}", flush=True)
        time.sleep(0.05)
    return series


def _account(data: Path) -> str:
    """Somebody who can log in at once: whoever tries the demo has no password to change first."""
    data.mkdir()
    password = random_password()
    store = Store.open(f"sqlite:///{data}/triage.db")
    Accounts(store.engine).add(_ACCOUNT, password, Role.ADMIN, datetime.now(UTC))
    store.close()
    return password


@contextlib.contextmanager
def _service(data: Path, pacs_port: int, webhook_port: int) -> Iterator[RunningService]:
    dicom_port, http_port, token = free_port(11112), free_port(8080), secrets.token_urlsafe(32)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("TRIAGE_")}
    environment = inherited | {
        "TRIAGE_STORE__DIR": str(data),
        "TRIAGE_DICOM__HOST": "127.0.0.1",
        "TRIAGE_DICOM__PORT": str(dicom_port),
        "TRIAGE_HTTP__PORT": str(http_port),
        "TRIAGE_HTTP__API_TOKEN": token,
        "TRIAGE_PACS__ADDRESS": f"DEMOPACS@127.0.0.1:{pacs_port}",
        "TRIAGE_ALERTS__URLS": f"json://127.0.0.1:{webhook_port}/alert",
    }
    process = subprocess.Popen([sys.executable, "-m", "triage", "serve"], env=environment)
    service = RunningService(process, dicom_port, http_port, token)
    try:
        deadline = time.monotonic() + _PATIENCE_S
        while service.get("/readyz") is None:
            if process.poll() is not None or time.monotonic() > deadline:
                raise PeerUnavailable("the demo's service did not become ready")
            time.sleep(0.1)
        yield service
    finally:
        process.terminate()
        process.wait(timeout=30)


@contextlib.contextmanager
def _small_pacs(received: Received) -> Iterator[int]:
    def store(instance: ReceivedObject) -> Status:
        received.reports.add(instance.sop_instance_uid)
        return Status.SUCCESS

    scp: Scp = start_scp(ae_title="DEMOPACS", host="127.0.0.1", port=0, store=store)
    try:
        yield scp.port
    finally:
        scp.stop()


@contextlib.contextmanager
def _webhook(received: Received) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            received.alerts.append(str(body.get("message")))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the name is inherited
            """Say nothing: the demo prints the timeline itself."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def free_port(wanted: int) -> int:
    """The wanted port on the loopback interface, or any free one where it is taken."""
    for port in (wanted, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise PeerUnavailable("no free port on the loopback interface")
