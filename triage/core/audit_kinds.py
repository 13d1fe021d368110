"""Which of the DICOM audit messages (PS3.15 A.5.3) tells which action, and who takes part in it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pydicom.uid import Comprehensive3DSRStorage

from triage.core.audit import OURSELVES, Action, Deed

NOT_KNOWN: Final = "<none>"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSource:
    """This installation, as its messages name it.

    host: name of this machine. url: base of our pages. ae_title: ours. pacs: AE title of the PACS, or empty.
    """

    host: str
    url: str
    ae_title: str
    pacs: str = ""


@dataclass(frozen=True, slots=True)
class Code:
    """A coded concept."""

    value: str
    meaning: str
    scheme: str = "DCM"


@dataclass(frozen=True, slots=True, kw_only=True)
class Participant:
    """One who took part. At most one of a message is the requestor (A.5.2)."""

    user_id: str
    is_requestor: bool
    name: str = ""
    ae_title: str = ""
    roles: tuple[Code, ...] = ()
    address: str = ""
    media: Code | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageKind:
    """The message that tells an action.

    table: where PS3.15 describes it; empty for one of our own, which A.5 permits.
    type: the event type that the table demands.
    sop_class_uid: of what the table wants to be named as transferred.
    """

    event: Code
    table: str
    action_code: Literal["C", "R", "U", "D", "E"]
    participants: Callable[[Deed, AuditSource], Sequence[Participant]]
    type: Code | None = None
    sop_class_uid: str = ""


def ours(action: Action) -> Code:
    """Our own action as an event type."""
    return Code(action.value, action.value.replace("_", " "), "99TRIAGE")


# Who takes part

_APPLICATION = Code("110150", "Application")
_SENDER = Code("110153", "Source Role ID")
_RECEIVER = Code("110152", "Destination Role ID")
_MEDIA = Code("110154", "Destination Media")


def _ourselves(source: AuditSource, *roles: Code, is_requestor: bool = False) -> Participant:
    return Participant(
        user_id=OURSELVES,
        is_requestor=is_requestor,
        ae_title=source.ae_title,
        roles=roles,
        address=source.host,
    )


def _person(deed: Deed, source: AuditSource, *roles: Code, is_requestor: bool = True) -> Participant:
    # A.5.2.1: loginName@domain-name.
    return Participant(
        user_id=f"{deed.actor}@{source.host}",
        is_requestor=is_requestor,
        name=deed.actor,
        roles=roles,
        address=deed.address,
    )


def _pacs(source: AuditSource) -> Participant:
    return Participant(
        user_id=source.pacs or NOT_KNOWN, is_requestor=False, ae_title=source.pacs, roles=(_RECEIVER,)
    )


def _the_application(_: Deed, source: AuditSource) -> Sequence[Participant]:
    return (_ourselves(source, _APPLICATION),)


def _person_and_ourselves(deed: Deed, source: AuditSource) -> Sequence[Participant]:
    if deed.actor == OURSELVES:
        return (_ourselves(source, is_requestor=True),)
    return _person(deed, source), _ourselves(source)


def _person_at_a_place(deed: Deed, source: AuditSource) -> Sequence[Participant]:
    claimed = Participant(
        user_id=f"{deed.actor}@{source.host}",
        is_requestor=True,
        name=deed.actor,
        address=deed.address or source.host,
    )
    return claimed, _ourselves(source)


def _reporter_and_performer(deed: Deed, source: AuditSource) -> Sequence[Participant]:
    return _ourselves(source, is_requestor=True), _person(deed, source, is_requestor=False)


def _peer_to_us(deed: Deed, source: AuditSource) -> Sequence[Participant]:
    peer = Participant(
        user_id=deed.actor,
        is_requestor=True,
        ae_title=deed.actor,
        roles=(_SENDER,),
        address=deed.address,
    )
    return peer, _ourselves(source, _RECEIVER)


def _us_to_the_pacs(_: Deed, source: AuditSource) -> Sequence[Participant]:
    return _ourselves(source, _SENDER, is_requestor=True), _pacs(source)


def _us_to_the_pacs_for_a_person(deed: Deed, source: AuditSource) -> Sequence[Participant]:
    return _ourselves(source, _SENDER), _pacs(source), _person(deed, source)


def _us_to_a_browser(deed: Deed, source: AuditSource) -> Sequence[Participant]:
    download = Participant(
        user_id="download",
        is_requestor=False,
        roles=(_MEDIA,),
        address=deed.address,
        media=Code("110037", "URI"),
    )
    return _person(deed, source, _RECEIVER), _ourselves(source, _SENDER), download


# What each action is told as

AUDIT_LOG_USED: Final = Code("110101", "Audit Log Used")
_APPLICATION_ACTIVITY = Code("110100", "Application Activity")
_BEGIN_TRANSFERRING = Code("110102", "Begin Transferring DICOM Instances")
_INSTANCES_ACCESSED = Code("110103", "DICOM Instances Accessed")
_INSTANCES_TRANSFERRED = Code("110104", "DICOM Instances Transferred")
_EXPORT = Code("110106", "Export")
_PROCEDURE_RECORD = Code("110111", "Procedure Record")
_SECURITY_ALERT = Code("110113", "Security Alert")
_USER_AUTHENTICATION = Code("110114", "User Authentication")

_LOGIN = Code("110122", "Login")
_RESTRICTED = Code("110132", "Use of Restricted Function")
_USER_ATTRIBUTES = Code("110137", "User Security Attributes Changed")


def _authentication(kind: Code) -> MessageKind:
    return MessageKind(
        event=_USER_AUTHENTICATION,
        table="A.5.3.12",
        action_code="E",
        type=kind,
        participants=_person_at_a_place,
    )


def _security_alert(kind: Code) -> MessageKind:
    return MessageKind(
        event=_SECURITY_ALERT,
        table="A.5.3.11",
        action_code="E",
        type=kind,
        participants=_reporter_and_performer,
    )


def _activity(kind: Code) -> MessageKind:
    return MessageKind(
        event=_APPLICATION_ACTIVITY,
        table="A.5.3.1",
        action_code="E",
        type=kind,
        participants=_the_application,
    )


def _accessed(action_code: Literal["R", "D"]) -> MessageKind:
    return MessageKind(
        event=_INSTANCES_ACCESSED,
        table="A.5.3.6",
        action_code=action_code,
        participants=_person_and_ourselves,
    )


_PROCEDURE_RECORD_CHANGED = MessageKind(
    event=_PROCEDURE_RECORD, table="A.5.3.15", action_code="U", participants=_person_and_ourselves
)

KINDS: Final[Mapping[Action, MessageKind]] = {
    Action.SERVICE_STARTED: _activity(Code("110120", "Application Start")),
    Action.SERVICE_STOPPED: _activity(Code("110121", "Application Stop")),
    Action.LOGGED_IN: _authentication(_LOGIN),
    Action.LOGIN_REFUSED: _authentication(_LOGIN),
    Action.LOGGED_OUT: _authentication(Code("110123", "Logout")),
    Action.ACCESS_REFUSED: _security_alert(_RESTRICTED),
    Action.ACCOUNT_ADDED: _security_alert(_USER_ATTRIBUTES),
    Action.ACCOUNT_CHANGED: _security_alert(_USER_ATTRIBUTES),
    Action.TOKEN_ADDED: _security_alert(_USER_ATTRIBUTES),
    Action.TOKEN_REVOKED: _security_alert(_USER_ATTRIBUTES),
    Action.ALERT_TESTED: _security_alert(_RESTRICTED),
    # A.5.3.10 (Query) is for DICOM queries: it demands the SOP Class that was queried, and a page has none.
    Action.WORKLIST_VIEWED: MessageKind(
        event=ours(Action.WORKLIST_VIEWED), table="", action_code="R", participants=_person_and_ourselves
    ),
    Action.STUDY_VIEWED: _accessed("R"),
    Action.IMAGES_FREED: _accessed("D"),
    Action.REPORT_DOWNLOADED: MessageKind(
        event=_EXPORT, table="A.5.3.4", action_code="R", participants=_us_to_a_browser
    ),
    Action.ACKNOWLEDGED: _PROCEDURE_RECORD_CHANGED,
    Action.COMMENTED: _PROCEDURE_RECORD_CHANGED,
    Action.IMAGES_RECEIVED: MessageKind(
        event=_INSTANCES_TRANSFERRED, table="A.5.3.7", action_code="C", participants=_peer_to_us
    ),
    Action.REPORT_SENT: MessageKind(
        event=_INSTANCES_TRANSFERRED, table="A.5.3.7", action_code="R", participants=_us_to_the_pacs
    ),
    Action.REPORT_RESENT: MessageKind(
        event=_BEGIN_TRANSFERRING,
        table="A.5.3.3",
        action_code="E",
        participants=_us_to_the_pacs_for_a_person,
        sop_class_uid=Comprehensive3DSRStorage,
    ),
    Action.AUDIT_EXPORTED: MessageKind(
        event=AUDIT_LOG_USED, table="A.5.3.2", action_code="R", participants=_person_and_ourselves
    ),
}
