"""The audit trail: entries are added and read. The database itself refuses to change or delete one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Self

from sqlalchemy import Engine, make_url, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from triage.core.audit import Action, Deed, Entry, printable
from triage.core.audit_message import StudyIdentity
from triage.edges.store.database import open_engine, reading, writing
from triage.edges.store.tables import AuditEntry, AuditForwarding, Series
from triage.errors import ConfigError

ACTOR_LENGTH: Final = 80
ADDRESS_LENGTH: Final = 64
DETAIL_LENGTH: Final = 2000
_PAGE = 500


@dataclass(frozen=True, slots=True)
class AuditTrail:
    """The trail in the database behind `engine`, which is the store's."""

    engine: Engine

    @classmethod
    def open(cls, url: str) -> Self:
        """The trail of a database that a service has made, for reading beside it; nothing is migrated.

        Raises ConfigError where there is none.
        """
        missing = ConfigError(
            "store.database_url: there is no audit trail. Start the service once, or correct the address."
        )
        parsed = make_url(url)
        # SQLite would make an empty file.
        if parsed.drivername.startswith("sqlite") and not Path(parsed.database or "").is_file():
            raise missing
        trail = cls(open_engine(url))
        try:
            trail.entries(limit=1)
        except SQLAlchemyError as error:
            trail.close()
            raise missing from error
        return trail

    def close(self) -> None:
        """Give back every connection."""
        self.engine.dispose()

    def record(self, deed: Deed, at: datetime) -> None:
        """It was done, and that it was done is on stable storage.

        Actor, address and detail are shortened and cleaned: they may come from whoever knocks.
        """
        with writing(self.engine) as session:
            add_entry(session, deed, at)

    def entries(
        self,
        *,
        after_id: int = 0,
        limit: int = _PAGE,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> list[Entry]:
        """The oldest entries with a higher id than `after_id`, from `since` on and before `until`."""
        query = select(AuditEntry).where(AuditEntry.id > after_id).order_by(AuditEntry.id).limit(limit)
        if since is not None:
            query = query.where(AuditEntry.at >= since)
        if until is not None:
            query = query.where(AuditEntry.at < until)
        with reading(self.engine) as session:
            return [_entry(row) for row in session.scalars(query)]

    def every_entry(self, since: datetime | None = None, until: datetime | None = None) -> Iterator[Entry]:
        """The entries from `since` on and before `until`, in order, a page at a time."""
        after_id = 0
        while page := self.entries(after_id=after_id, since=since, until=until):
            yield from page
            after_id = page[-1].id

    def not_forwarded(self, limit: int = _PAGE) -> Sequence[Entry]:
        """The oldest entries that the audit record repository has not been handed."""
        with reading(self.engine) as session:
            up_to = session.scalars(select(AuditForwarding.up_to_entry_id)).one()
        return self.entries(after_id=up_to, limit=limit)

    def forwarded_up_to(self, entry_id: int) -> None:
        """The repository has every entry up to this one."""
        with writing(self.engine) as session:
            forwarding = session.scalars(select(AuditForwarding).with_for_update()).one()
            forwarding.up_to_entry_id = max(forwarding.up_to_entry_id, entry_id)

    def study_of(self, series_id: int) -> StudyIdentity | None:
        """Whose data a series is, or None where we have no such series."""
        query = select(Series.study_instance_uid, Series.patient_id, Series.patient_name)
        with reading(self.engine) as session:
            row = session.execute(query.where(Series.id == series_id)).one_or_none()
            return None if row is None else StudyIdentity(*row)


def add_entry(session: Session, deed: Deed, at: datetime) -> None:
    """The deed becomes part of the trail together with whatever else the transaction makes true."""
    # PostgreSQL hands out ids when rows are written and not when they become visible: without one writer
    # at a time, forwarding could pass over an entry whose transaction ends late. SQLite has one anyway.
    session.execute(select(AuditForwarding.id).with_for_update())
    session.add(
        AuditEntry(
            at=at,
            actor=printable(deed.actor, ACTOR_LENGTH),
            address=printable(deed.address, ADDRESS_LENGTH),
            action=deed.action.value,
            series_id=deed.series_id,
            succeeded=deed.succeeded,
            detail=printable(deed.detail, DETAIL_LENGTH),
        )
    )
    session.flush()


def _entry(row: AuditEntry) -> Entry:
    return Entry(
        row.id,
        row.at,
        Deed(
            actor=row.actor,
            action=Action(row.action),
            address=row.address,
            series_id=row.series_id,
            succeeded=row.succeeded,
            detail=row.detail,
        ),
    )
