"""No peer keeps another from being heard, whatever it sends or does not send."""

import contextlib
import io
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.uid import generate_uid
from pynetdicom import AE
from pynetdicom.sop_class import MRImageStorage  # type: ignore[attr-defined]

from tests import builders
from tests.conftest import until
from tests.edges.conftest import Listen, Receiver, Study
from tests.edges.wire import (
    ABORT,
    ACCEPT,
    ASSOCIATE,
    DATA,
    REJECT,
    RELEASE,
    RELEASED,
    Recorder,
    association_request,
    connect,
    is_closed,
    read_pdu,
    replay,
)
from triage.edges.dimse import ReceivedObject, Status, send_files

HEADER = struct.Struct(">BBL")


@pytest.fixture
def recording(listen: Listen, study: Study) -> list[bytes]:
    """The PDUs of an association that stores two images, each in several PDUs."""
    receiver = listen(max_pdu_bytes=4096)
    recorder = Recorder(receiver.port)
    sent = send_files(study.paths, to=("TRIAGE", "127.0.0.1", recorder.port), calling_ae="GOOD", timeout_s=30)
    assert {status for _, status in sent} == {Status.SUCCESS}
    pdus = recorder.finish()
    assert [pdu[0] for pdu in pdus] == [ASSOCIATE] + [DATA] * (len(pdus) - 2) + [RELEASE]
    assert len(pdus) >= 6
    return pdus


def associate(port: int, source: str = "127.0.0.2") -> socket.socket:
    peer = connect(port, source=source)
    peer.sendall(association_request())
    assert read_pdu(peer)[0] == ACCEPT
    return peer


def test_fifty_silent_clients_leave_others_alone(listen: Listen, study: Study) -> None:
    receiver = listen()
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(connect(receiver.port, source="127.0.0.2")) for _ in range(50)]
        began = time.monotonic()
        assert receiver.answers()
        assert study.send(receiver) == {Status.SUCCESS}
        assert time.monotonic() - began < 10
        assert sum(is_open(peer) for peer in silent) == 25


def test_fifty_silent_clients_of_the_same_address_take_no_association(listen: Listen, study: Study) -> None:
    receiver = listen(max_associations=20, max_associations_per_peer=60)
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(connect(receiver.port)) for _ in range(50)]
        began = time.monotonic()
        assert receiver.answers()
        assert study.send(receiver) == {Status.SUCCESS}
        assert time.monotonic() - began < 10
        assert all(is_open(peer) for peer in silent)


def is_open(peer: socket.socket) -> bool:
    peer.settimeout(0.02)
    try:
        return peer.recv(1) != b""
    except TimeoutError:
        return True
    except ConnectionResetError:
        return False


@pytest.mark.parametrize("beginning", [b"", b"\x01\x00\x00\x00\x10\x00half", association_request()[:60]])
def test_who_does_not_come_to_the_point_is_closed(listen: Listen, beginning: bytes) -> None:
    receiver = listen(silence_s=0.5)
    with connect(receiver.port) as peer:
        peer.sendall(beginning)
        assert is_closed(peer)
    assert receiver.answers()


def test_a_request_that_trickles_in_is_closed_all_the_same(listen: Listen) -> None:
    receiver = listen(silence_s=1)
    with connect(receiver.port) as peer:
        assert trickle(peer, association_request() * 100) < 100
    assert receiver.answers()


def trickle(peer: socket.socket, stream: bytes) -> int:
    """Send a byte every 50 ms; how many went before the other side hung up."""
    for sent in range(len(stream)):
        try:
            peer.sendall(stream[sent : sent + 1])
        except (ConnectionResetError, BrokenPipeError):
            return sent
        time.sleep(0.05)
    return len(stream)


def test_a_peer_that_falls_silent_within_a_pdu_is_closed(listen: Listen) -> None:
    receiver = listen(silence_s=0.5)
    with associate(receiver.port) as peer:
        peer.sendall(HEADER.pack(DATA, 0, 100) + b"half")
        assert is_closed(peer)


def test_a_pdu_that_trickles_in_is_not_waited_for_either(listen: Listen, caplog) -> None:
    receiver = listen(silence_s=0.5)
    with associate(receiver.port) as peer:
        assert trickle(peer, HEADER.pack(DATA, 0, 100) + bytes(100)) < 100
    assert "association_ended address=127.0.0.2 reason=too_slow" in caplog.text


