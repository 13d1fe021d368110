"""DICOM over TLS, against DCMTK and against those who have no business here."""

import contextlib
import datetime
import socket
import ssl
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from tests.conftest import tool, until
from tests.edges.conftest import Listen, Receiver, Study
from tests.edges.wire import ACCEPT, association_request, connect, is_closed, read_pdu
from triage.edges.dimse import Admission, Status, Tls, start_scp
from triage.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Files:
    """PEM files of an authority, the server, a client that it knows and one that it does not."""

    authority: Path
    server: Tls
    demanding: Tls
    client: Tls
    stranger: Tls
    encrypted_key: Path


class Authority:
    """Signs certificates for 127.0.0.1."""

    def __init__(self, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self.signed(self.name, self.key, is_authority=True)

    def signed(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, *, is_authority: bool = False
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        )
        return builder.sign(self.key, SHA256())

    def issue(self, folder: Path, name: str) -> Tls:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate_path, key_path = folder / f"{name}.pem", folder / f"{name}.key"
        certificate_path.write_bytes(self.signed(subject, key).public_bytes(Encoding.PEM))
        key_path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return Tls(certificate_path, key_path)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("tls")
    ours = Authority("hospital")
    authority = folder / "authority.pem"
    authority.write_bytes(ours.certificate.public_bytes(Encoding.PEM))
    server = ours.issue(folder, "server")
    encrypted = folder / "encrypted.key"
    encrypted.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
        )
    )
    return Files(
        authority=authority,
        server=server,
        demanding=Tls(server.certificate, server.key, authority),
        client=ours.issue(folder, "client"),
        stranger=Authority("elsewhere").issue(folder, "stranger"),
        encrypted_key=encrypted,
    )


def storescu(receiver: Receiver, study: Study, *options: str) -> "subprocess.CompletedProcess[str]":
    command = [tool("storescu"), *options, "-aec", "TRIAGE", "127.0.0.1", str(receiver.port)]
    return subprocess.run(
        [*command, *map(str, study.paths)], capture_output=True, text=True, timeout=60, check=False
    )


def client_context(files: Files) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(files.authority)
    return context


def secured(receiver: Receiver, context: ssl.SSLContext) -> ssl.SSLSocket:
    return context.wrap_socket(connect(receiver.port), server_hostname="localhost")


def test_dcmtk_sends_without_a_certificate_where_none_is_demanded(
    listen: Listen, files: Files, study: Study
) -> None:
    receiver = listen(tls=files.server)
    done = storescu(receiver, study, "+tla", "+cf", str(files.authority))
    assert done.returncode == 0, done.stderr
    assert len(receiver.received) == 2


@pytest.mark.parametrize("profile", ["+py", "+px", "+pz"])
def test_dcmtk_sends_with_its_certificate_in_each_bcp_195_profile(
    listen: Listen, files: Files, study: Study, profile: str
) -> None:
    receiver = listen(tls=files.demanding)
    ours = ("+tls", str(files.client.key), str(files.client.certificate), "+cf", str(files.authority))
    done = storescu(receiver, study, *ours, profile)
    assert done.returncode == 0, done.stderr
    assert len(receiver.received) == 2


def test_a_sender_without_the_certificate_that_is_demanded_is_refused(
    listen: Listen, files: Files, study: Study, caplog
) -> None:
    receiver = listen(tls=files.demanding)
    assert storescu(receiver, study, "+tla", "+cf", str(files.authority)).returncode != 0
    theirs = ("+tls", str(files.stranger.key), str(files.stranger.certificate), "+cf", str(files.authority))
    assert storescu(receiver, study, *theirs).returncode != 0
    assert receiver.received == []
    reasons = ("PEER_DID_NOT_RETURN_A_CERTIFICATE", "CERTIFICATE_VERIFY_FAILED")
    lines = [f"tls_refused address=127.0.0.1 reason={reason}" for reason in reasons]
    until(lambda: all(line in caplog.text for line in lines), what="the log")


def test_a_sender_without_tls_is_refused(listen: Listen, files: Files, study: Study, caplog) -> None:
    receiver = listen(tls=files.server)
    with connect(receiver.port) as plain:
        plain.sendall(association_request())
        assert is_closed(plain)
    assert storescu(receiver, study).returncode != 0
    assert receiver.received == []
    until(lambda: caplog.text.count("tls_refused address=127.0.0.1") == 2, what="the log")


