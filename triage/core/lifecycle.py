"""Where a series, a report and an alert can be, and which moves are allowed."""

from enum import StrEnum


class SeriesState(StrEnum):
    """Where a series is. The values are the public API's."""

    RECEIVING = "receiving"
    ANALYSING = "analysing"
    ASSESSED = "assessed"
    NOT_ASSESSED = "not_assessed"
    IGNORED = "ignored"


class ReportState(StrEnum):
    """Where a report is. NONE: built and kept, but no PACS is configured."""

    NONE = "none"
    PENDING = "pending"
    STORED = "stored"
    FAILED = "failed"


class AlertState(StrEnum):
    """Where an alert is. PENDING: no channel has taken a message yet."""

    PENDING = "pending"
    SENT = "sent"
    ACKNOWLEDGED = "acknowledged"


ENDED = frozenset({SeriesState.ASSESSED, SeriesState.NOT_ASSESSED, SeriesState.IGNORED})
"""States in which nothing more happens until another instance comes."""

_MOVES: dict[SeriesState, frozenset[SeriesState]] = {
    SeriesState.RECEIVING: frozenset({SeriesState.ANALYSING}),
    SeriesState.ANALYSING: ENDED,
    # A late instance can change any of the three ends, but never back into "ignored".
    SeriesState.ASSESSED: frozenset({SeriesState.ASSESSED, SeriesState.NOT_ASSESSED}),
    SeriesState.NOT_ASSESSED: frozenset({SeriesState.ASSESSED, SeriesState.NOT_ASSESSED}),
    SeriesState.IGNORED: ENDED,
}


def moved(current: SeriesState, to: SeriesState) -> SeriesState:
    """The new state. Raises ValueError where the move is not allowed.

    >>> moved(SeriesState.RECEIVING, SeriesState.ANALYSING).value
    'analysing'
    """
    if to not in _MOVES[current]:
        raise ValueError(f"a series cannot go from {current.value} to {to.value}")
    return to
