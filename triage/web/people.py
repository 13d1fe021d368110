"""The administrator's page: who may log in, and which programs have a token."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from triage.core.access import Role
from triage.core.audit import Action
from triage.edges.store.accounts import random_password
from triage.errors import AccountError
from triage.flow.line import Line
from triage.web import wording
from triage.web.auth import AskedBy, needs
from triage.web.deeds import note_deed
from triage.web.rendering import render
from triage.web.state import LineInUse

router = APIRouter(
    prefix="/accounts",
    include_in_schema=False,
    default_response_class=HTMLResponse,
    dependencies=[Depends(needs(Role.ADMIN))],
)

Name = Annotated[str, Form()]
ChosenRole = Annotated[Role, Form()]


@router.get("")
def accounts_page(request: Request, line: LineInUse) -> Response:
    """Every account and every token."""
    return _shown(request, line)


@router.post("")
def add_account(
    request: Request, line: LineInUse, actor: AskedBy, name: Name = "", role: ChosenRole = Role.VIEWER
) -> Response:
    """A new account; its one-time password is in this answer, and nowhere else."""
    password = random_password()
    try:
        line.accounts.add(name, password, role, line.now(), must_change=True)
    except AccountError as error:
        return _shown(request, line, problem=error)
    note_deed(line, actor, Action.ACCOUNT_ADDED, detail=f"{name} as {role}")
    return _shown(request, line, secret=(wording.ONE_TIME.format(name=name), password))


@router.post("/password")
def reset_password(request: Request, line: LineInUse, actor: AskedBy, name: Name = "") -> Response:
    """A new one-time password for somebody who has forgotten theirs."""
    password = random_password()
    try:
        line.accounts.set_password(name, password, must_change=True)
    except AccountError as error:
        return _shown(request, line, problem=error)
    note_deed(line, actor, Action.ACCOUNT_CHANGED, detail=f"{name}: new password")
    return _shown(request, line, secret=(wording.ONE_TIME.format(name=name), password))


@router.post("/disable")
def disable_account(request: Request, line: LineInUse, actor: AskedBy, name: Name = "") -> Response:
    """Log somebody out for good."""
    try:
        if name == actor.name:
            raise AccountError("nobody can disable their own account")
        line.accounts.disable(name, line.now())
    except AccountError as error:
        return _shown(request, line, problem=error)
    note_deed(line, actor, Action.ACCOUNT_CHANGED, detail=f"{name}: disabled")
    return RedirectResponse("/accounts", status_code=303)


@router.post("/enable")
def enable_account(request: Request, line: LineInUse, actor: AskedBy, name: Name = "") -> Response:
    """Let somebody log in again."""
    try:
        line.accounts.enable(name)
    except AccountError as error:
        return _shown(request, line, problem=error)
    note_deed(line, actor, Action.ACCOUNT_CHANGED, detail=f"{name}: enabled")
    return RedirectResponse("/accounts", status_code=303)


@router.post("/token")
def add_token(
    request: Request, line: LineInUse, actor: AskedBy, name: Name = "", role: ChosenRole = Role.VIEWER
) -> Response:
    """A new token; it is in this answer, and nowhere else."""
    try:
        token = line.accounts.add_token(name, role, line.now())
    except AccountError as error:
        return _shown(request, line, problem=error)
    note_deed(line, actor, Action.TOKEN_ADDED, detail=f"{name} as {role}")
    return _shown(request, line, secret=(wording.SHOWN_ONCE.format(name=name), token))


@router.post("/token/revoke")
def revoke_token(request: Request, line: LineInUse, actor: AskedBy, name: Name = "") -> Response:
    """The token opens nothing any more."""
    try:
        line.accounts.revoke_token(name, line.now())
    except AccountError as error:
        return _shown(request, line, problem=error)
    note_deed(line, actor, Action.TOKEN_REVOKED, detail=name)
    return RedirectResponse("/accounts", status_code=303)


def _shown(
    request: Request,
    line: Line,
    *,
    problem: AccountError | None = None,
    secret: tuple[str, str] | None = None,
) -> Response:
    return render(
        request,
        "accounts.html",
        200 if problem is None else 409,
        accounts=line.accounts.everyone(),
        tokens=line.accounts.tokens(),
        roles=list(Role),
        problem=sentence(problem) if problem else "",
        secret=secret,
    )


def sentence(error: AccountError) -> str:
    """What stands in the way, as people read it."""
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."
