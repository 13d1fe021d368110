"""Who may send, and how much of us one sender may hold: decisions only, no socket."""

import ipaddress
import threading
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

# An association request of 128 contexts with every transfer syntax there is, and a user identity, fits.
_LONGEST_REQUEST_BYTES = 2**18
# Connections that are not associated, or not yet, beside those that are: they need threads and files too.
_CONNECTIONS_PER_ASSOCIATION = 4
# Of the longest data sets, as many as one address may have in our memory, over all of its associations.
_DATASETS_PER_PEER = 2


class Refusal(StrEnum):
    """Why a connection is closed before anything is read from it."""

    ADDRESS = "address"
    PEER_LIMIT = "peer_limit"
    LIMIT = "limit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Who may send to us, and the limits of each sender. The defaults let everybody in.

    max_associations: established at a time, of all peers together.
    max_associations_per_peer: connections that one address may have open, associated or not.
    max_pdu_bytes: the longest P-DATA-TF that is announced and taken (PS3.8 D.1), its header not counted.
    max_dataset_bytes: the longest data set that is gathered.
    silence_s: seconds for the TLS handshake, seconds for the association request, and the longest silence
        within any PDU.
    idle_s: seconds after which an association on which nothing happens is aborted.
    ae_titles: calling AE titles that may associate; none, or `*` among them, stands for every one.
    addresses: addresses and networks that may connect; none stands for every one.
    """

    max_associations: int = 100
    max_associations_per_peer: int = 25
    max_pdu_bytes: int = 2**20
    max_dataset_bytes: int = 2**29
    silence_s: float = 30.0
    idle_s: float = 60.0
    ae_titles: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()

    def allows_address(self, address: str) -> bool:
        """Whether a peer at this IP address may connect.

        >>> Admission(addresses=("10.1.0.0/16",)).allows_address("::ffff:10.1.2.3")
        True
        """
        if not self.addresses:
            return True
        found = _plain(address)
        return any(found in ipaddress.ip_network(network) for network in self.addresses)

    @property
    def required_ae_titles(self) -> list[str]:
        """The calling AE titles of which one is demanded; empty where every one will do."""
        titles = [title.strip() for title in self.ae_titles]
        return [] if "*" in titles else titles

    def longest_pdu(self, pdu_type: int) -> int:
        """Bytes that a PDU of this type may announce; -1 for a type that no requestor sends (PS3.8 9.3)."""
        return {0x01: _LONGEST_REQUEST_BYTES, 0x04: self.max_pdu_bytes, 0x05: 4, 0x06: 4, 0x07: 4}.get(
            pdu_type, -1
        )


class Places:
    """The places there are: connections and memory by address, and associations. Safe between threads."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._lock = threading.Lock()
        self._connected: Counter[str] = Counter()
        self._associated: set[Any] = set()
        self._held_bytes: Counter[str] = Counter()

    def connect(self, address: str) -> Refusal | None:
        """Take a place for a connection from this address, or say why there is none."""
        if not self._admission.allows_address(address):
            return Refusal.ADDRESS
        with self._lock:
            if self._connected[address] >= self._admission.max_associations_per_peer:
                return Refusal.PEER_LIMIT
            if self._connected.total() >= self._admission.max_associations * _CONNECTIONS_PER_ASSOCIATION:
                return Refusal.LIMIT
            self._connected[address] += 1
        return None

    def associate(self, association: Any) -> bool:
        """Take a place for an association of a connection; false where all are taken."""
        with self._lock:
            if len(self._associated) >= self._admission.max_associations:
                return False
            self._associated.add(association)
        return True

    def associations(self) -> list[Any]:
        """Those that have a place now."""
        with self._lock:
            return list(self._associated)

    def hold(self, address: str, count: int) -> bool:
        """Make room for bytes that an address sends; false where it fills too much already."""
        with self._lock:
            if self._held_bytes[address] + count > self._admission.max_dataset_bytes * _DATASETS_PER_PEER:
                return False
            self._held_bytes[address] += count
        return True

    def free(self, address: str, count: int) -> None:
        """Give room back."""
        with self._lock:
            self._held_bytes[address] -= count

    def disassociate(self, association: Any) -> None:
        """Give the association's place back, if it has one."""
        with self._lock:
            self._associated.discard(association)

    def disconnect(self, address: str) -> None:
        """Give a connection's place back."""
        with self._lock:
            self._connected[address] -= 1
            if not self._connected[address]:
                del self._connected[address], self._held_bytes[address]


def _plain(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    # A socket that listens on :: sees IPv4 senders as ::ffff:a.b.c.d.
    found = ipaddress.ip_address(address)
    return getattr(found, "ipv4_mapped", None) or found
