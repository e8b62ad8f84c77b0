"""Clusters of cores under each agreement layer, and what every test of them does."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import tests.paxos.watcher
import tests.raft.watcher
from replog.entry import Kind
from tests.agreement.harness import Cluster, Member
from tests.each_agreement import make_agreement, pytest_generate_tests

__all__ = ["pytest_generate_tests"]

MakeCluster = Callable[..., Cluster]

WATCHERS: dict[str, Callable[[], Callable[[Cluster, Member], None]]] = {
    "paxos": tests.paxos.watcher.Watcher,
    "raft": tests.raft.watcher.Watcher,
}
"""Each checks the invariants of its protocol after every step."""
SETTLED_MS = 1000
"""Longer than any election between nodes that reach each other."""
PATIENCE_MS = 2500
"""Longer than all that a cut link may set off."""


@pytest.fixture
def make_cluster(agreement: str) -> Iterator[MakeCluster]:
    """Makes clusters n1, n2, ...; at the end, none of their members has blamed another."""
    made: list[Cluster] = []

    def make(size: int = 3, *, seed: int = 0, **settings: int) -> Cluster:
        layer = make_agreement(agreement, **settings)
        names = [f"n{number}" for number in range(1, size + 1)]
        cluster = Cluster(layer, names, seed=seed, watch=WATCHERS[agreement]())
        made.append(cluster)
        return cluster

    yield make
    for cluster in made:
        assert cluster.faults == []


@pytest.fixture
def cluster(make_cluster: MakeCluster) -> Cluster:
    """Three members, one of which leads."""
    cluster = make_cluster()
    elect(cluster)
    return cluster


def run(cluster: Cluster, duration_ms: int) -> None:
    """Let time pass; everything is delivered and persisted at once."""
    cluster.wait(duration_ms, cluster.stabilize)


def leaders(cluster: Cluster) -> list[str]:
    """Who takes itself for the leader."""
    return [
        member.name
        for member in cluster.members.values()
        if member.up and member.core.leadership.role == "leader"
    ]


def elect(cluster: Cluster) -> str:
    """Let time pass until one leads; its name."""
    run(cluster, SETTLED_MS)
    (leader,) = leaders(cluster)
    return leader


def others(cluster: Cluster, *names: str) -> list[str]:
    return [name for name in cluster.names if name not in names]


def propose(cluster: Cluster, *values: str) -> list[int]:
    """The one leader takes these records; their indexes."""
    (leader,) = leaders(cluster)
    refs = [cluster.propose(leader, value) for value in values]
    assert None not in refs, f"{leader} takes {refs}"
    return [ref.index for ref in refs if ref]


def records(cluster: Cluster) -> list[str]:
    """What is committed, without no-ops, in index order."""
    return [
        cluster.committed[index].data
        for index in sorted(cluster.committed)
        if cluster.committed[index].kind is Kind.RECORDS
    ]


def positions(cluster: Cluster) -> dict[str, int]:
    """How far each member has delivered."""
    return {name: member.memory.position for name, member in cluster.members.items()}


def assert_even(cluster: Cluster) -> None:
    """All members have delivered all that is committed (that it is the same, is always checked)."""
    assert set(positions(cluster).values()) == {max(cluster.committed)}
