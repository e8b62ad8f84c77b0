"""The faults of the network inside one process."""

from __future__ import annotations

from random import Random

import pytest

from tests.transport.fabrics import LoopbackFabric, dropped, header_of
from transport.frames import FrameError
from transport.interface import AddressInUse, Transport
from transport.loopback import INBOX_MESSAGES_MAX, LoopbackNetwork


@pytest.fixture
def network() -> LoopbackNetwork:
    return LoopbackNetwork()


def attach(network: LoopbackNetwork, node: str, *peers: str) -> Transport:
    return network.attach(node, header_of(node), peers)


def headers(transport: Transport) -> list[bytes]:
    return [message.header for message in transport.receive()]


def test_peers_may_be_named_when_attaching(network: LoopbackNetwork) -> None:
    n1, n2 = attach(network, "n1", "n2"), attach(network, "n2", "n1", "n2")
    assert n1.send("n2", b"header", [b"entry"], bulk=False)
    assert headers(n2) == [b"header"]
    assert not n2.send("n2", b"to itself", [], bulk=False)


def test_a_cut_loses_one_direction_silently_until_it_heals(network: LoopbackNetwork) -> None:
    n1, n2 = attach(network, "n1", "n2"), attach(network, "n2", "n1")
    network.cut("n1", "n2")
    assert n1.send("n2", b"lost", [], bulk=False)
    assert n2.send("n1", b"kept", [], bulk=False)
    assert (headers(n1), headers(n2)) == ([b"kept"], [])
    network.heal()
    assert n1.send("n2", b"healed", [], bulk=False)
    assert headers(n2) == [b"healed"]
    assert network.lost_count == 1
    assert dropped(n1) == {}


def survivors(loss: float, seed: int) -> list[bytes]:
    network = LoopbackNetwork(loss=loss, random=Random(seed))
    n1, n2 = attach(network, "n1", "n2"), attach(network, "n2", "n1")
    for number in range(200):
        assert n1.send("n2", b"%d" % number, [], bulk=False)
    arrived = headers(n2)
    assert len(arrived) + network.lost_count == 200
    return arrived


def test_loss_is_a_probability_and_repeats_with_its_seed() -> None:
    assert survivors(1.0, seed=1) == []
    assert len(survivors(0.0, seed=1)) == 200
    assert 50 < len(survivors(0.5, seed=1)) < 150
    assert survivors(0.5, seed=1) == survivors(0.5, seed=1)
    assert survivors(0.5, seed=1) != survivors(0.5, seed=2)


@pytest.mark.parametrize("loss", [-0.1, 1.1, float("nan")])
def test_loss_is_from_nought_to_one(loss: float) -> None:
    with pytest.raises(ValueError, match="probability"):
        LoopbackNetwork(loss=loss)


def test_an_inbox_has_a_bound(network: LoopbackNetwork) -> None:
    n1, n2 = attach(network, "n1", "n2"), attach(network, "n2", "n1")
    taken = [n1.send("n2", b"", [], bulk=False) for _ in range(INBOX_MESSAGES_MAX + 2)]
    assert taken == [True] * INBOX_MESSAGES_MAX + [False] * 2
    assert dropped(n1) == {"refused": 2}
    n2.receive()
    assert n1.send("n2", b"", [], bulk=False)


def test_a_node_attaches_again_only_after_it_closed(network: LoopbackNetwork) -> None:
    n1, n2 = attach(network, "n1", "n2"), attach(network, "n2", "n1")
    with pytest.raises(AddressInUse, match="n2"):
        attach(network, "n2", "n1")
    assert n1.send("n2", b"unread", [], bulk=False)
    n2.close()
    n2.close()
    assert not n1.send("n2", b"gone", [], bulk=False)
    n2 = attach(network, "n2", "n1")
    assert n1.send("n2", b"back", [], bulk=False)
    assert headers(n2) == [b"back"]


def test_a_header_speaks_for_its_node(network: LoopbackNetwork) -> None:
    with pytest.raises(ValueError, match="n2"):
        network.attach("n1", header_of("n2"))
    with pytest.raises(FrameError, match="malformed"):
        network.attach("n1", header_of("n1", life=0))
    assert attach(network, "n1").receive() == []


def test_the_parts_that_arrive_are_those_of_the_moment_of_sending() -> None:
    fabric = LoopbackFabric()
    n1, n2 = fabric.open("n1"), fabric.open("n2")
    n1.set_peer("n2", fabric.address("n2"))
    n2.set_peer("n1", fabric.address("n1"))
    parts = [b"one"]
    n1.send("n2", b"", parts, bulk=True)
    parts.append(b"two")
    assert n2.receive()[0].parts == [b"one"]
    fabric.close()
