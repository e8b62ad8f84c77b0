"""ZeroMQ and the network: connections that end, crawl, fall silent or move."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from typing import Any

import pytest
import zmq

from tests.transport.fabrics import (
    ZeroMQFabric,
    collect,
    dropped,
    introduce,
    send,
    until,
)
from transport import link
from transport import zeromq as implementation
from transport.zeromq import ZeroMQTransport


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