def test_an_association_on_which_nothing_happens_is_aborted(listen: Listen) -> None:
    receiver = listen(idle_s=0.5)
    with associate(receiver.port) as peer:
        assert read_pdu(peer)[0] == ABORT


def test_a_sender_that_waits_for_our_disk_is_not_idle(listen: Listen, study: Study) -> None:
    def store(_: ReceivedObject) -> Status:
        time.sleep(1)
        return Status.SUCCESS

    receiver = listen(store=store, idle_s=0.5)
    assert study.send(receiver) == {Status.SUCCESS}
    assert len(receiver.received) == 2


@pytest.mark.parametrize(
    "header",
    [
        HEADER.pack(DATA, 0, 2**20 + 1),
        HEADER.pack(DATA, 0, 2**32 - 1),
        HEADER.pack(RELEASE, 0, 2**32 - 1),
        HEADER.pack(ABORT, 0, 5),
        HEADER.pack(ACCEPT, 0, 0),
        HEADER.pack(99, 0, 0),
    ],
)
def test_a_pdu_that_announces_too_much_ends_the_association_at_its_header(
    listen: Listen, header: bytes
) -> None:
    receiver = listen()
    with associate(receiver.port) as peer:
        peer.sendall(header)
        assert read_pdu(peer)[0] == ABORT
        assert is_closed(peer)


def test_an_association_request_has_its_own_limit(listen: Listen) -> None:
    receiver = listen(max_pdu_bytes=4096)
    with connect(receiver.port) as peer:
        peer.sendall(HEADER.pack(ASSOCIATE, 0, 2**18 + 1))
        assert read_pdu(peer)[0] == ABORT


def test_our_longest_pdu_is_announced_and_taken(listen: Listen, study: Study) -> None:
    receiver = listen(max_pdu_bytes=10_000)
    ae = AE("GOOD")
    ae.add_requested_context(MRImageStorage)
    association = ae.associate("127.0.0.1", receiver.port, ae_title="TRIAGE")
    assert association.acceptor.maximum_length == 10_000
    association.release()
    assert study.send(receiver) == {Status.SUCCESS}


def test_a_data_set_without_end_is_ended(listen: Listen, recording: list[bytes], caplog) -> None:
    receiver = listen(max_dataset_bytes=20_000)
    command, piece = recording[1], bytearray(recording[2])
    piece[11] = 0  # a piece of the data set, and not the last
    with connect(receiver.port, source="127.0.0.2") as peer:
        peer.sendall(recording[0])
        assert read_pdu(peer)[0] == ACCEPT
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            peer.sendall(command)
            for _ in range(10_000):
                peer.sendall(piece)
        assert is_closed(peer)
    assert "association_ended address=127.0.0.2 reason=too_long" in caplog.text
    assert receiver.received == []
    assert receiver.answers()


def test_what_one_address_fills_over_many_associations_is_bounded_too(
    listen: Listen, recording: list[bytes], study: Study, caplog
) -> None:
    receiver = listen(max_dataset_bytes=20_000)
    piece = bytearray(recording[2])
    piece[11] = 0
    half = recording[1] + bytes(piece) * 4
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(connect(receiver.port, source="127.0.0.2")) for _ in range(4)]
        for peer in peers:
            peer.sendall(recording[0])
            assert read_pdu(peer)[0] == ACCEPT
            peer.sendall(half)
        closed = stack.enter_context(ThreadPoolExecutor(4)).map(read_type, peers)
        until(lambda: "association_ended address=127.0.0.2 reason=too_long" in caplog.text, what="the log")
        assert study.send(receiver) == {Status.SUCCESS}
        receiver.scp.stop()
        # Those that fitted were aborted by the stop.
        assert list(closed) == [ABORT] * 4


def read_type(peer: socket.socket) -> int:
    return read_pdu(peer)[0]


