"""Every table. Timestamps are aware UTC; JSON columns are text that `core` wrote.

series 1--* instance     what was received
series 1--* result       one row an assessment: its outcome, and the revision it became
result 1--1 report       the Structured Report, minted once
result 1--1 alert        only where a person must be called
series 1--* event        the timeline: appended to, never changed
"""

from datetime import UTC, datetime
from enum import StrEnum

from sqlalchemy import (
    DateTime,
    Dialect,
    Enum,
    ForeignKey,
    LargeBinary,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

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
    """One series. `evaluated_up_to`: the last instance row that an assessment has looked at."""

    __tablename__ = "series"

    id: Mapped[int] = mapped_column(primary_key=True)
    series_instance_uid: Mapped[str] = mapped_column(String(64), unique=True)
    study_instance_uid: Mapped[str] = mapped_column(String(64), index=True)
    state: Mapped[SeriesState] = mapped_column(_named(SeriesState), index=True)
    revision: Mapped[int] = mapped_column(default=1)
    evaluated_up_to: Mapped[int] = mapped_column(default=0)
    calling_ae: Mapped[str]
    patient_name: Mapped[str]
    patient_id: Mapped[str]
    description: Mapped[str]
    first_instance_at: Mapped[datetime]
    last_instance_at: Mapped[datetime]


class Instance(Base):
    """One received object: `file` in the inbox holds its bytes, `header` what `core` read from it."""

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

    `revision` is empty until the outcome is known, and stays empty where nothing new was found.
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


class Report(Base):
    """The Structured Report of one result, as Part 10 bytes, and whether the PACS has it."""

    __tablename__ = "report"

    id: Mapped[int] = mapped_column(primary_key=True)
    result_id: Mapped[int] = mapped_column(ForeignKey("result.id"), unique=True)
    sop_instance_uid: Mapped[str] = mapped_column(String(64), unique=True)
    dicom: Mapped[bytes]
    state: Mapped[ReportState] = mapped_column(_named(ReportState), index=True)
    attempts: Mapped[int] = mapped_column(default=0)
    last_error: Mapped[str | None]
    created_at: Mapped[datetime]
    stored_at: Mapped[datetime | None]


class Alert(Base):
    """The call for a person that one result raised."""

    __tablename__ = "alert"

    id: Mapped[int] = mapped_column(primary_key=True)
    result_id: Mapped[int] = mapped_column(ForeignKey("result.id"), unique=True)
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
