"""Flexible quorums through the whole stack: fewer acceptors choose, more must promise (FPaxos)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import replog
from paxoslog import MultiPaxos
from replog.agreement import Agreement
from tests.api.conftest import SECONDS, Cluster
from transport.loopback import LoopbackNetwork

FIVE = ("n1", "n2", "n3", "n4", "n5")
TWO_ACCEPT = MultiPaxos(accept_quorum=2)


@pytest.fixture
def make_five(tmp_path: Path) -> Iterator[Callable[[Agreement], Cluster]]:
    """Makes five nodes on the directories of this test."""
    made: list[Cluster] = []

    def make(layer: Agreement) -> Cluster:
        cluster = Cluster(tmp_path, LoopbackNetwork(), layer, FIVE)
        made.append(cluster)
        for node in FIVE:
            cluster.open(node)
        return cluster

    yield make
    for cluster in made:
        cluster.close()


def test_two_of_five_choose_and_four_of_five_elect(
    make_five: Callable[[Agreement], Cluster],
) -> None:
    cluster = make_five(TWO_ACCEPT)
    assert [cluster.logs[node].append(b"all").result(SECONDS) for node in FIVE] == list(range(5))
    leader = cluster.leader()
    partner, *away = [node for node in FIVE if node != leader]
    for node in away:
        cluster.logs.pop(node).close()
    # A majority is away, and the leader goes on with one acceptor: reads as well as appends.
    assert cluster.logs[partner].append(b"two").result(SECONDS) == 5
    cluster.logs[leader].barrier().result(SECONDS)
    # No leader: one after it needs the promises of four, so this append waits for the fourth.
    cluster.logs.pop(leader).close()
    waiting = cluster.logs[partner].append(b"four")
    for node in away[:2]:
        cluster.open(node)
    with pytest.raises(TimeoutError):
        waiting.result(1.0)
    cluster.open(away[2])
    assert waiting.result(SECONDS) == 6
    cluster.open(leader)
    expected = [b"all"] * 5 + [b"two", b"four"]
    for log in cluster.logs.values():
        log.barrier().result(SECONDS)
        assert [record.data for record in log.read()] == expected


def test_quorums_that_need_not_share_a_node_are_refused(tmp_path: Path) -> None:
    members = dict.fromkeys(FIVE, "tcp://127.0.0.1:1")
    with pytest.raises(replog.ConfigError, match="accept_quorum 6 exceeds 5 voters"):
        replog.open(
            tmp_path / "n1", node="n1", members=members, agreement=MultiPaxos(accept_quorum=6)
        )
    with pytest.raises(replog.ConfigError, match="accept_quorum must be a positive integer"):
        MultiPaxos(accept_quorum=0)
    assert not (tmp_path / "n1").exists()


def test_a_directory_is_opened_with_the_quorums_it_was_made_with(
    make_five: Callable[[Agreement], Cluster],
) -> None:
    cluster = make_five(TWO_ACCEPT)
    cluster.logs["n1"].append(b"kept").result(SECONDS)
    cluster.logs.pop("n2").close()
    for other in (MultiPaxos(), MultiPaxos(accept_quorum=3), MultiPaxos(accept_quorum=1)):
        with pytest.raises(replog.WrongStore, match="4 elect, 2 commit") as refused:
            cluster.open("n2", agreement=other)
        quorums = other.membership(set(FIVE)).quorums
        assert f"{quorums.elect} elect, {quorums.commit} commit" in str(refused.value)
    cluster.open("n2")
    assert cluster.logs["n2"].append(b"goes on").result(SECONDS) == 1


def test_a_node_of_other_quorums_is_refused_at_first_contact(
    tmp_path: Path, make_five: Callable[[Agreement], Cluster]
) -> None:
    cluster = make_five(TWO_ACCEPT)
    cluster.logs["n1"].append(b"before").result(SECONDS)
    cluster.logs.pop("n5").close()
    stranger = Cluster(tmp_path / "stranger", cluster.network, MultiPaxos(), FIVE)
    try:
        # An empty directory, so its owner cannot know better; the cluster id tells the others.
        log = stranger.open("n5")
        for node in FIVE[:4]:
            assert cluster.logs[node].append(b"goes on").result(SECONDS) > 0
        for node in FIVE[:4]:
            until_dropped(cluster.logs[node])
        state = log.status()
        assert not state.introduced
        assert state.leadership.leader is None
        assert state.end_offset == 0
    finally:
        stranger.close()
    cluster.open("n5")
    cluster.logs["n5"].barrier().result(SECONDS)
    assert len(list(cluster.logs["n5"].read())) == 5


def until_dropped(log: replog.ReplicatedLog) -> None:
    """Go on appending until this node has dropped a frame of another cluster."""
    for _ in range(1000):
        if log.status().drops.get("cluster"):
            return
        log.barrier().result(SECONDS)
    raise AssertionError(f"no frame was dropped: {log.status().drops}")
