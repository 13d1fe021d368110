"""What can be asked of the database, and what can become true in it.

The module is long because every query and every write stands here, in the order of a study's life: whoever
changes a table has one place to look.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from sqlalchemy import ColumnElement, Engine, Select, case, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, defer

from triage.core.lifecycle import AlertState, ReportState, SeriesState, moved
from triage.edges.store.database import migrate, open_engine, reading, writing
from triage.edges.store.tables import Alert, Event, Instance, Report, Result, Series

_UNANSWERED = (AlertState.PENDING, AlertState.SENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A received instance as it is registered. Names and descriptions are shown on the page only."""

    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    calling_ae: str
    patient_name: str
    patient_id: str
    description: str
    sha256: str
    size_bytes: int
    header: str


@dataclass(frozen=True, slots=True)
class Registration:
    """A registered instance. `evaluated_up_to`: the last one of its series that somebody looked at."""

    sha256: str
    instance_id: int
    series_id: int
    evaluated_up_to: int


@dataclass(frozen=True, slots=True)
class Assessment:
    """An assessment that has begun: it looks at the instances up to `up_to_instance_id`."""

    result_id: int
    series_id: int
    after_instance_id: int
    up_to_instance_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """What an assessment ended in: a category with its probability, or a reason why there is none."""

    sources_sha256: str
    category: str | None = None
    probability: float | None = None
    threshold: float | None = None
    reason: str | None = None
    detail: str | None = None
    b_value: float | None = None
    volume_kind: str | None = None
    slices: int | None = None
    spacing_mm: str | None = None
    model_name: str
    model_version: str
    model_sha256: str
    model_status: str


@dataclass(frozen=True, slots=True)
class BuiltReport:
    """A report with its UIDs minted: Part 10 bytes, and whether anybody is to receive it."""

    sop_instance_uid: str
    dicom: bytes
    state: ReportState


@dataclass(frozen=True, slots=True)
class FollowUps:
    """What a conclusion sets going: a report to deliver, an alert to raise."""

    report_id: int | None = None
    alert_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesView:
    """One series with its newest concluded result, and what became of it."""

    series: Series
    result: Result | None
    report: Report | None
    alert: Alert | None
    timeline: Sequence[Event] = ()


