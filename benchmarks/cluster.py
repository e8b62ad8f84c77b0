"""Three nodes as three processes on loopback, and the proof that they agree."""

from __future__ import annotations

import json
import socket
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

from benchmarks.processes import Child, end_all
from replog.agreements import DEFAULT_AGREEMENT
from replog.store.directory import DATA_FILE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

NODES = ("n1", "n2", "n3")
SETTLE_SECONDS_MAX = 20.0
POLL_SECONDS = 0.02

Seen = dict[str, dict[str, Any]]
"""Every running node as it sees itself."""


class ClusterBroken(Exception):
    """The nodes did not come together, lost their leader or do not agree."""


class LeaderLost(ClusterBroken):
    """Another node leads than before, as happens where the processors are too busy."""


class Cluster:
    """A running cluster."""

    def __init__(
        self,
        directory: Path,
        agreement: str = DEFAULT_AGREEMENT,
        names: Sequence[str] = NODES,
        **settings: Any,
    ) -> None:
        """`agreement` is a name of the group `replog.agreements`, or `module:Class`; `settings` are
        for `benchmarks.worker`."""
        directory.mkdir(parents=True, exist_ok=True)
        self.agreement = agreement
        self._directory = directory
        self._members = dict(zip(names, free_addresses(len(names)), strict=True))
        self._settings = settings
        self.nodes: dict[str, Child] = {}
        """Those that run."""
        try:
            for node in names:
                self.start(node)
            self.leader = self._wait_for_leader()
        except BaseException:
            self.close()
            raise

    @property
    def followers(self) -> list[str]:
        """Everybody else that runs."""
        return [node for node in self._members if node in self.nodes and node != self.leader]

    def status(self) -> Seen:
        """Every node as it sees itself."""
        return {node: child.ask({"command": "status"}) for node, child in self.nodes.items()}

    def agree(self) -> int:
        """Wait until every node has delivered the same; the number of records that it is.

        Raises `ClusterBroken` when they do not come to it, `LeaderLost` when the leader changed: no
        figure from a run like that is worth anything.
        """
        seen = self._wait_for(are_even, "delivered the same")
        if {s["leader"] for s in seen.values()} != {self.leader}:
            raise LeaderLost(f"{self.leader} lost the leadership: {seen}")
        return end_offset(seen)

    def settle(self) -> int:
        """As `agree`, under whoever leads now."""
        seen = self._wait_for(
            lambda seen: leader_of(seen) is not None and are_even(seen),
            "delivered the same under one leader",
        )
        self.leader = str(leader_of(seen))
        return end_offset(seen)

    def start(self, node: str) -> None:
        """Start a node that does not run, from whatever its directory holds."""
        given = {
            "directory": str(self._directory / node),
            "node": node,
            "members": self._members,
            "agreement": self.agreement,
            **self._settings,
        }
        log = self._directory / f"{node}.log"
        self.nodes[node] = Child("benchmarks.worker", [json.dumps(given)], log)

    def file(self, node: str) -> Path:
        """The one that holds a node's data."""
        return self._directory / node / DATA_FILE

    def kill(self, node: str) -> None:
        """SIGKILL."""
        self.nodes.pop(node).kill()

    def close(self) -> None:
        """End every node."""
        end_all(list(self.nodes.values()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _wait_for_leader(self) -> str:
        seen = self._wait_for(lambda seen: leader_of(seen) is not None, "found a leader")
        return str(leader_of(seen))

    def _wait_for(self, holds: Callable[[Seen], bool], what: str) -> Seen:
        deadline = time.monotonic() + SETTLE_SECONDS_MAX
        while not holds(seen := self.status()):
            if time.monotonic() > deadline:
                raise ClusterBroken(f"the nodes have not {what} in {SETTLE_SECONDS_MAX} s: {seen}")
            time.sleep(POLL_SECONDS)
        return seen


def leader_of(seen: Seen) -> str | None:
    """The node that all of these follow, itself one of them and leading; None without one."""
    if not all(s["introduced"] and s["applied_index"] for s in seen.values()):
        return None
    leaders = {s["leader"] for s in seen.values()}
    leading = {node for node, s in seen.items() if s["role"] == "leader"}
    return str(next(iter(leaders))) if len(leaders) == 1 and leaders == leading else None


def are_even(seen: Seen) -> bool:
    """Whether all have delivered the same."""
    return len({(s["end_offset"], s["digest"]) for s in seen.values()}) == 1


def end_offset(seen: Seen) -> int:
    """How many records all of these have delivered. Raises `ClusterBroken` for an alarm."""
    if any(s["alarm"] for s in seen.values()):
        raise ClusterBroken(f"a node raises an alarm: {seen}")
    return int(next(iter(seen.values()))["end_offset"])


def free_addresses(count: int) -> list[str]:
    """Addresses on loopback that nobody listens on now."""
    with ExitStack() as stack:
        addresses = []
        for _ in range(count):
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            addresses.append(f"tcp://127.0.0.1:{listener.getsockname()[1]}")
    return addresses
