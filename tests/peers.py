"""The world around the service on a bad night: a PACS, channels and a mail server, with moods."""

import contextlib
import json
import re
import select
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.events import EventHandlerType
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    Comprehensive3DSRStorage,
    EnhancedSRStorage,
    Verification,
)

SUCCESS, OUT_OF_RESOURCES, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000


@dataclass(frozen=True, slots=True)
class StoredReport:
    """One report that arrived at the PACS and was answered with success.

    series_uids: the series that it reports on.
    """

    sop_instance_uid: str
    series_uids: frozenset[str]
    at: float


@dataclass(slots=True)
class Pacs:
    """A Storage SCP of our own. Its moods can be set while it runs.

    status: what it answers to a C-STORE.
    stall_s: how long it takes for that.
    rejects: whether it refuses associations.
    tried: the SOP Instance UID of every C-STORE request, whatever became of it.
    """

    port: int
    status: Callable[[], int] = lambda: SUCCESS
    stall_s: float = 0.0
    rejects: bool = False
    stored: list[StoredReport] = field(default_factory=list)
    tried: list[str] = field(default_factory=list)
    refused_associations: int = 0
    _server: Any = None

    @property
    def address(self) -> str:
        return f"PACS@127.0.0.1:{self.port}"

    def open(self) -> Self:
        """Listen."""
        ae = AE(ae_title="PACS")
        for sop_class in (Verification, Comprehensive3DSRStorage, EnhancedSRStorage):
            ae.add_supported_context(sop_class)
        # Rejecting for want of places is what a PACS does in an overload.
        ae.maximum_associations = 50
        handlers: list[EventHandlerType] = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_REQUESTED, self._request),
        ]
        self._server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        return self

    def close(self) -> None:
        """Be down."""
        if self._server is not None:
            self._server.ae.shutdown()
            self._server = None

    def _request(self, event: evt.Event) -> None:
        if self.rejects:
            self.refused_associations += 1
            # Rejected, transient, by the presentation provider, for a local limit (PS3.8 9.3.4).
            event.assoc.acse.send_reject(0x02, 0x03, 0x02)
            event.assoc.kill()

    def _store(self, event: evt.Event) -> int:
        dataset = event.dataset
        self.tried.append(str(dataset.SOPInstanceUID))
        if self.stall_s:
            threading.Event().wait(self.stall_s)
        status = self.status()
        if status == SUCCESS:
            self.stored.append(
                StoredReport(str(dataset.SOPInstanceUID), frozenset(_reported_on(dataset)), time.time())
            )
        return status


def _reported_on(report: Dataset) -> Iterator[str]:
    for study in report.CurrentRequestedProcedureEvidenceSequence:
        for series in study.ReferencedSeriesSequence:
            yield str(series.SeriesInstanceUID)


class Cutter:
    """A line to a peer that breaks: after so many bytes of ours, or right before its answer number so-and-so.

    With `is_cut` false it lets everything through.
    """

    def __init__(self, target_port: int, *, our_bytes: int = 1 << 40, answers: int = 1 << 40) -> None:
        self.is_cut, self.cuts = True, 0
        self._target_port, self._our_bytes, self._answers = target_port, our_bytes, answers
        cutter = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    cutter._connect(self.request)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _connect(self, ours: socket.socket) -> None:
        left, answers = (self._our_bytes, self._answers) if self.is_cut else (1 << 40, 1 << 40)
        with socket.create_connection(("127.0.0.1", self._target_port)) as theirs:
            while True:
                for source in select.select([ours, theirs], [], [])[0]:
                    content = source.recv(min(65536, left) if source is ours else 65536)
                    if not content:
                        return
                    if source is ours:
                        left -= len(content)
                        theirs.sendall(content)
                    elif answers := answers - 1:
                        ours.sendall(content)
                    if not left or not answers:
                        self.cuts += 1
                        return


@dataclass(frozen=True, slots=True)
class ReceivedPage:
    """One page as it arrived. contact: the path it came to; series_id: the row that its link leads to."""

    contact: str
    series_id: int
    message: dict[str, Any]
    at: float


@dataclass(slots=True)
class Pagers:
    """A webhook with a path for each contact. A path's mood is an HTTP status, or seconds to stall."""

    port: int = 0
    pages: list[ReceivedPage] = field(default_factory=list)
    mood: dict[str, int] = field(default_factory=dict)
    stall_s: dict[str, float] = field(default_factory=dict)
    _server: Any = None

    def url(self, contact: str, **options: str) -> str:
        tail = "&".join(f"{key}={value}" for key, value in options.items())
        return f"json://127.0.0.1:{self.port}/{contact}" + (f"?{tail}" if tail else "")

    def open(self) -> Self:
        """Listen."""
        pagers = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                contact = self.path.strip("/").partition("?")[0]
                threading.Event().wait(pagers.stall_s.get(contact, 0.0))
                status = pagers.mood.get(contact, 204)
                if status < 300:
                    link = re.search(r"/series/(\d+)", str(message))
                    series_id = int(link[1]) if link else 0
                    pagers.pages.append(ReceivedPage(contact, series_id, message, time.time()))
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    self.end_headers()

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
                pass

        self._server = _QuietHttpServer(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def of(self, contact: str) -> list[ReceivedPage]:
        return [page for page in self.pages if page.contact == contact]


class _QuietHttpServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A service that was killed leaves half a request behind."""


class Mailbox:
    """A mail server that takes everything (RFC 5321, the least of it)."""

    def __init__(self) -> None:
        self.letters: list[str] = []
        mailbox = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self._say("220 mailbox.example ESMTP")
                while line := self.rfile.readline():
                    word = line.decode().strip().upper()[:4]
                    if word == "DATA":
                        self._say("354 go on")
                        mailbox.letters.append(self._letter())
                        self._say("250 kept")
                    elif word == "QUIT":
                        self._say("221 goodbye")
                        return
                    else:
                        self._say("250 ok")

            def _letter(self) -> str:
                lines = iter(self.rfile.readline, b".\r\n")
                return b"".join(lines).decode()

            def _say(self, text: str) -> None:
                self.wfile.write(f"{text}\r\n".encode())

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
