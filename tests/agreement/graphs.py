"""Which nodes reach which: small graphs, each in one numbering."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, permutations

from replog.quorum import majority
from tests.agreement.harness import Cluster

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


def keep_links(cluster: Cluster, names: Sequence[str], links: Links) -> None:
    """Cut all links but these; `names` says who stands where in the graph."""
    whole = {(a, b) for a in range(len(names)) for b in range(len(names)) if a != b}
    for a, b in whole - links - {(b, a) for a, b in links}:
        cluster.cut.add((names[a], names[b]))
