"""Logging in and out, and changing one's own password."""

import ipaddress
import threading
from typing import Annotated

from fastapi import APIRouter, Form
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from triage.core.access import LONGEST_NAME
from triage.core.audit import Action
from triage.edges.store import Account
from triage.edges.store.accounts import tidy
from triage.errors import AccountError
from triage.flow.line import Line
from triage.web import wording
from triage.web.auth import Actor, AskedBy, address_of, drop_login, keep_login, login_lasts, own_path
from triage.web.deeds import note_deed, note_refused_login
from triage.web.people import sentence
from triage.web.rendering import render
from triage.web.state import LineInUse, TriesInUse
from triage.web.tries import Tries

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)

# Checking a password takes 64 MiB by design; strangers must not be able to ask for all of it at once.
_PATIENCE_S = 5.0
_CHECKS_AT_A_TIME = threading.BoundedSemaphore(2)

Text = Annotated[str, Form()]


@router.get("/login")
def login_page(request: Request, next: str = "/") -> Response:  # noqa: A002 - the name in the address
    """The form."""
    return render(request, "login.html", next=own_path(next), problem="")


@router.post("/login")
def log_in(
    request: Request,
    line: LineInUse,
    tries: TriesInUse,
    name: Text = "",
    password: Text = "",
    next: Text = "/",  # noqa: A002 - the name in the form
) -> Response:
    """Open a login and go where the person wanted to go."""
    account = _checked(request, line, tries, name, password)
    if isinstance(account, int):
        return _refused(request, account, "login.html", next=own_path(next))
    note_deed(
        line, Actor(name=account.name, role=account.role, address=address_of(request)), Action.LOGGED_IN
    )
    return _with_login(line, account.id, own_path(next))


@router.post("/logout")
def log_out(line: LineInUse, actor: AskedBy) -> Response:
    """Close this login."""
    if actor.browser is not None:
        line.accounts.close_login(actor.browser.token)
        note_deed(line, actor, Action.LOGGED_OUT)
    response = RedirectResponse("/login", status_code=303)
    drop_login(response, line.config)
    return response


@router.get("/password")
def password_page(request: Request, next: str = "/") -> Response:  # noqa: A002 - as above
    """The form."""
    return render(request, "password.html", next=own_path(next), problem="")


@router.post("/password")
def change_password(
    request: Request,
    line: LineInUse,
    tries: TriesInUse,
    actor: AskedBy,
    password: Text = "",
    new: Text = "",
    again: Text = "",
    next: Text = "/",  # noqa: A002 - as above
) -> Response:
    """Another password: every other login of this account is closed."""
    account = _checked(request, line, tries, actor.name, password)
    if isinstance(account, int):
        return _refused(request, account, "password.html", next=own_path(next))
    problem = _complaint(line, actor, password, new, again)
    if problem:
        return render(request, "password.html", 422, next=own_path(next), problem=problem)
    note_deed(line, actor, Action.ACCOUNT_CHANGED, detail="own password")
    return _with_login(line, account.id, own_path(next))


def network_of(address: str) -> str:
    """What counts as one place: an IPv4 address, or the /64 that an IPv6 host can choose its addresses from.

    >>> network_of("2001:db8::1:2:3:4"), network_of("10.0.0.5")
    ('2001:db8::/64', '10.0.0.5')
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False)) if parsed.version == 6 else address


def _checked(request: Request, line: Line, tries: Tries, name: str, password: str) -> Account | int:
    """The account, or how many seconds to wait: none where only name or password was wrong."""
    address = address_of(request)
    name = tidy(name)[:LONGEST_NAME]
    keys = (f"name {name.casefold()}", f"address {network_of(address)}")
    wait = tries.begin(keys, line.now())
    if wait is not None:
        # Nothing is written: a stranger who goes on must not be able to fill the trail, or the disk.
        return max(1, round(wait.total_seconds()))
    if not _CHECKS_AT_A_TIME.acquire(timeout=_PATIENCE_S):
        tries.forgive(keys)
        return 1
    try:
        account = line.accounts.with_password(name, password)
    finally:
        _CHECKS_AT_A_TIME.release()
    if account is None:
        note_refused_login(line, name, address)
        return 0
    tries.forgive(keys)
    return account


def _refused(request: Request, wait_s: int, page: str, **shown: str) -> Response:
    if not wait_s:
        return render(request, page, 403, problem=wording.LOGIN_WRONG, **shown)
    response = render(request, page, 429, problem=wording.LOGIN_LATER, **shown)
    response.headers["Retry-After"] = str(wait_s)
    return response


def _complaint(line: Line, actor: Actor, password: str, new: str, again: str) -> str:
    if new != again:
        return wording.PASSWORDS_DIFFER
    if new == password:
        return wording.OLD_ONE_AGAIN
    try:
        line.accounts.set_password(actor.name, new)
    except AccountError as error:
        return sentence(error)
    return ""


def _with_login(line: Line, account_id: int, path: str) -> Response:
    token = line.accounts.open_login(account_id, line.now(), login_lasts(line.config))
    response = RedirectResponse(path, status_code=303)
    keep_login(response, token, line.config)
    return response
