"""Three nodes as three processes on loopback, and the proof that they agree."""

from __future__ import annotations

import json
import socket
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

from benchmarks.processes import Child, end_all

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NODES = ("n1", "n2", "n3")
SETTLE_SECONDS_MAX = 20.0
POLL_SECONDS = 0.02


class ClusterBroken(Exception):
    """The nodes did not come together, lost their leader or do not agree."""


class Cluster:
    """A running cluster."""

    def __init__(self, directory: Path) -> None:
        members = dict(zip(NODES, free_addresses(len(NODES)), strict=True))
        self.nodes: dict[str, Child] = {}
        try:
            for node in NODES:
                given = {"directory": str(directory / node), "node": node, "members": members}
                log = directory / f"{node}.log"
                self.nodes[node] = Child("benchmarks.worker", [json.dumps(given)], log)
            self.leader = self._wait_for_leader()
        except BaseException:
            self.close()
            raise

    @property
    def followers(self) -> list[str]:
        """Everybody else."""
        return [node for node in NODES if node != self.leader]

    def status(self) -> dict[str, dict[str, Any]]:
        """Every node as it sees itself."""
        return {node: child.ask({"command": "status"}) for node, child in self.nodes.items()}

    def agree(self) -> int:
        """Wait until every node has delivered the same; the number of records that it is.

        Raises `ClusterBroken` when they do not come to it, or the leader changed: no figure from a
        run like that is worth anything.
        """
        seen = self._wait_for(
            lambda seen: len({(s["end_offset"], s["digest"]) for s in seen.values()}) == 1,
            "delivered the same",
        )
        if {s["leader"] for s in seen.values()} != {self.leader}:
            raise ClusterBroken(f"{self.leader} lost the leadership: {seen}")
        if any(s["alarm"] for s in seen.values()):
            raise ClusterBroken(f"a node raises an alarm: {seen}")
        return int(seen[self.leader]["end_offset"])

    def close(self) -> None:
        """End every node."""
        end_all(list(self.nodes.values()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _wait_for_leader(self) -> str:
        seen = self._wait_for(
            lambda seen: (
                all(s["introduced"] and s["applied_index"] for s in seen.values())
                and len({s["leader"] for s in seen.values()}) == 1
            ),
            "found a leader",
        )
        return str(seen[NODES[0]]["leader"])

    def _wait_for(
        self, holds: Callable[[dict[str, dict[str, Any]]], bool], what: str
    ) -> dict[str, dict[str, Any]]:
        deadline = time.monotonic() + SETTLE_SECONDS_MAX
        while not holds(seen := self.status()):
            if time.monotonic() > deadline:
                raise ClusterBroken(f"the nodes have not {what} in {SETTLE_SECONDS_MAX} s: {seen}")
            time.sleep(POLL_SECONDS)
        return seen


def free_addresses(count: int) -> list[str]:
    """Addresses on loopback that nobody listens on now."""
    with ExitStack() as stack:
        addresses = []
        for _ in range(count):
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            addresses.append(f"tcp://127.0.0.1:{listener.getsockname()[1]}")
    return addresses
