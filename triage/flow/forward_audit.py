"""Tell the audit record repository what is in the audit trail: in order, for as long as it takes."""

import logging
import threading

from triage.core.audit_kinds import AuditSource
from triage.core.audit_message import audit_message
from triage.edges.store import AuditTrail
from triage.edges.syslog import SyslogConnection, syslog_message
from triage.errors import RepositoryUnavailable, origin

_log = logging.getLogger(__name__)

_PAUSE_S = 2.0
_BATCH = 50


class AuditForwarder:
    """A thread that sends what has not been sent: `start` and `stop` it. Nothing waits for it.

    How far it came is in the database, so that neither a restart nor a repository that was away for days
    leaves an entry out. An entry is sent again if it is not certain that it arrived.
    """

    def __init__(
        self, trail: AuditTrail, repository: SyslogConnection, source: AuditSource, pause_s: float = _PAUSE_S
    ) -> None:
        self._trail = trail
        self._repository = repository
        self._source = source
        self._pause_s = pause_s
        self._stopping = threading.Event()
        self._is_well = True
        self._thread = threading.Thread(target=self._forward_all, name="audit-forwarder", daemon=True)

    def start(self) -> None:
        """Send from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Send a last batch if the repository answers, and end. The rest waits for the next start."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self._repository.close()

    def _forward_all(self) -> None:
        pause_s = 0.0
        while not self._stopping.wait(pause_s):
            pause_s = 0.0 if self._try_batch() == _BATCH else self._pause_s
        if self._is_well:
            self._try_batch()

    def _try_batch(self) -> int:
        """How many entries were sent. A failure is told once, and its end."""
        try:
            sent = self._forward_batch()
        except RepositoryUnavailable as error:
            self._note(is_well=False, reason=str(error))
        except Exception as error:  # noqa: BLE001 - the database may be away too; the next round tries again
            self._note(is_well=False, reason=origin(error))
        else:
            self._note(is_well=True)
            return sent
        return 0

    def _forward_batch(self) -> int:
        entries = self._trail.not_forwarded(_BATCH)
        for entry in entries:
            series_id = entry.deed.series_id
            study = None if series_id is None else self._trail.study_of(series_id)
            text = audit_message(entry, self._source, study)
            self._repository.send(syslog_message(text, at=entry.at, host=self._source.host))
            self._trail.forwarded_up_to(entry.id)
        return len(entries)

    def _note(self, *, is_well: bool, reason: str = "") -> None:
        if is_well != self._is_well:
            self._is_well = is_well
            if is_well:
                _log.info("audit_forwarding_resumed")
            else:
                _log.error("audit_forwarding_failed reason=%r", reason)
