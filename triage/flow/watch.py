"""Look at ourselves every few seconds: what is stuck is taken up again, what is wrong is told to a person.

All of it is decided anew from the database and the machine at each look, so nothing here has to survive a
crash; that the operator was told is kept with the trouble itself.
"""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from triage.core.lifecycle import AlertState, ReportState
from triage.core.trouble import MEANINGS, Trouble
from triage.edges.pager import Message, call
from triage.edges.store import Backlog, Problem
from triage.errors import origin
from triage.flow.free import free_finished
from triage.flow.gather import Gatherer
from triage.flow.line import Line
from triage.flow.resume import resume

_log = logging.getLogger(__name__)

_SWEEP_EVERY_S = 60.0
_FREE_EVERY_S = 600.0
_CHECK_MODEL_EVERY_S = 3600.0
_BLIND_FOR_S = 60.0
_PAGE_IS_LATE = timedelta(minutes=1)
_SENDERS_ARE_KNOWN_FOR = timedelta(days=7)
_UNDELIVERED_IS_TOLD_FOR = timedelta(days=7)
_MISSING_REPORT_IS_TOLD_FOR = timedelta(days=1)

Found = Iterator[tuple[Trouble, str, str]]


class Watch:
    """Looks every `watch.look_every_s`: `start` and `stop` its thread."""

    def __init__(self, line: Line, gatherer: Gatherer) -> None:
        self._line = line
        self._duties: tuple[tuple[Callable[[], None], float], ...] = (
            (lambda: look(line), line.config.watch.look_every_s),
            (lambda: tell_operators(line), line.config.watch.look_every_s),
            (line.engine.take_up_interrupted, line.config.watch.look_every_s),
            (lambda: resume(line, gatherer), _SWEEP_EVERY_S),
            (lambda: free_finished(line), _FREE_EVERY_S),
            (line.model.check, _CHECK_MODEL_EVERY_S),
        )
        self._failing_since: float | None = None
        self._failure = ""
        self._cry_again_at = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Look from now on."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread is looking."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Stop looking."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        # The start itself has swept and has checked the model.
        due_at = [time.monotonic() + every_s for _, every_s in self._duties]
        while not self._stopping.wait(min(due_at) - time.monotonic()):
            for number, (duty, every_s) in enumerate(self._duties):
                if time.monotonic() >= due_at[number]:
                    due_at[number] = time.monotonic() + every_s
                    self._do(duty)
            self._cry()

    def _do(self, duty: Callable[[], None]) -> None:
        try:
            duty()
        except Exception as error:  # noqa: BLE001 - a failing disk or database must not end the watch over it
            _log.error("watch_failed reason=%s", origin(error))
            self._failing_since = self._failing_since or time.monotonic()
            self._failure = origin(error)
        else:
            if duty is self._duties[0][0]:
                self._failing_since = None

    def _cry(self) -> None:
        """Tell the operator, from memory, that nothing can be watched: usually the database is away."""
        now = time.monotonic()
        is_blind = self._failing_since is not None and now - self._failing_since >= _BLIND_FOR_S
        if not is_blind or now < self._cry_again_at:
            return
        message = Message(
            "triage: 1 operational trouble",
            f"WATCH_BLIND: the service cannot look after itself ({self._failure}). Is the database there, is"
            " the disk full?\ndocs/runbook.md says what to do.",
        )
        if any(taken for _, taken in call(self._line.on_call.operators, message)):
            self._cry_again_at = now + self._line.config.watch.repeat_s


def look(line: Line) -> None:
    """Keep which troubles are there now, and which are over."""
    now = line.now()
    found = {(kind, subject): detail for kind, subject, detail in find(line, now)}
    known = {(Trouble(problem.kind), problem.subject) for problem in line.watchbook.open_problems()}
    line.watchbook.seen(found, now)
    for kind, _ in found.keys() - known:
        _log.error("trouble_began kind=%s", kind.value)
    for kind, _ in known - found.keys():
        _log.info("trouble_ended kind=%s", kind.value)


def find(line: Line, now: datetime) -> Found:
    """Every trouble there is: its kind, what it concerns, and a sentence without any identifier."""
    yield from _studies(line, now)
    yield from _reports(line, now)
    yield from _alerts(line, now)
    yield from _senders(line, now)
    yield from _machine(line, now)


def _studies(line: Line, now: datetime) -> Found:
    waiting = line.watchbook.unfinished_series()
    if _is_old(waiting, now - _stuck_after(line)):
        yield Trouble.SERIES_STUCK, "", _counted(waiting, "series without an outcome", "series")
    if waiting.count > line.config.watch.queue_limit:
        yield Trouble.QUEUE_LONG, "", f"{waiting.count} series are being received or wait for their analysis"


