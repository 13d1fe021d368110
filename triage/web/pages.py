"""Row -> what the screen shows. Pure: the moment is an argument, the words come from `wording`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from triage.core.finding import Category
from triage.core.lifecycle import AlertState, ReportState, SeriesState
from triage.core.trouble import MEANINGS, Trouble
from triage.core.volume import Reason
from triage.edges.store import Alert, Event, Problem, Result, SeriesView
from triage.web import wording
from triage.web.phrases import age_words, duration_words, patient_words, probability_words


class Kind(StrEnum):
    """How a verdict looks: each has its own colour and its own shape."""

    SUSPECTED = "suspected"
    NOT_SUSPECTED = "not-suspected"
    NOT_ANALYSED = "not-analysed"
    WAITING = "waiting"
    IGNORED = "ignored"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is said first, why, and what to do."""

    kind: Kind
    words: str
    advice: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """One state in words; `is_trouble` where a person should look into it."""

    words: str
    is_trouble: bool = False
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Probability:
    """A probability and its threshold: in words, and as percent of the bar's length."""

    words: str
    threshold_words: str
    percent: float
    threshold_percent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the worklist."""

    series_id: int
    verdict: Verdict
    probability: Probability | None
    patient_name: str
    patient_id: str
    description: str
    received_at: datetime
    age: str
    report: Status
    alert: Status


@dataclass(frozen=True, slots=True)
class Group:
    """Lines of the worklist that ask for the same thing."""

    heading: str
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True, kw_only=True)
class Worklist:
    """The whole list, the most urgent first. `notice`: open alerts that it does not hold."""

    groups: Sequence[Group]
    waiting: int
    summary: str
    notice: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the timeline, and how long after the line before it."""

    at: datetime
    words: str
    detail: str
    after: str


@dataclass(frozen=True, slots=True)
class Delay:
    """Seconds from the last image to something, in words."""

    to: str
    took: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Everything the page of one series shows, but for its pictures.

    key: differs where the page has to be loaded anew, not only its words.
    """

    row: Row
    key: str
    is_final: bool
    notices: Sequence[str]
    result: Result | None
    can_acknowledge: bool
    acknowledged_at: datetime | None
    has_report: bool
    can_resend: bool
    delays: Sequence[Delay]
    timeline: Sequence[Step]


@dataclass(frozen=True, slots=True)
class Banner:
    """One trouble of the service itself."""

    words: str
    detail: str
    since: datetime


_HEADINGS = (wording.GROUP_OPEN, wording.GROUP_NOT_ANALYSED, wording.GROUP_RUNNING, wording.GROUP_DONE)


def worklist(views: Sequence[SeriesView], now: datetime, *, open_alerts: int, is_paging: bool) -> Worklist:
    """The groups that have rows, in order of urgency; within each the order of `views` stays.

    open_alerts: in the whole database.
    is_paging: whether an alert channel is set up.
    """
    by_heading: dict[str, list[Row]] = {heading: [] for heading in _HEADINGS}
    for view in views:
        by_heading[_heading(view)].append(row_of(view, now, is_paging=is_paging))
    groups = [Group(heading, rows) for heading, rows in by_heading.items()]
    waiting = len(groups[0].rows)
    elsewhere = open_alerts - waiting
    return Worklist(
        groups=[group for group in groups if group.rows],
        waiting=waiting,
        summary=_summary(waiting),
        notice=wording.ALERTS_ELSEWHERE.format(count=elsewhere) if elsewhere > 0 else "",
        at=now,
    )


def problems(found: Sequence[Problem]) -> list[Banner]:
    """What is wrong with the service, in the operator's words."""
    return [Banner(MEANINGS[Trouble(problem.kind)], problem.detail, problem.opened_at) for problem in found]


def study(view: SeriesView, now: datetime, *, is_paging: bool) -> Study:
    """The page of one series."""
    row = row_of(view, now, is_paging=is_paging)
    is_open = _is_open(view.alert)
    return Study(
        row=row,
        key=f"{view.series.state.value}-{view.result.id if view.result else 0}-{int(is_open)}",
        is_final=_is_final(view),
        notices=list(_notices(view)),
        result=view.result,
        can_acknowledge=is_open,
        acknowledged_at=view.alert.acknowledged_at if view.alert else None,
        has_report=view.report is not None,
        can_resend=view.report is not None and view.report.state is not ReportState.PENDING,
        delays=list(_delays(view.timeline)),
        timeline=list(_steps(view.timeline)),
    )


def row_of(view: SeriesView, now: datetime, *, is_paging: bool) -> Row:
    """One series in one line."""
    return Row(
        series_id=view.series.id,
        verdict=verdict(view),
        probability=probability_of(view.result),
        patient_name=patient_words(view.series.patient_name),
        patient_id=view.series.patient_id or "no ID given",
        description=view.series.description,
        received_at=view.series.last_instance_at,
        age=age_words(now - view.series.last_instance_at),
        report=report_status(view),
        alert=alert_status(view, is_paging=is_paging),
    )


