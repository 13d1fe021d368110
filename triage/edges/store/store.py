"""What can be asked of the database, and what can become true in it.

The module is long because every query and every write stands here, in the order of a study's life: whoever
changes a table has one place to look.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from sqlalchemy import ColumnElement, Engine, Select, func, or_, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, defer

from triage.core.audit import OURSELVES, Action, Deed
from triage.core.finding import Category
from triage.core.lifecycle import ENDED, AlertState, ReportState, SeriesState, moved
from triage.edges.store.audit import add_entry
from triage.edges.store.database import migrate, open_engine, reading, writing
from triage.edges.store.tables import Alert, Event, Instance, Page, Report, Result, Sender, Series

_UNANSWERED = (AlertState.PENDING, AlertState.SENT)
_SENDER_RESOLUTION = timedelta(seconds=1)


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
    """A registered instance.

    evaluated_up_to: the last one of its series that somebody looked at.
    is_freed: the images of its series were deleted here.
    """

    sha256: str
    instance_id: int
    series_id: int
    evaluated_up_to: int
    is_freed: bool = False


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
    """What a conclusion sets going: a report to deliver, an alert to raise or amend, a refusal to tell.

    is_amended: the alert spoke for an earlier result before.
    """

    report_id: int | None = None
    alert_id: int | None = None
    is_amended: bool = False
    refused_result_id: int | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """What is on the disk for one series: its instances by SHA-256, its volumes by result."""

    newest_instance_id: int
    sha256s: Sequence[str]
    result_ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class Call:
    """What an alert says now: the result it speaks for, and the one that this replaced, if any."""

    alert: Alert
    result: Result
    replaced: Result | None


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
            select(Instance.sha256, Instance.id, Instance.series_id, Series.evaluated_up_to, Series.freed_at)
            .join(Series, Series.id == Instance.series_id)
            .where(Instance.sop_instance_uid == sop_instance_uid)
        )
        with reading(self.engine) as session:
            row = session.execute(query).one_or_none()
            return None if row is None else Registration(*row[:4], is_freed=row.freed_at is not None)

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
            series.last_instance_at, series.freed_at = at, None
            self._note_sender(session, arrival.calling_ae, at)
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
            series.newest_instance_id = instance.id
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
        query = select(Series.id, Series.evaluated_up_to).where(
            Series.newest_instance_id > Series.evaluated_up_to
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
                begun = Result(
                    series_id=series_id,
                    after_instance_id=after_instance_id,
                    up_to_instance_id=series.newest_instance_id,
                )
                session.add(begun)
                series.evaluated_up_to = begun.up_to_instance_id
                if series.state is SeriesState.RECEIVING:
                    series.state = moved(series.state, SeriesState.ANALYSING)
                _note(session, series_id, series.last_instance_at, "last_instance", "")
                _note(session, series_id, at, "complete", because)
                _audit_reception(session, series, begun, at)
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
                        queued_at=at,
                    )
                )
            self._call_where_needed(session, result, urgent=urgent, at=at)
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
                series_id = self._series_of_result(session, report.result_id)
                _note(session, series_id, at, "report_stored", detail)
                sent = Deed(actor=OURSELVES, action=Action.REPORT_SENT, series_id=series_id, detail=detail)
                add_entry(session, sent, at)

    def report_not_stored(self, report_id: int, at: datetime, error: str, *, final: bool) -> None:
        """One try failed; `final` when no other will follow."""
        with writing(self.engine) as session:
            report = session.get_one(Report, report_id)
            if report.state is not ReportState.PENDING:
                return
            first = report.attempts == 0
            report.attempts += 1
            report.last_error = error
            if final:
                report.state = ReportState.FAILED
            if first or final:
                event = "report_failed" if final else "report_delayed"
                _note(session, self._series_of_result(session, report.result_id), at, event, error)

    def requeue_report(self, report_id: int, at: datetime, by: str, address: str = "") -> bool:
        """Somebody wants a report sent again: whether it was not on its way already."""
        with writing(self.engine) as session:
            report = session.get_one(Report, report_id)
            if report.state is ReportState.PENDING:
                return False
            report.state, report.queued_at = ReportState.PENDING, at
            report.attempts, report.last_error = 0, None
            series_id = self._series_of_result(session, report.result_id)
            _note(session, series_id, at, "report_requeued", f"by {by}")
            deed = Deed(actor=by, action=Action.REPORT_RESENT, address=address, series_id=series_id)
            add_entry(session, deed, at)
            return True

    def undelivered(self) -> Sequence[tuple[int, int, str]]:
        """(report id, series id, what went wrong) of every report that was given up."""
        query = (
            select(Report.id, Result.series_id, Report.last_error)
            .join(Result, Result.id == Report.result_id)
            .where(Report.state == ReportState.FAILED)
            .order_by(Report.id)
        )
        with reading(self.engine) as session:
            return [(row[0], row[1], row[2] or "") for row in session.execute(query)]

    # Freeing

    def finished_before(self, at: datetime, *, limit: int) -> Sequence[int]:
        """Series that nothing has to be done for any more since `at`, and whose images are still here."""
        unsettled = (
            select(Result.id)
            .outerjoin(Report, Report.result_id == Result.id)
            .outerjoin(Alert, Alert.id == Result.alert_id)
            .where(
                Result.series_id == Series.id,
                or_(
                    Result.concluded_at.is_(None),
                    Result.concluded_at >= at,
                    Report.state.in_((ReportState.PENDING, ReportState.FAILED)),
                    Alert.state.in_(_UNANSWERED),
                ),
            )
        )
        query = (
            select(Series.id)
            .where(
                Series.freed_at.is_(None),
                Series.state.in_(ENDED),
                Series.last_instance_at < at,
                Series.newest_instance_id <= Series.evaluated_up_to,
                ~unsettled.exists(),
            )
            .order_by(Series.id)
            .limit(limit)
        )
        with reading(self.engine) as session:
            return session.scalars(query).all()

    def held(self, series_id: int) -> Held:
        """What is on the disk for a series."""
        with reading(self.engine) as session:
            return Held(
                session.get_one(Series, series_id).newest_instance_id,
                session.scalars(select(Instance.sha256).where(Instance.series_id == series_id)).all(),
                session.scalars(select(Result.id).where(Result.series_id == series_id)).all(),
            )

    def freed(self, series_id: int, newest_instance_id: int, at: datetime) -> None:
        """The images of a series up to the newest one are no longer here; if more came, it is held again."""
        with writing(self.engine) as session:
            series = _lock_series(session, Series.id == series_id)
            if series is None or series.newest_instance_id != newest_instance_id:
                return
            series.freed_at = at
            _note(session, series_id, at, "freed", "the images were deleted here; the result stays")
            add_entry(session, Deed(actor=OURSELVES, action=Action.IMAGES_FREED, series_id=series_id), at)

    def was_freed(self, series_id: int) -> bool:
        """Whether images of a series were ever deleted here."""
        query = select(Event.id).where(Event.series_id == series_id, Event.event == "freed").limit(1)
        with reading(self.engine) as session:
            return session.scalar(query) is not None

    def leave(self, assessment: Assessment, at: datetime, detail: str) -> None:
        """The assessment says nothing: the result before it stands."""
        with writing(self.engine) as session:
            result = session.get_one(Result, assessment.result_id)
            if result.concluded_at is None:
                result.concluded_at, result.detail = at, detail
                _note(session, assessment.series_id, at, "nothing_new", detail)

    def came_back(self, series_id: int) -> None:
        """Images of a freed series are here again, and have to be freed again."""
        with writing(self.engine) as session:
            session.get_one(Series, series_id).freed_at = None

    # Alerting

    def alert(self, alert_id: int) -> Alert:
        """One alert. Raises sqlalchemy.exc.NoResultFound."""
        with reading(self.engine) as session:
            return session.get_one(Alert, alert_id)

    def result(self, result_id: int) -> Result:
        """One result. Raises sqlalchemy.exc.NoResultFound."""
        with reading(self.engine) as session:
            return session.get_one(Result, result_id)

    def call(self, alert_id: int) -> Call:
        """What an alert says now: of its series' newest results an urgent one, else the newest.

        Raises sqlalchemy.exc.NoResultFound.
        """
        with reading(self.engine) as session:
            alert = session.get_one(Alert, alert_id)
            told = session.scalars(
                select(Result).where(Result.alert_id == alert_id).order_by(Result.revision, Result.id)
            ).all()
            newest = {result.series_id: result for result in told}.values()
            result = max(newest, key=lambda each: (each.category == Category.ASPECTS_1_6, each.id))
            replaced = session.scalar(
                select(Result).where(
                    Result.series_id == result.series_id, Result.revision == (result.revision or 0) - 1
                )
            )
            return Call(alert, result, replaced)

    def next_call(self, alert_id: int) -> int:
        """The number of the call that has not been made yet."""
        with reading(self.engine) as session:
            made = session.scalar(select(func.max(Page.call)).where(Page.alert_id == alert_id))
            return 0 if made is None else made + 1

    def paged(
        self, alert_id: int, at: datetime, *, call: int = 0, rung: int, contact: str, taken: bool
    ) -> None:
        """A contact's channels took a message, or none of them did."""
        with writing(self.engine) as session:
            alert = session.get_one(Alert, alert_id, with_for_update=True)
            page = Page(alert_id=alert_id, at=at, call=call, rung=rung, contact=contact, taken=taken)
            session.add(page)
            if taken:
                alert.pages += 1
                alert.last_error = None
                alert.sent_at = alert.sent_at or at
                if alert.state is AlertState.PENDING:
                    alert.state = AlertState.SENT
                self._note_alert(session, alert_id, at, "alert_sent", f"{contact}, rung {rung + 1}")
                return
            error = f"no channel of {contact} (rung {rung + 1}) took the message"
            if alert.last_error != error:
                alert.last_error = error
                self._note_alert(session, alert_id, at, "alert_failed", error)

    def pages(self, alert_id: int, call: int | None = None) -> Sequence[Page]:
        """Every message of an alert, or of one call of it, to every contact, in order."""
        query = select(Page).where(Page.alert_id == alert_id).order_by(Page.id)
        if call is not None:
            query = query.where(Page.call == call)
        with reading(self.engine) as session:
            return session.scalars(query).all()

    def technologist_told(self, result_id: int, at: datetime, detail: str) -> None:
        """The technologist knows that a series was not assessed."""
        with writing(self.engine) as session:
            series_id = self._series_of_result(session, result_id)
            _note(session, series_id, at, "technologist_told", detail)

    def acknowledge(self, series_id: int, by: str, at: datetime, address: str = "") -> int | None:
        """A person answers: the alert that was open, or None where there was none to answer."""
        with writing(self.engine) as session:
            alert = self._open_alert(session, Result.series_id == series_id)
            if alert is None:
                return None
            alert.state, alert.acknowledged_by, alert.acknowledged_at = AlertState.ACKNOWLEDGED, by, at
            self._note_alert(session, alert.id, at, "acknowledged", f"by {by}")
            deed = Deed(actor=by, action=Action.ACKNOWLEDGED, address=address, series_id=series_id)
            add_entry(session, deed, at)
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
        waits_for_an_answer = Series.id.in_(
            select(Result.series_id)
            .join(Alert, Alert.id == Result.alert_id)
            .where(Alert.state.in_(_UNANSWERED))
        )
        newest_first = (
            self._with_newest_result()
            .where(Series.state != SeriesState.IGNORED)
            .order_by(Series.first_instance_at.desc(), Series.id.desc())
            .limit(limit)
        )
        urgent = self._views(newest_first.where(waits_for_an_answer))
        others = self._views(newest_first.where(~waits_for_an_answer))
        return [*urgent, *others][:limit]

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
            select(func.max(Result.alert_id))
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
    def _call_where_needed(cls, session: Session, result: Result, *, urgent: bool, at: datetime) -> None:
        """One open alert a study. A person is called where it is urgent, or told otherwise before.

        While an alert is open, whatever its series come to is part of it. After a person has answered,
        the same answer again calls nobody, and any other one does.
        """
        # Two series of one study that end at the same moment must not raise an alert each.
        study_uid = select(Series.study_instance_uid).where(Series.id == result.series_id).scalar_subquery()
        session.scalars(
            select(Series.id)
            .where(Series.study_instance_uid == study_uid)
            .order_by(Series.id)
            .with_for_update()
        ).all()
        told = session.scalar(
            select(Result)
            .where(Result.series_id == result.series_id, Result.alert_id.is_not(None))
            .order_by(Result.revision.desc())
            .limit(1)
        )
        open_alert = cls._open_alert(session, Result.series_id == result.series_id)
        if open_alert is None and (urgent if told is None else told.category != result.category):
            open_alert = cls._open_alert_of_study(session, result) or cls._new_alert(session, result, at)
        if open_alert is None:
            return
        is_known = session.scalar(select(Result.id).where(Result.alert_id == open_alert.id).limit(1))
        result.alert_id = open_alert.id
        if is_known is not None:
            session.flush()
            said = f"now for revision {result.revision}: {_spoken(result.category)}"
            cls._note_alert(session, open_alert.id, at, "alert_amended", said)

    @staticmethod
    def _new_alert(session: Session, result: Result, at: datetime) -> Alert:
        study_uid = session.scalars(
            select(Series.study_instance_uid).where(Series.id == result.series_id)
        ).one()
        alert = Alert(study_instance_uid=study_uid, state=AlertState.PENDING, pages=0, raised_at=at)
        session.add(alert)
        session.flush()
        return alert

    @staticmethod
    def _open_alert(session: Session, where: ColumnElement[bool]) -> Alert | None:
        return session.scalar(
            select(Alert)
            .join(Result, Result.alert_id == Alert.id)
            .where(where, Alert.state.in_(_UNANSWERED))
            .order_by(Alert.id.desc())
            .limit(1)
            .with_for_update(of=Alert)
        )

    @staticmethod
    def _open_alert_of_study(session: Session, result: Result) -> Alert | None:
        study_uid = select(Series.study_instance_uid).where(Series.id == result.series_id).scalar_subquery()
        return session.scalar(
            select(Alert)
            .where(Alert.study_instance_uid == study_uid, Alert.state.in_(_UNANSWERED))
            .order_by(Alert.id.desc())
            .limit(1)
            .with_for_update()
        )

    @staticmethod
    def _note_alert(session: Session, alert_id: int, at: datetime, event: str, detail: str) -> None:
        """Into the timeline of every series that the alert speaks for."""
        for series_id in session.scalars(
            select(Result.series_id).where(Result.alert_id == alert_id).distinct()
        ).all():
            _note(session, series_id, at, event, detail)

    @staticmethod
    def _note_sender(session: Session, ae_title: str, at: datetime) -> None:
        sender = session.get(Sender, ae_title)
        if sender is None:
            session.add(Sender(ae_title=ae_title, first_at=at, last_at=at))
        elif at - sender.last_at > _SENDER_RESOLUTION:
            # Not at every instance: on PostgreSQL the sender's associations would wait for each other.
            sender.last_at = at

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
        report_id = session.scalar(
            select(Report.id).where(Report.result_id == result.id, Report.state == ReportState.PENDING)
        )
        alert_id = session.scalar(
            select(Alert.id).where(Alert.id == result.alert_id, Alert.state.in_(_UNANSWERED))
        )
        # Not only earlier ones: ids are given when an assessment begins, and it may end after a later one.
        earlier = select(Result.id).where(Result.alert_id == alert_id, Result.id != result.id).limit(1)
        return FollowUps(
            report_id=report_id,
            alert_id=alert_id,
            is_amended=alert_id is not None and session.scalar(earlier) is not None,
            refused_result_id=result.id if result.revision and result.category is None else None,
        )

    @staticmethod
    def _series_of_result(session: Session, result_id: int) -> int:
        return session.scalars(select(Result.series_id).where(Result.id == result_id)).one()


def _lock_series(session: Session, where: ColumnElement[bool]) -> Series | None:
    # FOR UPDATE orders registering against assessing on PostgreSQL; SQLite already has one writer.
    return session.scalar(select(Series).where(where).with_for_update())


def _note(session: Session, series_id: int, at: datetime, event: str, detail: str) -> None:
    session.add(Event(series_id=series_id, at=at, event=event, detail=detail))


def _spoken(category: str | None) -> str:
    return category or "not assessed"


def _audit_reception(session: Session, series: Series, begun: Result, at: datetime) -> None:
    # Once an assessment: an entry an instance would tell no more, and cost a disk sync an instance.
    received = select(func.count()).where(
        Instance.series_id == series.id,
        Instance.id > begun.after_instance_id,
        Instance.id <= begun.up_to_instance_id,
    )
    deed = Deed(
        actor=series.calling_ae,
        action=Action.IMAGES_RECEIVED,
        series_id=series.id,
        detail=f"{session.scalar(received)} instances",
    )
    add_entry(session, deed, at)
