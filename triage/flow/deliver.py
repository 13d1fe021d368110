"""Send one report until the PACS has it, or for as long as the configuration says."""

import logging

from triage.core.lifecycle import ReportState
from triage.core.report import as_enhanced_sr, from_bytes
from triage.edges import dimse
from triage.edges.engine import sleep, step
from triage.errors import PeerUnavailable, ReportRefused
from triage.flow.line import Line

_log = logging.getLogger(__name__)


async def deliver(line: Line, report_id: int) -> None:
    """Workflow: the same SOP Instance UID at every try; pauses double up to `pacs.retry_longest_s`."""
    settings = line.config.pacs
    pause_s, spent_s = settings.retry_first_s, 0.0
    while not await step(try_to_deliver, line, report_id, spent_s + pause_s > settings.give_up_after_s):
        await sleep(pause_s)
        spent_s += pause_s
        pause_s = min(pause_s * 2, settings.retry_longest_s)


def try_to_deliver(line: Line, report_id: int, is_last: bool) -> bool:  # noqa: FBT001 - a workflow step
    """One try: whether the matter is settled, by success or for good. Safe to run again."""
    report = line.store.report(report_id)
    address = line.config.pacs.address
    if report.state in (ReportState.STORED, ReportState.FAILED) or address is None:
        return True
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
