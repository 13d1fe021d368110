"""What is remembered: SQLAlchemy 2 on SQLite or PostgreSQL, chosen by URL.

Callers see functions named after what they answer or what became true, and rows; never a session.
"""

from triage.edges.store.accounts import Accounts
from triage.edges.store.audit import AuditTrail
from triage.edges.store.store import (
    Arrival,
    Assessment,
    BuiltReport,
    Call,
    Conclusion,
    FollowUps,
    Held,
    Registration,
    SeriesView,
    Store,
)
from triage.edges.store.tables import (
    Account,
    Alert,
    ApiToken,
    Event,
    Instance,
    Page,
    Problem,
    Report,
    Result,
    Series,
)
from triage.edges.store.watchbook import Backlog, Watchbook

__all__ = [
    "Account",
    "Accounts",
    "Alert",
    "ApiToken",
    "Arrival",
    "Assessment",
    "AuditTrail",
    "Backlog",
    "BuiltReport",
    "Call",
    "Conclusion",
    "Event",
    "FollowUps",
    "Held",
    "Instance",
    "Page",
    "Problem",
    "Registration",
    "Report",
    "Result",
    "Series",
    "SeriesView",
    "Store",
    "Watchbook",
]
