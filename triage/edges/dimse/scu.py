"""The SCU: send objects as they are, one report, or an echo."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from triage.edges.dimse.status import Status
from triage.edges.dimse.transport import hasten
from triage.errors import PeerUnavailable, ReportRefused


def send(
    dataset: Dataset,
    *,
    to: tuple[str, str, int],
    calling_ae: str,
    timeout_s: float,
    alternative: Dataset | None = None,
) -> str:
    """Store one data set at a peer and return the SOP Class UID under which it went.

    to: (AE title, host, port).
    alternative: the same content under another SOP class, for a peer that does not accept the first.
    Raises PeerUnavailable when trying again may help, ReportRefused when it cannot.
    """
    candidates = [dataset] if alternative is None else [dataset, alternative]
    ae = _scu(calling_ae, timeout_s)
    for candidate in candidates:
        ae.add_requested_context(candidate.SOPClassUID, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    title, host, port = to
    association = _associate(ae, to)
    try:
        accepted = {context.abstract_syntax for context in association.accepted_contexts}
        chosen = next(candidate for candidate in candidates if candidate.SOPClassUID in accepted)
        status = _store(association, chosen, f"{title}@{host}:{port}")
    finally:
        if association.is_established:
            association.release()
    if status == Status.SUCCESS or 0xB000 <= status <= 0xBFFF:
        return str(chosen.SOPClassUID)
    if 0xA700 <= status <= 0xA7FF or status == Status.PEER_PROCESSING_FAILURE:
        raise PeerUnavailable(f"{title}@{host}:{port} answered 0x{status:04X}, which may pass")
    raise ReportRefused(f"{title}@{host}:{port} answered 0x{status:04X}")


def echo(*, to: tuple[str, str, int], calling_ae: str, timeout_s: float) -> None:
    """C-ECHO. Raises PeerUnavailable where it is not answered with success."""
    ae = _scu(calling_ae, timeout_s)
    ae.add_requested_context(Verification)
    association = _associate(ae, to)
    status = association.send_c_echo().get("Status")
    association.release()
    if status != Status.SUCCESS:
        title, host, port = to
        raise PeerUnavailable(f"{title}@{host}:{port} did not answer C-ECHO")


def send_files(
    paths: Iterable[Path], *, to: tuple[str, str, int], calling_ae: str, timeout_s: float
) -> Iterator[tuple[Path, int]]:
    """Send Part 10 files as they are, in the transfer syntax they are in, and yield each one's status.

    One association after another where the files need more than 128 presentation contexts.
    Files that are not DICOM are passed over. Raises PeerUnavailable.
    """
    batch: list[Path] = []
    contexts: set[tuple[str, str]] = set()
    for path in paths:
        context = _context_of(path)
        if context is None:
            continue
        if len(contexts | {context}) > _MOST_CONTEXTS:
            yield from _send_batch(batch, contexts, to, calling_ae, timeout_s)
            batch, contexts = [], set()
        batch.append(path)
        contexts.add(context)
    if batch:
        yield from _send_batch(batch, contexts, to, calling_ae, timeout_s)


_MOST_CONTEXTS = 128


def _send_batch(
    paths: Iterable[Path],
    contexts: set[tuple[str, str]],
    to: tuple[str, str, int],
    calling_ae: str,
    timeout_s: float,
) -> Iterator[tuple[Path, int]]:
    ae = _scu(calling_ae, timeout_s)
    for sop_class_uid, transfer_syntax_uid in sorted(contexts):
        ae.add_requested_context(sop_class_uid, [transfer_syntax_uid])
    association = _associate(ae, to)
    try:
        for path in paths:
            yield path, _store(association, path, "the peer")
    finally:
        if association.is_established:
            association.release()


def _context_of(path: Path) -> tuple[str, str] | None:
    try:
        meta = read_file_meta_info(path)
        return str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)
    except (InvalidDicomError, AttributeError, EOFError):
        return None


def _scu(calling_ae: str, timeout_s: float) -> AE:
    ae = AE(ae_title=calling_ae)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = timeout_s
    return ae


def _store(association: Association, what: Dataset | Path, name: str) -> int:
    try:
        status = association.send_c_store(what).get("Status")
    except RuntimeError as error:
        # The association ended between being established and being used.
        raise PeerUnavailable(f"{name} ended the association") from error
    if status is None:
        raise PeerUnavailable(f"{name} ended the association without an answer")
    return int(status)


def _associate(ae: AE, to: tuple[str, str, int]) -> Association:
    title, host, port = to
    try:
        association = ae.associate(host, port, ae_title=title, evt_handlers=[(evt.EVT_CONN_OPEN, _hasten)])
    except OSError as error:
        raise PeerUnavailable(f"{title}@{host}:{port} could not be reached: {error.strerror}") from error
    if association.is_established:
        _leave_answers_to_who_asked(association)
        return association
    # pynetdicom aborts an association in which the peer accepted nothing that was proposed.
    if association.rejected_contexts and not association.accepted_contexts:
        names = ", ".join(
            UID(context.abstract_syntax or "").name for context in association.rejected_contexts
        )
        raise ReportRefused(f"{title}@{host}:{port} accepts none of: {names}")
    what = "rejected the association" if association.is_rejected else "could not be reached"
    raise PeerUnavailable(f"{title}@{host}:{port} {what}")


def _hasten(event: evt.Event) -> None:
    connection = event.assoc.dul.socket
    if connection is not None and connection.socket is not None:
        hasten(connection.socket)


def _leave_answers_to_who_asked(association: Association) -> None:
    """Keep the association's own thread from taking an answer off the queue.

    It says that it pauses a moment before it does; an answer that comes just then is lost to the caller, who
    waits until the timeout. A peer sends an SCU nothing but answers, so that thread has nothing to take.
    """
    wait = association.dimse.get_msg

    def get_msg(block: bool = False) -> Any:  # noqa: FBT001, FBT002 - as pynetdicom calls it
        return wait(block) if block else (None, None)

    association.dimse.get_msg = get_msg  # type: ignore[method-assign]
