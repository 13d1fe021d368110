"""Serving the application: plain HTTP for this machine or a proxy, or HTTPS."""

import signal
import ssl
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from triage.config import Config
from triage.errors import ConfigError

# How long a connection may be open before it has asked for anything.
_SILENCE_S = 10.0


class _Attentive(H11Protocol):
    """One browser's connection, closed where it says nothing: it would keep a descriptor from a sender."""

    def connection_made(self, transport: Any) -> None:
        """Wait for the first request, but not for ever."""
        super().connection_made(transport)
        self.loop.call_later(_SILENCE_S, self._close_where_silent)

    def _close_where_silent(self) -> None:
        cycle: object = self.cycle
        if cycle is None:
            self.transport.close()


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
        forwarded_allow_ips=list(http.trusted_proxies),
        h11_max_incomplete_event_size=2**16,
        http=_Attentive,
        ssl_certfile=http.tls_certificate,
        ssl_keyfile=http.tls_key,
    )
    found.load()
    if found.ssl is not None:
        found.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    return found
