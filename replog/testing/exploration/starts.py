"""States from which an exploration begins: to be deep in a history costs no depth of the search.

===========  ===================================================================================
name         what has happened
===========  ===================================================================================
`empty`      nothing: every disk is empty
`led`        n1 leads, everybody has its first entry and knows that it is committed
`divided`    n1 was elected and wrote an entry that nobody else has; then n2, by n3, and it did the
             same (figure 8 (b) of the Raft paper); then all nodes restarted
===========  ===================================================================================

What was under way then is lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replog.errors import ConfigError
from replog.testing.exploration.bounds import BOUND_MAX, Act, Bounds
from replog.testing.exploration.member import Event

if TYPE_CHECKING:
    from collections.abc import Callable

    from replog.testing.exploration.cluster import Cluster

STARTS = ("empty", "led", "divided")
SCRIPT_BOUNDS = Bounds(timeouts=BOUND_MAX, beats=0, proposals=0, crashes=0, lapses=0, losses=0)


def start_state(cluster: Cluster, start: str, bounds: Bounds) -> int:
    """The state at one of `STARTS`, from which so much may happen. Raises `ConfigError` for another
    name, and for bounds out of range."""
    if start not in STARTS:
        raise ConfigError(f"no start is called {start!r}; there are: {', '.join(STARTS)}")
    script = Script(cluster)
    if start == "led":
        script.elect(0, {0, 1, 2})
        script.settle({0, 1, 2}, lambda: False)
        return cluster.calm(script.state, bounds)
    if start == "divided":
        for node in (0, 1):
            script.elect(node, {node, 2})
            script.settle({node}, lambda: False, acts={Act.PERSIST})
    members = cluster.members(script.state)
    disks = {name: member.disk for name, member in zip(cluster.names, members, strict=True)}
    return cluster.state(disks, bounds)


class Script:
    """A few steps that lead to a start."""

    def __init__(self, cluster: Cluster) -> None:
        self.state = cluster.state({}, SCRIPT_BOUNDS)
        self._cluster = cluster
        self._taken: set[tuple[int, Event]] = set()
        """Messages that have been delivered: here, each is so once."""

    def elect(self, node: int, group: set[int]) -> None:
        """The timer of this node passes until this group elects it."""
        led = self._cluster.leaders(self.state)
        while self._cluster.leaders(self.state) == led and self._step({node}, {Act.TIME_OUT}):
            self.settle(group, lambda: self._cluster.leaders(self.state) != led)

    def settle(
        self,
        group: set[int],
        done: Callable[[], bool],
        acts: frozenset[Act] | set[Act] = frozenset({Act.DELIVER, Act.PERSIST}),
    ) -> None:
        """Deliver and write within a group, until it is done or nothing is left."""
        while not done() and self._step(group, acts):
            pass

    def _step(self, group: set[int], acts: frozenset[Act] | set[Act]) -> bool:
        names = {self._cluster.names[node] for node in group}
        for node, number, state, _ in self._cluster.successors(self.state):
            event = self._cluster.events.things[number]
            packet = event.packet
            if (
                node in group
                and event.act in acts
                and (packet is None or {packet.source, packet.target} <= names)
                and (packet is None or (node, event) not in self._taken)
            ):
                self._taken.add((node, event))
                self.state = state
                return True
        return False
