"""Whatever links are cut for long: if some node still reaches a majority, somebody leads steadily.

Check-quorum deposes a leader that reaches too few, and pre-vote with sticky followers keeps those
who reach too few from disturbing one that reaches enough (dissertation, sections 4.2.3, 6.2, 9.6).
All logs are equal when the links are cut; if only a node with an old log reaches a majority, Raft
waits (section 5.4.1 of the paper leaves it no choice).
"""

from __future__ import annotations

from itertools import combinations, permutations
from random import Random

import pytest

from raftlog import Raft
from replog.quorum import majority
from tests.raft.harness import Cluster

Links = frozenset[tuple[int, int]]


def graphs(size: int) -> list[Links]:
    """Every graph of so many nodes in which one reaches a majority, each in one numbering."""
    pairs = list(combinations(range(size), 2))
    found: dict[Links, None] = {}
    seen: set[Links] = set()
    for bits in range(1 << len(pairs)):
        links = frozenset([pair for place, pair in enumerate(pairs) if bits >> place & 1])
        reached = [1 + sum(node in pair for pair in links) for node in range(size)]
        if links not in seen and max(reached) >= majority(size):
            found[links] = None
            for at in permutations(range(size)):
                moved = [(at[a], at[b]) if at[a] < at[b] else (at[b], at[a]) for a, b in links]
                seen.add(frozenset(moved))
    return list(found)


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
    whole = {(a, b) for a in range(size) for b in range(size) if a != b}
    for a, b in whole - links - {(b, a) for a, b in links}:
        cluster.cut.add((names[a], names[b]))
    cluster.wait(2500, cluster.stabilize)
    leaders = dict(cluster.leaders)
    committed = len(cluster.committed)
    assert any(cluster.propose(name, "x") for name in names)
    cluster.wait(1000, cluster.stabilize)
    assert cluster.leaders == leaders
    assert len(cluster.committed) > committed
