"""One sender's connection: what is read from it, how much of it, and for how long.

pynetdicom's upper layer reads whatever length a PDU announces, for as long as it takes, asks a thousand
times a second whether there is anything to read, and leaves an association's thread waiting where its own
thread died of a malformed PDU. The classes here and in transport.py replace just those parts of it; its
state machine (PS3.8 9.2), its codecs and its services stay.
"""

import logging
import queue
import socket
import time
from collections import deque
from typing import cast

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import DimsePrimitiveType, DimseServiceType
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu import A_ABORT_RQ
from pynetdicom.pdu_primitives import A_P_ABORT, P_DATA

from triage.edges.dimse.admission import Admission, Places
from triage.edges.dimse.transport import Connection
from triage.errors import origin

_log = logging.getLogger(__name__)

# A PDU that trickles in more slowly than this has no sender that waits for an answer.
_SLOWEST_BYTES_PER_S = 1000
# How long a thread sleeps that has nothing to do but to wait for the peer.
_NAP_S = 0.05
# Requests that a peer may send ahead of our answers; the rest waits on its side of the wire.
_MOST_WAITING = 2
_HEADER_BYTES = 6


def supervise(association: Association, raw: socket.socket, admission: Admission, places: Places) -> None:
    """Put ours in the place of pynetdicom's, in an association that has not begun."""
    provider = Provider(association, admission)
    association.dul = provider
    association.dimse = Messages(association, admission, places)
    # Setting them tells the provider's timers.
    association.acse_timeout = admission.silence_s
    association.network_timeout = admission.idle_s
    association.set_socket(Connection(association, raw, admission.silence_s))


def is_worth_waiting(association: Association) -> bool:
    """Whether the association is storing something, or ends by itself in a moment: not within a PDU."""
    return cast(Messages, association.dimse).is_owing or not cast(Provider, association.dul).is_reading


def forget(association: Association) -> None:
    """Drop what is left of an association that is over."""
    provider = association.dul
    provider.kill_dul()
    if provider.is_alive():
        provider.join()
    cast(Messages, association.dimse).forget()


