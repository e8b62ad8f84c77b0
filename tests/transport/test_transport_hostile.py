"""ZeroMQ and strangers: whatever they send or answer, the node lives on and hears its peers."""

from __future__ import annotations

import itertools
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transport.fabrics import (
    ZeroMQFabric,
    collect,
    dropped,
    header_of,
    introduce,
    send,
    until,
)
from transport import link
from transport.frames import (
    ENTRY_PARTS_MAX,
    HEADER_BYTES_MAX,
    MESSAGE_PARTS_MAX,
    PART_BYTES_MAX,
)
from transport.interface import Received
from transport.zeromq import ZeroMQTransport

ROOT = Path(__file__).parents[2]
PEER = header_of("n2").encode()
RawSocket = zmq.Socket[bytes]


def dial(address: str, context: zmq.Context[RawSocket]) -> RawSocket:
    dealer = context.socket(zmq.DEALER)
    dealer.linger = 0
    dealer.connect(address)
    return dealer


@pytest.fixture
def stranger(n1: ZeroMQTransport) -> Iterator[RawSocket]:
    """A bare socket connected to n1, that may send anything."""
    with zmq.Context() as context, dial(n1.address, context) as dealer:
        yield dealer


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        ([b""], "malformed"),
        ([b"garbage"], "malformed"),
        ([b"garbage", b"header", b"entry"], "malformed"),
        ([b""] * 7, "malformed"),
        ([PEER], "malformed"),
        ([b"x" * 5_000_000, b"header"], "malformed"),
        ([b"\x96\x02" + PEER[2:], b"header"], "version"),
        ([header_of("n2", agreement="paxos").encode(), b"header"], "agreement"),
        ([header_of("n2", cluster_id=b"another cluster!").encode(), b"header"], "cluster"),
        ([header_of("n3").encode(), b"header"], "sender"),
        ([header_of("n1").encode(), b"header"], "sender"),
        ([PEER, b"h" * (HEADER_BYTES_MAX + 1)], "oversize"),
        ([PEER, b"h" * (HEADER_BYTES_MAX + 1), b"entry"], "oversize"),
        ([PEER, b"header", *[b""] * (ENTRY_PARTS_MAX + 1)], "parts"),
        ([PEER, b"header", *[b"x"] * 20_000], "parts"),
        ([b"garbage"] * 20_000, "malformed"),
    ],
)
def test_a_bad_message_is_counted_once_and_the_next_one_arrives(
    n1: ZeroMQTransport, stranger: RawSocket, message: list[bytes], cause: str
) -> None:
    stranger.send_multipart(message)
    stranger.send_multipart([PEER, b"header", b"entry"])
    [received] = collect(n1, 1)
    assert (received.sender, received.header, received.parts) == ("n2", b"header", [b"entry"])
    assert dropped(n1) == {cause: 1}


