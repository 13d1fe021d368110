"""The Storage SCP: a port, one thread per connection, and a handler that is called for each object."""

import logging
import socket
import socketserver
import ssl
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import EventHandlerType
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from triage.edges.dimse.admission import Admission, Places
from triage.edges.dimse.connection import forget, is_worth_waiting, supervise
from triage.edges.dimse.status import Status
from triage.edges.dimse.tls import Tls, server_context
from triage.edges.dimse.transport import close
from triage.errors import origin

_log = logging.getLogger(__name__)

# Result, source and diagnostic of an A-ASSOCIATE-RJ (PS3.8 table 9-21): transient, local limit exceeded.
_LIMIT_EXCEEDED = (0x02, 0x03, 0x02)
_REJECTIONS = {(0x01, 0x03): "calling_ae", (0x01, 0x07): "called_ae", (0x03, 0x02): "limit"}
# How long a stop waits for what is being stored.
_FAREWELL_S = 5.0


@dataclass(frozen=True, slots=True)
class ReceivedObject:
    """One C-STORE request, undecoded.

    content: a complete Part 10 file: preamble, meta header, and the data set exactly as received.
    peer_address: the sender's IP address; empty where the object did not come over the network.
    """

    sop_class_uid: str
    sop_instance_uid: str
    calling_ae: str
    content: bytes
    peer_address: str = ""


@dataclass(frozen=True, slots=True)
class Scp:
    """A running Storage SCP."""

    server: "_Server"
    acceptor: threading.Thread

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.server.server_address[1])

    @property
    def is_listening(self) -> bool:
        """Whether the port is open and somebody answers it."""
        return self.acceptor.is_alive()

    def stop(self) -> None:
        """Close the port, abort what is running, and wait a moment for what is being stored."""
        self.server.stop()


def start_scp(
    *,
    ae_title: str,
    host: str,
    port: int,
    store: Callable[[ReceivedObject], Status],
    admission: Admission | None = None,
    tls: Tls | None = None,
) -> Scp:
    """Listen for C-ECHO and C-STORE of every storage SOP class, private ones too, in any transfer syntax.

    store: called in the connection's thread; its status is the answer. It must not raise.
    admission: who may send, and the limits; None lets everybody in within the usual limits.
    Raises ConfigError where a file of `tls` cannot be used, OSError where the port cannot be had.
    """
    admission = admission or Admission()
    context = server_context(tls) if tls else None

    def on_store(event: evt.Event) -> int:
        return store(_received(event))

    handlers: list[EventHandlerType] = [
        (evt.EVT_C_STORE, on_store),
        (evt.EVT_REQUESTED, _find_a_place),
        (evt.EVT_REJECTED, _note_rejection),
        (evt.EVT_FSM_TRANSITION, _wake_for_release),
    ]
    server = cast(
        _Server,
        _entity(ae_title, admission).make_server(
            (host, port),
            evt_handlers=handlers,
            server_class=_Server,
            request_handler=_Handler,
            admission=admission,
            tls_context=context,
        ),
    )
    acceptor = threading.Thread(target=server.serve_forever, name="dicom-accept", daemon=True)
    acceptor.start()
    return Scp(server, acceptor)


def _entity(ae_title: str, admission: Admission) -> AE:
    # A scanner pushes private classes among the images; refusing their context makes some of them stop.
    _config.UNRESTRICTED_STORAGE_SERVICE = True
    # Its own handlers write each message out, for a log that nobody may see.
    _config.LOG_HANDLER_LEVEL = "none"
    ae = AE(ae_title=ae_title)
    # _Server counts; pynetdicom would count connections that never associate.
    ae.maximum_associations = 2**31
    ae.maximum_pdu_size = admission.max_pdu_bytes
    ae.require_called_aet = True
    ae.require_calling_aet = admission.required_ae_titles
    ae.add_supported_context(Verification)
    return ae


def _received(event: evt.Event) -> ReceivedObject:
    request = cast(C_STORE, event.request)
    requestor = event.assoc.requestor
    return ReceivedObject(
        sop_class_uid=str(request.AffectedSOPClassUID),
        sop_instance_uid=str(request.AffectedSOPInstanceUID),
        calling_ae=requestor.ae_title.strip(),
        peer_address=str(requestor.address),
        content=event.encoded_dataset(),
    )


def _find_a_place(event: evt.Event) -> None:
    server = cast(_Server, event.assoc._server)
    if not server.places.associate(event.assoc):
        event.assoc.acse.send_reject(*_LIMIT_EXCEEDED)
        _note_rejection(event)
        event.assoc.kill()


