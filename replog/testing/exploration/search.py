"""Breadth first through every state that the bounds allow: what breaks a rule is found by a path
that is as short as any.
"""

from __future__ import annotations

from array import array
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from replog.testing.exploration.bounds import Act

if TYPE_CHECKING:
    from collections.abc import Callable

    from replog.testing.exploration.cluster import Cluster
    from replog.testing.exploration.member import Event

PROGRESS_SECONDS = 2.0


class Progress(NamedTuple):
    """How far a search is."""

    states: int
    """Different ones met."""
    depth: int
    """Steps to the states that are looked at now."""
    frontier: int
    """States met whose successors are not known yet."""
    seconds: float

    def __str__(self) -> str:
        rate = self.states / max(self.seconds, 0.001)
        return (
            f"{self.states:,} states, depth {self.depth}, frontier {self.frontier:,}, "
            f"{rate:,.0f} states/s"
        )


class Found(NamedTuple):
    """What a search has come to."""

    progress: Progress
    steps: int
    """Successors computed."""
    complete: bool
    """Whether every state within the bounds was met."""
    breach: str
    """The rule that was broken; "" for none."""
    trace: tuple[str, ...]
    """The steps that break it."""


class Search:
    """One search from one state."""

    def __init__(self, cluster: Cluster, start: int) -> None:
        self._cluster = cluster
        self._seen = {start}
        self._frontier = [start]
        # Of each state in the order in which it was met: the place of the one before, and the step.
        self._parents = array("q", [-1])
        self._happened = array("q", [-1])

    def run(self, states_max: int, tell: Callable[[Progress], object] = lambda _: None) -> Found:
        """Meet at least so many states, or all that there are."""
        cluster, seen = self._cluster, self._seen
        parents, happened = self._parents, self._happened
        nodes = len(cluster.names)
        frontier, place, depth, steps = self._frontier, 0, 0, 0
        started = told = monotonic()
        while frontier and len(seen) < states_max:
            following: list[int] = []
            for state in frontier:
                for node, event, new, breach in cluster.successors(state):
                    steps += 1
                    if breach:
                        left = len(seen) - place
                        progress = Progress(len(seen), depth, left, monotonic() - started)
                        trace = self._trace(place, event * nodes + node)
                        return Found(progress, steps, complete=False, breach=breach, trace=trace)
                    if new not in seen:
                        seen.add(new)
                        following.append(new)
                        parents.append(place)
                        happened.append(event * nodes + node)
                place += 1
                if not place & 1023 and monotonic() - told >= PROGRESS_SECONDS:
                    told = monotonic()
                    tell(Progress(len(seen), depth, len(seen) - place, told - started))
                if len(seen) >= states_max:
                    break
            else:
                depth += 1
            frontier = following
        left = len(seen) - place
        progress = Progress(len(seen), depth, left, monotonic() - started)
        return Found(progress, steps, complete=not left, breach="", trace=())

    def _trace(self, place: int, last: int) -> tuple[str, ...]:
        steps = [last]
        while self._parents[place] >= 0:
            steps.append(self._happened[place])
            place = self._parents[place]
        nodes = len(self._cluster.names)
        lines: list[str] = []
        for step in reversed(steps):
            event, node = divmod(step, nodes)
            lines.append(words(self._cluster.names[node], self._cluster.events.things[event]))
        return tuple(lines)


def words(node: str, event: Event) -> str:
    """A step in words."""
    packet = event.packet
    if event.act is Act.DELIVER and packet is not None:
        carried = "".join([f" {meta.index}@{meta.epoch.number}" for meta, _ in packet.entries])
        return f"{node} <- {packet.source}: {packet.message}{carried}"
    return f"{node}: {event.act.value}{f' ({event.peer})' if event.peer else ''}"
