"""What can be wrong with the service itself, in the operator's words (docs/runbook.md says what to do)."""

from enum import StrEnum


class Trouble(StrEnum):
    """One kind of trouble. The values are stored, shown, and the headings of the runbook."""

    SERIES_STUCK = "SERIES_STUCK"
    QUEUE_LONG = "QUEUE_LONG"
    REPORT_DELAYED = "REPORT_DELAYED"
    REPORT_UNDELIVERED = "REPORT_UNDELIVERED"
    REPORT_NOT_BUILT = "REPORT_NOT_BUILT"
    PAGE_NOT_TAKEN = "PAGE_NOT_TAKEN"
    ALERT_UNANSWERED = "ALERT_UNANSWERED"
    NOBODY_ON_CALL = "NOBODY_ON_CALL"
    SENDER_SILENT = "SENDER_SILENT"
    DISK_LOW = "DISK_LOW"
    MODEL_FAILED = "MODEL_FAILED"
    AUDIT_NOT_FORWARDED = "AUDIT_NOT_FORWARDED"


MEANINGS = {
    Trouble.SERIES_STUCK: "A series has no outcome",
    Trouble.QUEUE_LONG: "Many series wait for their analysis",
    Trouble.REPORT_DELAYED: "Reports do not reach the PACS",
    Trouble.REPORT_UNDELIVERED: "Reports were given up: the PACS does not have them",
    Trouble.REPORT_NOT_BUILT: "A result has no report: it could not be built",
    Trouble.PAGE_NOT_TAKEN: "A page did not go out",
    Trouble.ALERT_UNANSWERED: "An alert was sent, and nobody has acknowledged it",
    Trouble.NOBODY_ON_CALL: "An alert is open, and no on-call ladder is set up",
    Trouble.SENDER_SILENT: "A sender has fallen silent",
    Trouble.DISK_LOW: "The disk is nearly full",
    Trouble.MODEL_FAILED: "The model fails its golden case: nothing is assessed",
    Trouble.AUDIT_NOT_FORWARDED: "The audit trail does not reach its repository",
}
