"""Serving the application: plain HTTP for this machine or a proxy, or HTTPS."""

import signal
import ssl

import uvicorn
from fastapi import FastAPI

from triage.config import Config
from triage.errors import ConfigError

# The proxy of deploy/nginx.conf runs on this machine. From anywhere else X-Forwarded-For is a claim.
_TRUSTED_PROXIES = "127.0.0.1,::1"


def check_tls(config: Config) -> None:
    """Raises ConfigError where certificate and key cannot be used."""
    http = config.http
    if http.tls_certificate is None:
        return
    try:
        # Without a password of ours, OpenSSL would ask for one on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            http.tls_certificate, http.tls_key, lambda: ""
        )
    except OSError as error:
        reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigError(
            f"http.tls_certificate, http.tls_key: {http.tls_certificate} and {http.tls_key} cannot be used"
            f" ({reason}). Expected PEM files that belong together, readable by this user, the key without"
            " a password."
        ) from error


def serve(app: FastAPI, config: Config) -> None:
    """Answer until SIGINT or SIGTERM."""
    # uvicorn raises the signal that ended it once more; the rest of the service must still be stopped.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    uvicorn.Server(settings(app, config)).run()


def settings(app: FastAPI, config: Config) -> uvicorn.Config:
    """How the application is served."""
    http = config.http
    found = uvicorn.Config(
        app,
        host=http.host,
        port=http.port,
        log_level="warning",
        # Paths of the API carry UIDs.
        access_log=False,
        timeout_graceful_shutdown=5,
        ws="none",
        server_header=False,
        forwarded_allow_ips=_TRUSTED_PROXIES,
        ssl_certfile=http.tls_certificate,
        ssl_keyfile=http.tls_key,
    )
    found.load()
    if found.ssl is not None:
        found.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    return found
