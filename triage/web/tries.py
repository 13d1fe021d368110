"""How often somebody may guess a password."""

import threading
from collections import OrderedDict, deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

_WITHIN = timedelta(minutes=5)
_MOST_KEYS = 10_000


@dataclass(frozen=True, slots=True)
class Tries:
    """Failed logins of the last five minutes, by name and by address. In memory: one process serves all.

    allowed: failures after which a name or an address has to wait.
    """

    allowed: int
    _failed: OrderedDict[str, deque[datetime]] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, keys: Collection[str], at: datetime) -> timedelta | None:
        """Count a try as failed until it is `forgiven`; how long to wait instead, where it may not be made.

        Counted first, so that a hundred tries at once are a hundred tries.
        """
        with self._lock:
            known = [self._recent(key, at) for key in keys if key in self._failed]
            waits = [tries[0] + _WITHIN - at for tries in known if len(tries) >= self.allowed]
            if waits:
                # Nothing is kept of it: made-up names must not push out the one that is being guessed at.
                return max(waits)
            for key in keys:
                self._recent(key, at).append(at)
            return None

    def forgive(self, keys: Iterable[str]) -> None:
        """The password was right: the last try of each key was none, and the tries of others stay."""
        with self._lock:
            for key in keys:
                if tries := self._failed.get(key):
                    tries.pop()

    def _recent(self, key: str, at: datetime) -> deque[datetime]:
        tries = self._failed.setdefault(key, deque())
        self._failed.move_to_end(key)
        while tries and tries[0] <= at - _WITHIN:
            tries.popleft()
        while len(self._failed) > _MOST_KEYS:
            self._failed.popitem(last=False)
        return tries
