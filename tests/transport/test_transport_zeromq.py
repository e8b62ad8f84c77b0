"""ZeroMQ: what strangers and the network may do to it, and how it is set up."""

from __future__ import annotations

import itertools
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transport.fabrics import (
    LOOPBACK,
    ZeroMQFabric,
    collect,
    descriptors_and_threads,
    dropped,
    header_of,
    in_thread,
    introduce,
    send,
    until,
)
from transport import link
from transport import zeromq as implementation
from transport.frames import (
    ENTRY_PARTS_MAX,
    HEADER_BYTES_MAX,
    MESSAGE_PARTS_MAX,
    PART_BYTES_MAX,
    FrameError,
)
from transport.interface import AddressInUse, BadAddress, InsecureAddress, Received
from transport.wakeup import Wakeup
from transport.zeromq import ZeroMQTransport, require_libzmq

PEER = header_of("n2").encode()
RawSocket = zmq.Socket[bytes]


@pytest.fixture
def n1(zeromq: ZeroMQFabric) -> ZeroMQTransport:
    """A node that knows n2."""
    opened = zeromq.open("n1")
    opened.set_peer("n2", zeromq.address("n2"))
    return opened


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


# --- hostile senders ------------------------------------------------------------------------------


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


# --- the network ----------------------------------------------------------------------------------


def test_a_message_is_whole_or_absent_while_its_receiver_comes_and_goes(
    zeromq: ZeroMQFabric, n1: ZeroMQTransport
) -> None:
    stop = threading.Event()
    broken: list[object] = []
    whole = itertools.count()

    def come_and_go() -> None:
        while not stop.is_set():
            n2 = zeromq.open("n2")
            n2.set_peer("n1", n1.address)
            for _ in range(20):
                n2.wait(20)
                for message in n2.receive():
                    next(whole)
                    if message.parts != [message.header] * 40:
                        broken.append(message)
            broken.extend(dropped(n2))
            n2.close()

    receiver = threading.Thread(target=come_and_go)
    receiver.start()
    deadline = time.monotonic() + 2
    number = 0
    while time.monotonic() < deadline:
        header = b"%d" % number
        number += n1.send("n2", header, [header] * 40, bulk=True)
    stop.set()
    receiver.join()
    assert broken == []
    assert next(whole) > 100
    assert n1.drops["refused"] > 0


def test_a_failed_send_leaves_no_half_message_behind(
    zeromq: ZeroMQFabric, n1: ZeroMQTransport
) -> None:
    n2 = zeromq.open("n2")
    introduce(zeromq, {"n1": n1, "n2": n2})
    before = dict(n2.drops)
    for bad in ("text", 7):
        parts: list[Any] = [b"first", bad, b"third"]
        with pytest.raises(TypeError):
            n1.send("n2", b"half", parts, bulk=True)
    send(n1, "n2", b"next", [b"entry"], bulk=True)
    assert [(m.header, m.parts) for m in collect(n2, 1)] == [(b"next", [b"entry"])]
    assert dropped(n2, before) == {}


class Wire:
    """Listens, and passes what it gets on to `target`: at `bytes_per_second`, while it `flows`."""

    def __init__(self, target: str, bytes_per_second: float) -> None:
        host, port = target.removeprefix("tcp://").split(":")
        self.target = (host, int(port))
        self.pause_seconds = 16_384 / bytes_per_second
        self.flows = threading.Event()
        self.flows.set()
        self.sockets: list[socket.socket] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            far = socket.create_connection(self.target)
            self.sockets += [near, far]
            for source, sink, pause_seconds in (near, far, self.pause_seconds), (far, near, 0.0):
                carrying = threading.Thread(
                    target=self.carry, args=(source, sink, pause_seconds), daemon=True
                )
                carrying.start()

    def carry(self, source: socket.socket, sink: socket.socket, pause_seconds: float) -> None:
        try:
            while data := source.recv(16_384):
                self.flows.wait()
                sink.sendall(data)
                time.sleep(pause_seconds)
        except OSError:
            return

    def close(self) -> None:
        self.flows.set()
        for each in (self.listener, *self.sockets):
            each.close()


HEARTBEATS = {zmq.HEARTBEAT_IVL, zmq.HEARTBEAT_TIMEOUT, zmq.HEARTBEAT_TTL}


