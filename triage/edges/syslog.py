"""Hand messages to a syslog receiver over TLS (RFC 5425), as DICOM asks for audit messages (PS3.15 A.6).

RFC 5425 has no acknowledgement. A message that was written to a connection may be lost with it, and neither
TLS nor TCP tells the sender. What can be known is made use of:

- Before each message the connection is looked at: a receiver that has closed its side, politely or not, is
  connected to again, and the message goes to the new connection.
- A new connection is used once the receiver has said something or half a second has passed: one that refuses
  our certificate says so only after the handshake has ended for us (TLS 1.3).
- A message counts as handed over when the TCP of the other machine has acknowledged all of it. A machine that
  vanished, or a firewall that forgot the connection, is noticed by that, and the message is sent again.

What remains is a receiver that dies after its machine took a message and before it read it. The other way
round, a message whose acknowledgement was lost is sent twice: the two are the same to the byte.
"""

import contextlib
import fcntl
import re
import select
import socket
import ssl
import struct
import termios
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from triage.errors import ConfigError, RepositoryUnavailable

_BOM: Final = b"\xef\xbb\xbf"
_PRIORITY: Final = 10 * 8 + 5
"""Security or authorization message, normal but significant (PS3.15 A.6)."""
_TIMEOUT_S = 10.0
_REFUSAL_S = 0.5
_LOOK_AGAIN_S = 0.002


class SyslogConnection:
    """A connection that is opened when there is something to send, and kept. Not for several threads."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext, timeout_s: float = _TIMEOUT_S) -> None:
        self._address = (host, port)
        self._tls = tls
        self._timeout_s = timeout_s
        self._socket: ssl.SSLSocket | None = None

    def send(self, message: bytes) -> None:
        """The other machine has the message.

        Raises RepositoryUnavailable if that cannot be said; then it may be sent again, and arrive twice.
        """
        try:
            connection = self._open()
            # RFC 5425 4.3: octet counting, because a message may hold any character.
            connection.sendall(b"%d %s" % (len(message), message))
            self._wait_until_taken(connection)
        except (OSError, ValueError) as error:
            self._drop()
            # The text of a TLS error names certificates and hosts, never what was sent.
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise RepositoryUnavailable(f"the audit record repository took no message: {reason}") from error

    def close(self) -> None:
        """Say goodbye (RFC 5425 4.4) and close."""
        if self._socket is not None:
            with contextlib.suppress(OSError, ValueError):
                self._socket.settimeout(1.0)
                self._socket.unwrap().close()
        self._drop()

    def _open(self) -> ssl.SSLSocket:
        if self._socket is not None and _is_closed_by_peer(self._socket, self._timeout_s):
            self._drop()
        if self._socket is None:
            self._socket = self._connect()
            # Not select(): it cannot look at a file descriptor above 1023.
            poll = select.poll()
            poll.register(self._socket, select.POLLIN)
            readable = poll.poll(_REFUSAL_S * 1000)
            if readable and _is_closed_by_peer(self._socket, self._timeout_s):
                raise ConnectionError("closed after the handshake; does it take our certificate?")
        return self._socket

    def _connect(self) -> ssl.SSLSocket:
        plain = socket.create_connection(self._address, self._timeout_s)
        try:
            return self._tls.wrap_socket(plain, server_hostname=self._address[0])
        except BaseException:
            plain.close()
            raise

    def _wait_until_taken(self, connection: ssl.SSLSocket) -> None:
        deadline = time.monotonic() + self._timeout_s
        while True:
            # In this order: what is acknowledged and then refused has not been taken.
            unacknowledged = _unacknowledged_bytes(connection)
            if _is_closed_by_peer(connection, self._timeout_s):
                raise ConnectionError("closed while a message was on its way")
            if not unacknowledged:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"not acknowledged within {self._timeout_s:g} s")
            time.sleep(_LOOK_AGAIN_S)

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def open_syslog(
    address: str, *, ca: Path | None = None, certificate: Path | None = None, key: Path | None = None
) -> SyslogConnection:
    """A connection to `host:port`, not opened yet: TLS 1.2 or newer, the receiver's name checked.

    ca: PEM file of the authorities that vouch for it, or None for those of the machine.
    certificate, key: PEM files of our own, where the receiver demands one.
    Raises ConfigError for a file that cannot be used.
    """
    try:
        tls = ssl.create_default_context(cafile=ca)
        if certificate is not None:
            tls.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ConfigError(
            f"audit: a certificate file cannot be used ({reason})."
            " Check syslog_ca, tls_certificate and tls_key: PEM, readable, key without a passphrase."
        ) from error
    tls.minimum_version = ssl.TLSVersion.TLSv1_2
    host, _, port = address.rpartition(":")
    if not 0 < int(port) < 2**16:
        raise ConfigError(f"audit.syslog_address = {address!r}: expected a port from 1 to 65535.")
    return SyslogConnection(host.strip("[]"), int(port), tls)


def syslog_message(text: bytes, *, at: datetime, host: str) -> bytes:
    """The text in UTF-8 under a header of RFC 5424.

    The header says nothing that changes from one try to the next. MSGID is the one that PS3.15 A.6 gives for
    messages of the DICOM schema; IHE+RFC-3881 is for those of IHE transactions, which ours are not.

    >>> syslog_message(b"<a/>", at=datetime(2026, 1, 1, tzinfo=UTC), host="stroke 1")
    b'<85>1 2026-01-01T00:00:00.000Z stroke_1 triage - DICOM+RFC3881 - \\xef\\xbb\\xbf<a/>'
    """
    time_stamp = at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    name = re.sub("[^\x21-\x7e]", "_", host)[:255] or "-"
    header = f"<{_PRIORITY}>1 {time_stamp} {name} triage - DICOM+RFC3881 - "
    return header.encode("ascii") + _BOM + text


def _is_closed_by_peer(connection: ssl.SSLSocket, timeout_s: float) -> bool:
    """Whether the other side has ended the connection. It has nothing else to say (RFC 5425)."""
    connection.settimeout(0.0)
    try:
        return not connection.recv(4096)
    except ssl.SSLWantReadError:
        return False
    except OSError:
        return True
    finally:
        with contextlib.suppress(OSError):
            connection.settimeout(timeout_s)


def _unacknowledged_bytes(connection: ssl.SSLSocket) -> int:
    """What the other machine's TCP has not acknowledged yet (SIOCOUTQ of Linux's tcp(7))."""
    answer = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
    return int(struct.unpack("i", answer)[0])


def _no_password() -> str:
    # Otherwise OpenSSL would ask for it on the terminal.
    raise ValueError("the key has a passphrase")
