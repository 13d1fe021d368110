"""Who is called next, and after how long: an alert climbs until a person answers."""

from dataclasses import dataclass
from typing import TypeAlias

Seconds: TypeAlias = float

_RETRY_S: Seconds = 5.0


@dataclass(frozen=True, slots=True)
class NextCall:
    """The rung to call next, and how long to wait for an answer before."""

    rung: int
    wait_s: Seconds


@dataclass(frozen=True, slots=True)
class OnCallLadder:
    """The rungs of a ladder by the time that each has to answer, the first one first."""

    waits_s: tuple[Seconds, ...]

    def after(self, rung: int, *, taken: bool) -> NextCall:
        """What follows a call of a rung: the next one, and the last one again and again.

        taken: whether a channel of the rung took the message. If not, nobody can answer, and the next
        rung is called at once; where none is left, the first one is tried again after 5 s.

        >>> OnCallLadder((180.0, 300.0)).after(0, taken=True)
        NextCall(rung=1, wait_s=180.0)
        >>> OnCallLadder((180.0, 300.0)).after(1, taken=True)
        NextCall(rung=1, wait_s=300.0)
        >>> OnCallLadder((180.0, 300.0)).after(0, taken=False)
        NextCall(rung=1, wait_s=0.0)
        """
        last = len(self.waits_s) - 1
        # The configuration may have become shorter since the alert was raised.
        rung = min(rung, last)
        if taken:
            return NextCall(min(rung + 1, last), self.waits_s[rung])
        if rung < last:
            return NextCall(rung + 1, 0.0)
        return NextCall(0, _RETRY_S)