def _reports(line: Line, now: datetime) -> Found:
    pending = line.watchbook.reports(ReportState.PENDING)
    if _is_old(pending, now - _stuck_after(line)):
        yield Trouble.REPORT_DELAYED, "", _counted(pending, "reports not stored at the PACS", "report")
    failed = line.watchbook.reports(ReportState.FAILED, since=now - _UNDELIVERED_IS_TOLD_FOR)
    if failed.count:
        yield Trouble.REPORT_UNDELIVERED, "", _counted(failed, "reports given up", "report")
    missing = line.watchbook.results_without_report(now - _MISSING_REPORT_IS_TOLD_FOR)
    if missing.count:
        yield Trouble.REPORT_NOT_BUILT, "", _counted(missing, "results without a report", "result")


def _alerts(line: Line, now: datetime) -> Found:
    pending, sent = map(line.watchbook.alerts, (AlertState.PENDING, AlertState.SENT))
    if not line.on_call.is_anybody:
        if pending.count + sent.count:
            yield Trouble.NOBODY_ON_CALL, "", f"{pending.count + sent.count} alerts are open"
    elif _is_old(pending, now - _PAGE_IS_LATE):
        yield Trouble.PAGE_NOT_TAKEN, "", _counted(pending, "alerts that no channel took", "alert")
    if _is_old(sent, now - _stuck_after(line)):
        yield Trouble.ALERT_UNANSWERED, "", _counted(sent, "alerts that nobody has acknowledged", "alert")


def _senders(line: Line, now: datetime) -> Found:
    stop_s = line.config.watch.traffic_stop_s
    for ae_title, last_at in line.watchbook.senders().items() if stop_s else ():
        silence = now - last_at
        if timedelta(seconds=stop_s) < silence < timedelta(seconds=stop_s) + _SENDERS_ARE_KNOWN_FOR:
            yield Trouble.SENDER_SILENT, ae_title, f"no image from {ae_title} since {_clock(last_at)}"


def _machine(line: Line, now: datetime) -> Found:
    free, reserve = shutil.disk_usage(line.config.store.dir).free, line.config.store.reserve_bytes
    if free < reserve:
        yield (
            Trouble.DISK_LOW,
            "",
            f"{free / 1e9:.1f} GB free, {reserve / 1e9:g} GB reserved: images are refused",
        )
    elif free < 2 * reserve:
        yield Trouble.DISK_LOW, "", f"{free / 1e9:.1f} GB free; below {reserve / 1e9:g} GB images are refused"
    if line.model.failure:
        yield Trouble.MODEL_FAILED, "", line.model.failure
    if line.config.audit.syslog_address:
        behind = line.watchbook.unforwarded_audit()
        if _is_old(behind, now - _stuck_after(line)):
            yield Trouble.AUDIT_NOT_FORWARDED, "", _counted(behind, "audit entries not forwarded", "entry")


def tell_operators(line: Line) -> None:
    """Tell the operator what is new, what lasts, and what is over; kept as told once a channel took it."""
    now = line.now()
    problems = line.watchbook.to_tell(now, timedelta(seconds=line.config.watch.repeat_s))
    if not problems or not line.on_call.operators:
        return
    lines = [_told(problem) for problem in problems]
    lines += ["", f"docs/runbook.md says what to do. {line.config.http.public_url}/"]
    began = sum(problem.closed_at is None for problem in problems)
    title = f"triage: {began} operational trouble{'s' * (began != 1)}" if began else "triage: trouble is over"
    if any(taken for _, taken in call(line.on_call.operators, Message(title, "\n".join(lines)))):
        line.watchbook.told([problem.id for problem in problems], line.now())


def _told(problem: Problem) -> str:
    meaning = f"{problem.kind}: {MEANINGS[Trouble(problem.kind)]}: {problem.detail}"
    return f"over since {_clock(problem.closed_at)}: {meaning}" if problem.closed_at else meaning


def _stuck_after(line: Line) -> timedelta:
    return timedelta(seconds=line.config.watch.stuck_after_s)


def _is_old(backlog: Backlog, before: datetime) -> bool:
    return backlog.since is not None and backlog.since < before


def _counted(backlog: Backlog, what: str, row: str) -> str:
    since = f", the oldest ({row} {backlog.row_id}) since {_clock(backlog.since)}" if backlog.since else ""
    return f"{backlog.count} {what}{since}"


def _clock(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