def test_one_turn_reads_a_bounded_number_of_parts(
    n1: ZeroMQTransport, stranger: RawSocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    skip_rest = n1._skip_rest

    def counted() -> bool:
        read.append(1)
        return skip_rest()

    monkeypatch.setattr(n1, "_skip_rest", counted)
    stranger.send_multipart([b"garbage"] * (10 * MESSAGE_PARTS_MAX))
    stranger.send_multipart([PEER, b"header"])
    turns = 0
    received: list[Received] = []
    while not received:
        n1.wait(None)
        before = len(read)
        received = n1.receive()
        assert len(read) - before <= 1
        turns += 1
    assert turns >= 10
    assert dropped(n1) == {"malformed": 1}


def test_a_part_beyond_the_limit_ends_its_senders_connection_only(
    zeromq: ZeroMQFabric, n1: ZeroMQTransport, stranger: RawSocket
) -> None:
    n2 = zeromq.open("n2")
    introduce(zeromq, {"n1": n1, "n2": n2})
    before = dict(n1.drops)
    with stranger.get_monitor_socket(zmq.EVENT_DISCONNECTED) as monitor:
        stranger.send_multipart([PEER, b"header", b"x" * (PART_BYTES_MAX + 1)])
        assert monitor.poll(10_000)
        stranger.disable_monitor()
    send(n2, "n1", b"still heard", [b"entry"])
    assert [message.header for message in collect(n1, 1)] == [b"still heard"]
    assert dropped(n1, before) == {}


def test_a_flood_of_strangers_does_not_keep_a_peer_out(
    zeromq: ZeroMQFabric, n1: ZeroMQTransport
) -> None:
    host, port = n1.address.removeprefix("tcp://").split(":")
    noise = random.Random(0)
    connections = []
    for number in range(60):
        connections.append(socket.create_connection((host, int(port)), timeout=5))
        if number % 3:  # every third one never says a word
            connections[-1].sendall(
                noise.randbytes(200) if number % 3 == 1 else b"\xff" + b"\0" * 9
            )
    n2 = zeromq.open("n2")
    introduce(zeromq, {"n1": n1, "n2": n2})
    send(n2, "n1", b"heard")
    assert [message.header for message in collect(n1, 1)] == [b"heard"]
    for connection in connections:
        connection.close()


@pytest.fixture
def redial_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a link anew after it refused everything for this long."""
    monkeypatch.setattr(link, "REDIAL_INTERVAL_MS", 300)


@pytest.mark.usefixtures("redial_soon")
def test_a_peer_that_answers_loses_that_connection_and_gets_another(n1: ZeroMQTransport) -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as peer:
        peer.linger = 0
        port = peer.bind_to_random_port("tcp://127.0.0.1")
        n1.set_peer("n2", f"tcp://127.0.0.1:{port}")
        send(n1, "n2", b"header")
        connection, *_ = peer.recv_multipart()
        peer.send_multipart([connection, b"x" * 100_000])

        def reconnected() -> bool:
            n1.send("n2", b"header", [], bulk=False)
            return bool(peer.poll(10)) and peer.recv_multipart()[0] != connection

        until(reconnected, lambda: None)
    assert n1.receive() == []


@pytest.mark.usefixtures("redial_soon")
@pytest.mark.parametrize("words", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 64, b""])
def test_a_peer_is_reached_after_another_program_answered_at_its_address(
    zeromq: ZeroMQFabric, n1: ZeroMQTransport, words: bytes
) -> None:
    host, port = zeromq.address("n2").removeprefix("tcp://").split(":")
    with socket.create_server((host, int(port))) as program:
        n1.set_peer("n2", zeromq.address("n2"))
        for _ in range(2):  # a connection for each channel
            connection, _ = program.accept()
            connection.sendall(words)
            connection.close()
    n2 = zeromq.open("n2")
    for bulk in (False, True):
        n2.set_peer("n1", n1.address)
        send(n1, "n2", b"header", bulk=bulk)
    assert [message.header for message in collect(n2, 2)] == [b"header"] * 2


SENTINELS = itertools.count()
MUTATED = st.builds(
    lambda position, new, cut: PEER[:position] + new + PEER[position + cut :],
    st.integers(0, len(PEER)),
    st.binary(max_size=4),
    st.integers(0, 4),
)
FRAMES = st.one_of(st.binary(max_size=80), MUTATED, st.just(PEER))


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[tuple[ZeroMQTransport, RawSocket]]:
    fabric = ZeroMQFabric()
    n1 = fabric.open("n1")
    n1.set_peer("n2", fabric.address("n2"))
    with zmq.Context() as context, dial(n1.address, context) as dealer:
        yield n1, dealer
    fabric.close()


@settings(max_examples=400, deadline=None)
@given(st.lists(FRAMES, min_size=1, max_size=1) | st.lists(FRAMES, min_size=1, max_size=6))
def test_any_message_is_received_or_counted_and_never_raises(
    fuzzed: tuple[ZeroMQTransport, RawSocket], message: list[bytes]
) -> None:
    n1, dealer = fuzzed
    sentinel = b"sentinel %d" % next(SENTINELS)
    before = sum(n1.drops.values())
    dealer.send_multipart(message)
    dealer.send_multipart([PEER, sentinel])
    received: list[Received] = []

    def sentinel_arrived() -> bool:
        received.extend(n1.receive())
        return bool(received) and received[-1].header == sentinel

    until(sentinel_arrived, lambda: n1.wait(100))
    del received[-1]
    assert len(received) + sum(n1.drops.values()) - before == 1
    assert [[r.header, *r.parts] for r in received] in ([], [message[1:]])


FULL_AND_GONE = """
import contextlib
import socket
import struct
import sys
import time

from tests.transport.fabrics import ZeroMQFabric, header_of, send

GREETING = b"\\xff" + bytes(8) + b"\\x7f\\x03\\x00" + b"NULL".ljust(20, b"\\0") + bytes(32)
READY = b"\\x05READY\\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
PING = b"\\x04PING" + struct.pack(">H", 3)  # lives for 0.3 s

def frame(flags, body):
    return struct.pack(">BQ", flags | 2, len(body)) + body

fabric = ZeroMQFabric()
n1 = fabric.open("n1")
introduced = header_of("n2").encode()
n1.set_peer("n2", fabric.address("n2"))
host, port = n1.address.removeprefix("tcp://").split(":")
peer = socket.create_connection((host, int(port)))
peer.sendall(GREETING + frame(4, READY))
answer = b""
while b"READY" not in answer:
    answer += peer.recv(1000)
if sys.argv[1] == "stays":
    peer.sendall(frame(4, PING))
peer.settimeout(0.2)
message = frame(1, introduced) + frame(0, bytes(10_000))
with contextlib.suppress(TimeoutError, ConnectionError):  # full, or its time is over
    while True:
        peer.sendall(message)
if sys.argv[1] == "ends":
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
time.sleep(1.5)
while n1.receive():
    pass
n2 = fabric.open("n2")
n2.set_peer("n1", n1.address)
send(n2, "n1", b"a word of a peer")
while not any(message.header == b"a word of a peer" for message in n1.receive()):
    n1.wait(100)
fabric.close()
print("heard")
"""


@pytest.mark.parametrize("peer", ["ends", "stays"])
def test_a_full_connection_that_breaks_does_not_end_the_process(peer: str) -> None:
    """libzmq 4.3.5 fails an assertion when a heartbeat is due on one (its issues 3937 and 4841)."""
    command = [sys.executable, "-c", FULL_AND_GONE, peer]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        output, _ = running.communicate(timeout=60)
    assert running.returncode == 0
    assert output == "heard\n"
