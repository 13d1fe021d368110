"""What the service must watch about itself, and which troubles are open."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, Engine, and_, func, or_, select, union
from sqlalchemy.orm import InstrumentedAttribute

from triage.core.lifecycle import AlertState, ReportState, SeriesState
from triage.core.trouble import Trouble
from triage.edges.store.database import reading, writing
from triage.edges.store.tables import (
    Alert,
    AuditEntry,
    AuditForwarding,
    Problem,
    Report,
    Result,
    Sender,
    Series,
)

_SETTLES_AFTER = timedelta(minutes=10)
"""A trouble that comes back within this time was never over."""

_EVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Backlog:
    """How much of one kind waits: `count` pieces, the oldest since `since`; `row_id` is the oldest one's."""

    count: int
    since: datetime | None
    row_id: int | None


@dataclass(frozen=True, slots=True)
class Watchbook:
    """The database, asked about the service itself."""

    engine: Engine

    # What there is to see

    def unfinished_series(self) -> Backlog:
        """Series with images that no finished analysis has looked at, by their last image."""
        waiting = union(
            select(Series.id).where(Series.state.in_((SeriesState.RECEIVING, SeriesState.ANALYSING))),
            select(Series.id).where(Series.newest_instance_id > Series.evaluated_up_to),
            select(Result.series_id).where(Result.concluded_at.is_(None)),
        )
        return self._backlog(Series.id, Series.last_instance_at, Series.id.in_(waiting))

    def reports(self, state: ReportState, since: datetime = _EVER) -> Backlog:
        """Reports in one state that were queued from `since` on."""
        return self._backlog(Report.id, Report.queued_at, Report.state == state, Report.queued_at >= since)

    def results_without_report(self, since: datetime) -> Backlog:
        """Newest results from `since` on that have no report at all."""
        has_report = select(Report.id).where(Report.result_id == Result.id).exists()
        return self._backlog(
            Result.id,
            Result.concluded_at,
            Result.concluded_at >= since,
            Result.revision.is_not(None),
            ~has_report,
        )

    def alerts(self, state: AlertState) -> Backlog:
        """Alerts in one state."""
        return self._backlog(Alert.id, Alert.raised_at, Alert.state == state)

    def senders(self) -> Mapping[str, datetime]:
        """Calling AE title -> when its last instance came."""
        with reading(self.engine) as session:
            rows = session.execute(select(Sender.ae_title, Sender.last_at))
            return {row.ae_title: row.last_at for row in rows}

    def unforwarded_audit(self) -> Backlog:
        """Audit entries that the repository has not been given."""
        up_to = select(AuditForwarding.up_to_entry_id).scalar_subquery()
        return self._backlog(AuditEntry.id, AuditEntry.at, AuditEntry.id > up_to)

    # What is known to be wrong

    def open_problems(self) -> Sequence[Problem]:
        """Every trouble that is not over, the oldest first."""
        query = select(Problem).where(Problem.closed_at.is_(None)).order_by(Problem.opened_at, Problem.id)
        with reading(self.engine) as session:
            return session.scalars(query).all()

    def is_open(self, trouble: Trouble) -> bool:
        """Whether there is trouble of that kind."""
        query = select(Problem.id).where(Problem.kind == trouble, Problem.closed_at.is_(None)).limit(1)
        with reading(self.engine) as session:
            return session.scalar(query) is not None

    def seen(self, found: Mapping[tuple[Trouble, str], str], at: datetime) -> None:
        """Exactly these troubles, by kind and subject, are there now; all others are over."""
        with writing(self.engine) as session:
            recent = session.scalars(
                select(Problem)
                .where(or_(Problem.closed_at.is_(None), Problem.closed_at > at - _SETTLES_AFTER))
                .order_by(Problem.id)
            ).all()
            known = {(Trouble(problem.kind), problem.subject): problem for problem in recent}
            for key, problem in known.items():
                if key in found:
                    problem.detail, problem.closed_at = found[key], None
                elif problem.closed_at is None:
                    problem.closed_at = at
            session.add_all(
                Problem(kind=kind.value, subject=subject, detail=detail, opened_at=at)
                for (kind, subject), detail in found.items()
                if (kind, subject) not in known
            )

    def to_tell(self, at: datetime, repeat: timedelta) -> Sequence[Problem]:
        """Troubles of which the operator has to be told now: new, lasting, or over for good."""
        is_new_or_lasting = and_(
            Problem.closed_at.is_(None), or_(Problem.told_at.is_(None), Problem.told_at <= at - repeat)
        )
        is_over = and_(Problem.closed_at <= at - _SETTLES_AFTER, Problem.told_at < Problem.closed_at)
        query = select(Problem).where(or_(is_new_or_lasting, is_over)).order_by(Problem.id)
        with reading(self.engine) as session:
            return session.scalars(query).all()

    def told(self, problem_ids: Sequence[int], at: datetime) -> None:
        """The operator knows."""
        with writing(self.engine) as session:
            for problem in session.scalars(select(Problem).where(Problem.id.in_(problem_ids))):
                problem.told_at = at

    def _backlog(
        self,
        row_id: InstrumentedAttribute[int],
        since: InstrumentedAttribute[datetime] | InstrumentedAttribute[datetime | None],
        *where: ColumnElement[bool],
    ) -> Backlog:
        with reading(self.engine) as session:
            count = session.scalar(select(func.count(row_id)).where(*where)) or 0
            oldest = session.execute(select(since, row_id).where(*where).order_by(since).limit(1)).first()
            return Backlog(count, *oldest) if oldest else Backlog(0, None, None)
