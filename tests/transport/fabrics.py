"""Both transports behind one face, for tests that hold for each."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from transport.frames import FRAME_VERSION, FrameHeader
from transport.interface import Received, Transport
from transport.loopback import LoopbackNetwork
from transport.zeromq import ZeroMQTransport

PATIENCE_SECONDS = 20.0
LOOPBACK = "tcp://127.0.0.1:0"


def header_of(node: str, **changes: Any) -> FrameHeader:
    header = FrameHeader(
        version=FRAME_VERSION,
        cluster_id=b"cluster-of-tests",
        agreement="raft",
        sender=node,
        store_id=node.encode().ljust(16)[:16],
        life=1_700_000_000_000,
    )
    return header._replace(**changes)


class Fabric(Protocol):
    """Opens transports that can reach each other by `address`, and closes them in the end."""

    def open(self, node: str, **changes: Any) -> Transport:
        """A transport without peers; `changes` are made to its frame header."""
        ...

    def address(self, node: str) -> str:
        """Where that node is, or was last, or nobody ever was."""
        ...

    def close(self) -> None: ...


class ZeroMQFabric:
    def __init__(self) -> None:
        self.opened: list[ZeroMQTransport] = []
        self.addresses: dict[str, str] = {}
        self.reserved: list[socket.socket] = []

    def open(self, node: str, **changes: Any) -> ZeroMQTransport:
        transport = ZeroMQTransport(
            node=node,
            address=self.address(node),
            peers={},
            header=header_of(node, **changes),
        )
        self.opened.append(transport)
        return transport

    def address(self, node: str) -> str:
        if node not in self.addresses:
            # Bound and not listening: nobody else is given the port, whoever comes and goes there.
            holder = socket.socket()
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind(("127.0.0.1", 0))
            self.reserved.append(holder)
            self.addresses[node] = f"tcp://127.0.0.1:{holder.getsockname()[1]}"
        return self.addresses[node]

    def close(self) -> None:
        for transport in self.opened:
            transport.close()
        for holder in self.reserved:
            holder.close()


class LoopbackFabric:
    def __init__(self, network: LoopbackNetwork | None = None) -> None:
        self.network = LoopbackNetwork() if network is None else network
        self.opened: list[Transport] = []

    def open(self, node: str, **changes: Any) -> Transport:
        transport = self.network.attach(node, header_of(node, **changes))
        self.opened.append(transport)
        return transport

    def address(self, node: str) -> str:
        return "tcp://127.0.0.1:1"

    def close(self) -> None:
        for transport in self.opened:
            transport.close()


def introduce(fabric: Fabric, transports: Mapping[str, Transport]) -> None:
    """Make them peers of each other, and wait until both channels of each can send."""
    for node, transport in transports.items():
        for peer in transports:
            if peer != node:
                transport.set_peer(peer, fabric.address(peer))
    for node, transport in transports.items():
        for peer in transports:
            if peer != node:
                for bulk in (False, True):
                    send(transport, peer, b"greeting", bulk=bulk)
    for transport in transports.values():
        collect(transport, 2 * (len(transports) - 1))


def until(happened: Callable[[], bool], pause: Callable[[], object]) -> None:
    """Fail unless it happens in time; `pause` passes the time between two looks."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        pause()


def send(
    transport: Transport, to: str, header: bytes, parts: Iterable[bytes] = (), *, bulk: bool = False
) -> None:
    """Send, again and again while it is refused."""
    entries = list(parts)
    until(
        lambda: transport.send(to, header, entries, bulk=bulk),
        lambda: time.sleep(0.001),
    )


def collect(transport: Transport, count: int) -> list[Received]:
    """Receive until there are `count` messages."""
    received: list[Received] = []

    def enough() -> bool:
        received.extend(transport.receive())
        return len(received) >= count

    until(enough, lambda: transport.wait(100))
    assert len(received) == count
    return received


def dropped(transport: Transport, before: Mapping[str, int] | None = None) -> dict[str, int]:
    """The causes that were counted since `before`, or ever, with their counts."""
    since = dict.fromkeys(transport.drops, 0) if before is None else before
    counts = {cause: count - since[cause] for cause, count in transport.drops.items()}
    return {cause: count for cause, count in counts.items() if count}


def in_thread(call: Callable[[], object]) -> BaseException | None:
    """Run `call` on another thread to its end; gives what it raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - handed to the caller
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
    return raised[0] if raised else None


def descriptors_and_threads() -> tuple[int, int]:
    """How many this process has: native threads too, where the system lists them."""
    tasks = Path("/proc/self/task")
    threads = len([*tasks.iterdir()]) if tasks.is_dir() else threading.active_count()
    return len([*Path("/dev/fd").iterdir()]), threads
