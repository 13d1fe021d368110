"""What the screen says about a patient: every sentence of it, and nothing else.

Three words carry the meaning, as in the report and the page: suspected, not suspected, not analysed.
DWI-ASPECTS 7-10 holds small infarcts too, so it is never called normal, clear or negative.
"""

from typing import Final

from triage.core.finding import Category
from triage.core.volume import Reason

SUSPECTED: Final = "DWI-ASPECTS 1-6 suspected"
SUSPECTED_ADVICE: Final = "Large infarct suspected. Read the study now."
NOT_SUSPECTED: Final = "DWI-ASPECTS 7-10, large infarct not suspected"
NOT_SUSPECTED_ADVICE: Final = "A smaller infarct is not ruled out. Read the study in its turn."
NOT_ANALYSED: Final = "Not analysed"
NOT_ANALYSED_ADVICE: Final = "An infarct is neither suspected nor ruled out. Read the study now."

CATEGORIES: Final = {
    Category.ASPECTS_1_6: (SUSPECTED, SUSPECTED_ADVICE),
    Category.ASPECTS_7_10: (NOT_SUSPECTED, NOT_SUSPECTED_ADVICE),
}

REASONS: Final = {
    Reason.NO_B1000: "The series has no b=1000 images.",
    Reason.B_VALUE_UNKNOWN: "The images do not say their b-value in a way we understand.",
    Reason.INCOMPLETE: "Slices are missing.",
    Reason.UNEVEN_SPACING: "The slices are not evenly spaced.",
    Reason.MIXED_GEOMETRY: "The slices differ in position, orientation or size and form no single volume.",
    Reason.NOT_AXIAL: "The slices are not axial.",
    Reason.LOSSY: "The images went through a lossy compression.",
    Reason.UNREADABLE: "The images could not be read.",
    Reason.INFERENCE_FAILED: "The network gave no answer.",
}

RECEIVING: Final = "Receiving images"
ANALYSING: Final = "Analysis running"
WAITING_ADVICE: Final = "There is no result yet."
IGNORED: Final = "Set aside"
IGNORED_ADVICE: Final = "Not a diffusion series: nothing was analysed, and nothing is said about it."
NEWER_IMAGES: Final = (
    "More images of this series came after this result. They are being looked at; the result may change."
)
REVISED: Final = "Revision {revision}: replaces an earlier result of this series."

PROBABILITY: Final = "Probability of DWI-ASPECTS 1-6, calibrated"
THRESHOLD: Final = "Threshold in use"
THRESHOLD_MEANING: Final = "At or above the threshold, DWI-ASPECTS 1-6 is suspected."

NO_REPORT: Final = "No report yet"
REPORT_NOT_BUILT: Final = "No report: it could not be built"
REPORT_KEPT: Final = "Report kept here: no PACS is set up"
REPORT_PENDING: Final = "Report on its way to the PACS"
REPORT_DELAYED: Final = "Report not in the PACS yet, being tried again"
REPORT_STORED: Final = "Report in the PACS"
REPORT_FAILED: Final = "Report did not reach the PACS"

NOBODY_PAGED: Final = "Nobody was paged"
NO_CHANNEL: Final = "Nobody was paged: no alert channel is set up"
PAGE_PENDING: Final = "Page on its way"
PAGE_FAILED: Final = "Page did not go out, being tried again"
EARLIER_ALERT: Final = "Paged for an earlier result of this series, not acknowledged"
PAGED: Final = "Paged, not acknowledged"
ACKNOWLEDGED: Final = "Acknowledged by {by}"

NO_PICTURES_YET: Final = "Pictures appear here with the result."
NO_PICTURES: Final = "No b=1000 volume could be put together from this series, so there are no pictures here."
PICTURES_GONE: Final = "The pictures of this result are no longer kept here. Look at the series in the PACS."
ORIENTATION: Final = "Slices from caudal to cranial, seen from below: the patient's right is on the left."

EVENTS: Final = {
    "first_instance": "First image received",
    "last_instance": "Last image received",
    "complete": "Series taken as complete",
    "analysed": "Result reached",
    "ignored": "Set aside",
    "nothing_new": "Later images change nothing",
    "conflicting_instance": "Conflicting image kept out",
    "report_stored": "Report stored in the PACS",
    "report_delayed": "Report not stored yet",
    "report_failed": "Report not stored",
    "report_requeued": "Report to be sent again",
    "alert_sent": "Page sent",
    "alert_failed": "Page not sent",
    "alert_amended": "Alert speaks for the newer result",
    "acknowledged": "Acknowledged",
    "technologist_told": "Technologist told",
    "freed": "Images deleted here",
}

SUMMARY_NONE: Final = "No suspected large infarct waits for an answer"
SUMMARY_ONE: Final = "1 suspected large infarct waits for an answer"
SUMMARY_MANY: Final = "{count} suspected large infarcts wait for an answer"
ALERTS_ELSEWHERE: Final = (
    "Open alerts that are not in this list: {count}. They belong to older studies; use the link in the page."
)

GROUP_OPEN: Final = "Suspected, not acknowledged"
GROUP_NOT_ANALYSED: Final = "Not analysed: read now"
GROUP_RUNNING: Final = "In progress"
GROUP_DONE: Final = "Acknowledged, or not suspected"

LOGIN_WRONG: Final = "That name and password do not belong together."
LOGIN_LATER: Final = "Too many failed logins. Wait five minutes, then try again."
PASSWORDS_DIFFER: Final = "The two new passwords differ."
OLD_ONE_AGAIN: Final = "The new password is the old one."
ONE_TIME: Final = "One-time password of {name}; it is shown only now:"
SHOWN_ONCE: Final = "Token {name}; it is shown only now:"