def _note_rejection(event: evt.Event) -> None:
    answer = cast(A_ASSOCIATE, event.assoc.acceptor.primitive)
    reason = _REJECTIONS.get((answer.result_source or 0, answer.diagnostic or 0), "other")
    requestor = event.assoc.requestor
    request = cast(A_ASSOCIATE, requestor.primitive)
    _log.warning(
        "association_refused reason=%s address=%s calling_ae=%r",
        reason, requestor.address, request.calling_ae_title,
    )  # fmt: skip


def _wake_for_release(event: evt.Event) -> None:
    # Sta8: the peer wants to release, and the association's thread is asleep over an empty queue.
    if event.next_state == "Sta8":
        event.assoc.dimse.msg_queue.put((None, None))


class _Handler(RequestHandler):
    """One connection, in its own thread from the TLS handshake to the end."""

    server: "_Server"

    def handle(self) -> None:
        association = self._create_association()
        try:
            # Not start(): this thread is the association's, so that its end is the connection's end.
            association.run_reactor()
        finally:
            close(self.request)
            forget(association)
            self.server.places.disassociate(association)

    def _create_association(self) -> Association:
        association = super()._create_association()
        supervise(association, self.request, self.server.admission, self.server.places)
        return association


class _Server(ThreadedAssociationServer):
    """The accept loop. It only counts and closes; whatever can take time happens in other threads."""

    # A burst of connections must not push a sender into the kernel's retry, which takes a second.
    request_queue_size = 128
    daemon_threads = True

    def __init__(
        self, *arguments: Any, admission: Admission, tls_context: ssl.SSLContext | None, **keywords: Any
    ) -> None:
        self.admission = admission
        self.places = Places(admission)
        self._tls_context = tls_context
        self._open: set[socket.socket] = set()
        super().__init__(*arguments, **keywords)

    def service_actions(self) -> None:
        """Nothing: inherited, every 59th connection pays for a full garbage collection."""

    def get_request(self) -> tuple[socket.socket, Any]:
        """The next connection. Raises OSError where there is none to be had, after a pause."""
        try:
            return super().get_request()
        except OSError as error:
            # Out of file descriptors: the connection stays in the backlog, and would be asked for at once.
            _log.error("accept_failed reason=%s", error.strerror)
            time.sleep(0.1)
            raise

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002 - inherited
        """Whether the peer may connect; otherwise it is closed before anything is read from it."""
        address = str(client_address[0])
        refusal = self.places.connect(address)
        if refusal is not None:
            _log.warning("connection_refused reason=%s address=%s", refusal, address)
        return refusal is None

    def process_request(self, request: Any, client_address: Any) -> None:
        """Go on in a thread of its own."""
        try:
            super().process_request(request, client_address)
        except RuntimeError:
            self.places.disconnect(str(client_address[0]))
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The whole life of one connection."""
        connection = request
        try:
            if self._tls_context is not None:
                connection = self._tls_context.wrap_socket(
                    request, server_side=True, do_handshake_on_connect=False
                )
            self._open.add(connection)
            if self._shakes_hands(connection, client_address):
                self.finish_request(connection, client_address)
        except Exception:  # noqa: BLE001 - what a peer does ends its own connection, nothing else
            self.handle_error(connection, client_address)
        finally:
            close(connection)
            self._open.discard(connection)
            self.places.disconnect(str(client_address[0]))

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - inherited
        """Note what went wrong; the exception's own text may hold what a peer sent."""
        error = cast(BaseException, sys.exception())
        _log.warning("connection_failed address=%s error=%s", client_address[0], origin(error))

    def stop(self) -> None:
        """Close the port, abort the associations, wait a moment, and cut what is left."""
        socketserver.BaseServer.shutdown(self)
        self.server_close()
        for association in self.places.associations():
            if association.is_established:
                association.abort(block=False)
        deadline = time.monotonic() + _FAREWELL_S
        while any(map(is_worth_waiting, self.places.associations())) and time.monotonic() < deadline:
            time.sleep(0.02)
        for connection in list(self._open):
            close(connection)

    def _shakes_hands(self, connection: socket.socket, client_address: Any) -> bool:
        if not isinstance(connection, ssl.SSLSocket):
            return True
        # In all, however many pieces it comes in.
        connection.settimeout(self.admission.silence_s)
        try:
            connection.do_handshake()
        except OSError as error:
            reason = getattr(error, "reason", None) or type(error).__name__
            _log.warning("tls_refused address=%s reason=%s", client_address[0], reason)
            return False
        return True
