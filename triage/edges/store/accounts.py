"""People who may log in, their logins, and the tokens of programs.

Passwords are kept as argon2id (RFC 9106). The secrets of logins and tokens are random, 256 bits, so
their SHA-256 is enough: nobody can guess what to hash.
"""

import secrets
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import sha256

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from sqlalchemy import Engine, delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from triage.core.access import LONGEST_NAME, Role, clean_name
from triage.edges.store.database import reading, writing
from triage.edges.store.tables import Account, ApiToken, Login
from triage.errors import AccountError

SHORTEST_PASSWORD = 12
LONGEST_PASSWORD = 256
LONGEST_TOKEN_NAME = 60
FIRST_ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Accounts:
    """The database, asked who may do what.

    hasher: the cost of a password; hashes of another cost are renewed when their password is next seen.
    """

    engine: Engine
    hasher: PasswordHasher = field(default_factory=PasswordHasher)

    # Accounts

    def add(self, name: str, password: str, role: Role, at: datetime, *, must_change: bool = False) -> None:
        """A new account. Raises AccountError where the name is taken or the password too easy."""
        self._insert(
            Account(
                name=_checked_name(name, LONGEST_NAME),
                password_hash=self._hash(password, name),
                role=role,
                must_change_password=must_change,
                created_at=at,
            )
        )

    def add_first_admin(self, at: datetime) -> str | None:
        """Where there is no account yet: one with every right, and its one-time password."""
        if self.everyone():
            return None
        password = random_password()
        self.add(FIRST_ADMIN, password, Role.ADMIN, at, must_change=True)
        return password

    def everyone(self) -> Sequence[Account]:
        """Every account, by name."""
        with reading(self.engine) as session:
            return session.scalars(select(Account).order_by(Account.name)).all()

    def disable(self, name: str, at: datetime) -> None:
        """The account is logged out everywhere and can log in no more. Raises AccountError."""
        with writing(self.engine) as session:
            account = _named(session, name)
            account.disabled_at = account.disabled_at or at
            _log_out(session, account.id)

    def enable(self, name: str) -> None:
        """A disabled account can log in again. Raises AccountError."""
        with writing(self.engine) as session:
            _named(session, name).disabled_at = None

    def set_password(self, name: str, password: str, *, must_change: bool = False) -> None:
        """Another password; whoever is logged in with the old one is logged out. Raises AccountError."""
        password_hash = self._hash(password, name)
        with writing(self.engine) as session:
            account = _named(session, name)
            account.password_hash, account.must_change_password = password_hash, must_change
            _log_out(session, account.id)

    def is_known(self, name: str) -> bool:
        """Whether there is an account of that name."""
        with reading(self.engine) as session:
            return session.scalar(select(Account.id).where(Account.name == tidy(name))) is not None

    def with_password(self, name: str, password: str) -> Account | None:
        """The account that may log in so. An unknown name takes as long as a wrong password."""
        with reading(self.engine) as session:
            account = session.scalar(select(Account).where(Account.name == tidy(name)))
        password_hash = account.password_hash if account else _nobodys_hash(self.hasher)
        try:
            self.hasher.verify(password_hash, _normal(password))
        except VerifyMismatchError:
            return None
        if account is None or account.disabled_at is not None:
            return None
        if self.hasher.check_needs_rehash(password_hash):
            self._renew_hash(account.id, password_hash, password)
        return account

    # Logins

    def open_login(self, account_id: int, at: datetime, lasts: timedelta) -> str:
        """A new login, by the secret that its browser keeps."""
        token = secrets.token_urlsafe(32)
        with writing(self.engine) as session:
            session.execute(delete(Login).where(Login.expires_at <= at))
            session.add(
                Login(
                    token_sha256=_digest(token), account_id=account_id, created_at=at, expires_at=at + lasts
                )
            )
        return token

    def logged_in(self, token: str, at: datetime) -> Account | None:
        """Whose login a secret is, while it lasts."""
        query = (
            select(Account)
            .join(Login, Login.account_id == Account.id)
            .where(Login.token_sha256 == _digest(token), Login.expires_at > at, Account.disabled_at.is_(None))
        )
        with reading(self.engine) as session:
            return session.scalar(query)

    def close_login(self, token: str) -> None:
        """That browser is logged out."""
        with writing(self.engine) as session:
            session.execute(delete(Login).where(Login.token_sha256 == _digest(token)))

    # Tokens of programs

    def add_token(self, name: str, role: Role, at: datetime) -> str:
        """A new token, shown this once. Raises AccountError where the name is taken."""
        token = f"triage_{secrets.token_urlsafe(32)}"
        name = _checked_name(name, LONGEST_TOKEN_NAME)
        self._insert(ApiToken(name=name, token_sha256=_digest(token), role=role, created_at=at))
        return token

    def tokens(self) -> Sequence[ApiToken]:
        """Every token, also those that were revoked, by name."""
        with reading(self.engine) as session:
            return session.scalars(select(ApiToken).order_by(ApiToken.name)).all()

    def revoke_token(self, name: str, at: datetime) -> None:
        """A token opens nothing any more; its name stays taken. Raises AccountError."""
        with writing(self.engine) as session:
            token = session.scalar(select(ApiToken).where(ApiToken.name == tidy(name)))
            if token is None:
                raise AccountError(f"there is no token {tidy(name)!r}; `triage token list` shows them")
            token.revoked_at = token.revoked_at or at

    def token(self, token: str) -> ApiToken | None:
        """The token in force that a program has sent."""
        query = select(ApiToken).where(ApiToken.token_sha256 == _digest(token), ApiToken.revoked_at.is_(None))
        with reading(self.engine) as session:
            return session.scalar(query)

    def _insert(self, row: Account | ApiToken) -> None:
        try:
            with writing(self.engine) as session:
                session.add(row)
        except IntegrityError as error:
            raise AccountError(f"{row.name!r} is taken; choose another name") from error

    def _hash(self, password: str, name: str) -> str:
        password = _normal(password)
        if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
            raise AccountError(f"a password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters")
        if len(set(password)) < 4 or password.casefold() == name.casefold():
            raise AccountError("that password is too easy to guess")
        return self.hasher.hash(password)

    def _renew_hash(self, account_id: int, password_hash: str, password: str) -> None:
        renewed = self.hasher.hash(_normal(password))
        with writing(self.engine) as session:
            account = session.get_one(Account, account_id)
            # Somebody may have set another password since.
            if account.password_hash == password_hash:
                account.password_hash = renewed


