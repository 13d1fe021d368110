"""An audit record repository: a syslog receiver over TLS (RFC 5425), with certificates of its own."""

import ipaddress
import socket
import ssl
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files: an authority, and what it vouches for. `stranger` is an authority nobody knows."""

    ca: Path
    server: Path
    client: Path
    client_key: Path
    other_host: Path
    stranger: Path
    stranger_client: Path
    stranger_client_key: Path


def make_certificates(folder: Path) -> Certificates:
    folder.mkdir(exist_ok=True)
    authority, stranger = _Authority("authority"), _Authority("stranger")
    return Certificates(
        ca=_write(folder / "ca.pem", authority.pem),
        server=_write(folder / "server.pem", *authority.issue("127.0.0.1")),
        client=_write(folder / "client.pem", (issued := authority.issue("10.0.0.1"))[0]),
        client_key=_write(folder / "client.key", issued[1]),
        other_host=_write(folder / "other.pem", *authority.issue("127.0.0.2")),
        stranger=_write(folder / "stranger.pem", stranger.pem),
        stranger_client=_write(folder / "stranger-client.pem", (strange := stranger.issue("10.0.0.1"))[0]),
        stranger_client_key=_write(folder / "stranger-client.key", strange[1]),
    )


class _Authority:
    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        self._certificate = (
            _begun(self._name, self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def pem(self) -> bytes:
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, address: str) -> tuple[bytes, bytes]:
        """Certificate and key of a host."""
        key = ec.generate_private_key(ec.SECP256R1())
        host = x509.IPAddress(ipaddress.ip_address(address))
        certificate = (
            _begun(_named(address), self._name, key.public_key())
            .add_extension(x509.SubjectAlternativeName([host]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return certificate.public_bytes(serialization.Encoding.PEM), pem


def _begun(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _write(path: Path, *parts: bytes) -> Path:
    path.write_bytes(b"".join(parts))
    return path


class Repository:
    """Takes messages from `start` to `stop`, and can be started again at the same port.

    closes_after: so many messages after which it ends the connection, once. resets: rudely.
    """

    def __init__(
        self,
        certificates: Certificates,
        *,
        server: Path | None = None,
        demands_client: bool = False,
        newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
        closes_after: int | None = None,
        resets: bool = False,
    ) -> None:
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates.ca)
        self._tls.minimum_version = min(newest, ssl.TLSVersion.TLSv1_2)
        self._tls.maximum_version = newest
        self._tls.load_cert_chain(server or certificates.server)
        self._tls.verify_mode = ssl.CERT_REQUIRED if demands_client else ssl.CERT_NONE
        self._closes_after = closes_after
        self._resets = resets
        self._open: list[socket.socket] = []
        self._listener = socket.socket()
        self._threads: list[threading.Thread] = []
        self.messages: list[bytes] = []
        self.connections = 0
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = int(probe.getsockname()[1])

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._thread(self._accept, self._listener)

    def stop(self) -> None:
        """Close the port and every connection."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(30)
        self._threads.clear()

    def _thread(self, work, *arguments) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            self._open.append(plain)
            self._thread(self._serve, plain)

    def _serve(self, plain: socket.socket) -> None:
        try:
            with self._tls.wrap_socket(plain, server_side=True) as connection:
                self._open.append(connection)
                self.connections += 1
                self._read(connection)
        except OSError:
            plain.close()

    def _read(self, connection: ssl.SSLSocket) -> None:
        received = b""
        while True:
            length, space, rest = received.partition(b" ")
            if space and len(rest) >= int(length):
                self.messages.append(rest[: int(length)])
                received = rest[int(length) :]
                if self._closes_after == len(self.messages):
                    self._closes_after = None
                    self._end(connection)
                    return
                continue
            piece = connection.recv(4096)
            if not piece:
                return
            received += piece

    def _end(self, connection: ssl.SSLSocket) -> None:
        if self._resets:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            with suppress(OSError):
                connection.unwrap()
