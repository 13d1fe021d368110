"""Accounts and tokens from the command line, on the service's own database."""

import re
from pathlib import Path

import pytest

from triage.cli import main
from triage.core.access import Role
from triage.edges.store import Accounts, Store


@pytest.fixture
def accounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Accounts:
    import os

    for name in [name for name in os.environ if name.startswith("TRIAGE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TRIAGE_STORE__DIR", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    store = Store.open(f"sqlite:///{tmp_path}/data/triage.db")
    store.close()
    return Accounts(store.engine)


def test_an_account_from_its_beginning_to_its_end(
    accounts: Accounts, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["account", "add", "Dr Ada", "--role", "reader"]) == 0
    (password,) = re.findall(r"shown only now: ([\w-]+)", capsys.readouterr().out)
    account = accounts.with_password("Dr Ada", password)
    assert account is not None
    assert (account.role, account.must_change_password) == (Role.READER, True)
    assert main(["account", "password", "Dr Ada"]) == 0
    assert accounts.with_password("Dr Ada", password) is None
    assert main(["account", "disable", "Dr Ada"]) == 0
    capsys.readouterr()
    assert main(["account", "list"]) == 0
    assert re.fullmatch(r"Dr Ada +reader +disabled \S+ \S+ UTC\n", capsys.readouterr().out)
    assert main(["account", "enable", "Dr Ada"]) == 0
    assert accounts.everyone()[0].disabled_at is None


def test_a_typed_password_need_not_be_changed(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("triage.credentials.getpass", lambda _prompt: "four sober walruses")
    assert main(["account", "add", "Dr Ada", "--role", "admin"]) == 0
    assert "walruses" not in capsys.readouterr().out
    account = accounts.with_password("Dr Ada", "four sober walruses")
    assert account is not None
    assert not account.must_change_password
    answers = iter(["four sober walruses", "five drunk walruses"])
    monkeypatch.setattr("triage.credentials.getpass", lambda _prompt: next(answers))
    assert main(["account", "password", "Dr Ada"]) == 1
    assert "the two passwords differ; nothing was changed" in capsys.readouterr().err


def test_a_token_from_its_beginning_to_its_end(
    accounts: Accounts, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["token", "add", "pacs-bridge", "--role", "viewer"]) == 0
    (secret,) = re.findall(r"(triage_[\w-]{43})\n", capsys.readouterr().out)
    token = accounts.token(secret)
    assert token is not None
    assert (token.name, token.role) == ("pacs-bridge", Role.VIEWER)
    assert main(["token", "revoke", "pacs-bridge"]) == 0
    assert accounts.token(secret) is None
    capsys.readouterr()
    assert main(["token", "list"]) == 0
    assert re.fullmatch(r"pacs-bridge +viewer +revoked \S+ \S+ UTC\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["account", "disable", "nobody"], "there is no account 'nobody'; `triage account list` shows them"),
        (["token", "revoke", "nobody"], "there is no token 'nobody'; `triage token list` shows them"),
        (["account", "add", "taken", "--role", "viewer"], "'taken' is taken; choose another name"),
    ],
)
def test_what_cannot_be_done_is_said(
    accounts: Accounts, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(["account", "add", "taken", "--role", "viewer"]) == 0
    capsys.readouterr()
    assert main(arguments) == 1
    output = capsys.readouterr()
    assert said in output.err
    assert output.out == ""