def random_password() -> str:
    """A password that nobody has to remember: 120 bits, in groups that can be typed."""
    letters = "abcdefghijkmnpqrstuvwxyz23456789"
    return "-".join("".join(secrets.choice(letters) for _ in range(6)) for _ in range(4))


def _named(session: Session, name: str) -> Account:
    account = session.scalar(select(Account).where(Account.name == tidy(name)))
    if account is None:
        raise AccountError(f"there is no account {tidy(name)!r}; `triage account list` shows them")
    return account


def _log_out(session: Session, account_id: int) -> None:
    session.execute(delete(Login).where(Login.account_id == account_id))


def _checked_name(name: str, longest: int) -> str:
    name = tidy(name)
    if not 1 <= len(name) <= longest:
        raise AccountError(f"a name has 1 to {longest} printable characters")
    return name


def tidy(name: str) -> str:
    """A name as it is kept, or nothing where none is left of it."""
    try:
        return clean_name(name)
    except ValueError:
        return ""


def _normal(password: str) -> str:
    # The same keys give other code points on another system (NIST SP 800-63B, 3.1.1.2).
    return unicodedata.normalize("NFKC", password)


def _digest(token: str) -> str:
    return sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


@lru_cache(maxsize=4)
def _nobodys_hash(hasher: PasswordHasher) -> str:
    return hasher.hash(secrets.token_urlsafe(32))
