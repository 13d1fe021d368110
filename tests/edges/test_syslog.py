"""A message is handed to the repository it is meant for, or the sender knows that it was not."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.conftest import until
from tests.syslog_receiver import Certificates, Repository, make_certificates
from triage.edges.syslog import SyslogConnection, open_syslog, syslog_message
from triage.errors import ConfigError, RepositoryUnavailable

Open = Callable[..., Repository]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def repository(certificates: Certificates) -> Iterator[Open]:
    with contextlib.ExitStack() as stack:

        def start(**settings) -> Repository:
            made = Repository(certificates, **settings)
            made.start()
            stack.callback(made.stop)
            return made

        yield start


@pytest.fixture
def connect(certificates: Certificates) -> Iterator[Callable[..., SyslogConnection]]:
    with contextlib.ExitStack() as stack:

        def open_one(receiver: Repository, **files: Path) -> SyslogConnection:
            connection = open_syslog(receiver.address, **{"ca": certificates.ca} | files)
            stack.callback(connection.close)
            return connection

        yield open_one


def test_a_message_has_the_header_of_rfc_5424_and_a_byte_order_mark() -> None:
    message = syslog_message("<a>ü</a>".encode(), at=datetime(2026, 3, 1, 8, tzinfo=UTC), host="stroke1")
    header, body = message.split(b"\xef\xbb\xbf")
    assert header == b"<85>1 2026-03-01T08:00:00.000Z stroke1 triage - DICOM+RFC3881 - "
    assert body.decode() == "<a>ü</a>"


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_messages_arrive_whole_and_in_order_on_one_connection(
    repository: Open, connect, newest: ssl.TLSVersion
) -> None:
    receiver = repository(newest=newest)
    connection = connect(receiver)
    sent = [b"one", b"two\n3 x", b"", b"x" * 100_000, "vier ü".encode()]
    for message in sent:
        connection.send(message)
    until(lambda: len(receiver.messages) == len(sent), what="the messages")
    assert receiver.messages == sent
    assert receiver.connections == 1


def test_an_old_tls_is_not_spoken(repository: Open, connect) -> None:
    with pytest.warns(DeprecationWarning, match="deprecated"):
        receiver = repository(newest=ssl.TLSVersion.TLSv1_1)
    with pytest.raises(RepositoryUnavailable, match="took no message"):
        connect(receiver).send(b"one")
    assert receiver.messages == []


def test_a_repository_that_nobody_vouches_for_gets_nothing(
    repository: Open, connect, certificates: Certificates
) -> None:
    receiver = repository()
    with pytest.raises(RepositoryUnavailable, match="verify failed"):
        connect(receiver, ca=certificates.stranger).send(b"one")
    assert receiver.messages == []


def test_a_repository_under_another_name_gets_nothing(
    repository: Open, connect, certificates: Certificates
) -> None:
    receiver = repository(server=certificates.other_host)
    with pytest.raises(RepositoryUnavailable, match="IP address mismatch"):
        connect(receiver).send(b"one")
    assert receiver.messages == []


def test_our_certificate_is_shown_to_who_demands_it(
    repository: Open, connect, certificates: Certificates
) -> None:
    receiver = repository(demands_client=True)
    connect(receiver, certificate=certificates.client, key=certificates.client_key).send(b"one")
    until(lambda: receiver.messages == [b"one"], what="the message")


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("shows", [True, False])
def test_a_refused_certificate_is_a_failure_and_not_a_lost_message(
    repository: Open, connect, certificates: Certificates, newest: ssl.TLSVersion, shows: bool
) -> None:
    receiver = repository(demands_client=True, newest=newest)
    files = {"certificate": certificates.stranger_client, "key": certificates.stranger_client_key}
    connection = connect(receiver, **(files if shows else {}))
    for _ in range(2):
        with pytest.raises(RepositoryUnavailable, match="took no message"):
            connection.send(b"one")
    assert receiver.messages == []


def test_a_connection_that_the_repository_closed_is_opened_again(repository: Open, connect) -> None:
    receiver = repository()
    connection = connect(receiver)
    connection.send(b"one")
    until(lambda: receiver.messages == [b"one"], what="the first message")
    receiver.stop()
    with pytest.raises(RepositoryUnavailable, match="took no message"):
        connection.send(b"two")
    receiver.start()
    connection.send(b"two")
    connection.send(b"three")
    until(lambda: receiver.messages == [b"one", b"two", b"three"], what="all messages")
    assert receiver.connections == 2


def test_a_machine_that_acknowledges_nothing_has_not_taken_the_message(certificates: Certificates) -> None:
    # Its receive window is full: like a machine that vanished, it acknowledges no further byte.
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    server_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_tls.load_cert_chain(certificates.server)
    done = threading.Event()

    def shake_hands_and_stare() -> None:
        plain, _ = listener.accept()
        with plain, contextlib.suppress(OSError), server_tls.wrap_socket(plain, server_side=True):
            done.wait(60)

    thread = threading.Thread(target=shake_hands_and_stare, daemon=True)
    thread.start()
    client_tls = ssl.create_default_context(cafile=certificates.ca)
    connection = SyslogConnection("127.0.0.1", listener.getsockname()[1], client_tls, timeout_s=1.0)
    with pytest.raises(RepositoryUnavailable, match=r"not acknowledged|timed out"):
        connection.send(b"x" * 20_000)
    connection.close()
    done.set()
    thread.join(30)
    listener.close()


def test_nobody_there_is_said_so(connect, certificates: Certificates) -> None:
    with pytest.raises(RepositoryUnavailable, match="refused"):
        connect(Repository(certificates)).send(b"one")


@pytest.mark.parametrize("wrong", ["ca", "certificate"])
def test_a_file_that_is_no_certificate_is_a_mistake_in_the_configuration(tmp_path: Path, wrong: str) -> None:
    (tmp_path / "x.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match="audit: a certificate file cannot be used"):
        open_syslog("127.0.0.1:6514", **{wrong: tmp_path / "x.pem"})
    with pytest.raises(ConfigError, match="No such file"):
        open_syslog("127.0.0.1:6514", **{wrong: tmp_path / "none.pem"})


def test_a_port_that_is_none_is_a_mistake_in_the_configuration() -> None:
    with pytest.raises(ConfigError, match="expected a port from 1 to 65535"):
        open_syslog("[::1]:70000")
