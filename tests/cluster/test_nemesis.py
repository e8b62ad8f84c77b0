"""Faults of processes, disks and links combined at random; nothing acknowledged may be lost, and
the log looks to its clients like one list.

`make nemesis SECONDS=120` runs it longer, under each agreement, and shows how it goes. The seed
decides what is done to whom and when; the machine decides the rest.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from replog.demo.cluster import LocalCluster, Member
from replog.testing.linearizability import find_misorder
from tests.cluster.load import Load
from tests.cluster.nemesis import Nemesis
from tests.cluster.proxy import HOST, SECONDS, Links, Mode


@pytest.fixture
def links() -> Iterator[Links]:
    with Links() as links:
        yield links


@pytest.fixture
def linked_cluster(tmp_path: Path, agreement: str, links: Links) -> Iterator[LocalCluster]:
    """Three nodes that run, have a leader, and reach each other through the links."""
    with LocalCluster(tmp_path, agreement=agreement, route=links.route) as cluster:
        cluster.start()
        cluster.leader()
        yield cluster


def test_nothing_is_lost_and_the_order_is_that_of_real_time(
    linked_cluster: LocalCluster, links: Links, request: pytest.FixtureRequest
) -> None:
    seed = request.config.getoption("--nemesis-seed")
    if seed is None:
        seed = random.SystemRandom().randrange(1 << 32)
    print(f"\nagain with --nemesis-seed={seed}")
    nemesis = Nemesis(linked_cluster, links, seed)
    load = nemesis.load
    nemesis.run(request.config.getoption("--nemesis-seconds"))
    print(f"healed within {nemesis.heal():.1f} s; struck: {dict(nemesis.struck)}")
    report = load.finish()
    print(f"{report.acknowledged:,} acknowledged, {len(load.operations):,} operations judged")
    assert report.faults == ()
    assert report.acknowledged == load.acknowledged
    assert find_misorder(load.operations) is None
    # The judge had something to judge.
    assert all(feeder.ledger.acknowledged > 0 for feeder in load.timed.values())
    assert all(feeder.reads > 0 for feeder in load.timed.values())


def test_an_isolated_leader_is_replaced_and_follows_when_it_is_back(
    linked_cluster: LocalCluster, links: Links
) -> None:
    load = Load(linked_cluster)
    load.until_more(list(load.feeders))
    leader = linked_cluster.leader()
    others = load.others(leader)
    for other in others:
        links.set(leader.name, other, Mode.SWALLOW)
        links.set(other, leader.name, Mode.SWALLOW)
    load.until_more(others, 1000)
    load.until(lambda: not leads(load, leader), "the end of a leadership that nobody follows")
    mark = load.acknowledged_by([leader.name])
    load.until_more(others, 1000)
    assert load.acknowledged_by([leader.name]) == mark
    links.heal()
    load.until_more([leader.name])
    report = load.finish()
    assert report.faults == ()
    assert report.unknown_found == report.unknown_missing == 0


def leads(load: Load, member: Member) -> bool:
    """As its own node last said."""
    status = load.feeders[member.name].status
    return status is None or status["role"] == "leader"


# -- the links themselves --------------------------------------------------------------------------


@pytest.fixture
def ends(links: Links) -> Iterator[tuple[socket.socket, socket.socket, str]]:
    """A connection from a to b through the links, both ends of it, and b's address to a."""
    with socket.create_server((HOST, 0)) as listener:
        address = links.route("a", "b", f"tcp://{HOST}:{listener.getsockname()[1]}")
        with connected(address) as sender:
            listener.settimeout(SECONDS)
            receiver, _ = listener.accept()
            with receiver:
                receiver.settimeout(SECONDS)
                yield sender, receiver, address


def connected(address: str) -> socket.socket:
    return socket.create_connection((HOST, int(address.rpartition(":")[2])), SECONDS)


Ends = tuple[socket.socket, socket.socket, str]


def ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_a_link_carries_both_ways(ends: Ends) -> None:
    sender, receiver, _ = ends
    sender.sendall(b"there")
    assert receiver.recv(9) == b"there"
    receiver.sendall(b"back")
    assert sender.recv(9) == b"back"


def test_what_a_link_holds_back_comes_late(ends: Ends, links: Links) -> None:
    sender, receiver, _ = ends
    links.set("a", "b", Mode.HOLD)
    sender.sendall(b"late")
    receiver.settimeout(0.05)
    with pytest.raises(TimeoutError):
        receiver.recv(9)
    receiver.settimeout(SECONDS)
    links.set("a", "b", Mode.CARRY)
    assert receiver.recv(9) == b"late"


def test_what_a_link_swallows_is_lost_and_its_connection_with_it(ends: Ends, links: Links) -> None:
    sender, receiver, _ = ends
    links.set("a", "b", Mode.SWALLOW)
    sender.sendall(b"lost")
    receiver.sendall(b"back")
    assert sender.recv(9) == b"back"
    links.set("a", "b", Mode.CARRY)
    assert ended(receiver)
    assert ended(sender)


def test_a_link_that_refuses_breaks_every_connection(ends: Ends, links: Links) -> None:
    sender, receiver, address = ends
    links.set("a", "b", Mode.REFUSE)
    assert ended(sender)
    assert ended(receiver)
    with connected(address) as again:
        assert ended(again)
