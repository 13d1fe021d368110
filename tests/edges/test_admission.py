"""Who is let in."""

import contextlib
import socket

import pytest

from tests.conftest import until
from tests.edges.conftest import Listen
from tests.edges.wire import ACCEPT, REJECT, association_request, connect, is_closed, read_pdu
from triage.edges.dimse import Admission, Status, start_scp
from triage.edges.dimse.admission import Places, Refusal

# Result, source, reason of an A-ASSOCIATE-RJ (PS3.8 table 9-21).
CALLING_AE_UNKNOWN = bytes([1, 1, 3])
CALLED_AE_UNKNOWN = bytes([1, 1, 7])
LIMIT_EXCEEDED = bytes([2, 3, 2])


@pytest.mark.parametrize(
    ("networks", "address", "allowed"),
    [
        ((), "203.0.113.9", True),
        (("10.1.0.0/16",), "10.1.255.1", True),
        (("10.1.0.0/16",), "10.2.0.1", False),
        (("10.1.0.0/16", "10.2.0.1/32"), "10.2.0.1", True),
        (("10.1.0.0/16",), "::ffff:10.1.2.3", True),
        (("10.1.0.0/16",), "::ffff:10.2.2.3", False),
        (("0.0.0.0/0",), "203.0.113.9", True),
        (("0.0.0.0/0",), "2001:db8::5", False),
        (("2001:db8::/32",), "2001:db8::5", True),
        (("fe80::/10",), "fe80::1%eth0", True),
        (("10.0.0.0/8",), "127.0.0.1", False),
    ],
)
def test_addresses_are_looked_up_in_the_networks(networks, address, allowed) -> None:
    assert Admission(addresses=networks).allows_address(address) is allowed


@pytest.mark.parametrize(
    ("titles", "required"), [((), []), (("*",), []), (("MR1", "*"), []), (("MR1 ", "MR2"), ["MR1", "MR2"])]
)
def test_a_star_stands_for_every_calling_ae(titles, required) -> None:
    assert Admission(ae_titles=titles).required_ae_titles == required


def test_a_place_is_there_again_once_it_is_given_back() -> None:
    places = Places(Admission(max_associations=1, max_associations_per_peer=2))
    assert [places.connect("10.0.0.1") for _ in range(3)] == [None, None, Refusal.PEER_LIMIT]
    assert places.connect("10.0.0.2") is None
    assert [places.associate(1), places.associate(2)] == [True, False]
    places.disassociate(2)
    places.disassociate(1)
    assert places.associate(2)
    places.disconnect("10.0.0.1")
    assert places.connect("10.0.0.1") is None


def test_the_room_of_one_address_is_not_the_room_of_another() -> None:
    places = Places(Admission(max_dataset_bytes=100))
    assert [places.hold("10.0.0.1", 150), places.hold("10.0.0.1", 51)] == [True, False]
    assert places.hold("10.0.0.2", 200)
    places.free("10.0.0.1", 150)
    assert places.hold("10.0.0.1", 200)


def test_many_addresses_together_cannot_take_every_thread() -> None:
    places = Places(Admission(max_associations=2, max_associations_per_peer=2))
    answers = [places.connect(f"10.0.0.{number}") for number in range(9)]
    assert answers == [None] * 8 + [Refusal.LIMIT]


def test_an_address_that_is_not_listed_is_closed_before_it_says_anything(
    listen: Listen, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = listen(addresses=("127.0.0.1/32",))
    with connect(receiver.port, source="127.0.0.3") as stranger:
        assert is_closed(stranger)
    assert "connection_refused reason=address address=127.0.0.3" in caplog.text
    assert receiver.answers()


@pytest.mark.parametrize("calling", [b"STRANGER", b"mr1", b"MR", b"MR1X"])
def test_a_calling_ae_that_is_not_listed_is_rejected_for_good(listen: Listen, calling, caplog) -> None:
    receiver = listen(ae_titles=("MR1", "MR2"))
    with connect(receiver.port) as stranger:
        stranger.sendall(association_request(calling=calling))
        answer = read_pdu(stranger)
        assert is_closed(stranger)
    assert (answer[0], answer[7:10]) == (REJECT, CALLING_AE_UNKNOWN)
    line = f"association_refused reason=calling_ae address=127.0.0.1 calling_ae='{calling.decode()}'"
    until(lambda: line in caplog.text, what="the log")


@pytest.mark.parametrize("called", [b"ANY-SCP", b"triage", b"TRIAGE2"])
def test_a_called_ae_that_is_not_ours_is_rejected_for_good(listen: Listen, called) -> None:
    receiver = listen()
    with connect(receiver.port) as stranger:
        stranger.sendall(association_request(called=called))
        answer = read_pdu(stranger)
    assert (answer[0], answer[7:10]) == (REJECT, CALLED_AE_UNKNOWN)


def test_spaces_around_ae_titles_mean_nothing(listen: Listen) -> None:
    receiver = listen(ae_titles=("MR1",))
    with connect(receiver.port) as peer:
        peer.sendall(association_request(calling=b"  MR1", called=b" TRIAGE"))
        assert read_pdu(peer)[0] == ACCEPT


def test_the_object_says_from_which_address_it_came(listen: Listen, study) -> None:
    receiver = listen()
    study.send(receiver)
    assert {instance.peer_address for instance in receiver.received} == {"127.0.0.1"}


def test_one_association_too_many_is_told_to_come_back(listen: Listen, caplog) -> None:
    receiver = listen(max_associations=2)
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            peer = stack.enter_context(connect(receiver.port))
            peer.sendall(association_request())
            assert read_pdu(peer)[0] == ACCEPT
        late = stack.enter_context(connect(receiver.port))
        late.sendall(association_request())
        answer = read_pdu(late)
        assert (answer[0], answer[7:10]) == (REJECT, LIMIT_EXCEEDED)
        until(lambda: "association_refused reason=limit" in caplog.text, what="the log")
    until(lambda: can_associate(receiver.port), what="the places of those who left")


def test_whoever_is_rejected_takes_no_place(listen: Listen) -> None:
    receiver = listen(max_associations=1, ae_titles=("GOOD",))
    for _ in range(5):
        with connect(receiver.port) as stranger:
            stranger.sendall(association_request(calling=b"STRANGER"))
            assert read_pdu(stranger)[0] == REJECT
            assert is_closed(stranger)
    until(lambda: can_associate(receiver.port, b"GOOD"), what="the one place")


def test_connections_beyond_the_limit_of_a_peer_are_closed_and_others_are_not(listen: Listen, caplog) -> None:
    receiver = listen(max_associations_per_peer=3)
    with contextlib.ExitStack() as stack:
        greedy = [stack.enter_context(connect(receiver.port, source="127.0.0.2")) for _ in range(5)]
        assert all(is_closed(peer) for peer in greedy[3:])
        assert caplog.text.count("connection_refused reason=peer_limit address=127.0.0.2") == 2
        for peer in greedy[:3]:
            peer.sendall(association_request())
            assert read_pdu(peer)[0] == ACCEPT
        assert receiver.answers()


def can_associate(port: int, calling: bytes = b"PEER") -> bool:
    with connect(port) as peer:
        peer.sendall(association_request(calling=calling))
        return read_pdu(peer)[0] == ACCEPT


def test_a_port_that_is_taken_is_an_error_at_the_start(listen: Listen) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        start_scp(
            ae_title="TRIAGE",
            host="127.0.0.1",
            port=taken.getsockname()[1],
            store=lambda _: Status.SUCCESS,
        )
