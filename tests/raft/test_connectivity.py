"""Whatever links are cut for long: if some node still reaches a majority, somebody leads steadily.

Check-quorum deposes a leader that reaches too few, and pre-vote with sticky followers keeps those
who reach too few from disturbing one that reaches enough (dissertation, sections 4.2.3, 6.2, 9.6).
All logs are equal when the links are cut; if only a node with an old log reaches a majority, Raft
waits (section 5.4.1 of the paper leaves it no choice).
"""

from __future__ import annotations

from random import Random

import pytest

from raftlog import Raft
from tests.agreement.graphs import graphs, keep_links
from tests.agreement.harness import Cluster

CASES = [(size, links) for size in (3, 4, 5) for links in graphs(size)]


def test_the_graphs_are_all_there() -> None:
    assert [len(graphs(size)) for size in (2, 3, 4, 5)] == [1, 3, 8, 31]


@pytest.mark.parametrize("number", range(len(CASES)))
def test_a_node_that_reaches_a_majority_is_enough(number: int) -> None:
    size, links = CASES[number]
    names = [f"n{node}" for node in range(1, size + 1)]
    cluster = Cluster(Raft(), names, seed=number)
    cluster.wait(1000, cluster.stabilize)
    Random(number).shuffle(names)  # who leads, and where
    keep_links(cluster, names, links)
    cluster.wait(2500, cluster.stabilize)
    leaders = dict(cluster.leaders)
    committed = len(cluster.committed)
    assert any(cluster.propose(name, "x") for name in names)
    cluster.wait(1000, cluster.stabilize)
    assert cluster.leaders == leaders
    assert len(cluster.committed) > committed