@pytest.fixture
def tenfold_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """All heartbeats and their timeouts ten times faster: 0.1 s and 0.3 s, bulk 3 s.

    Small buffers, so that what is on its way waits in ZeroMQ and not in the system.
    """
    for module, name in ((implementation, "_ROUTER"), (link, "CONTROL"), (link, "BULK")):
        tenfold = {
            option: value // 10 if option in HEARTBEATS else value
            for option, value in getattr(module, name).items()
        }
        monkeypatch.setattr(module, name, tenfold | {zmq.SNDBUF: 65_536})


@pytest.mark.usefixtures("tenfold_heartbeats")
def test_a_large_part_on_a_slow_link_arrives_and_holds_back_no_control_message(
    zeromq: ZeroMQFabric,
) -> None:
    n1, n2 = zeromq.open("n1"), zeromq.open("n2")
    slow = Wire(n2.address, bytes_per_second=1_000_000)
    n1.set_peer("n2", slow.address)
    n2.set_peer("n1", n1.address)
    for bulk in (False, True):
        send(n1, "n2", b"small", bulk=bulk)
    collect(n2, 2)
    n2.wait(250)  # from the first heartbeat on, a connection has to live up to it
    send(n1, "n2", b"large", [b"x" * 500_000] * 3, bulk=True)
    arrived: list[bytes] = []
    controls_count = 0

    def large_arrived() -> bool:
        nonlocal controls_count
        controls_count += n1.send("n2", b"small", [], bulk=False)
        n2.wait(20)
        arrived.extend(message.header for message in n2.receive())
        return b"large" in arrived

    until(large_arrived, lambda: None)
    assert len(slow.sockets) == 2 * 2  # no connection was made a second time
    assert controls_count > 10
    assert arrived.count(b"small") > 10
    n1.close()
    n2.close()
    slow.close()


@pytest.mark.usefixtures("tenfold_heartbeats")
@pytest.mark.parametrize("bulk", [False, True], ids=["control", "bulk"])
def test_a_peer_that_falls_silent_is_given_up(zeromq: ZeroMQFabric, bulk: bool) -> None:
    n1, n2 = zeromq.open("n1"), zeromq.open("n2")
    silent = Wire(n2.address, bytes_per_second=1e9)
    n1.set_peer("n2", silent.address)
    n2.set_peer("n1", n1.address)
    send(n1, "n2", b"header", bulk=bulk)
    collect(n2, 1)
    silent.flows.clear()  # bytes go in, none comes out, and no connection ends
    silent.listener.close()
    messages_count = 0
    while n1.send("n2", b"header", [], bulk=bulk):
        messages_count += 1
        time.sleep(0.01)
        assert messages_count < link.QUEUE_MESSAGES_MAX, "refused because it is full"
    n1.close()
    silent.close()


