"""Call until a person answers."""

import logging
from collections.abc import Sequence
from datetime import timedelta

from triage.core.escalation import NextCall
from triage.core.finding import Category
from triage.core.lifecycle import AlertState
from triage.core.report import DISCLAIMER
from triage.edges.engine import receive, sleep, step
from triage.edges.pager import Message, call
from triage.edges.store import Call, Result
from triage.flow.line import Line

_log = logging.getLogger(__name__)

_NEWS = "news"
_ACKNOWLEDGED, _AMENDED = "acknowledged", "amended"
_WITHOUT_ANYBODY_S = 60.0

_SPOKEN = {
    Category.ASPECTS_1_6: "DWI-ASPECTS 1-6",
    Category.ASPECTS_7_10: "DWI-ASPECTS 7-10",
    None: "not analysed",
}


def alert_workflow_id(alert_id: int) -> str:
    """The workflow that pages for an alert."""
    return f"alert-{alert_id}"


async def alert(line: Line, alert_id: int) -> None:
    """Workflow: call one rung of the ladder after the other, until someone acknowledges.

    An amended result is told at once to everybody who was called before. With an empty ladder there is
    nobody to page, but the alert stays open for a start with a better configuration.
    """
    rung, called = 0, 0
    rungs: Sequence[int] = (0,)
    number = await step(line.store.next_call, alert_id)
    while not await step(is_acknowledged, line, alert_id):
        # The step decides what follows, so that a restart with another ladder replays what was.
        following = await step(page, line, alert_id, number, rung, rungs)
        number += 1
        called = max(called, rung)
        if await receive(_NEWS, following.wait_s) == _AMENDED:
            rungs = range(called + 1)
        else:
            rung, rungs = following.rung, (following.rung,)


def is_acknowledged(line: Line, alert_id: int) -> bool:
    """Whether a person has answered."""
    return line.store.alert(alert_id).state is AlertState.ACKNOWLEDGED


def page(line: Line, alert_id: int, number: int, rung: int, rungs: Sequence[int]) -> NextCall:
    """Make the alert's n-th call, to these rungs, and say which rung comes next and when.

    rung: the one that the ladder has come to; an amended result is also told to those before it.

    A crash in the middle of it calls those again of whom it was not kept that they were reached: between a
    channel's answer and its record somebody can be paged twice, never not at all.
    Nobody is called once somebody has answered, which can be while the step waits to be taken up again.
    """
    if is_acknowledged(line, alert_id):
        return NextCall(rung, 0.0)
    if not line.on_call.is_anybody:
        return NextCall(rung, _WITHOUT_ANYBODY_S)
    message = compose(line, line.store.call(alert_id))
    reached = {(page.rung, page.contact) for page in line.store.pages(alert_id, number) if page.taken}
    anybody = bool(reached)
    last = len(line.on_call.rungs) - 1
    for each in sorted({min(rung, last) for rung in rungs}):
        everybody = line.on_call.rungs[each]
        contacts = [contact for contact in everybody if (each, contact.name) not in reached]
        for name, taken in call(contacts, message):
            line.store.paged(alert_id, line.now(), call=number, rung=each, contact=name, taken=taken)
            (_log.info if taken else _log.error)("page_sent alert=%d rung=%d taken=%s", alert_id, each, taken)
            anybody = anybody or taken
    return line.on_call.ladder.after(rung, taken=anybody)


def compose(line: Line, told: Call) -> Message:
    """The message: what is suspected, what changed, since when nobody answers. No name, no identifier."""
    result, alert = told.result, told.alert
    title, finding = _finding(result)
    change = _change(told)
    lines = [
        *([change] if change else []),
        finding,
        *_waiting(line, told),
        f"Model {result.model_name} {result.model_version}. {result.model_status}.",
        f"{DISCLAIMER} Look at the images and acknowledge:",
        f"{line.config.http.public_url}/series/{result.series_id}",
    ]
    repeated = f" (call {alert.pages + 1})" if alert.pages else ""
    return Message(title=f"Stroke triage: {change or title}{repeated}", body="\n".join(lines))


def _finding(result: Result) -> tuple[str, str]:
    """A title and a sentence."""
    if result.category is None or result.probability is None or result.threshold is None:
        return "not analysed", f"The series could not be analysed ({result.reason}). Read the study now."
    numbers = f"probability {result.probability:.2f} (threshold {result.threshold:.2f})"
    if Category(result.category).is_urgent:
        return (
            "suspected DWI-ASPECTS 1-6",
            f"Suspected large infarct: DWI-ASPECTS 1-6, {numbers}.",
        )
    return (
        "DWI-ASPECTS 7-10",
        f"Large infarct not suspected: DWI-ASPECTS 7-10, {numbers}. A smaller infarct is not ruled out.",
    )


def _change(told: Call) -> str:
    if told.replaced is None or told.replaced.category == told.result.category:
        return ""
    before, now = (_SPOKEN[_category(each)] for each in (told.replaced, told.result))
    return f"changed from {before} to {now}"


def _category(result: Result) -> Category | None:
    return None if result.category is None else Category(result.category)


def _waiting(line: Line, told: Call) -> list[str]:
    if told.alert.sent_at is None:
        return []
    minutes = max(1, round((line.now() - told.alert.sent_at) / timedelta(minutes=1)))
    return [f"Nobody has acknowledged since the first call {minutes} min ago."]


def tell_amended(line: Line, alert_id: int) -> None:
    """The result that an alert speaks for is another one now: whoever was called is told."""
    line.engine.tell(alert_workflow_id(alert_id), _NEWS, _AMENDED)


def acknowledge(line: Line, series_id: int, by: str, address: str = "") -> bool:
    """A person answers for a series: no further page. False where there was nothing to answer.

    address: where the answer came from, for the audit trail.
    """
    alert_id = line.store.acknowledge(series_id, by, line.now(), address)
    if alert_id is None:
        return False
    line.engine.tell(alert_workflow_id(alert_id), _NEWS, _ACKNOWLEDGED)
    _log.info("alert_acknowledged alert=%d", alert_id)
    return True


def notice_workflow_id(result_id: int) -> str:
    """The workflow that tells the technologist of a series that was not assessed."""
    return f"notice-{result_id}"


async def tell_technologist(line: Line, result_id: int) -> None:
    """Workflow: the technologist knows that a series was not assessed, and why. Tried until it is taken."""
    pause_s = line.config.pacs.retry_first_s
    while not await step(notify_technologist, line, result_id):
        await sleep(pause_s)
        pause_s = min(pause_s * 2, line.config.pacs.retry_longest_s)


def notify_technologist(line: Line, result_id: int) -> bool:
    """Whether the matter is settled: told, or nobody is to be told."""
    result = line.store.result(result_id)
    message = Message(
        title=f"Stroke triage: a series was not analysed ({result.reason})",
        body=f"{result.detail}\nAn infarct is neither suspected nor ruled out. Send the missing images, or"
        f" have the study read now:\n{line.config.http.public_url}/series/{result.series_id}",
    )
    told = [name for name, taken in call(line.on_call.technologists, message) if taken]
    if told:
        line.store.technologist_told(result_id, line.now(), str(result.reason))
    return bool(told) or not line.on_call.technologists
