"""DICOM on the network: one Storage SCP that calls a handler, and an SCU that sends one object.

The sender's Nagle timer waits for our delayed acknowledgement, 40 ms at a time, whenever a PDU leaves in
two pieces. TCP_NODELAY on our side and TCP_QUICKACK, which the kernel clears and we therefore set again
after every read and every answer, take that wait away for every sender.
"""

import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import cast

from pydicom import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import EventHandlerType
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.transport import ThreadedAssociationServer

from triage.errors import PeerUnavailable, ReportRefused

# How long a peer may be silent while it sets up an association or within a PDU.
_SILENCE_S = 30.0


class Status(IntEnum):
    """C-STORE response status (PS3.4 B.2.3 and PS3.7 9.1.1.1.9)."""

    SUCCESS = 0x0000
    PEER_PROCESSING_FAILURE = 0x0110
    OUT_OF_RESOURCES = 0xA700
    DATA_SET_DOES_NOT_MATCH = 0xA900
    CANNOT_UNDERSTAND = 0xC000
    DIFFERENT_CONTENT = 0xC001
    PROCESSING_FAILURE = 0xC002


@dataclass(frozen=True, slots=True)
class ReceivedObject:
    """One C-STORE request, undecoded.

    content: a complete Part 10 file: preamble, meta header, and the data set exactly as received.
    """

    sop_class_uid: str
    sop_instance_uid: str
    calling_ae: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Scp:
    """A running Storage SCP."""

    server: ThreadedAssociationServer
    ae: AE

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.server.server_address[1])

    @property
    def is_listening(self) -> bool:
        """Whether the port is open."""
        return self.server.socket is not None and self.server.socket.fileno() >= 0

    def stop(self) -> None:
        """Abort what is running and close the port."""
        self.ae.shutdown()


def start_scp(
    *,
    ae_title: str,
    host: str,
    port: int,
    max_associations: int,
    store: Callable[[ReceivedObject], Status],
) -> Scp:
    """Listen for C-ECHO and C-STORE of every storage SOP class, private ones too, in any transfer syntax.

    store: called in the association's thread; its status is the answer. It must not raise.
    Raises OSError where the port cannot be had.
    """
    # A scanner pushes private classes among the images; refusing their context makes some of them stop.
    _config.UNRESTRICTED_STORAGE_SERVICE = True
    ae = AE(ae_title=ae_title)
    ae.maximum_associations = max_associations
    ae.maximum_pdu_size = 0
    ae.acse_timeout = _SILENCE_S
    ae.add_supported_context(Verification)

    def on_store(event: evt.Event) -> int:
        request = cast(C_STORE, event.request)
        return store(
            ReceivedObject(
                sop_class_uid=str(request.AffectedSOPClassUID),
                sop_instance_uid=str(request.AffectedSOPInstanceUID),
                calling_ae=event.assoc.requestor.ae_title.strip(),
                content=event.encoded_dataset(),
            )
        )

    handlers: list[EventHandlerType] = [
        (evt.EVT_C_STORE, on_store),
        (evt.EVT_CONN_OPEN, _limit_silence),
        (evt.EVT_CONN_OPEN, _hasten),
        (evt.EVT_DATA_RECV, _hasten),
        (evt.EVT_DATA_SENT, _hasten),
    ]
    server = ae.start_server((host, port), block=False, evt_handlers=handlers)
    return Scp(cast(ThreadedAssociationServer, server), ae)


def _limit_silence(event: evt.Event) -> None:
    # pynetdicom's own timers do not run while it reads a PDU: a peer that falls silent in the middle of
    # one would hold its association for ever, and a hundred of them the whole service.
    raw = _socket_of(event)
    if raw is not None:
        raw.settimeout(_SILENCE_S)


def _hasten(event: evt.Event) -> None:
    raw = _socket_of(event)
    if raw is None:
        return
    try:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_QUICKACK"):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    except OSError:
        # The peer has hung up in the meantime; the association's own thread deals with that.
        return


def _socket_of(event: evt.Event) -> socket.socket | None:
    connection = event.assoc.dul.socket
    return connection.socket if connection is not None else None


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
        return association
    # pynetdicom aborts an association in which the peer accepted nothing that was proposed.
    if association.rejected_contexts and not association.accepted_contexts:
        names = ", ".join(
            UID(context.abstract_syntax or "").name for context in association.rejected_contexts
        )
        raise ReportRefused(f"{title}@{host}:{port} accepts none of: {names}")
    what = "rejected the association" if association.is_rejected else "could not be reached"
    raise PeerUnavailable(f"{title}@{host}:{port} {what}")