@dataclass(frozen=True, slots=True)
class Store:
    """The database. Open it with `Store.open`."""

    engine: Engine

    @classmethod
    def open(cls, url: str) -> Self:
        """Connect and bring the schema up to date."""
        engine = open_engine(url)
        migrate(engine)
        return cls(engine)

    def close(self) -> None:
        """Give back every connection."""
        self.engine.dispose()

    def is_answering(self) -> bool:
        """Whether the database can be read."""
        try:
            with reading(self.engine) as session:
                session.scalar(select(Series.id).limit(1))
        except SQLAlchemyError:
            return False
        return True

    # What was received

    def registration(self, sop_instance_uid: str) -> Registration | None:
        """How an instance is registered, or None if it is not."""
        query = (
            select(Instance.sha256, Instance.id, Instance.series_id, Series.evaluated_up_to)
            .join(Series, Series.id == Instance.series_id)
            .where(Instance.sop_instance_uid == sop_instance_uid)
        )
        with reading(self.engine) as session:
            row = session.execute(query).one_or_none()
            return None if row is None else Registration(row[0], row[1], row[2], row[3])

    def register(self, arrival: Arrival, at: datetime) -> Registration:
        """The instance is ours.

        Raises sqlalchemy.exc.IntegrityError if another association registered it, or on PostgreSQL its
        series, in the meantime.
        """
        with writing(self.engine) as session:
            series = _lock_series(session, Series.series_instance_uid == arrival.series_instance_uid)
            if series is None:
                series = Series(
                    series_instance_uid=arrival.series_instance_uid,
                    study_instance_uid=arrival.study_instance_uid,
                    state=SeriesState.RECEIVING,
                    revision=1,
                    evaluated_up_to=0,
                    calling_ae=arrival.calling_ae,
                    patient_name=arrival.patient_name,
                    patient_id=arrival.patient_id,
                    description=arrival.description,
                    first_instance_at=at,
                    last_instance_at=at,
                )
                session.add(series)
                session.flush()
                _note(session, series.id, at, "first_instance", f"from {arrival.calling_ae}")
            series.last_instance_at = at
            instance = Instance(
                series_id=series.id,
                sop_instance_uid=arrival.sop_instance_uid,
                sha256=arrival.sha256,
                size_bytes=arrival.size_bytes,
                received_at=at,
                header=arrival.header,
            )
            session.add(instance)
            session.flush()
            return Registration(arrival.sha256, instance.id, series.id, series.evaluated_up_to)

    def note_conflict(self, sop_instance_uid: str, at: datetime, detail: str) -> None:
        """Other bytes came under a registered UID and were kept out."""
        with writing(self.engine) as session:
            series_id = session.scalar(
                select(Instance.series_id).where(Instance.sop_instance_uid == sop_instance_uid)
            )
            if series_id is not None:
                _note(session, series_id, at, "conflicting_instance", detail)

    def headers_after(
        self, series_id: int, instance_id: int, up_to: int | None = None
    ) -> list[tuple[int, str]]:
        """(row id, header) of the series' instances after `instance_id`, in order of arrival."""
        query = (
            select(Instance.id, Instance.header)
            .where(Instance.series_id == series_id, Instance.id > instance_id)
            .order_by(Instance.id)
        )
        if up_to is not None:
            query = query.where(Instance.id <= up_to)
        with reading(self.engine) as session:
            return [(row.id, row.header) for row in session.execute(query)]

    def contents(self, sop_instance_uids: Sequence[str]) -> Mapping[str, str]:
        """SOP Instance UID -> SHA-256 of its bytes in the inbox."""
        found: dict[str, str] = {}
        with reading(self.engine) as session:
            for start in range(0, len(sop_instance_uids), 500):
                rows = session.execute(
                    select(Instance.sop_instance_uid, Instance.sha256).where(
                        Instance.sop_instance_uid.in_(sop_instance_uids[start : start + 500])
                    )
                )
                found.update((row.sop_instance_uid, row.sha256) for row in rows)
        return found

    # When it is looked at

    def series(self, series_id: int) -> Series:
        """The series' row. Raises sqlalchemy.exc.NoResultFound."""
        with reading(self.engine) as session:
            return session.get_one(Series, series_id)

    def not_yet_evaluated(self) -> list[tuple[int, int]]:
        """(series id, last evaluated instance) of every series with instances nobody has looked at."""
        newest = func.max(Instance.id)
        query = (
            select(Series.id, Series.evaluated_up_to)
            .join(Instance, Instance.series_id == Series.id)
            .group_by(Series.id)
            .having(newest > Series.evaluated_up_to)
        )
        with reading(self.engine) as session:
            return [(row[0], row[1]) for row in session.execute(query)]

    def begin_assessment(
        self, series_id: int, after_instance_id: int, at: datetime, because: str
    ) -> Assessment:
        """Someone looks at every instance up to now; asked again for the same ones, the same answer."""
        with writing(self.engine) as session:
            series = _lock_series(session, Series.id == series_id)
            assert series is not None  # noqa: S101 - the caller holds its id
            begun = session.scalar(
                select(Result).where(
                    Result.series_id == series_id, Result.after_instance_id == after_instance_id
                )
            )
            if begun is None:
                newest = session.scalar(select(func.max(Instance.id)).where(Instance.series_id == series_id))
                begun = Result(
                    series_id=series_id, after_instance_id=after_instance_id, up_to_instance_id=newest
                )
                session.add(begun)
                series.evaluated_up_to = begun.up_to_instance_id
                if series.state is SeriesState.RECEIVING:
                    series.state = moved(series.state, SeriesState.ANALYSING)
                _note(session, series_id, series.last_instance_at, "last_instance", "")
                _note(session, series_id, at, "complete", because)
                session.flush()
            return Assessment(begun.id, series_id, after_instance_id, begun.up_to_instance_id)

    # What it ended in

    def ignore(self, assessment: Assessment, at: datetime, detail: str) -> None:
        """The series is not ours to judge."""
        with writing(self.engine) as session:
            result = session.get_one(Result, assessment.result_id)
            if result.concluded_at is not None:
                return
            series = session.get_one(Series, assessment.series_id)
            result.concluded_at, result.detail = at, detail
            if self._newest_concluded(session, series.id) is None:
                series.state = moved(series.state, SeriesState.IGNORED)
                _note(session, series.id, at, "ignored", detail)

    def conclude(
        self,
        assessment: Assessment,
        conclusion: Conclusion,
        *,
        report: BuiltReport | None,
        urgent: bool,
        at: datetime,
        note: str,
    ) -> FollowUps:
        """The outcome, its report and its alert, all at once; asked again, the same follow-ups.

        An assessment that used the same sources as the one before it found nothing new, and an
        assessment that a later one has overtaken has nothing left to say: neither makes a revision.
        """
        with writing(self.engine) as session:
            result = session.get_one(Result, assessment.result_id)
            if result.concluded_at is not None:
                return self._follow_ups(session, result)
            series = session.get_one(Series, assessment.series_id)
            previous = self._newest_concluded(session, series.id)
            result.concluded_at = at
            if previous is not None:
                if previous.sources_sha256 == conclusion.sources_sha256:
                    _note(
                        session,
                        series.id,
                        at,
                        "nothing_new",
                        "later instances are not part of the judged volume",
                    )
                    return FollowUps()
                if previous.up_to_instance_id > result.up_to_instance_id:
                    return FollowUps()
            result.revision = (previous.revision or 0) + 1 if previous is not None else 1
            for field in conclusion.__slots__:
                setattr(result, field, getattr(conclusion, field))
            series.revision = result.revision
            ended = SeriesState.ASSESSED if conclusion.category else SeriesState.NOT_ASSESSED
            series.state = moved(series.state, ended)
            _note(session, series.id, at, "analysed", note)
            if report is None:
                _note(session, series.id, at, "report_failed", "the report could not be built")
            else:
                session.add(
                    Report(
                        result_id=result.id,
                        sop_instance_uid=report.sop_instance_uid,
                        dicom=report.dicom,
                        state=report.state,
                        attempts=0,
                        created_at=at,
                    )
                )
            if urgent:
                self._raise_alert(session, result, at)
            session.flush()
            return self._follow_ups(session, result)

    def newest_report(self, series_id: int) -> Report | None:
        """The report of the newest revision, if there is one."""
        with reading(self.engine) as session:
            return session.scalar(
                select(Report)
                .join(Result, Result.id == Report.result_id)
                .where(Result.series_id == series_id)
                .order_by(Result.revision.desc())
                .limit(1)
            )

    # Delivering

    def report(self, report_id: int) -> Report:
        """One report. Raises sqlalchemy.exc.NoResultFound."""
        with reading(self.engine) as session:
            return session.get_one(Report, report_id)

    def report_stored(self, report_id: int, at: datetime, detail: str) -> None:
        """The PACS has the report."""
        with writing(self.engine) as session:
            report = session.get_one(Report, report_id)
            if report.state is not ReportState.STORED:
                report.state, report.stored_at, report.last_error = ReportState.STORED, at, None
                report.attempts += 1
                _note(session, self._series_of_result(session, report.result_id), at, "report_stored", detail)

    def report_not_stored(self, report_id: int, at: datetime, error: str, *, final: bool) -> None:
        """One try failed; `final` when no other will follow."""
        with writing(self.engine) as session:
            report = session.get_one(Report, report_id)
            first = report.attempts == 0
            report.attempts += 1
            report.last_error = error
            if final:
                report.state = ReportState.FAILED
            if first or final:
                event = "report_failed" if final else "report_delayed"
                _note(session, self._series_of_result(session, report.result_id), at, event, error)

    # Alerting

    def alert(self, alert_id: int) -> Alert:
        """One alert. Raises sqlalchemy.exc.NoResultFound."""
        with reading(self.engine) as session:
            return session.get_one(Alert, alert_id)

    def result(self, result_id: int) -> Result:
        """One result. Raises sqlalchemy.exc.NoResultFound."""
        with reading(self.engine) as session:
            return session.get_one(Result, result_id)

    def alert_sent(self, alert_id: int, at: datetime, detail: str) -> None:
        """A channel took a message."""
        with writing(self.engine) as session:
            alert = session.get_one(Alert, alert_id)
            alert.pages += 1
            alert.last_error = None
            alert.sent_at = alert.sent_at or at
            if alert.state is AlertState.PENDING:
                alert.state = AlertState.SENT
            _note(session, self._series_of_result(session, alert.result_id), at, "alert_sent", detail)

    def alert_not_sent(self, alert_id: int, at: datetime, error: str) -> None:
        """No channel took the message."""
        with writing(self.engine) as session:
            alert = session.get_one(Alert, alert_id)
            if alert.last_error != error:
                alert.last_error = error
                _note(session, self._series_of_result(session, alert.result_id), at, "alert_failed", error)

    def acknowledge(self, series_id: int, by: str, at: datetime) -> int | None:
        """A person answers: the alert that was open, or None where there was none to answer."""
        with writing(self.engine) as session:
            alert = self._open_alert(session, series_id)
            if alert is None:
                return None
            alert.state, alert.acknowledged_by, alert.acknowledged_at = AlertState.ACKNOWLEDGED, by, at
            _note(session, series_id, at, "acknowledged", f"by {by}")
            return alert.id

    # Showing

    def view(self, series_id: int) -> SeriesView | None:
        """One series with everything that became of it, or None."""
        return self._view(Series.id == series_id)

    def view_by_uid(self, series_instance_uid: str) -> SeriesView | None:
        """The same, found by its Series Instance UID."""
        return self._view(Series.series_instance_uid == series_instance_uid)

    def overview(self, state: SeriesState | None = None, limit: int = 200) -> list[SeriesView]:
        """The newest series first, without timelines."""
        query = (
            self._with_newest_result()
            .order_by(Series.first_instance_at.desc(), Series.id.desc())
            .limit(limit)
        )
        if state is not None:
            query = query.where(Series.state == state)
        return self._views(query)

    def worklist(self, limit: int = 200) -> list[SeriesView]:
        """Series that are or may be ours, never the ignored: those with an open alert, then the newest."""
        is_answered = case((Alert.state.in_(_UNANSWERED), 0), else_=1)
        query = (
            self._with_newest_result()
            .where(Series.state != SeriesState.IGNORED)
            .order_by(is_answered, Series.first_instance_at.desc(), Series.id.desc())
            .limit(limit)
        )
        return self._views(query)

    def timelines(self, series_ids: Sequence[int]) -> dict[int, list[Event]]:
        """Series id -> its timeline, in order, for the series that have one."""
        found: dict[int, list[Event]] = {}
        query = select(Event).where(Event.series_id.in_(series_ids)).order_by(Event.at, Event.id)
        with reading(self.engine) as session:
            for event in session.scalars(query):
                found.setdefault(event.series_id, []).append(event)
        return found

    def not_concluded(self) -> list[tuple[int, int]]:
        """(series id, last instance before it) of every assessment that began and has no outcome."""
        query = select(Result.series_id, Result.after_instance_id).where(Result.concluded_at.is_(None))
        with reading(self.engine) as session:
            return [(row[0], row[1]) for row in session.execute(query)]

    def not_delivered(self) -> Sequence[int]:
        """Reports that the PACS should have and does not."""
        with reading(self.engine) as session:
            return session.scalars(select(Report.id).where(Report.state == ReportState.PENDING)).all()

    def not_answered(self) -> Sequence[int]:
        """Alerts that nobody has acknowledged."""
        with reading(self.engine) as session:
            return session.scalars(select(Alert.id).where(Alert.state.in_(_UNANSWERED))).all()

    def open_alerts(self) -> int:
        """How many alerts nobody has acknowledged."""
        with reading(self.engine) as session:
            query = select(func.count()).select_from(Alert).where(Alert.state != AlertState.ACKNOWLEDGED)
            return session.scalar(query) or 0

    # Inside a transaction

    def _view(self, where: ColumnElement[bool]) -> SeriesView | None:
        found = self._views(self._with_newest_result().where(where))
        if not found:
            return None
        with reading(self.engine) as session:
            timeline = session.scalars(
                select(Event).where(Event.series_id == found[0].series.id).order_by(Event.at, Event.id)
            ).all()
        view = found[0]
        return SeriesView(
            series=view.series, result=view.result, report=view.report, alert=view.alert, timeline=timeline
        )

    def _views(self, query: Select[Series, Result, Report, Alert]) -> list[SeriesView]:
        with reading(self.engine) as session:
            return [
                SeriesView(series=series, result=result, report=report, alert=alert)
                for series, result, report, alert in session.execute(query)
            ]

    @staticmethod
    def _with_newest_result() -> Select[Series, Result, Report, Alert]:
        # Of any revision: a call that nobody answered stays open whatever a late slice changed.
        newest_alert = (
            select(func.max(Alert.id))
            .join(Result, Result.id == Alert.result_id)
            .where(Result.series_id == Series.id)
            .correlate(Series)
            .scalar_subquery()
        )
        return (
            select(Series, Result, Report, Alert)
            .outerjoin(Result, (Result.series_id == Series.id) & (Result.revision == Series.revision))
            .outerjoin(Report, Report.result_id == Result.id)
            .outerjoin(Alert, Alert.id == newest_alert)
            .options(defer(Report.dicom))
        )

    @classmethod
    def _raise_alert(cls, session: Session, result: Result, at: datetime) -> None:
        """One open alert a series: while nobody has answered the last one, it speaks for the new result."""
        open_alert = cls._open_alert(session, result.series_id)
        if open_alert is None:
            session.add(Alert(result_id=result.id, state=AlertState.PENDING, pages=0, raised_at=at))
        else:
            open_alert.result_id = result.id
            _note(session, result.series_id, at, "alert_amended", f"now for revision {result.revision}")

    @staticmethod
    def _open_alert(session: Session, series_id: int) -> Alert | None:
        return session.scalar(
            select(Alert)
            .join(Result, Result.id == Alert.result_id)
            .where(Result.series_id == series_id, Alert.state.in_(_UNANSWERED))
        )

    @staticmethod
    def _newest_concluded(session: Session, series_id: int) -> Result | None:
        return session.scalar(
            select(Result)
            .where(Result.series_id == series_id, Result.revision.is_not(None))
            .order_by(Result.revision.desc())
            .limit(1)
        )

    @staticmethod
    def _follow_ups(session: Session, result: Result) -> FollowUps:
        return FollowUps(
            report_id=session.scalar(
                select(Report.id).where(Report.result_id == result.id, Report.state == ReportState.PENDING)
            ),
            alert_id=session.scalar(
                select(Alert.id).where(Alert.result_id == result.id, Alert.state != AlertState.ACKNOWLEDGED)
            ),
        )

    @staticmethod
    def _series_of_result(session: Session, result_id: int) -> int:
        return session.scalars(select(Result.series_id).where(Result.id == result_id)).one()


def _lock_series(session: Session, where: ColumnElement[bool]) -> Series | None:
    # FOR UPDATE orders registering against assessing on PostgreSQL; SQLite already has one writer.
    return session.scalar(select(Series).where(where).with_for_update())


def _note(session: Session, series_id: int, at: datetime, event: str, detail: str) -> None:
    session.add(Event(series_id=series_id, at=at, event=event, detail=detail))
