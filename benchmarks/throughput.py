"""How many records a second a cluster takes, with many outstanding."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.cluster import ClusterBroken
from benchmarks.machine import busy_seconds, processor_seconds, resident_mib
from benchmarks.results import Figure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.cluster import Cluster

QUESTION = "throughput"
RECORD_BYTES = 16
WARM_UP_SECONDS = 0.5
DRAIN_SECONDS_MAX = 60.0
SINGLE_APPENDS: dict[str, Any] = {
    "command": "single appends",
    "outstanding": 16384,
    "record_bytes": RECORD_BYTES,
}
RUNS: dict[str, Any] = {
    "command": "runs",
    "outstanding": 64,
    "records_per_run": 1000,
    "record_bytes": RECORD_BYTES,
}


@dataclass(frozen=True, slots=True)
class Load:
    """One way to load a cluster."""

    name: str
    command: dict[str, Any]
    through: str
    """leader, follower or all."""
    at_least: float | None = None
    """Records a second that it must reach."""


LOADS = (
    Load("append, 16 B, leader", SINGLE_APPENDS, "leader", at_least=60_000),
    Load("append_many(1000), 16 B, leader", RUNS, "leader", at_least=1_000_000),
    Load("append, 16 B, a follower", SINGLE_APPENDS, "follower"),
    Load("append_many(1000), 16 B, a follower", RUNS, "follower"),
    Load("append, 16 B, all three", SINGLE_APPENDS, "all"),
    Load("append_many(1000), 16 B, all three", RUNS, "all"),
)


def measure(
    cluster: Cluster, seconds: float, repeats: int, say: Callable[[str], None]
) -> list[Figure]:
    """Every load, `seconds` each, the whole round repeated."""
    measured: dict[str, list[dict[str, Any]]] = {load.name: [] for load in LOADS}
    for _ in range(repeats):
        for load in LOADS:
            say(load.name)
            measured[load.name].append(run(cluster, load.command, nodes_of(cluster, load), seconds))
    return [
        Figure(
            question=QUESTION,
            name=load.name,
            unit="records/s",
            values=tuple([found["records_per_second"] for found in measured[load.name]]),
            at_least=load.at_least,
            details={"command": load.command, "rounds": measured[load.name]},
        )
        for load in LOADS
    ]


def nodes_of(cluster: Cluster, load: Load) -> Sequence[str]:
    """The nodes whose applications append."""
    if load.through == "leader":
        return [cluster.leader]
    return cluster.followers[:1] if load.through == "follower" else list(cluster.nodes)


def run(
    cluster: Cluster, command: dict[str, Any], nodes: Sequence[str], seconds: float
) -> dict[str, Any]:
    """Load these nodes together; count what is acknowledged in one window, by one clock.

    Raises `ClusterBroken` unless every record acknowledged is delivered on all nodes, once, in one
    order.
    """
    before = cluster.agree()
    begin = time.monotonic() + WARM_UP_SECONDS
    window = {"begin": begin, "end": begin + seconds}
    for node in nodes:
        cluster.nodes[node].tell({**command, **window})
    used = _used_in(cluster, window)
    seconds_max = seconds + WARM_UP_SECONDS + DRAIN_SECONDS_MAX
    counted = {node: cluster.nodes[node].answer(seconds_max) for node in nodes}
    appended = sum(found["appended"] for found in counted.values())
    delivered = cluster.agree() - before
    if delivered != appended:
        raise ClusterBroken(f"{appended} records were acknowledged, {delivered} delivered")
    acknowledged = sum(found["acknowledged"] for found in counted.values())
    return {"records_per_second": acknowledged / seconds, "nodes": counted, **used}


def _used_in(cluster: Cluster, window: dict[str, float]) -> dict[str, Any]:
    """Processors in use, by each node and by others, and memory at the end of the window."""
    pids = {node: child.pid for node, child in cluster.nodes.items()}

    def used() -> tuple[dict[str, float], float, float]:
        return {node: processor_seconds(pid) for node, pid in pids.items()}, *busy_seconds()

    time.sleep(max(0.0, window["begin"] - time.monotonic()))
    before, busy_before, stolen_before = used()
    time.sleep(max(0.0, window["end"] - time.monotonic()))
    after, busy_after, stolen_after = used()
    seconds = window["end"] - window["begin"]
    nodes = {node: (after[node] - before[node]) / seconds for node in pids}
    return {
        "processors": nodes,
        "processors_of_others": (busy_after - busy_before) / seconds - sum(nodes.values()),
        "processors_stolen": (stolen_after - stolen_before) / seconds,
        "resident_mib": {node: resident_mib(pid) for node, pid in pids.items()},
    }
