"""What every answer carries, and which requests are refused."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

_SAME_FOR_ALL = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
        " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "Permissions-Policy": (
        "accelerometer=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), magnetometer=(),"
        " microphone=(), payment=(), publickey-credentials-get=(), usb=()"
    ),
    "X-Content-Type-Options": "nosniff",
    # Not no-referrer: browsers would then send "Origin: null" with the acknowledgement.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


_A_YEAR_OF_HTTPS = "max-age=31536000"


def harden(headers: MutableHeaders, path: str, *, is_secure: bool) -> None:
    """Add the security headers. Only static files may be kept by a browser.

    is_secure: whether browsers reach us by HTTPS; then they are told to use nothing else (RFC 6797).
    """
    if is_secure:
        headers["Strict-Transport-Security"] = _A_YEAR_OF_HTTPS
    for name, value in _SAME_FOR_ALL.items():
        headers[name] = value
    headers["Cache-Control"] = "no-cache" if path.startswith("/static/") else "no-store"


def is_cross_site(method: str, headers: Headers, public_url: str) -> bool:
    """Whether another site's page made the browser send this change.

    Programs send neither Sec-Fetch-Site nor Origin, and pass. `public_url` counts as ours too: a proxy
    may have changed the Host header.
    """
    if method in SAFE_METHODS:
        return False
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc not in set(_our_names(headers, public_url))


def _our_names(headers: Headers, public_url: str) -> Iterator[str]:
    if host := headers.get("host"):
        yield host
    yield urlsplit(public_url).netloc
