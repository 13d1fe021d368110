"""What the audit trail says: who did what, from where, to which series, and whether it came to pass.

The trail itself holds row ids, never a patient. How an entry is told to the hospital's audit record
repository, which does need the patient, is in `triage.core.audit_message`.
"""

import json
import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

OURSELVES: Final = "triage"
"""The actor where no person and no peer acted."""

# XML 1.0 (2.2) knows no other character, PostgreSQL no NUL; one entry stays one line, and reads forwards.
_UNPRINTABLE: Final = re.compile("[^\x20-\x7e\xa0-\u2027\u202f-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Action(StrEnum):
    """What a security officer asks about. The values are stored and at most 32 characters long."""

    SERVICE_STARTED = "service_started"
    SERVICE_STOPPED = "service_stopped"
    LOGGED_IN = "logged_in"
    LOGIN_REFUSED = "login_refused"
    LOGGED_OUT = "logged_out"
    ACCESS_REFUSED = "access_refused"
    ACCOUNT_ADDED = "account_added"
    ACCOUNT_CHANGED = "account_changed"
    TOKEN_ADDED = "token_added"  # noqa: S105 - no secret
    TOKEN_REVOKED = "token_revoked"  # noqa: S105 - no secret
    WORKLIST_VIEWED = "worklist_viewed"
    STUDY_VIEWED = "study_viewed"
    REPORT_DOWNLOADED = "report_downloaded"
    ACKNOWLEDGED = "acknowledged"
    COMMENTED = "commented"
    ALERT_TESTED = "alert_tested"
    IMAGES_RECEIVED = "images_received"
    IMAGES_FREED = "images_freed"
    REPORT_SENT = "report_sent"
    REPORT_RESENT = "report_resent"
    AUDIT_EXPORTED = "audit_exported"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """One thing that somebody did, or tried to.

    actor: account or API token, calling AE title, or `OURSELVES`.
    address: where it came from, an IP address or a host name; empty where that is not known.
    series_id: row id of the series that it was done to.
    detail: what else there is to say; never a name, an ID or a UID of a patient.
    """

    actor: str
    action: Action
    address: str = ""
    series_id: int | None = None
    succeeded: bool = True
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A deed as it stands in the trail. Ids rise in the order in which entries became true."""

    id: int
    at: datetime
    deed: Deed


def as_json_line(entry: Entry) -> str:
    """The entry as one line of JSON, without its newline.

    >>> from datetime import UTC
    >>> deed = Deed(actor="kim", action=Action.ACKNOWLEDGED, address="10.0.0.7", series_id=42)
    >>> as_json_line(Entry(7, datetime(2026, 1, 1, 3, tzinfo=UTC), deed))[:65]
    '{"id": 7, "at": "2026-01-01T03:00:00+00:00", "actor": "kim", "add'
    """
    deed = entry.deed
    said = {
        "id": entry.id,
        "at": entry.at.isoformat(),
        "actor": deed.actor,
        "address": deed.address,
        "action": deed.action.value,
        "series": deed.series_id,
        "succeeded": deed.succeeded,
        "detail": deed.detail,
    }
    return json.dumps(said, ensure_ascii=False)


def printable(text: str, longest: int) -> str:
    """The text within `longest` characters, control characters and the like replaced by U+FFFD.

    What people type into a login form ends here too.

    >>> printable("Kim\\x00\\n" + "!" * 99, 8)
    'Kim\ufffd\ufffd!!!'
    """
    return _UNPRINTABLE.sub("\ufffd", text[:longest])
