"""The socket of an association: TCP or TLS, without needless waits, and against a deadline.

The sender's Nagle timer waits for our delayed acknowledgement, 40 ms at a time, whenever a PDU leaves in
two pieces. TCP_NODELAY on our side and TCP_QUICKACK, which the kernel clears and we therefore set again
after every read and every answer, take that wait away for every sender.
"""

import contextlib
import select
import socket
import ssl
import time

from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket


def hasten(raw: socket.socket) -> None:
    """Send what we have at once, and acknowledge what came at once. To be said again after each read."""
    try:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_QUICKACK"):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    except OSError:
        # The peer has hung up in the meantime; the association's own thread deals with that.
        return


def close(raw: socket.socket) -> None:
    """End a connection from any thread; whoever reads from it is told so."""
    with contextlib.suppress(OSError):
        # SSLSocket.shutdown would have a thread that still reads go on without TLS.
        socket.socket.shutdown(raw, socket.SHUT_RDWR)
    raw.close()


class Connection(AssociationSocket):
    """The socket of an association, read in whole pieces and against a deadline."""

    def __init__(self, association: Association, raw: socket.socket, silence_s: float) -> None:
        super().__init__(association, client_socket=raw)
        self._silence_s = silence_s
        raw.settimeout(silence_s)
        hasten(raw)
        # Not select(): it cannot look at a file descriptor above 1023.
        self._poll = select.poll()
        self._poll.register(raw, select.POLLIN)

    def wait(self, seconds: float) -> bool:
        """Whether something can be read, at the latest after these seconds."""
        if self.socket is None:
            return False
        if isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():
            return True
        return bool(self._poll.poll(seconds * 1000))

    @property
    def ready(self) -> bool:
        """Whether something can be read now."""
        return self.wait(0)

    def read_into(self, view: memoryview, deadline: float) -> None:
        """Fill the view. Raises OSError where the peer is gone, or is too slow for the monotonic deadline."""
        raw = self._raw()
        try:
            while view:
                raw.settimeout(max(min(deadline - time.monotonic(), self._silence_s), 0.001))
                count = raw.recv_into(view)
                if count == 0:
                    raise ConnectionResetError
                view = view[count:]
                if view and time.monotonic() > deadline:
                    raise TimeoutError
        finally:
            raw.settimeout(self._silence_s)
        hasten(raw)

    def discard(self) -> bool:
        """Read something and forget it; false once the peer is gone."""
        try:
            return bool(self._raw().recv(2**16))
        except OSError:
            return False

    def send(self, bytestream: bytes) -> None:
        """Send all of it, or put the end of the connection into the event queue."""
        super().send(bytestream)
        if self.socket is not None:
            hasten(self.socket)

    def _raw(self) -> socket.socket:
        if self.socket is None:
            raise ConnectionResetError
        return self.socket

    def _shutdown_socket(self) -> None:
        # Inherited, it forgets to close what the peer has closed already.
        if self.socket is not None:
            close(self.socket)