def test_requests_sent_ahead_of_our_answers_wait_outside(listen: Listen, recording: list[bytes]) -> None:
    go_on = threading.Event()

    def store(_: ReceivedObject) -> Status:
        go_on.wait(30)
        return Status.SUCCESS

    receiver = listen(store=store, max_pdu_bytes=4096)
    with connect(receiver.port, source="127.0.0.2") as peer:
        peer.sendall(recording[0])
        assert read_pdu(peer)[0] == ACCEPT
        ahead = threading.Thread(target=lambda: peer.sendall(b"".join(recording[1:-1]) * 20))
        ahead.start()
        until(lambda: receiver.received, what="the first request")
        time.sleep(0.3)
        (association,) = receiver.scp.server.places.associations()
        assert association.dimse.msg_queue.qsize() <= 2
        go_on.set()
        ahead.join(30)
        until(lambda: len(receiver.received) == 40, what="all requests in the end")


def test_a_stop_does_not_wait_for_those_who_hang_on(listen: Listen) -> None:
    receiver = listen()
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(connect(receiver.port))
        peers = [stack.enter_context(associate(receiver.port)) for _ in range(10)]
        peers[0].sendall(HEADER.pack(DATA, 0, 100) + b"half")
        receiver.scp.stop()
        assert all(is_closed(peer) for peer in peers)
        assert not receiver.scp.is_listening


def test_two_hundred_associations_store_at_once_and_one_more_is_told_to_come_back(
    listen: Listen, recording: list[bytes]
) -> None:
    together = threading.Barrier(200)

    receiver = listen(max_associations=200, max_associations_per_peer=250, max_pdu_bytes=4096)

    def one_sender(peer: socket.socket) -> int:
        together.wait(60)
        answers = 0
        for pdu in recording[1:]:
            peer.sendall(pdu)
            if pdu[0] == RELEASE or pdu[11] & 3 == 2:
                assert read_pdu(peer)[0] in (DATA, RELEASED)
                answers += 1
        return answers

    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(connect(receiver.port, timeout_s=60)) for _ in range(200)]
        for peer in peers:
            peer.sendall(recording[0])
        assert {read_pdu(peer)[0] for peer in peers} == {ACCEPT}
        with connect(receiver.port) as late:
            late.sendall(recording[0])
            answer = read_pdu(late)
            assert (answer[0], answer[7:10]) == (REJECT, bytes([2, 3, 2]))
        with ThreadPoolExecutor(200) as pool:
            assert list(pool.map(one_sender, peers)) == [3] * 200
    assert len(receiver.received) == 400
    until(receiver.answers, what="a free place")


def test_the_same_instance_on_many_associations_arrives_as_often(listen: Listen, study: Study) -> None:
    receiver = listen()
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: study.send(receiver), range(10)))
    assert answers == [{Status.SUCCESS}] * 10
    contents = {instance.content for instance in receiver.received}
    assert (len(receiver.received), len(contents)) == (20, 2)


def test_a_series_spread_over_associations_and_two_studies_interleaved_arrive_whole(
    listen: Listen, tmp_path
) -> None:
    receiver = listen()
    studies = [builders.dwi_series(slices=10) for _ in range(2)]
    paths = [sorted(builders.write(images, tmp_path / str(n)).iterdir()) for n, images in enumerate(studies)]
    mixed = [path for pair in zip(*paths, strict=True) for path in pair]
    with ThreadPoolExecutor(8) as pool:
        shares = [Study(tuple(mixed[start::8])) for start in range(8)]
        answers = list(pool.map(lambda share: share.send(receiver), shares))
    assert answers == [{Status.SUCCESS}] * 8
    arrived = {
        (dataset.StudyInstanceUID, dataset.SOPInstanceUID)
        for dataset in (dcmread(io.BytesIO(instance.content)) for instance in receiver.received)
    }
    assert arrived == {
        (image.StudyInstanceUID, image.SOPInstanceUID) for images in studies for image in images
    }


