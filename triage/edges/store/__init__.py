"""What is remembered: SQLAlchemy 2 on SQLite or PostgreSQL, chosen by URL.

Callers see functions named after what they answer or what became true, and rows; never a session.
"""

from triage.edges.store.store import (
    Arrival,
    Assessment,
    BuiltReport,
    Conclusion,
    FollowUps,
    Registration,
    SeriesView,
    Store,
)
from triage.edges.store.tables import Alert, Event, Instance, Report, Result, Series

__all__ = [
    "Alert",
    "Arrival",
    "Assessment",
    "BuiltReport",
    "Conclusion",
    "Event",
    "FollowUps",
    "Instance",
    "Registration",
    "Report",
    "Result",
    "Series",
    "SeriesView",
    "Store",
]
