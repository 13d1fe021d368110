"""Call until a person answers."""

import logging

from triage.core.lifecycle import AlertState
from triage.edges.engine import receive, step
from triage.edges.pager import Page
from triage.errors import ChannelFailed
from triage.flow.line import Line

_log = logging.getLogger(__name__)

ACKNOWLEDGED = "acknowledged"
_RETRY_S = 5.0


def alert_workflow_id(alert_id: int) -> str:
    """The workflow that pages for an alert."""
    return f"alert-{alert_id}"


async def alert(line: Line, alert_id: int) -> None:
    """Workflow: page, then again every `alerts.repeat_s`, until someone acknowledges.

    A message that no channel took is tried again after five seconds. Without any channel there is nobody to
    page, but the alert stays open for a start with a better configuration.
    """
    while not await step(is_acknowledged, line, alert_id):
        wait_s = line.config.alerts.repeat_s if await step(page_once, line, alert_id) else _RETRY_S
        await receive(ACKNOWLEDGED, wait_s)


def is_acknowledged(line: Line, alert_id: int) -> bool:
    """Whether a person has answered."""
    return line.store.alert(alert_id).state is AlertState.ACKNOWLEDGED


def page_once(line: Line, alert_id: int) -> bool:
    """Whether a channel took the message. A crash right here can page twice, never not at all."""
    if not line.pager.channels:
        return True
    try:
        channels = line.pager.page(compose(line, alert_id))
    except ChannelFailed as error:
        line.store.alert_not_sent(alert_id, line.now(), str(error))
        _log.error("page_failed alert=%d", alert_id)
        return False
    line.store.alert_sent(alert_id, line.now(), f"{channels} of {len(line.pager.channels)} channels")
    _log.info("page_sent alert=%d channels=%d", alert_id, channels)
    return True


def compose(line: Line, alert_id: int) -> Page:
    """The message: category, probability, model, link. No name, no identifier."""
    result = line.store.result(line.store.alert(alert_id).result_id)
    return Page(
        title="Stroke triage: suspected DWI-ASPECTS 1-6",
        body=(
            f"Suspected large infarct: DWI-ASPECTS 1-6, probability {result.probability:.2f}"
            f" (threshold {result.threshold:.2f}).\n"
            f"Model {result.model_name} {result.model_version}. {result.model_status}.\n"
            f"Research software, not for diagnosis. Look at the images and acknowledge:\n"
            f"{line.config.http.public_url}/series/{result.series_id}"
        ),
    )


def acknowledge(line: Line, series_id: int, by: str) -> bool:
    """A person answers for a series: no further page. False where there was nothing to answer."""
    alert_id = line.store.acknowledge(series_id, by, line.now())
    if alert_id is None:
        return False
    line.engine.tell(alert_workflow_id(alert_id), ACKNOWLEDGED, "")
    _log.info("alert_acknowledged alert=%d", alert_id)
    return True
