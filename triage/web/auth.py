"""Who asks, and whether they may: decided before any page is looked for.

Nothing is open unless `is_public` says so. Whoever asks shows either a token in `Authorization: Bearer`
(RFC 6750) or the cookie of a login. A browser sends a cookie by itself, also when another site's page
makes it do so; what a cookie is to change must therefore carry a key that only our own forms have.
"""

import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from typing import Annotated, TypeAlias
from urllib.parse import parse_qs, quote

from fastapi import Depends, HTTPException
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from triage.config import Config
from triage.core.access import Role
from triage.flow.line import Line
from triage.web.guard import SAFE_METHODS

FORM_KEY_FIELD = "form_key"
FORM_KEY_HEADER = "X-Form-Key"
LARGEST_BODY_BYTES = 64 * 1024

_PUBLIC = frozenset({"/login", "/healthz", "/readyz"})
_OWN_ACCOUNT = frozenset({"/password", "/logout"})


@dataclass(frozen=True, slots=True)
class Browser:
    """A browser that is logged in. token: the secret in its cookie."""

    token: str = field(repr=False)
    must_change_password: bool

    @property
    def form_key(self) -> str:
        """What our forms carry and another site's cannot know."""
        return hmac.new(self.token.encode(), b"triage form key", sha256).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who asks. browser: None for a program, which shows its token each time.

    name: of the account, or of the program's token. address: where the request came from.
    """

    name: str
    role: Role
    address: str
    browser: Browser | None = None

    @property
    def may_act(self) -> bool:
        """Whether a reader's buttons are there."""
        return self.role.includes(Role.READER)

    @property
    def is_admin(self) -> bool:
        """Whether accounts and the audit trail are there."""
        return self.role.includes(Role.ADMIN)

    def on_behalf_of(self, person: str) -> str:
        """Whose deed it is: a program acts for a person, and both are recorded."""
        return f"{person} (by token {self.name})"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that goes no further. location: where a browser is sent instead (303)."""

    status_code: int
    detail: str
    location: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """What the answer carries (RFC 9110 11.6.1)."""
        return {"WWW-Authenticate": "Bearer"} if self.status_code == 401 else {}


async def admit(request: Request, line: Line) -> Refusal | None:
    """Put who asks into `request.state.actor` and say why they may not, if they may not."""
    request.state.actor = None
    # Not request.url: that is put together with the Host header, which anybody can write.
    path = str(request.scope["path"])
    if body := _unbounded_body(request):
        return body
    if is_public(path):
        return None
    actor = await run_in_threadpool(_actor_of, request, line)
    request.state.actor = actor
    if actor is None:
        return _unknown(request, path)
    if actor.browser is not None and actor.browser.must_change_password and path not in _OWN_ACCOUNT:
        return _password_first(path)
    if request.method in SAFE_METHODS:
        return None
    if path not in _OWN_ACCOUNT and not actor.may_act:
        return Refusal(403, "Your role may look, and change nothing.")
    if actor.browser is not None and not await _has_form_key(request, actor.browser):
        return Refusal(403, "This form is not ours, or too old. Go back, reload the page and try again.")
    return None


def is_public(path: str) -> bool:
    """Whether a path is open to everybody: the login, the style sheet, and two words on our health."""
    return path in _PUBLIC or path.startswith("/static/")


def is_for_programs(path: str) -> bool:
    """Whether answers at a path are JSON."""
    return path.startswith("/api/") or path == "/openapi.json"


def address_of(request: Request) -> str:
    """Where a request came from; behind a proxy that we trust, from before it."""
    return request.client.host if request.client else "unknown"


def own_path(path: str) -> str:
    """A path to go to after the login, if it is one of ours; the worklist otherwise.

    >>> own_path("/series/7"), own_path("//evil.example"), own_path("https://evil.example")
    ('/series/7', '/', '/')
    """
    # A browser reads a backslash as a slash, and skips tabs and line breaks.
    is_ours = path.startswith("/") and not path.startswith("//")
    return path if is_ours and path.isascii() and path.isprintable() and "\\" not in path else "/"


def is_secure(config: Config) -> bool:
    """Whether browsers reach us by HTTPS, through a proxy or directly."""
    return config.http.tls_certificate is not None or config.http.public_url.startswith("https:")


def keep_login(response: Response, token: str, config: Config) -> None:
    """Give a browser its cookie.

    Lax, not Strict: a link in an alert is opened from a mail or chat program, and with Strict the person
    who was paged would have to log in once more. `__Host-` (RFC 6265bis 4.1.3.2): no other host can set it.
    """
    response.set_cookie(
        _cookie_name(config),
        token,
        max_age=int(login_lasts(config).total_seconds()),
        path="/",
        secure=is_secure(config),
        httponly=True,
        samesite="lax",
    )


def drop_login(response: Response, config: Config) -> None:
    """Take the cookie back."""
    response.delete_cookie(
        _cookie_name(config), path="/", secure=is_secure(config), httponly=True, samesite="lax"
    )


def login_lasts(config: Config) -> timedelta:
    """How long a login lasts."""
    return timedelta(hours=config.http.session_hours)


def _actor_of(request: Request, line: Line) -> Actor | None:
    if "authorization" in request.headers:
        return _program(request, line)
    token = request.cookies.get(_cookie_name(line.config), "")
    account = line.accounts.logged_in(token, line.now()) if token else None
    if account is None:
        return None
    browser = Browser(token, account.must_change_password)
    return Actor(name=account.name, role=account.role, address=address_of(request), browser=browser)


def _program(request: Request, line: Line) -> Actor | None:
    scheme, _, token = request.headers["authorization"].partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        return None
    configured = line.config.http.api_token.get_secret_value()
    if configured and hmac.compare_digest(token.encode(), configured.encode()):
        return Actor(name="http.api_token", role=Role.READER, address=address_of(request))
    known = line.accounts.token(token)
    if known is None:
        return None
    return Actor(name=known.name, role=known.role, address=address_of(request))


def _unknown(request: Request, path: str) -> Refusal:
    if is_for_programs(path) or "authorization" in request.headers:
        return Refusal(401, "This needs a token.")
    if request.method not in SAFE_METHODS:
        # What was to be done lies below the page that it is done from.
        path = path.rpartition("/")[0]
    elif request.scope["query_string"]:
        path += f"?{request.scope['query_string'].decode('latin-1')}"
    return Refusal(303, "", _with_next("/login", path))


def _password_first(path: str) -> Refusal:
    if is_for_programs(path):
        return Refusal(403, "Change the one-time password first.")
    return Refusal(303, "", _with_next("/password", path))


def _with_next(page: str, path: str) -> str:
    path = own_path(path)
    return page if path == "/" else f"{page}?next={quote(path, safe='/')}"


def _unbounded_body(request: Request) -> Refusal | None:
    if "transfer-encoding" in request.headers:
        return Refusal(411, "Say how long the request is.")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > LARGEST_BODY_BYTES:
        return Refusal(413, "This request is too large.")
    return None


async def _has_form_key(request: Request, browser: Browser) -> bool:
    shown = request.headers.get(FORM_KEY_HEADER, "")
    if not shown and request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        # The body is kept for whoever answers.
        fields = parse_qs((await request.body()).decode("latin-1"))
        shown = fields.get(FORM_KEY_FIELD, [""])[0]
    return hmac.compare_digest(shown.encode(), browser.form_key.encode())


def _cookie_name(config: Config) -> str:
    return "__Host-triage" if is_secure(config) else "triage"


async def _actor(request: Request) -> Actor:
    actor: Actor | None = request.state.actor
    if actor is None:
        raise RuntimeError("a public page asks who is there")
    return actor


AskedBy: TypeAlias = Annotated[Actor, Depends(_actor)]


def needs(role: Role) -> Callable[[Actor], None]:
    """A dependency for routes that not everybody with a login may use."""

    def check(actor: AskedBy) -> None:
        if not actor.role.includes(role):
            raise HTTPException(403, "Your role may not do this.")

    return check
