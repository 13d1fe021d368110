"""What people and programs did, for the audit trail."""

import logging
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from triage.core.audit import Action, Deed
from triage.flow.line import Line
from triage.web.auth import Actor

_log = logging.getLogger(__name__)


def note_deed(
    line: Line, actor: Actor, action: Action, series_id: int | None = None, *, detail: str = ""
) -> None:
    """Into the audit trail. detail: what it was done to, where that is no series; never a patient."""
    deed = Deed(actor=actor.name, address=actor.address, action=action, series_id=series_id, detail=detail)
    line.audit.record(deed, line.now())
    _log.info("deed_recorded action=%s", action)


def note_refused_login(line: Line, name: str, address: str) -> None:
    """Somebody could not log in. The name is kept only where it is one: people type passwords there."""
    actor = name if line.accounts.is_known(name) else "unknown"
    deed = Deed(actor=actor, address=address, action=Action.LOGIN_REFUSED, succeeded=False)
    line.audit.record(deed, line.now())
    _log.warning("deed_recorded action=%s", Action.LOGIN_REFUSED)


@dataclass(frozen=True, slots=True)
class Views:
    """Which studies are on whose screen, so that looking is recorded once and not every two seconds.

    An open page asks again and again; a view ends when nothing has asked for it for `lasts`.
    """

    lasts: timedelta = timedelta(minutes=5)
    most: int = 10_000
    _seen: OrderedDict[tuple[str, str, int], datetime] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begins(self, actor: Actor, series_id: int, at: datetime) -> bool:
        """Whether this request is the first of a view."""
        key = (actor.name, actor.address, series_id)
        with self._lock:
            last = self._seen.pop(key, None)
            self._seen[key] = at
            if len(self._seen) > self.most:
                self._seen.popitem(last=False)
        return last is None or at - last > self.lasts