class Messages(DIMSEServiceProvider):
    """The DIMSE messages of an association, none longer than the limit."""

    def __init__(self, association: Association, admission: Admission, places: Places) -> None:
        super().__init__(association)
        self._limit_bytes = admission.max_dataset_bytes
        self._places = places
        self._gathered_bytes = 0
        # The sizes of messages that are whole and not yet served.
        self._owed_bytes: deque[int] = deque()
        self._is_serving = False

    @property
    def is_owing(self) -> bool:
        """Whether a request came that is not answered yet."""
        return bool(self._owed_bytes)

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Gather one P-DATA; too long a message ends the association."""
        count = sum(len(value) for _, value in primitive.presentation_data_value_list)
        if not self._has_room(count):
            cast(Provider, self.dul).note_end(f"too_long gathered_bytes={self._gathered_bytes}")
            self.dul.event_queue.put("Evt19")
            return
        self._gathered_bytes += count
        # Before the message is queued: whoever serves it takes its size from here.
        self._owed_bytes.append(self._gathered_bytes)
        queued = self.msg_queue.unfinished_tasks
        super().receive_primitive(primitive)
        is_queued = self.msg_queue.unfinished_tasks > queued
        if not is_queued:
            self._owed_bytes.pop()
        if self.message is None:
            if not is_queued:
                # A C-CANCEL, say: nobody will serve it.
                self._places.free(self._address(), self._gathered_bytes)
            self._gathered_bytes = 0

    def _has_room(self, count: int) -> bool:
        if self._gathered_bytes + count > self._limit_bytes:
            return False
        return self._places.hold(self._address(), count)

    def _address(self) -> str:
        return str(self.assoc.requestor.address)

    def forget(self) -> None:
        """Give back the room that the association filled; nothing comes any more."""
        self._places.free(self._address(), self._gathered_bytes + sum(self._owed_bytes))
        self._gathered_bytes = 0
        self._owed_bytes.clear()

    def get_msg(
        self,
        block: bool = False,  # noqa: ARG002, FBT001, FBT002 - inherited; the association's loop never blocks
    ) -> tuple[int, DimseServiceType] | tuple[None, None]:
        """The next message; (None, None) where none comes within a nap."""
        if self._is_serving:
            self._places.free(self._address(), self._owed_bytes.popleft())
        try:
            context_id, message = self.msg_queue.get(timeout=_NAP_S)
        except queue.Empty:
            context_id, message = None, None
        self._is_serving = message is not None
        return cast(tuple[int, DimseServiceType], (context_id, message))

    def send_msg(self, primitive: DimsePrimitiveType, context_id: int) -> None:
        """Answer. The peer was waiting for us until now, so its silence begins here."""
        super().send_msg(primitive, context_id)
        cast(Provider, self.dul).restart_idle_timer()


class Provider(DULServiceProvider):
    """The upper layer of an association with a peer that may be slow, hostile or broken."""

    def __init__(self, association: Association, admission: Admission) -> None:
        super().__init__(association)
        self._admission = admission
        self._opened_at = time.monotonic()
        self.is_reading = False

    def restart_idle_timer(self) -> None:
        """Count the peer's silence from now."""
        self._idle_timer.restart()

    def idle_timer_expired(self) -> bool:
        """Whether nothing has happened for too long; a PDU that is coming in is something."""
        has_expired = not self.is_reading and super().idle_timer_expired()
        if has_expired:
            self.note_end("idle")
        return has_expired

    def run_reactor(self) -> None:
        """Run until the connection is over, whatever comes over it."""
        try:
            super().run_reactor()
        except Exception as error:  # noqa: BLE001 - what a peer sends ends its own association, nothing else
            self.note_end(f"malformed error={origin(error)}")
            self._end()
        finally:
            # The association may be waiting for a request that will never come. None: it came too late.
            self.to_user_queue.put(cast(A_P_ABORT, None))

    def note_end(self, reason: str) -> None:
        """Log why the association ends before its time."""
        _log.warning("association_ended address=%s reason=%s", self.assoc.requestor.address, reason)

    def _end(self) -> None:
        abort = A_ABORT_RQ()
        abort.source, abort.reason_diagnostic = 0x02, 0x00
        connection = self._connection()
        connection.send(abort.encode())
        self.assoc.is_aborted, self.assoc.is_established = True, False
        self.assoc._kill = True
        connection.close()

    def _connection(self) -> Connection:
        return cast(Connection, self.socket)

    def _is_transport_event(self) -> bool:
        if self.state_machine.current_state == "Sta13":
            return super()._is_transport_event()
        messages = cast(Messages, self.assoc.dimse)
        if messages.msg_queue.qsize() >= _MOST_WAITING:
            return False
        # In this order: an answer is in the queue before it stops being owed.
        may_nap = self._is_waiting_for_peer(messages) and self.to_provider_queue.empty()
        if self._connection().wait(_NAP_S if may_nap else 0):
            self._read_pdu_data()
            return True
        return False

    def _is_waiting_for_peer(self, messages: Messages) -> bool:
        is_open = self.state_machine.current_state in ("Sta2", "Sta6")
        return is_open and not messages.is_owing and self.event_queue.empty()

    def _read_pdu_data(self) -> None:
        if self.state_machine.current_state == "Sta13":
            # We have said that this is over. ARTIM ends it where the peer does not hear (PS3.8 9.1.5).
            if not self._connection().discard():
                self.event_queue.put("Evt17")
            return
        self.is_reading = True
        try:
            self._read_pdu()
        except TimeoutError:
            self.note_end("too_slow")
            self.event_queue.put("Evt17")
        except OSError:
            self.event_queue.put("Evt17")
        except Exception as error:  # noqa: BLE001 - the codecs raise anything on malformed input
            self.note_end(f"malformed error={origin(error)}")
            self.event_queue.put("Evt19")
        finally:
            self.restart_idle_timer()
            self.is_reading = False

    def _read_pdu(self) -> None:
        began = time.monotonic()
        is_request = self.state_machine.current_state in ("Sta1", "Sta2")
        deadline = (self._opened_at if is_request else began) + self._admission.silence_s
        header = bytearray(_HEADER_BYTES)
        self._connection().read_into(memoryview(header), deadline)
        length = int.from_bytes(header[2:], "big")
        if length > self._admission.longest_pdu(header[0]):
            self.note_end(f"pdu type=0x{header[0]:02X} length={length}")
            self.event_queue.put("Evt19")
            return
        pdu = header + bytes(length)
        if not is_request:
            deadline += length / _SLOWEST_BYTES_PER_S
        self._connection().read_into(memoryview(pdu)[_HEADER_BYTES:], deadline)
        decoded, event = self._decode_pdu(pdu)
        self._recv_pdu.put(decoded)
        self.event_queue.put(event)
