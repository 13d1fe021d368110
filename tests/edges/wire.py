"""A DICOM association as bytes: recorded once, replayed whole, cut or changed."""

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from pydicom.uid import UID, ExplicitVRLittleEndian
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import build_context

ASSOCIATE, ACCEPT, REJECT, DATA, RELEASE, RELEASED, ABORT = range(1, 8)


def connect(port: int, *, source: str = "127.0.0.1", timeout_s: float = 20) -> socket.socket:
    """A TCP connection from one of the loopback addresses."""
    return socket.create_connection(("127.0.0.1", port), timeout=timeout_s, source_address=(source, 0))


def association_request(*, calling: bytes = b"PEER", called: bytes = b"TRIAGE") -> bytes:
    """An A-ASSOCIATE-RQ that proposes Verification; the AE titles as they go over the wire."""
    request = A_ASSOCIATE()
    request.application_context_name = UID("1.2.840.10008.3.1.1.1")
    request.calling_ae_title = request.called_ae_title = "X"
    context = build_context("1.2.840.10008.1.1", [ExplicitVRLittleEndian])
    context.context_id = 1
    request.presentation_context_definition_list = [context]
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = 16382
    implementation.implementation_class_uid = UID("1.2.3")
    request.user_information = [length, implementation]
    encoded = A_ASSOCIATE_RQ(request).encode()
    return encoded[:10] + called.ljust(16) + calling.ljust(16) + encoded[42:]


def read_pdu(peer: socket.socket) -> bytes:
    """One whole PDU; what came of it where the peer hangs up."""
    content = b""
    wanted = 6
    while len(content) < wanted:
        try:
            piece = peer.recv(wanted - len(content))
        except ConnectionResetError:
            return content
        if not piece:
            return content
        content += piece
        if len(content) == 6:
            wanted = 6 + int.from_bytes(content[2:6], "big")
    return content


def is_closed(peer: socket.socket) -> bool:
    """Wait for the other side to hang up, whatever it still says."""
    try:
        while peer.recv(4096):
            pass
    except ConnectionResetError:
        pass
    return True


def split(stream: bytes) -> Iterator[bytes]:
    """The PDUs of a stream."""
    while stream:
        length = 6 + int.from_bytes(stream[2:6], "big")
        yield stream[:length]
        stream = stream[length:]


def is_answered(pdu: bytes) -> bool:
    """Whether a requestor waits after this PDU: a request, or the last piece of a data set."""
    return pdu[0] in (ASSOCIATE, RELEASE) or (pdu[0] == DATA and pdu[11] & 3 == 2)


def replay(port: int, pdus: list[bytes], *, source: str = "127.0.0.2") -> list[int]:
    """Send the PDUs, waiting where a requestor waits, hang up, and return the types of the answers."""
    answers = []
    with connect(port, source=source) as peer:
        for pdu in pdus:
            try:
                peer.sendall(pdu)
            except (ConnectionResetError, BrokenPipeError):
                break
            if len(pdu) > 11 and len(pdu) == 6 + int.from_bytes(pdu[2:6], "big") and is_answered(pdu):
                answer = read_pdu(peer)
                answers.append(answer[0] if answer else 0)
    return answers


@dataclass(slots=True)
class Recorder:
    """A port that passes one connection on and remembers what the client said."""

    target: int
    port: int = 0
    stream: bytes = b""

    def __post_init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._pass_on)
        self._thread.start()

    _server: socket.socket = None  # type: ignore[assignment]
    _thread: threading.Thread = None  # type: ignore[assignment]

    def _pass_on(self) -> None:
        client, _ = self._server.accept()
        with self._server, client, connect(self.target) as target:
            back = threading.Thread(target=_pump, args=(target, client))
            back.start()
            while piece := client.recv(65536):
                self.stream += piece
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)
            back.join()

    def finish(self) -> list[bytes]:
        """The PDUs that the client sent, once it has hung up."""
        self._thread.join(20)
        return list(split(self.stream))


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while piece := source.recv(65536):
            sink.sendall(piece)
    except OSError:
        pass