def test_tls_on_a_plain_port_is_refused(listen: Listen, files: Files) -> None:
    receiver = listen()
    with pytest.raises(OSError, match=r"EOF|reset|WRONG_VERSION"):
        secured(receiver, client_context(files))


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
def test_tls_1_1_is_refused(listen: Listen, files: Files, caplog) -> None:
    receiver = listen(tls=files.server)
    old = client_context(files)
    # At OpenSSL's usual level the client itself would have nothing to offer.
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        secured(receiver, old)
    until(lambda: "reason=UNSUPPORTED_PROTOCOL" in caplog.text, what="the log")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3_keep_their_secrets_forward(listen: Listen, files: Files, version) -> None:
    receiver = listen(tls=files.server)
    context = client_context(files)
    context.minimum_version = context.maximum_version = version
    with secured(receiver, context) as peer:
        peer.sendall(association_request())
        assert read_pdu(peer)[0] == ACCEPT
        cipher = peer.cipher()
    assert cipher is not None
    assert cipher[0].startswith(("ECDHE-", "TLS_"))


def test_a_cipher_without_forward_secrecy_is_refused(listen: Listen, files: Files) -> None:
    receiver = listen(tls=files.server)
    weak = client_context(files)
    weak.maximum_version = ssl.TLSVersion.TLSv1_2
    weak.set_ciphers("ECDHE+AES+SHA256:ECDHE+SHA1:AES256-GCM-SHA384")
    with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
        secured(receiver, weak)


def test_fifty_half_open_handshakes_leave_others_alone(listen: Listen, files: Files, study: Study) -> None:
    receiver = listen(tls=files.server, max_associations=20, max_associations_per_peer=60)
    with contextlib.ExitStack() as stack:
        halves = [stack.enter_context(connect(receiver.port)) for _ in range(50)]
        for half in halves:
            half.sendall(b"\x16\x03\x01\x02")
        began = time.monotonic()
        done = storescu(receiver, study, "+tla", "+cf", str(files.authority))
        assert done.returncode == 0, done.stderr
        assert time.monotonic() - began < 10
        for half in halves:
            half.setblocking(False)
            with pytest.raises(BlockingIOError):
                half.recv(1)


def test_a_handshake_that_does_not_end_is_ended(listen: Listen, files: Files, caplog) -> None:
    receiver = listen(tls=files.server, silence_s=0.5)
    with connect(receiver.port) as half:
        half.sendall(b"\x16\x03\x01\x02")
        assert is_closed(half)
    until(lambda: "tls_refused address=127.0.0.1 reason=TimeoutError" in caplog.text, what="the log")


def test_a_stop_cuts_handshakes_short(listen: Listen, files: Files) -> None:
    receiver = listen(tls=files.server)
    with connect(receiver.port) as half:
        half.sendall(b"\x16\x03\x01\x02")
        until(lambda: receiver.scp.server._open, what="the connection")
        receiver.scp.stop()
        assert is_closed(half)


@pytest.mark.parametrize(
    ("certificate", "key", "client_ca", "complaint"),
    [
        ("missing", "key", None, r"dicom\.tls_certificate: .* cannot be read: No such file"),
        ("key", "key", None, r"dicom\.tls_certificate: .* holds no PEM certificate"),
        ("empty", "key", None, r"dicom\.tls_certificate: .* holds no PEM certificate"),
        ("certificate", "missing", None, r"dicom\.tls_key: .* cannot be read: No such file"),
        ("certificate", "certificate", None, r"dicom\.tls_key: .* is not the unencrypted PEM key"),
        ("certificate", "other", None, r"dicom\.tls_key: .* is not the unencrypted PEM key"),
        ("certificate", "encrypted", None, r"dicom\.tls_key: .* is not the unencrypted PEM key"),
        ("certificate", "key", "missing", r"dicom\.tls_client_ca: .* cannot be read: No such file"),
        ("certificate", "key", "key", r"dicom\.tls_client_ca: .* holds no PEM certificate"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_before_the_port_is_open(
    files: Files, tmp_path: Path, certificate, key, client_ca, complaint
) -> None:
    (tmp_path / "empty").touch()
    paths = {
        "certificate": files.server.certificate,
        "key": files.server.key,
        "other": files.client.key,
        "encrypted": files.encrypted_key,
        "empty": tmp_path / "empty",
        "missing": tmp_path / "missing",
    }
    tls = Tls(paths[certificate], paths[key], paths[client_ca] if client_ca else None)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError, match=complaint):
        start_scp(
            ae_title="TRIAGE",
            host="127.0.0.1",
            port=taken.getsockname()[1],
            store=lambda _: Status.SUCCESS,
            admission=Admission(),
            tls=tls,
        )
