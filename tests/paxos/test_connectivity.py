"""Whatever links are cut for long: if some node still reaches a majority, somebody leads steadily.

Check-quorum deposes a leader that reaches too few, and pre-prepare with sticky acceptors keeps
those who reach too few from disturbing one that reaches enough. Here every node has missed
something before, and the one in the middle the most: it may lead nevertheless.
"""

from __future__ import annotations

from random import Random

import pytest

from paxoslog import MultiPaxos
from tests.agreement.graphs import graphs, keep_links
from tests.agreement.harness import Cluster

CASES = [(size, links) for size in (3, 4, 5) for links in graphs(size)]


def test_the_graphs_are_all_there() -> None:
    assert [len(graphs(size)) for size in (2, 3, 4, 5)] == [1, 3, 8, 31]


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("number", range(len(CASES)))
def test_a_node_that_reaches_a_majority_is_enough(number: int, behind: bool) -> None:
    size, links = CASES[number]
    names = [f"n{node}" for node in range(1, size + 1)]
    cluster = Cluster(MultiPaxos(), names, seed=number)
    cluster.wait(1000, cluster.stabilize)
    Random(number).shuffle(names)  # who leads, and where
    if behind:
        reached = [sum(node in pair for pair in links) for node in range(size)]
        hub = names[reached.index(max(reached))]
        cluster.partition([[hub], [name for name in names if name != hub]])
        cluster.wait(1000, cluster.stabilize)
        for name in names:
            cluster.propose(name, "missed")
        cluster.stabilize()
        cluster.cut.clear()
    keep_links(cluster, names, links)
    cluster.wait(2500, cluster.stabilize)
    leaders = dict(cluster.leaders)
    committed = len(cluster.committed)
    assert any(cluster.propose(name, "x") for name in names)
    cluster.wait(1000, cluster.stabilize)
    assert cluster.leaders == leaders
    assert len(cluster.committed) > committed
