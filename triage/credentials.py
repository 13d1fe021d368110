"""`triage account` and `triage token`: who may log in, asked of the database itself; and who asked."""

import argparse
import contextlib
import os
import pwd
import socket
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from getpass import getpass

from triage.config import Config
from triage.core.access import Role
from triage.core.audit import Action, Deed
from triage.edges.store import Accounts, AuditTrail
from triage.edges.store.accounts import random_password
from triage.errors import AccountError, ConfigError


def account(config: Config, parsed: argparse.Namespace) -> int:
    """List, add, disable or enable accounts, or set a password."""
    with _accounts(config) as (accounts, record):
        match parsed.deed:
            case "list":
                for each in accounts.everyone():
                    _line(each.name, each.role, _since("disabled", each.disabled_at))
            case "add":
                password, is_typed = _password()
                accounts.add(parsed.name, password, parsed.role, _now(), must_change=not is_typed)
                record(Action.ACCOUNT_ADDED, f"{parsed.name} as {parsed.role}")
                print(f"{parsed.name} can log in as {parsed.role}" + _shown(password, is_typed))
            case "password":
                password, is_typed = _password()
                accounts.set_password(parsed.name, password, must_change=not is_typed)
                record(Action.ACCOUNT_CHANGED, f"{parsed.name}: new password")
                print(f"{parsed.name} is logged out everywhere" + _shown(password, is_typed))
            case "disable":
                accounts.disable(parsed.name, _now())
                record(Action.ACCOUNT_CHANGED, f"{parsed.name}: disabled")
                print(f"{parsed.name} is logged out and can log in no more")
            case "enable":
                accounts.enable(parsed.name)
                record(Action.ACCOUNT_CHANGED, f"{parsed.name}: enabled")
                print(f"{parsed.name} can log in again")
    return 0


def token(config: Config, parsed: argparse.Namespace) -> int:
    """List, add or revoke the tokens of programs."""
    with _accounts(config) as (accounts, record):
        match parsed.deed:
            case "list":
                for each in accounts.tokens():
                    _line(each.name, each.role, _since("revoked", each.revoked_at))
            case "add":
                secret = accounts.add_token(parsed.name, parsed.role, _now())
                record(Action.TOKEN_ADDED, f"{parsed.name} as {parsed.role}")
                print(f"Shown only now, for `Authorization: Bearer`: {secret}")
            case "revoke":
                accounts.revoke_token(parsed.name, _now())
                record(Action.TOKEN_REVOKED, parsed.name)
                print(f"{parsed.name} opens nothing any more")
    return 0


def user() -> str:
    """Who runs the command, from the system's own record: variables say whatever somebody wants."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def record(config: Config, action: Action, detail: str, *, succeeded: bool) -> None:
    """Into the audit trail, where a service has made one."""
    with (
        contextlib.suppress(ConfigError),
        contextlib.closing(AuditTrail.open(config.store.database_url.get_secret_value())) as trail,
    ):
        trail.record(_deed(action, detail, succeeded=succeeded), _now())


def _deed(action: Action, detail: str, *, succeeded: bool = True) -> Deed:
    return Deed(actor=user(), address=socket.gethostname(), action=action, detail=detail, succeeded=succeeded)


@contextlib.contextmanager
def _accounts(config: Config) -> Iterator[tuple[Accounts, Callable[[Action, str], None]]]:
    """The accounts, and how to record what was done to them."""
    trail = AuditTrail.open(config.store.database_url.get_secret_value())

    def record(action: Action, detail: str) -> None:
        trail.record(_deed(action, detail), _now())

    try:
        yield Accounts(trail.engine), record
    finally:
        trail.close()


def _password() -> tuple[str, bool]:
    """A password, and whether it was typed; a random one otherwise, which is good for one login.

    Never from the command line: what stands there is seen by everybody on the machine.
    """
    typed = getpass("Password (empty: a one-time password): ") if sys.stdin.isatty() else ""
    if typed and getpass("Once more: ") != typed:
        raise AccountError("the two passwords differ; nothing was changed")
    return typed or random_password(), bool(typed)


def _shown(password: str, is_typed: bool) -> str:  # noqa: FBT001 - as `_password` returns it
    return "" if is_typed else f", with this one-time password, shown only now: {password}"


def _line(name: str, role: Role, state: str) -> None:
    print(f"{name:<32} {role:<8} {state}".rstrip())


def _since(word: str, at: datetime | None) -> str:
    return f"{word} {at:%Y-%m-%d %H:%M} UTC" if at else ""


def _now() -> datetime:
    return datetime.now(UTC)
