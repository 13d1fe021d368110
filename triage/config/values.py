"""The values that settings are made of: addresses, AE titles, URLs, numbers. Each is checked when read."""

import ipaddress
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """Where a DICOM peer listens. Written `AET@host:port`; an IPv6 host stands in brackets.

    >>> str(parse_peer_address("PACS@[2001:db8::5]:104"))
    'PACS@[2001:db8::5]:104'
    """

    ae_title: str
    host: str
    port: int

    def __post_init__(self) -> None:
        check_ae_title(self.ae_title)
        if not self.host or re.search(r"[\s\[\]@]", self.host):
            raise ValueError(f"expected a host name or an IP address, got {self.host!r}")
        if not 1 <= self.port <= 65535:
            raise ValueError(f"expected a port from 1 to 65535, got {self.port}")

    def __str__(self) -> str:
        return f"{self.ae_title}@{bracketed(self.host)}:{self.port}"


def parse_peer_address(text: str) -> PeerAddress:
    """The peer that `AET@host:port` names. Raises ValueError saying what was expected.

    >>> parse_peer_address("PACS@10.0.0.5:104")
    PeerAddress(ae_title='PACS', host='10.0.0.5', port=104)
    """
    ae_title, _, endpoint = text.rpartition("@")
    parts = re.fullmatch(r"(?:\[([^\]]+)\]|([^:\[\]]+)):([0-9]{1,5})", endpoint)
    if parts is None or not ae_title:
        raise ValueError("expected AET@host:port, an IPv6 host in brackets: PACS@[2001:db8::5]:104")
    return PeerAddress(ae_title, parts[1] or parts[2], int(parts[3]))


def check_ae_title(text: str) -> str:
    """The AE title, unchanged. Raises ValueError outside PS3.5 section 6.2, VR AE.

    >>> check_ae_title("TRIAGE")
    'TRIAGE'
    """
    if not re.fullmatch(r"[!-\[\]-~](?:[ -\[\]-~]{0,14}[!-\[\]-~])?", text):
        raise ValueError(
            "expected an AE title: 1 to 16 ASCII characters, no backslash, no space at either end"
        )
    return text


def _refuse_truth_value(value: object) -> object:
    # Python counts `true` as 1; a configuration does not.
    if isinstance(value, bool):
        raise ValueError("expected a number")
    return value


def refuse_empty_folder(value: object) -> object:
    # Path("") is the working directory, which nobody means.
    if value == "":
        raise ValueError("expected a folder")
    return value


def empty_is_none(value: object) -> object:
    return None if value == "" else value


def peer_or_none(value: object) -> object:
    if value == "" or value is None or isinstance(value, PeerAddress):
        return value or None
    if not isinstance(value, str):
        raise ValueError("expected AET@host:port")
    return parse_peer_address(value)


def split_urls(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return _json_list(value)
    # A URL may hold commas itself (several mail recipients): only one before a scheme separates.
    return [url for url in re.split(r"[\s,]+(?=[A-Za-z][A-Za-z0-9+.-]*://)", value.strip(", \t\n")) if url]


def _json_list(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        # No cause: the exception carries the text, and the text carries the secrets.
        raise ValueError("expected a JSON list of URLs, or URLs separated by commas") from None


def split_words(value: object) -> object:
    return re.split(r"\s*,\s*", value.strip(", ")) if isinstance(value, str) and value else value or ()


def split_rungs(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value or "[]")
    except json.JSONDecodeError:
        raise ValueError(
            'expected JSON: [{"contacts": [{"name": "Physician", "urls": ["ntfy://..."]}], "wait_s": 180}]'
        ) from None


def check_allowed_ae(text: str) -> str:
    return text if text == "*" else check_ae_title(text)


def check_network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        raise ValueError(
            f"expected addresses such as 10.0.0.5 or networks such as 10.1.0.0/16, got {text!r}"
        ) from None


def _check_alert_url(url: SecretStr) -> SecretStr:
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://\S", url.get_secret_value()):
        raise ValueError("expected apprise URLs, such as mailto://... or ntfy://...")
    return url


Number = BeforeValidator(_refuse_truth_value)
Port = Annotated[int, Number, Field(ge=0, le=65535)]
Count = Annotated[int, Number, Field(ge=1)]
Seconds = Annotated[float, Number, Field(gt=0)]
AeTitle = Annotated[str, AfterValidator(check_ae_title)]
Host = Annotated[str, Field(min_length=1)]
AlertUrl = Annotated[SecretStr, AfterValidator(_check_alert_url)]
AlertUrls = Annotated[tuple[AlertUrl, ...], BeforeValidator(split_urls)]
FileOrNone = Annotated[Path | None, BeforeValidator(empty_is_none)]


def bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_tls_pair(certificate: Path | None, key: Path | None) -> None:
    if (certificate is None) != (key is None):
        raise ValueError("expected tls_certificate and tls_key together")
