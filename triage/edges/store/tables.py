"""Every table. Timestamps are aware UTC; JSON columns are text that `core` wrote.

series 1--* instance     what was received
series 1--* result       one row an assessment: its outcome, and the revision it became
result 1--1 report       the Structured Report, minted once
result *--1 alert        only where a person must be called; one open alert a study
alert  1--* page         every message of it to every contact
series 1--* event        the timeline: appended to, never changed
sender                   who sends to us, and when last
problem                  what is or was wrong with the service itself
account 1--* login       who may see and do what; api_token is the same for programs
audit_entry              who did what: appended to, never changed
"""

from datetime import UTC, datetime
from enum import StrEnum

from sqlalchemy import (
    DateTime,
    Dialect,
    Enum,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from triage.core.access import Role
from triage.core.lifecycle import AlertState, ReportState, SeriesState


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC in Python, also on SQLite, which keeps no zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is not None and value.tzinfo is None:
            raise ValueError(f"naive datetime {value!r}: give an aware one")
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _named(states: type[StrEnum]) -> Enum:
    return Enum(
        states, native_enum=False, length=16, values_callable=lambda kind: [state.value for state in kind]
    )


class Base(DeclarativeBase):
    """Declarative base of all tables."""

    type_annotation_map = {datetime: UtcDateTime, str: Text, bytes: LargeBinary}  # noqa: RUF012


class Series(Base):
    """One series.

    newest_instance_id, evaluated_up_to: the last instance row, and the last that an assessment looked at.
    freed_at: when its images were deleted here, long after it was finished.
    """

    __tablename__ = "series"
    # The lists that people and the watch ask for stay as fast with a million series as with ten.
    __table_args__ = (
        Index("ix_series_state", "state", "first_instance_at"),
        Index("ix_series_first_instance_at", "first_instance_at"),
        Index(
            "ix_series_unseen",
            "id",
            sqlite_where=text("newest_instance_id > evaluated_up_to"),
            postgresql_where=text("newest_instance_id > evaluated_up_to"),
        ),
        Index(
            "ix_series_held",
            "last_instance_at",
            sqlite_where=text("freed_at IS NULL"),
            postgresql_where=text("freed_at IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    series_instance_uid: Mapped[str] = mapped_column(String(64), unique=True)
    study_instance_uid: Mapped[str] = mapped_column(String(64), index=True)
    state: Mapped[SeriesState] = mapped_column(_named(SeriesState))
    revision: Mapped[int] = mapped_column(default=1)
    newest_instance_id: Mapped[int] = mapped_column(default=0)
    evaluated_up_to: Mapped[int] = mapped_column(default=0)
    calling_ae: Mapped[str]
    patient_name: Mapped[str]
    patient_id: Mapped[str]
    description: Mapped[str]
    first_instance_at: Mapped[datetime]
    last_instance_at: Mapped[datetime]
    freed_at: Mapped[datetime | None]


class Instance(Base):
    """One received object: the inbox holds its bytes under `sha256`; `header` is what `core` read from it."""

    __tablename__ = "instance"

    id: Mapped[int] = mapped_column(primary_key=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"), index=True)
    sop_instance_uid: Mapped[str] = mapped_column(String(64), unique=True)
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int]
    received_at: Mapped[datetime]
    header: Mapped[str]


class Result(Base):
    """One assessment of the instances after `after_instance_id` and up to `up_to_instance_id`.

    revision: empty until the outcome is known, and for ever where nothing new was found.
    alert_id: the alert that speaks for it.
    """

    __tablename__ = "result"
    __table_args__ = (
        UniqueConstraint("series_id", "after_instance_id"),
        UniqueConstraint("series_id", "revision"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"), index=True)
    after_instance_id: Mapped[int]
    up_to_instance_id: Mapped[int]
    revision: Mapped[int | None]
    sources_sha256: Mapped[str | None] = mapped_column(String(64))
    category: Mapped[str | None] = mapped_column(String(16))
    probability: Mapped[float | None]
    threshold: Mapped[float | None]
    reason: Mapped[str | None] = mapped_column(String(32))
    detail: Mapped[str | None]
    b_value: Mapped[float | None]
    volume_kind: Mapped[str | None] = mapped_column(String(20))
    slices: Mapped[int | None]
    spacing_mm: Mapped[str | None]
    model_name: Mapped[str | None]
    model_version: Mapped[str | None]
    model_sha256: Mapped[str | None] = mapped_column(String(64))
    model_status: Mapped[str | None]
    concluded_at: Mapped[datetime | None] = mapped_column(index=True)
    alert_id: Mapped[int | None] = mapped_column(ForeignKey("alert.id"), index=True)


class Report(Base):
    """The Structured Report of one result, as Part 10 bytes, and whether the PACS has it.

    queued_at: from when the time counts after which it is given up.
    """

    __tablename__ = "report"

    id: Mapped[int] = mapped_column(primary_key=True)
    result_id: Mapped[int] = mapped_column(ForeignKey("result.id"), unique=True)
    sop_instance_uid: Mapped[str] = mapped_column(String(64), unique=True)
    dicom: Mapped[bytes]
    state: Mapped[ReportState] = mapped_column(_named(ReportState), index=True)
    attempts: Mapped[int] = mapped_column(default=0)
    last_error: Mapped[str | None]
    created_at: Mapped[datetime]
    queued_at: Mapped[datetime]
    stored_at: Mapped[datetime | None]


class Alert(Base):
    """The call for a person that a study raised. The newest results that point to it are what it says."""

    __tablename__ = "alert"

    id: Mapped[int] = mapped_column(primary_key=True)
    study_instance_uid: Mapped[str] = mapped_column(String(64), index=True)
    state: Mapped[AlertState] = mapped_column(_named(AlertState), index=True)
    pages: Mapped[int] = mapped_column(default=0)
    last_error: Mapped[str | None]
    raised_at: Mapped[datetime]
    sent_at: Mapped[datetime | None]
    acknowledged_at: Mapped[datetime | None]
    acknowledged_by: Mapped[str | None]


class Event(Base):
    """One line of a series' timeline."""

    __tablename__ = "event"

    id: Mapped[int] = mapped_column(primary_key=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"), index=True)
    at: Mapped[datetime]
    event: Mapped[str] = mapped_column(String(32))
    detail: Mapped[str]


class Page(Base):
    """One message of an alert to one contact: `taken` where at least one of their channels took it.

    call: the n-th of the alert, from 0; a call may go to several contacts and rungs.
    """

    __tablename__ = "page"

    id: Mapped[int] = mapped_column(primary_key=True)
    alert_id: Mapped[int] = mapped_column(ForeignKey("alert.id"), index=True)
    at: Mapped[datetime]
    call: Mapped[int]
    rung: Mapped[int]
    contact: Mapped[str]
    taken: Mapped[bool]


class Sender(Base):
    """A calling AE title from which instances came."""

    __tablename__ = "sender"

    ae_title: Mapped[str] = mapped_column(String(16), primary_key=True)
    first_at: Mapped[datetime]
    last_at: Mapped[datetime]


class Problem(Base):
    """Something wrong with the service itself, from when until when, and when the operator was last told."""

    __tablename__ = "problem"
    __table_args__ = (
        Index(
            "ix_problem_open",
            "kind",
            "subject",
            unique=True,
            sqlite_where=text("closed_at IS NULL"),
            postgresql_where=text("closed_at IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(32))
    subject: Mapped[str] = mapped_column(String(64))
    detail: Mapped[str]
    opened_at: Mapped[datetime]
    told_at: Mapped[datetime | None]
    closed_at: Mapped[datetime | None]


class Account(Base):
    """A person who may log in. `password_hash`: argon2id."""

    __tablename__ = "account"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(80), unique=True)
    password_hash: Mapped[str]
    role: Mapped[Role] = mapped_column(_named(Role))
    must_change_password: Mapped[bool]
    created_at: Mapped[datetime]
    disabled_at: Mapped[datetime | None]


class Login(Base):
    """One browser that is logged in; the cookie holds what `token_sha256` is the hash of."""

    __tablename__ = "login"

    id: Mapped[int] = mapped_column(primary_key=True)
    token_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"), index=True)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class ApiToken(Base):
    """A program's key: its name for the record, and what it may do."""

    __tablename__ = "api_token"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(80), unique=True)
    token_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    role: Mapped[Role] = mapped_column(_named(Role))
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class AuditEntry(Base):
    """One line of the audit trail. The database itself refuses to change or delete one.

    series_id: row id, without a foreign key: the trail outlives what it speaks of.
    """

    __tablename__ = "audit_entry"

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)
    actor: Mapped[str] = mapped_column(String(80))
    address: Mapped[str] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(32))
    series_id: Mapped[int | None] = mapped_column(index=True)
    succeeded: Mapped[bool]
    detail: Mapped[str]


class AuditForwarding(Base):
    """How far the audit trail has been handed to the audit record repository: one row."""

    __tablename__ = "audit_forwarding"

    id: Mapped[int] = mapped_column(primary_key=True)
    up_to_entry_id: Mapped[int]
