"""`triage account` and `triage token`: who may log in, asked of the database itself."""

import argparse
import contextlib
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from getpass import getpass

from triage.config import Config
from triage.core.access import Role
from triage.edges.store import Accounts, Store
from triage.edges.store.accounts import random_password
from triage.errors import AccountError


def account(config: Config, parsed: argparse.Namespace) -> int:
    """List, add, disable or enable accounts, or set a password."""
    with _accounts(config) as accounts:
        match parsed.deed:
            case "list":
                for each in accounts.everyone():
                    _line(each.name, each.role, _since("disabled", each.disabled_at))
            case "add":
                password, is_typed = _password()
                accounts.add(parsed.name, password, parsed.role, _now(), must_change=not is_typed)
                print(f"{parsed.name} can log in as {parsed.role}" + _shown(password, is_typed))
            case "password":
                password, is_typed = _password()
                accounts.set_password(parsed.name, password, must_change=not is_typed)
                print(f"{parsed.name} is logged out everywhere" + _shown(password, is_typed))
            case "disable":
                accounts.disable(parsed.name, _now())
                print(f"{parsed.name} is logged out and can log in no more")
            case "enable":
                accounts.enable(parsed.name)
                print(f"{parsed.name} can log in again")
    return 0


def token(config: Config, parsed: argparse.Namespace) -> int:
    """List, add or revoke the tokens of programs."""
    with _accounts(config) as accounts:
        match parsed.deed:
            case "list":
                for each in accounts.tokens():
                    _line(each.name, each.role, _since("revoked", each.revoked_at))
            case "add":
                secret = accounts.add_token(parsed.name, parsed.role, _now())
                print(f"Shown only now, for `Authorization: Bearer`: {secret}")
            case "revoke":
                accounts.revoke_token(parsed.name, _now())
                print(f"{parsed.name} opens nothing any more")
    return 0


@contextlib.contextmanager
def _accounts(config: Config) -> Iterator[Accounts]:
    config.store.dir.mkdir(parents=True, exist_ok=True)
    store = Store.open(config.store.database_url.get_secret_value())
    try:
        yield Accounts(store.engine)
    finally:
        store.close()


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
