"""The promises, each checked against what was seen from outside and what the databases say."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from tests import builders
from tests.peers import ReceivedPage, StoredReport
from tests.soak.books import Books, lost_instances
from tests.soak.senders import Habit, SentSeries

_UNDER_WAY_S = 3.0


@dataclass(slots=True)
class Summary:
    """What a trial came to. Every broken promise is a line of `broken`."""

    kills: int = 0
    studies: int = 0
    acknowledged: int = 0
    lost: int = 0
    doubled: int = 0
    unpaged: int = 0
    pages: int = 0
    broken: list[str] = field(default_factory=list)
    never_reached: list[str] = field(default_factory=list)

    def promise(self, is_kept: object, otherwise: str) -> None:
        """Note what was broken."""
        if not is_kept:
            self.broken.append(otherwise)

    def __str__(self) -> str:
        return (
            f"kills={self.kills} studies={self.studies} instances_acknowledged={self.acknowledged}"
            f" lost={self.lost} doubled={self.doubled} unpaged={self.unpaged} pages={self.pages}"
            f" broken_promises={len(self.broken)} points_never_reached={len(self.never_reached)}"
        )


def check_instances(summary: Summary, books: Books, inbox: Path, sent: Sequence[SentSeries]) -> None:
    """What was acknowledged is there, and nothing was refused."""
    acknowledged = {uid for series in sent for uid in series.acknowledged}
    lost = list(lost_instances(books, inbox, acknowledged))
    summary.broken += lost
    summary.acknowledged, summary.lost = len(acknowledged), len(lost)
    summary.studies = len({series.study_uid for series in sent})
    refused = {status for series in sent for status in series.statuses} - {0}
    summary.promise(not refused, f"instances were refused with {sorted(map(hex, refused))}")


def check_ends(summary: Summary, books: Books, sent: Sequence[SentSeries]) -> None:
    """Every series ended, and what arrived whole was found urgent, late slices included."""
    rows = {
        row.series_instance_uid: row
        for row in books.rows(
            "SELECT series_instance_uid, state, series.revision, category, reason FROM series"
            " LEFT JOIN result ON result.series_id = series.id AND result.revision = series.revision"
        )
    }
    for series in sent:
        row = rows.get(series.series_uid)
        if row is None:
            summary.promise(not series.acknowledged, f"{series.series_uid} was never registered")
            continue
        has_ended = row.state == "assessed" or (row.state == "not_assessed" and row.reason)
        summary.promise(has_ended, f"{series.series_uid} stands at {row.state}")
        if series.habit in (Habit.RETRIES, Habit.IS_LATE):
            summary.promise(row.category == "ASPECTS_1_6", f"{series.series_uid} is whole and not urgent")


def check_reports(summary: Summary, books: Books, stored: Sequence[StoredReport]) -> None:
    """Every revision's report reached the PACS, under the one UID that was minted for it."""
    built = {
        row.sop_instance_uid: row.state for row in books.rows("SELECT sop_instance_uid, state FROM report")
    }
    arrived: dict[str, set[str]] = defaultdict(set)
    for report in stored:
        for series_uid in report.series_uids:
            arrived[series_uid].add(report.sop_instance_uid)
    uids = {report.sop_instance_uid for report in stored}
    revisions = books.count("SELECT count(*) FROM result WHERE revision IS NOT NULL")
    summary.promise(len(built) == revisions, f"{len(built)} reports for {revisions} revisions")
    summary.doubled = len(uids - built.keys()) + sum(
        len(arrived[row.series_instance_uid]) > row.revision
        for row in books.rows("SELECT series_instance_uid, revision FROM series")
    )
    summary.promise(not summary.doubled, f"{summary.doubled} reports arrived twice")
    missing = [uid for uid, state in built.items() if state != "stored" or uid not in uids]
    summary.promise(not missing, f"{len(missing)} reports never reached the PACS")


def check_alerts(
    summary: Summary,
    books: Books,
    pages: Sequence[ReceivedPage],
    rungs: Sequence[str],
    *,
    started_at: Sequence[float],
    answered_at: Mapping[int, float],
) -> None:
    """Every urgent study was paged, up the ladder, until it was acknowledged.

    The order is checked where it can be told from outside: one alert in the study, for one result.
    """
    summary.pages = len(pages)
    called = _calls_by_study(books, pages, rungs)
    urgent = books.rows(
        "SELECT DISTINCT study_instance_uid FROM series JOIN result ON result.series_id = series.id"
        " WHERE category = 'ASPECTS_1_6'"
    )
    summary.unpaged = sum(row[0] not in called for row in urgent)
    summary.promise(not summary.unpaged, f"{summary.unpaged} urgent studies without a page")
    alerts = books.rows(
        "SELECT alert.id, alert.study_instance_uid, count(result.id) AS results FROM alert"
        " JOIN result ON result.alert_id = alert.id GROUP BY alert.id, alert.study_instance_uid"
    )
    alerts_of = Counter(alert.study_instance_uid for alert in alerts)
    for alert in alerts:
        if alerts_of[alert.study_instance_uid] == 1:
            calls = called[alert.study_instance_uid]
            if alert.results == 1:
                _check_ladder(summary, alert.id, calls, len(rungs), started_at)
            _check_silence(summary, alert.id, calls, answered_at.get(alert.id))


def check_identifiers(
    summary: Summary, told: str, pages: Sequence[ReceivedPage], sent: Sequence[SentSeries]
) -> None:
    """No name, no patient ID and no UID of a study in the log, on error pages (`told`) or in a message."""
    told += "".join(str(page.message) for page in pages)
    secrets = {*builders.NAME.split("^"), builders.PATIENT_ID}
    for series in sent:
        secrets |= {series.series_uid, series.study_uid, *series.paths}
    leaked = sum(secret in told for secret in secrets)
    summary.promise(not leaked, f"{leaked} identifiers stand in the log, an error page or a message")


def _calls_by_study(
    books: Books, pages: Sequence[ReceivedPage], rungs: Sequence[str]
) -> dict[str, list[tuple[int, float]]]:
    """(rung, time) of every page of a study, in order."""
    study_of = {
        row.id: row.study_instance_uid for row in books.rows("SELECT id, study_instance_uid FROM series")
    }
    called: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for page in sorted(pages, key=lambda page: page.at):
        if page.contact in rungs:
            called[study_of[page.series_id]].append((rungs.index(page.contact), page.at))
    return called


def _check_ladder(
    summary: Summary,
    alert_id: int,
    calls: Sequence[tuple[int, float]],
    rungs: int,
    started_at: Sequence[float],
) -> None:
    for (rung, before), (following, at) in pairwise(calls):
        was_killed = any(before < started < at for started in started_at)
        is_next = following == min(rung + 1, rungs - 1)
        # A crash between the page and its record repeats the page; it never begins anew.
        summary.promise(
            is_next or (was_killed and following == rung),
            f"alert {alert_id} went from rung {rung} to {following}; killed in between: {was_killed}",
        )


def _check_silence(
    summary: Summary, alert_id: int, calls: Sequence[tuple[int, float]], answered_at: float | None
) -> None:
    summary.promise(answered_at is not None, f"alert {alert_id} was never acknowledged")
    late = [at - answered_at for _, at in calls if answered_at is not None and at > answered_at]
    summary.promise(
        len(late) <= 1 and all(by_s < _UNDER_WAY_S for by_s in late),
        f"alert {alert_id} paged {len(late)} times after it was acknowledged",
    )
