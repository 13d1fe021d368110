"""Send one report until the PACS has it, or for as long as the configuration says."""

import logging

from triage.core.lifecycle import ReportState
from triage.core.report import as_enhanced_sr, from_bytes
from triage.edges import dimse
from triage.edges.engine import sleep, step
from triage.errors import PeerUnavailable, ReportRefused
from triage.flow.line import Line

_log = logging.getLogger(__name__)


def deliver_workflow_id(report_id: int) -> str:
    """The workflow that delivers a report."""
    return f"deliver-{report_id}"


async def deliver(line: Line, report_id: int) -> None:
    """Workflow: the same SOP Instance UID at every try; pauses double up to `pacs.retry_longest_s`."""
    pause_s = line.config.pacs.retry_first_s
    while not await step(try_to_deliver, line, report_id, pause_s):
        await sleep(pause_s)
        pause_s = min(pause_s * 2, line.config.pacs.retry_longest_s)


def resend(line: Line, report_id: int, by: str, address: str = "") -> bool:
    """Send a report once more, under the same UID: False where it is on its way already.

    address: where the wish came from, for the audit trail.
    """
    if not line.store.requeue_report(report_id, line.now(), by, address):
        return False
    line.engine.revive("deliver", deliver_workflow_id(report_id), report_id)
    _log.info("report_requeued report=%d", report_id)
    return True


def try_to_deliver(line: Line, report_id: int, next_in_s: float) -> bool:
    """One try: whether the matter is settled, by success or for good. Safe to run again.

    next_in_s: when the next try would be; beyond `pacs.give_up_after_s` this one is the last.
    """
    report = line.store.report(report_id)
    if report.state in (ReportState.STORED, ReportState.FAILED):
        return True
    address = line.config.pacs.address
    if address is None:
        # It was minted for a PACS: it waits for a start with a better configuration.
        return False
    age_s = (line.now() - report.queued_at).total_seconds()
    is_last = age_s + next_in_s > line.config.pacs.give_up_after_s
    dataset = from_bytes(report.dicom)
    try:
        sop_class_uid = dimse.send(
            dataset,
            to=(address.ae_title, address.host, address.port),
            calling_ae=line.config.dicom.ae_title,
            timeout_s=line.config.pacs.timeout_s,
            alternative=as_enhanced_sr(dataset),
        )
    except ReportRefused as error:
        line.store.report_not_stored(report_id, line.now(), str(error), final=True)
        _log.error("report_refused report=%d", report_id)
        return True
    except PeerUnavailable as error:
        line.store.report_not_stored(report_id, line.now(), str(error), final=is_last)
        _log.warning("report_not_stored report=%d final=%s", report_id, is_last)
        return is_last
    line.store.report_stored(report_id, line.now(), f"at {address.ae_title} as {sop_class_uid}")
    _log.info("report_stored report=%d", report_id)
    return True
