"""TLS for the SCP: the BCP 195 RFC 8996, 9325 profile of PS3.15 B.12."""

import ssl
from dataclasses import dataclass
from pathlib import Path

from triage.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files: our certificate with its chain, its key, and whose client certificates are demanded."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


def server_context(tls: Tls) -> ssl.SSLContext:
    """A context for the accepting side: TLS 1.2 or 1.3, forward secrecy and authenticated encryption only.

    Raises ConfigError naming the key whose file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # RFC 9325 4.2 for TLS 1.2; the suites of TLS 1.3 are what OpenSSL has. No renegotiation: RFC 9325 3.5.
    context.set_ciphers("ECDHE+AESGCM")
    context.options |= ssl.OP_NO_RENEGOTIATION
    _load_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), "dicom.tls_certificate", tls.certificate)
    _check_readable("dicom.tls_key", tls.key)
    try:
        # An encrypted key would have OpenSSL ask for its password on the terminal.
        context.load_cert_chain(tls.certificate, tls.key, password="")
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            f"dicom.tls_key: {tls.key} is not the unencrypted PEM key of dicom.tls_certificate"
        ) from error
    if tls.client_ca is not None:
        _load_authorities(context, "dicom.tls_client_ca", tls.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _load_authorities(context: ssl.SSLContext, key: str, path: Path) -> None:
    _check_readable(key, path)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise ConfigError(f"{key}: {path} holds no PEM certificate") from error


def _check_readable(key: str, path: Path) -> None:
    try:
        path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{key}: {path} cannot be read: {error.strerror}") from error