def verdict(view: SeriesView) -> Verdict:
    """What is said first about a series."""
    result = view.result
    match view.series.state:
        case SeriesState.ASSESSED if result is not None and result.category is not None:
            category = Category(result.category)
            kind = Kind.SUSPECTED if category.is_urgent else Kind.NOT_SUSPECTED
            return Verdict(kind, *wording.CATEGORIES[category])
        case SeriesState.ASSESSED | SeriesState.NOT_ASSESSED:
            reason = wording.REASONS[Reason(result.reason)] if result and result.reason else ""
            return Verdict(Kind.NOT_ANALYSED, wording.NOT_ANALYSED, wording.NOT_ANALYSED_ADVICE, reason)
        case SeriesState.RECEIVING:
            return Verdict(Kind.WAITING, wording.RECEIVING, wording.WAITING_ADVICE)
        case SeriesState.ANALYSING:
            return Verdict(Kind.WAITING, wording.ANALYSING, wording.WAITING_ADVICE)
        case SeriesState.IGNORED:
            return Verdict(Kind.IGNORED, wording.IGNORED, wording.IGNORED_ADVICE)


def probability_of(result: Result | None) -> Probability | None:
    """The probability with its threshold, where there is a category."""
    if result is None or result.probability is None or result.threshold is None:
        return None
    return Probability(
        *probability_words(result.probability, result.threshold),
        round(100 * result.probability, 1),
        round(100 * result.threshold, 1),
    )


def report_status(view: SeriesView) -> Status:
    """Where the report is."""
    report = view.report
    if report is None and view.result is not None:
        return Status(wording.REPORT_NOT_BUILT, is_trouble=True)
    if report is None:
        return Status(wording.NO_REPORT)
    match report.state:
        case ReportState.NONE:
            return Status(wording.REPORT_KEPT)
        case ReportState.PENDING if report.attempts == 0:
            return Status(wording.REPORT_PENDING)
        case ReportState.PENDING:
            return Status(wording.REPORT_DELAYED, is_trouble=True, detail=report.last_error or "")
        case ReportState.STORED:
            return Status(wording.REPORT_STORED)
        case ReportState.FAILED:
            return Status(wording.REPORT_FAILED, is_trouble=True, detail=report.last_error or "")


def alert_status(view: SeriesView, *, is_paging: bool) -> Status:
    """Whether a person was called, and has answered."""
    alert = view.alert
    if alert is None:
        return Status(wording.NOBODY_PAGED)
    if _is_open(alert) and verdict(view).kind is not Kind.SUSPECTED:
        return Status(wording.EARLIER_ALERT, is_trouble=True)
    match alert.state:
        case AlertState.PENDING if not is_paging:
            return Status(wording.NO_CHANNEL, is_trouble=True)
        case AlertState.PENDING if alert.last_error:
            return Status(wording.PAGE_FAILED, is_trouble=True, detail=alert.last_error)
        case AlertState.PENDING:
            return Status(wording.PAGE_PENDING)
        case AlertState.SENT:
            return Status(wording.PAGED, is_trouble=True)
        case AlertState.ACKNOWLEDGED:
            return Status(wording.ACKNOWLEDGED.format(by=alert.acknowledged_by))


def _heading(view: SeriesView) -> str:
    if _is_open(view.alert):
        return wording.GROUP_OPEN
    match verdict(view).kind:
        case Kind.SUSPECTED if view.alert is None:
            return wording.GROUP_OPEN
        case Kind.NOT_ANALYSED:
            return wording.GROUP_NOT_ANALYSED
        case Kind.WAITING:
            return wording.GROUP_RUNNING
        case _:
            return wording.GROUP_DONE


def _summary(waiting: int) -> str:
    match waiting:
        case 0:
            return wording.SUMMARY_NONE
        case 1:
            return wording.SUMMARY_ONE
        case _:
            return wording.SUMMARY_MANY.format(count=waiting)


def _is_open(alert: Alert | None) -> bool:
    return alert is not None and alert.state is not AlertState.ACKNOWLEDGED


def _is_final(view: SeriesView) -> bool:
    if view.series.state is SeriesState.IGNORED:
        return True
    return (
        view.result is not None
        and not _is_open(view.alert)
        and (view.report is None or view.report.state is not ReportState.PENDING)
    )


def _notices(view: SeriesView) -> Iterator[str]:
    if view.result is None:
        return
    looked_at = max(
        (event.at for event in view.timeline if event.event in ("analysed", "nothing_new")), default=None
    )
    if looked_at is not None and view.series.last_instance_at > looked_at:
        yield wording.NEWER_IMAGES
    if view.series.revision > 1:
        yield wording.REVISED.format(revision=view.series.revision)


def _steps(timeline: Sequence[Event]) -> Iterator[Step]:
    previous: datetime | None = None
    for event in timeline:
        words = wording.EVENTS.get(event.event) or event.event.replace("_", " ").capitalize()
        after = "" if previous is None else f"+{duration_words(event.at - previous)}"
        yield Step(event.at, words, event.detail, after)
        previous = event.at


_MILESTONES = (("analysed", "result"), ("alert_sent", "page sent"), ("report_stored", "report in the PACS"))


def _delays(timeline: Sequence[Event]) -> Iterator[Delay]:
    """From the last image that the newest result rests on to the result, the page and the report."""
    results = [index for index, event in enumerate(timeline) if event.event == "analysed"]
    if not results:
        return
    before, after = timeline[: results[-1]], timeline[results[-1] :]
    last_images = [event.at for event in before if event.event == "last_instance"]
    if not last_images:
        return
    for name, to in _MILESTONES:
        reached = next((event.at for event in after if event.event == name), None)
        if reached is not None:
            yield Delay(to, duration_words(reached - last_images[-1]))
