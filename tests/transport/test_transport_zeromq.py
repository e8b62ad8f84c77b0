"""ZeroMQ: how it is set up and taken down."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.transport.fabrics import (
    LOOPBACK,
    collect,
    descriptors_and_threads,
    header_of,
    in_thread,
    send,
    until,
)
from transport import zeromq as implementation
from transport.frames import FrameError
from transport.interface import AddressInUse, BadAddress, InsecureAddress
from transport.wakeup import Wakeup
from transport.zeromq import ZeroMQTransport, require_libzmq


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