def test_a_connection_cut_anywhere_stores_whole_data_sets_only(
    listen: Listen, recording: list[bytes]
) -> None:
    receiver = listen(max_pdu_bytes=4096, max_associations_per_peer=200)
    whole = {len(instance.content) for instance in stored_by(receiver, recording)}
    quiet = threading.active_count()
    ends = [number for number, pdu in enumerate(recording) if pdu[0] == DATA and pdu[11] & 3 == 2]
    for number, pdu in enumerate(recording):
        for offset in (0, 1, 6, 7, len(pdu) // 2, len(pdu) - 1):
            expected = sum(end < number for end in ends)
            received = stored_by(receiver, [*recording[:number], pdu[:offset]])
            assert len(received) == expected, (number, offset)
            assert {len(instance.content) for instance in received} <= whole
    assert receiver.answers()
    until(lambda: threading.active_count() <= quiet, what="the threads of those who left")


def stored_by(receiver: Receiver, pdus: list[bytes]) -> list[ReceivedObject]:
    receiver.received.clear()
    replay(receiver.port, pdus)
    until(lambda: not receiver.scp.server.places.associations(), what="the association's end")
    return list(receiver.received)


@st.composite
def mutations(draw: st.DrawFn) -> list[tuple[str, float, int]]:
    """What to do to a stream of PDUs: a kind, where as a share of the stream, and a number."""
    kinds = st.sampled_from(["flip", "set", "length", "drop", "double", "cut", "insert"])
    where = st.floats(0, 1, exclude_max=True)
    return draw(st.lists(st.tuples(kinds, where, st.integers(0, 2**32 - 1)), min_size=1, max_size=4))


def mutate(pdus: list[bytes], changes: list[tuple[str, float, int]]) -> list[bytes]:
    changed = [bytearray(pdu) for pdu in pdus]
    for kind, where, number in changes:
        if not changed:
            break
        index = int(where * len(changed))
        pdu = changed[index]
        position = number % max(len(pdu), 1)
        match kind:
            case "flip" if pdu:
                pdu[position] ^= 1 << (number >> 8) % 8
            case "set" if pdu:
                # Most of what decides stands at the beginning: lengths, context, control header, tags.
                pdu[position % 80 % len(pdu)] = (number >> 8) % 256
            case "length":
                pdu[2:6] = number.to_bytes(4, "big")
            case "drop":
                del changed[index]
            case "double":
                changed.insert(index, pdu)
            case "cut":
                del pdu[position:]
            case "insert":
                pdu[position:position] = number.to_bytes(4, "big")
    return [bytes(pdu) for pdu in changed]


FUZZING = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def test_changed_streams_harm_nobody_else(listen: Listen, recording: list[bytes], caplog) -> None:
    receiver = listen(max_pdu_bytes=4096, silence_s=0.3, idle_s=0.3, max_associations_per_peer=1000)
    uids = {instance.sop_instance_uid for instance in stored_by(receiver, recording)}
    quiet = threading.active_count()

    @FUZZING
    @given(changes=mutations())
    @example(changes=[("drop", 0.0, 0)])
    @example(changes=[("double", 0.0, 0)])
    @example(changes=[("set", 0.2, (200 << 8) + 12)])
    def survives(changes) -> None:
        harass(receiver.port, mutate(recording, changes))

    survives()
    assert_unharmed(receiver, quiet, caplog, uids)


def test_any_bytes_harm_nobody_else(listen: Listen, caplog) -> None:
    receiver = listen(silence_s=0.3, idle_s=0.3, max_associations_per_peer=1000)
    quiet = threading.active_count()
    items = st.lists(st.binary(max_size=60), max_size=3).map(b"".join)
    pdus = st.tuples(st.integers(0, 8), items).map(lambda pdu: HEADER.pack(pdu[0], 0, len(pdu[1])) + pdu[1])
    after_request = st.lists(pdus, max_size=3).map(lambda rest: [association_request(), *rest])

    @FUZZING
    @given(stream=st.one_of(st.lists(st.binary(max_size=200), max_size=3), st.lists(pdus), after_request))
    def survives(stream) -> None:
        harass(receiver.port, stream)

    survives()
    assert_unharmed(receiver, quiet, caplog, {generate_uid()})


def harass(port: int, pdus: list[bytes]) -> None:
    """Send the stream as fast as it goes, listen for a moment, and hang up."""
    with connect(port, source="127.0.0.2", timeout_s=1) as peer, contextlib.suppress(OSError):
        for pdu in pdus:
            peer.sendall(pdu)
            if pdu[:1] == bytes([ASSOCIATE]):
                peer.settimeout(0.05)
                peer.recv(4096)


def assert_unharmed(receiver: Receiver, quiet: int, caplog, uids: set[str]) -> None:
    assert receiver.answers()
    until(lambda: threading.active_count() <= quiet, what="the threads of those who left")
    assert not any(uid in caplog.text for uid in uids)
    assert "Traceback" not in caplog.text
