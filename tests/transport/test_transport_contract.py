"""What holds for every transport."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque

import pytest

from tests.transport.fabrics import (
    PATIENCE_SECONDS,
    Fabric,
    collect,
    descriptors_and_threads,
    dropped,
    header_of,
    in_thread,
    introduce,
    send,
    until,
)
from transport import loopback, zeromq
from transport.frames import ENTRY_PARTS_MAX, HEADER_BYTES_MAX, PART_BYTES_MAX
from transport.interface import DROP_CAUSES, BadAddress, Received, Transport, TransportError

Pair = tuple[Transport, Transport]

CHANNELS = pytest.mark.parametrize("bulk", [False, True], ids=["control", "bulk"])


# --- messages -------------------------------------------------------------------------------------


@CHANNELS
def test_a_message_arrives_as_it_was_sent_with_its_sender(pair: Pair, bulk: bool) -> None:
    n1, n2 = pair
    before = dict(n2.drops)
    send(n1, "n2", b"header", [b"first", b"", b"\x00" * 300_000], bulk=bulk)
    own = header_of("n1")
    assert collect(n2, 1) == [
        Received("n1", own.store_id, own.life, b"header", [b"first", b"", b"\x00" * 300_000])
    ]
    send(n2, "n1", b"answer", [b"entry"], bulk=bulk)
    own = header_of("n2")
    assert collect(n1, 1) == [Received("n2", own.store_id, own.life, b"answer", [b"entry"])]
    assert dropped(n2, before) == {}


@CHANNELS
def test_a_message_needs_no_entries_and_no_header_bytes(pair: Pair, bulk: bool) -> None:
    n1, n2 = pair
    send(n1, "n2", b"", bulk=bulk)
    [received] = collect(n2, 1)
    assert (received.header, received.parts) == (b"", [])


@CHANNELS
def test_a_channel_keeps_the_order(pair: Pair, bulk: bool) -> None:
    n1, n2 = pair
    headers = [b"%d" % number for number in range(1000)]
    arrived: list[bytes] = []
    for header in headers:
        send(n1, "n2", header, bulk=bulk)
        arrived += [message.header for message in n2.receive()]
    arrived += [message.header for message in collect(n2, len(headers) - len(arrived))]
    assert arrived == headers


def test_the_longest_message_passes(pair: Pair) -> None:
    n1, n2 = pair
    parts = [b"%d" % number for number in range(ENTRY_PARTS_MAX)]
    header = b"h" * HEADER_BYTES_MAX
    send(n1, "n2", header, parts, bulk=True)
    [received] = collect(n2, 1)
    assert received.header == header
    assert received.parts == parts


def test_the_largest_part_passes(pair: Pair) -> None:
    n1, n2 = pair
    send(n1, "n2", b"", [b"p" * PART_BYTES_MAX], bulk=True)
    [received] = collect(n2, 1)
    assert received.parts == [b"p" * PART_BYTES_MAX]


@pytest.mark.parametrize(
    ("header", "parts"),
    [
        (b"h" * (HEADER_BYTES_MAX + 1), []),
        (b"", [b""] * (ENTRY_PARTS_MAX + 1)),
        (b"", [b"fine", b"p" * (PART_BYTES_MAX + 1), b"fine"]),
    ],
    ids=["header", "parts", "part"],
)
def test_a_message_beyond_a_limit_is_the_senders_error(
    pair: Pair, header: bytes, parts: list[bytes]
) -> None:
    n1, n2 = pair
    with pytest.raises(ValueError, match="at most"):
        n1.send("n2", header, parts, bulk=True)
    send(n1, "n2", b"next", [b"whole"], bulk=True)
    assert [(r.header, r.parts) for r in collect(n2, 1)] == [(b"next", [b"whole"])]


# --- what is not carried --------------------------------------------------------------------------


def test_every_cause_of_a_drop_is_counted_from_the_start(fabric: Fabric) -> None:
    assert dict(fabric.open("n1").drops) == dict.fromkeys(DROP_CAUSES, 0)


def test_a_message_to_a_stranger_is_refused(fabric: Fabric) -> None:
    n1 = fabric.open("n1")
    assert n1.send("n9", b"header", [], bulk=False) is False
    assert dropped(n1) == {"unknown_peer": 1}


@CHANNELS
def test_a_message_to_an_absent_peer_is_refused(fabric: Fabric, bulk: bool) -> None:
    n1 = fabric.open("n1")
    n1.set_peer("n2", fabric.address("n2"))
    assert n1.send("n2", b"header", [b"entry"], bulk=bulk) is False
    assert dropped(n1) == {"refused": 1}


def test_a_peer_that_does_not_read_is_refused_in_the_end_and_gets_what_was_taken(
    pair: Pair,
) -> None:
    n1, n2 = pair
    before = dict(n1.drops)
    taken = 0
    while n1.send("n2", b"%d" % taken, [b"x" * 50_000], bulk=True):
        taken += 1
        assert taken < 10_000
    assert dropped(n1, before) == {"refused": 1}
    assert [r.header for r in collect(n2, taken)] == [b"%d" % number for number in range(taken)]
    send(n1, "n2", b"again", bulk=True)
    assert collect(n2, 1)[0].header == b"again"


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"cluster_id": b"another cluster!"}, "cluster"),
        ({"agreement": "paxos"}, "agreement"),
        ({"agreement": "paxos", "cluster_id": b"another cluster!"}, "agreement"),
    ],
    ids=["cluster", "agreement", "both"],
)
def test_a_frame_of_others_is_dropped_and_counted_by_cause(
    fabric: Fabric, changes: dict[str, object], cause: str
) -> None:
    n1, n2 = fabric.open("n1"), fabric.open("n2", **changes)
    n1.set_peer("n2", fabric.address("n2"))
    n2.set_peer("n1", fabric.address("n1"))
    send(n2, "n1", b"header", [b"entry"])
    until(lambda: n1.receive() == [] and bool(dropped(n1)), lambda: n1.wait(100))
    assert dropped(n1) == {cause: 1}


def test_a_frame_from_a_node_that_is_no_peer_is_dropped(fabric: Fabric) -> None:
    n1, n3 = fabric.open("n1"), fabric.open("n3")
    n3.set_peer("n1", fabric.address("n1"))
    send(n3, "n1", b"header", [b"entry"])
    until(lambda: n1.receive() == [] and bool(dropped(n1)), lambda: n1.wait(100))
    assert dropped(n1) == {"sender": 1}
    n1.set_peer("n3", fabric.address("n3"))
    send(n3, "n1", b"now a peer")
    assert collect(n1, 1)[0].header == b"now a peer"


def test_a_removed_peer_is_a_stranger_in_both_directions(pair: Pair) -> None:
    n1, n2 = pair
    before = dict(n1.drops)
    send(n2, "n1", b"before")
    assert collect(n1, 1)[0].header == b"before"
    n1.remove_peer("n2")
    n1.remove_peer("n2")
    assert n1.send("n2", b"header", [], bulk=False) is False
    send(n2, "n1", b"after")
    until(lambda: n1.receive() == [] and n1.drops["sender"] > 0, lambda: n1.wait(100))
    assert dropped(n1, before) == {"unknown_peer": 1, "sender": 1}


def test_a_node_is_never_its_own_peer(fabric: Fabric) -> None:
    n1 = fabric.open("n1")
    n1.set_peer("n1", fabric.address("n1"))
    assert n1.send("n1", b"header", [], bulk=False) is False
    assert dropped(n1) == {"unknown_peer": 1}


def test_a_peers_address_is_checked(fabric: Fabric) -> None:
    n1 = fabric.open("n1")
    for address in ("n2:7001", "tcp://127.0.0.1:0", "tcp://*:7001", "tcp://0.0.0.0:7001"):
        with pytest.raises(BadAddress, match="address"):
            n1.set_peer("n2", address)
    with pytest.raises(ValueError, match="node id"):
        n1.set_peer("n 2", "tcp://127.0.0.1:7001")
    assert n1.send("n2", b"header", [], bulk=False) is False
    assert dropped(n1) == {"unknown_peer": 1}


# --- turns ----------------------------------------------------------------------------------------


def test_one_call_receives_a_bounded_number_of_messages(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (zeromq, loopback):
        assert module.RECEIVE_MESSAGES_MAX == 256
        monkeypatch.setattr(module, "RECEIVE_MESSAGES_MAX", 4)
    n1, n2 = pair
    seen: set[int] = set()

    def a_full_turn() -> bool:
        for number in range(10):
            send(n1, "n2", b"%d" % number)
        left = 10
        while left:
            n2.wait(100)
            turn = len(n2.receive())
            seen.add(turn)
            left -= turn
        return max(seen) >= 4

    until(a_full_turn, lambda: None)
    assert max(seen) == 4


def test_wait_returns_at_once_while_something_is_left(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (zeromq, loopback):
        monkeypatch.setattr(module, "RECEIVE_MESSAGES_MAX", 1)
    n1, n2 = pair
    for number in range(100):
        send(n1, "n2", b"%d" % number)
    arrived: list[int] = []
    while len(arrived) < 100:
        n2.wait(None)
        arrived += [int(message.header) for message in n2.receive()]
    assert arrived == list(range(100))


def test_an_arrival_ends_a_wait(fabric: Fabric) -> None:
    n1, n2 = fabric.open("n1"), fabric.open("n2")
    n1.set_peer("n2", fabric.address("n2"))
    n2.set_peer("n1", fabric.address("n1"))
    other = threading.Timer(0.05, lambda: send(n1, "n2", b"ping"))
    other.start()
    received: list[Received] = []
    while not received:
        n2.wait(None)
        received = n2.receive()
    assert received[0].header == b"ping"
    other.join()


@pytest.mark.parametrize("timeout_ms", [0, -1, -(10**12)])
def test_a_wait_of_no_time_does_not_block(fabric: Fabric, timeout_ms: int) -> None:
    n1 = fabric.open("n1")
    started = time.monotonic()
    n1.wait(timeout_ms)
    assert time.monotonic() - started < 5


def test_a_wait_ends_when_its_time_is_over(fabric: Fabric) -> None:
    n1 = fabric.open("n1")
    started = time.monotonic()
    n1.wait(50)
    assert 0.045 < time.monotonic() - started < 5


def test_a_wake_up_before_a_wait_ends_it_and_is_consumed_by_it(fabric: Fabric) -> None:
    n1 = fabric.open("n1")
    for _ in range(3):
        n1.wake()
    n1.wait(None)
    started = time.monotonic()
    n1.wait(50)
    assert time.monotonic() - started > 0.045


def test_a_wait_of_no_time_consumes_the_wake_up_and_leaves_the_next_one(fabric: Fabric) -> None:
    n1 = fabric.open("n1")
    for _ in range(2):
        n1.wake()
        n1.wait(0)
    started = time.monotonic()
    n1.wait(50)
    assert time.monotonic() - started > 0.045
    n1.wake()
    n1.wait(None)


def test_another_thread_ends_a_wait(fabric: Fabric) -> None:
    n1 = fabric.open("n1")
    waker = threading.Timer(0.05, n1.wake)
    waker.start()
    n1.wait(None)
    waker.join()


def test_no_wake_up_is_lost_between_threads(fabric: Fabric) -> None:
    n1 = fabric.open("n1")
    inbox: deque[threading.Semaphore] = deque()
    rounds, threads_count = 1000, 3

    def ask() -> None:
        answered = threading.Semaphore(0)
        for _ in range(rounds):
            inbox.append(answered)
            n1.wake()
            answered.acquire()  # so that each round stands or falls with its own wake-up

    threads = [threading.Thread(target=ask) for _ in range(threads_count)]
    for thread in threads:
        thread.start()
    answers_count = 0
    while answers_count < rounds * threads_count:
        started = time.monotonic()
        n1.wait(int(PATIENCE_SECONDS * 1000))
        assert time.monotonic() - started < PATIENCE_SECONDS / 2
        while inbox:
            inbox.popleft().release()
            answers_count += 1
    for thread in threads:
        thread.join()


# --- the owner ------------------------------------------------------------------------------------


def test_only_the_owner_may_use_a_transport(pair: Pair, fabric: Fabric) -> None:
    n1, _ = pair
    for misuse in (
        n1.receive,
        n1.close,
        lambda: n1.wait(0),
        lambda: n1.send("n2", b"header", [], bulk=False),
        lambda: n1.set_peer("n3", fabric.address("n3")),
        lambda: n1.remove_peer("n2"),
    ):
        raised = in_thread(misuse)
        assert isinstance(raised, TransportError)
        assert "MainThread" in str(raised)
    assert in_thread(n1.wake) is None


def test_a_transport_outlives_the_thread_that_owned_it(fabric: Fabric) -> None:
    n1 = fabric.open("n1")
    assert in_thread(lambda: n1.wait(0)) is None
    assert in_thread(lambda: n1.wait(0)) is None
    assert n1.receive() == []
    assert isinstance(in_thread(n1.receive), TransportError)


def test_making_and_connecting_a_transport_does_not_own_it(fabric: Fabric) -> None:
    n1 = fabric.open("n1")
    n1.set_peer("n2", fabric.address("n2"))
    assert in_thread(n1.receive) is None


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_may_not_use_a_transport_and_its_parent_still_may(pair: Pair) -> None:
    n1, n2 = pair
    child = os.fork()
    if child == 0:
        refused = 0
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)  # a child that hangs is not the parent's to wait for
        try:
            for use in (n1.receive, lambda: n1.wait(0), lambda: n1.send("n2", b"", [], bulk=False)):
                with pytest.raises(TransportError, match="fork"):
                    use()
                refused += 1
            n1.wake()
            n1.close()
        finally:
            os._exit(refused)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 3
    send(n1, "n2", b"still here")
    assert collect(n2, 1)[0].header == b"still here"
    n1.wait(0)


# --- the end --------------------------------------------------------------------------------------


def test_a_closed_transport_says_so(pair: Pair) -> None:
    n1, _ = pair
    n1.close()
    n1.close()
    n1.wake()
    for use in (
        n1.receive,
        lambda: n1.wait(0),
        lambda: n1.send("n2", b"header", [], bulk=False),
        lambda: n1.set_peer("n2", "tcp://127.0.0.1:1"),
    ):
        with pytest.raises(TransportError, match="closed"):
            use()


def test_a_transport_closes_within_a_second_whatever_its_peers_do(pair: Pair) -> None:
    n1, _ = pair
    n1.set_peer("n3", "tcp://127.0.0.1:9")  # nobody listens
    n1.set_peer("n4", "tcp://192.0.2.1:7001")  # nothing answers
    while n1.send("n2", b"never read", [b"x" * 50_000], bulk=True):
        pass
    started = time.monotonic()
    n1.close()
    assert time.monotonic() - started < 1


def test_a_restarted_peer_is_reached_again_at_its_address(fabric: Fabric, pair: Pair) -> None:
    n1, n2 = pair
    for life in (1_700_000_000_001, 1_700_000_000_002):
        n2.close()
        until(lambda: not n1.send("n2", b"gone", [], bulk=False), lambda: time.sleep(0.001))
        until(lambda: not n1.send("n2", b"gone", [], bulk=True), lambda: time.sleep(0.001))
        n2 = fabric.open("n2", life=life)
        n2.set_peer("n1", fabric.address("n1"))
        for bulk in (False, True):
            send(n1, "n2", b"back", bulk=bulk)
            send(n2, "n1", b"hello", bulk=bulk)
        assert {message.header for message in collect(n2, 2)} == {b"back"}
        assert {message.life for message in collect(n1, 2)} == {life}


def test_many_lives_leave_no_descriptor_and_no_thread(fabric: Fabric) -> None:
    def live() -> None:
        transports = {node: fabric.open(node) for node in ("n1", "n2")}
        for node, transport in transports.items():
            for peer in transports:
                transport.set_peer(peer, fabric.address(peer))
            transport.wake()
            transport.wait(0)
            transport.send("n1" if node == "n2" else "n2", b"", [b"x" * 100_000], bulk=True)
            transport.receive()
        for transport in transports.values():
            transport.close()

    introduced = {node: fabric.open(node) for node in ("n3", "n4")}
    introduce(fabric, introduced)
    send(introduced["n3"], "n4", b"", [b"x" * 100_000])  # starts what sends large parts for ever
    collect(introduced["n4"], 1)
    live()
    before = descriptors_and_threads()
    for _ in range(100):
        live()

    def nothing_is_left() -> bool:
        return all(now <= then for now, then in zip(descriptors_and_threads(), before, strict=True))

    until(nothing_is_left, lambda: time.sleep(0.01))
