"""Delete the images of what has long been finished; results, reports and the audit trail stay."""

import logging
from datetime import timedelta

from triage.flow.line import Line

_log = logging.getLogger(__name__)

_AT_A_TIME = 100


def free_finished(line: Line) -> None:
    """Free the disk of series that were finished `store.retention_days` ago, some at a time.

    Finished: judged to the last image, the report stored or none wanted, the alert acknowledged. What is not
    finished is never deleted, however old.
    """
    days = line.config.store.retention_days
    if not days:
        return
    for series_id in line.store.finished_before(line.now() - timedelta(days=days), limit=_AT_A_TIME):
        free(line, series_id)


def free(line: Line, series_id: int) -> None:
    """Delete the images of one series. The files go first: a crash in between repeats it."""
    held = line.store.held(series_id)
    for sha256 in held.sha256s:
        line.inbox.remove(sha256)
    for result_id in held.result_ids:
        line.shelf.remove(result_id)
    line.store.freed(series_id, held.newest_instance_id, line.now())
    _log.info("series_freed series=%d files=%d", series_id, len(held.sha256s))
