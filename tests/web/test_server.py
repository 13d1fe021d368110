"""How the application is served: over TLS, and behind a proxy."""

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn

from tests.conftest import ROOT, free_port, tool
from tests.web.conftest import PASSWORD, READER, START, Site
from triage.config import Config, load
from triage.core.access import Role
from triage.errors import ConfigError
from triage.web import server
from triage.web.server import check_tls, settings


@contextmanager
def served(site: Site) -> Iterator[str]:
    config = settings(site.app, site.line.config)
    config.lifespan = "off"
    web_server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=web_server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            web_server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = [
        tool("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
        "-nodes", "-days", "2", "-subj", "/CN=triage", "-addext", "subjectAltName=IP:127.0.0.1",
        "-addext", "keyUsage=critical,digitalSignature,keyCertSign", "-out", str(certificate),
        "-keyout", str(key),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


def with_tls(certificate: Path, key: Path) -> Config:
    return load(None, {"TRIAGE_HTTP__TLS_CERTIFICATE": str(certificate), "TRIAGE_HTTP__TLS_KEY": str(key)})


def test_a_login_over_https(site: Site, pair: tuple[Path, Path]) -> None:
    certificate, key = pair
    site.configure(HTTP__TLS_CERTIFICATE=str(certificate), HTTP__TLS_KEY=str(key))
    site.line.accounts.add(READER, PASSWORD, Role.READER, START)
    trust = ssl.create_default_context(cafile=certificate)
    with served(site) as address, httpx.Client(base_url=f"https://{address}", verify=trust) as browser:
        answer = browser.post("/login", data={"name": READER, "password": PASSWORD})
        assert answer.headers["set-cookie"].startswith("__Host-triage=")
        assert "; Secure" in answer.headers["set-cookie"]
        assert browser.get("/").status_code == 200
        assert "max-age=" in answer.headers["strict-transport-security"]
        assert "server" not in answer.headers


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_tls_is_refused(site: Site, pair: tuple[Path, Path]) -> None:
    site.configure(HTTP__TLS_CERTIFICATE=str(pair[0]), HTTP__TLS_KEY=str(pair[1]))
    assert settings(site.app, site.line.config).ssl is not None
    with served(site) as address:
        host, port = address.split(":")
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.set_ciphers("ALL:@SECLEVEL=0")
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        with (
            socket.create_connection((host, int(port))) as plain,
            pytest.raises((ssl.SSLError, ConnectionError), match=r"(?i)protocol|alert|reset"),
        ):
            old.wrap_socket(plain)


def test_a_pair_that_fits_is_taken(pair: tuple[Path, Path]) -> None:
    check_tls(with_tls(*pair))
    check_tls(Config())


@pytest.mark.parametrize("broken", ["missing", "empty", "another key", "a key with a password"])
def test_files_that_cannot_be_used_stop_the_start(
    pair: tuple[Path, Path], tmp_path: Path, broken: str
) -> None:
    certificate, key = pair
    wrong = tmp_path / "wrong.pem"
    if broken == "empty":
        wrong.touch()
    elif broken != "missing":
        curve = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        locked = ["-aes256", "-pass", "pass:secret"] if "password" in broken else []
        command = [tool("openssl"), "genpkey", *curve, *locked, "-out", str(wrong)]
        subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(ConfigError, match=r"http\.tls_certificate, http\.tls_key: .* cannot be used \("):
        check_tls(with_tls(certificate, wrong))
    if broken in ("missing", "empty"):
        with pytest.raises(ConfigError, match=r"cannot be used \("):
            check_tls(with_tls(wrong, key))


def test_a_proxy_on_this_machine_says_who_asks(site: Site) -> None:
    site.line.accounts.add(READER, PASSWORD, Role.READER, START)
    with served(site) as address, httpx.Client(base_url=f"http://{address}") as proxy:

        def tries(client: str, password: str) -> int:
            form = {"name": f"{client}", "password": password}
            return proxy.post("/login", data=form, headers={"X-Forwarded-For": client}).status_code

        for number in range(5):
            form = {"name": f"name {number}", "password": "wrong"}
            proxy.post("/login", data=form, headers={"X-Forwarded-For": "10.0.0.1"})
        assert tries("10.0.0.1", "wrong") == 429
        assert tries("10.0.0.2", "wrong") == 403


def test_the_proxy_that_is_trusted_is_this_machine(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    assert settings(site.app, site.line.config).forwarded_allow_ips == ["127.0.0.1/32", "::1/128"]


def test_a_connection_that_asks_for_nothing_is_closed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_SILENCE_S", 0.3)
    with served(site) as address:
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), timeout=20) as silent:
            silent.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
            assert silent.recv(1) == b""
        with httpx.Client(base_url=f"http://{address}") as browser:
            assert browser.get("/healthz").status_code == 200


def test_the_sample_of_a_proxy_sends_what_we_trust() -> None:
    sample = (ROOT / "deploy" / "nginx.conf").read_text()
    for directive in (
        "proxy_pass http://127.0.0.1:8080;",
        "proxy_set_header X-Forwarded-For $remote_addr;",
        "proxy_set_header Host $host;",
        "ssl_protocols TLSv1.2 TLSv1.3;",
        "access_log off;",
    ):
        assert directive in sample


def test_the_port_can_be_chosen(site: Site) -> None:
    port = free_port()
    site.configure(HTTP__PORT=str(port))
    assert settings(site.app, site.line.config).port == port
