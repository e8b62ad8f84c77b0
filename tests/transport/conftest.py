"""The transports under test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.transport.fabrics import Fabric, LoopbackFabric, ZeroMQFabric, introduce
from transport.interface import Transport
from transport.zeromq import ZeroMQTransport


@pytest.fixture(params=[ZeroMQFabric, LoopbackFabric], ids=["zeromq", "loopback"])
def fabric(request: pytest.FixtureRequest) -> Iterator[Fabric]:
    """Each transport in turn."""
    opened: Fabric = request.param()
    yield opened
    opened.close()


@pytest.fixture
def zeromq() -> Iterator[ZeroMQFabric]:
    """The transport of real clusters."""
    opened = ZeroMQFabric()
    yield opened
    opened.close()


@pytest.fixture
def n1(zeromq: ZeroMQFabric) -> ZeroMQTransport:
    """A node of ZeroMQ that knows n2, which is not there yet."""
    opened = zeromq.open("n1")
    opened.set_peer("n2", zeromq.address("n2"))
    return opened


@pytest.fixture
def pair(fabric: Fabric) -> tuple[Transport, Transport]:
    """n1 and n2, each other's peers and connected."""
    transports = {node: fabric.open(node) for node in ("n1", "n2")}
    introduce(fabric, transports)
    return transports["n1"], transports["n2"]