def test_what_was_queued_for_a_lost_connection_is_not_delivered_later(
    zeromq: ZeroMQFabric, n1: ZeroMQTransport
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never shakes hands
        n1.set_peer("n2", f"tcp://127.0.0.1:{silent.getsockname()[1]}")
        assert not n1.send("n2", b"stale", [], bulk=False)
    n2 = zeromq.open("n2")
    introduce(zeromq, {"n1": n1, "n2": n2})
    send(n1, "n2", b"fresh")
    assert [message.header for message in collect(n2, 1)] == [b"fresh"]


def test_a_moved_peer_is_reached_at_its_new_address_only(
    zeromq: ZeroMQFabric, n1: ZeroMQTransport
) -> None:
    old = zeromq.open("n2")
    introduce(zeromq, {"n1": n1, "n2": old})
    del zeromq.addresses["n2"]
    new = zeromq.open("n2")
    introduce(zeromq, {"n1": n1, "n2": new})
    send(n1, "n2", b"header")
    assert [message.header for message in collect(new, 1)] == [b"header"]
    assert old.receive() == []


def test_naming_a_peer_again_keeps_its_connections(
    zeromq: ZeroMQFabric, n1: ZeroMQTransport
) -> None:
    n2 = zeromq.open("n2")
    introduce(zeromq, {"n1": n1, "n2": n2})
    n1.set_peer("n2", n2.address)
    assert n1.send("n2", b"control", [], bulk=False)
    assert n1.send("n2", b"bulk", [], bulk=True)
    collect(n2, 2)


# --- setting up -----------------------------------------------------------------------------------


def open_at(address: str, **options: Any) -> ZeroMQTransport:
    arguments = {"node": "n1", "peers": {}, "header": header_of("n1"), **options}
    return ZeroMQTransport(address=address, **arguments)


def test_a_taken_address_is_named(n1: ZeroMQTransport) -> None:
    with pytest.raises(AddressInUse, match=n1.address):
        open_at(n1.address)
    n1.close()
    open_at(n1.address).close()


def test_an_address_that_others_reach_needs_plaintext_by_name() -> None:
    for address in ("tcp://0.0.0.0:0", "tcp://*:0"):
        with pytest.raises(InsecureAddress, match="plaintext=True"):
            open_at(address)
        opened = open_at(address, plaintext=True)
        assert opened.address.startswith("tcp://0.0.0.0:")
        opened.close()


@pytest.mark.parametrize("address", ["tcp://192.0.2.1:7001", "tcp://[2001:db8::1]:7001"])
def test_an_address_of_another_machine_is_named(address: str) -> None:
    with pytest.raises(BadAddress) as raised:
        open_at(address, plaintext=True)
    assert address in str(raised.value)


def test_a_header_speaks_for_its_node() -> None:
    with pytest.raises(ValueError, match="n2"):
        open_at(LOOPBACK, header=header_of("n2"))
    with pytest.raises(FrameError, match="malformed"):
        open_at(LOOPBACK, header=header_of("n1", life=0))
    with pytest.raises(ValueError, match="node id"):
        open_at(LOOPBACK, node="n 1", header=header_of("n 1"))


def test_the_system_may_choose_the_port_and_localhost_is_a_name_for_loopback() -> None:
    opened = open_at("tcp://localhost:0")
    host, _, port = opened.address.rpartition(":")
    assert host == "tcp://127.0.0.1"
    assert int(port) > 0
    opened.close()


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
def test_ipv6_carries_messages() -> None:
    n1 = open_at("tcp://[::1]:0")
    peers = {"n1": n1.address}
    n2 = open_at("tcp://[::1]:0", node="n2", peers=peers, header=header_of("n2"))
    n1.set_peer("n2", n2.address)
    send(n2, "n1", b"header")
    assert collect(n1, 1)[0].header == b"header"
    n1.close()
    n2.close()


def test_a_constructor_that_raises_leaves_nothing_behind(n1: ZeroMQTransport) -> None:
    before = descriptors_and_threads()
    for _ in range(20):
        with pytest.raises(AddressInUse):
            open_at(n1.address)
        with pytest.raises(BadAddress):
            open_at(LOOPBACK, peers={"n2": "tcp://127.0.0.1:7001", "n3": "nowhere"})

    def nothing_is_left() -> bool:
        return all(now <= then for now, then in zip(descriptors_and_threads(), before, strict=True))

    until(nothing_is_left, lambda: time.sleep(0.01))


def test_close_does_not_wait_for_what_cannot_be_interrupted(
    n1: ZeroMQTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up = threading.Event()
    context = n1._context
    destroy = context.destroy

    class Stuck:
        def destroy(self) -> None:
            looked_up.wait()
            destroy()

    monkeypatch.setattr(n1, "_context", Stuck())
    started = time.monotonic()
    n1.close()
    assert time.monotonic() - started < 1
    looked_up.set()
    until(lambda: context.closed, lambda: time.sleep(0.001))


def test_an_old_libzmq_is_refused() -> None:
    require_libzmq((4, 3, 5))
    require_libzmq((5, 0, 0))
    with pytest.raises(ImportError, match=r"4\.3\.4 is too old, 4\.3\.5"):
        require_libzmq((4, 3, 4))


def test_importing_the_package_loads_neither_zeromq_nor_msgpack() -> None:
    program = (
        "import sys, transport, transport.interface, transport.address;"
        "assert transport.TRANSPORT_MARKER == 'replog.transport/1';"
        "print(sorted({'zmq', 'msgpack', 'replog'} & {*sys.modules}))"
    )
    root = Path(implementation.__file__).parents[1]
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "[]\n"


# --- the wake-up ----------------------------------------------------------------------------------


def test_a_closed_wake_up_writes_to_nobody() -> None:
    wakeup = Wakeup()
    wakeup.close()
    wakeup.close()
    reader, writer = os.pipe()  # gets the numbers that were freed
    os.set_blocking(reader, False)
    assert in_thread(wakeup.set) is None
    with pytest.raises(BlockingIOError):
        os.read(reader, 1)
    os.close(reader)
    os.close(writer)
