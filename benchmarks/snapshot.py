"""What a large state costs while it is kept, sent to a node that lacks the log, and installed.

Three nodes feed a machine whose state has a GiB and lies nowhere: it is made as it is taken. One
node is killed. On the other two the state is kept, and the log behind it dropped, while appends go
on through the leader. Then the third is started: it must take the state from another node. Memory
is sampled all the time. It must not grow with the state, and no leadership may be lost.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.cluster import Cluster, ClusterBroken
from benchmarks.machine import memory_mib
from benchmarks.results import Figure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from benchmarks.processes import Child

QUESTION = "snapshot"
STATE_BYTES = 1 << 30
GROWTH_MIB_MAX = 64.0
"""Of the memory of any node."""
RETENTION = {"records_max": 100}
LOAD = {"pause_seconds": 0.001, "record_bytes": 128}
BEFORE_SECONDS = 3.0
"""How long appends are measured with nothing beside them."""
ABSENT_SECONDS = 1.0
"""How long appends go on without the third node before the state is kept."""
SECONDS_MAX = 300.0
SAMPLE_SECONDS = 0.01
POLL_SECONDS = 0.1
APPENDS = {
    "appends_per_second": "appends/s",
    "wait_ms_p50": "ms",
    "wait_ms_p99": "ms",
    "wait_ms_max": "ms",
    "pause_ms_max": "ms",
}
"""What is shown of `benchmarks.load.Waits`."""


class Growth(NamedTuple):
    """How the memory of a node changed, in MiB."""

    before: float
    own_max: float
    """Its own at its highest."""
    of_files_max: float

    @property
    def grown(self) -> float:
        return self.own_max - self.before


class Phase(NamedTuple):
    """One part of what is measured."""

    seconds: float
    memory: dict[str, Growth]
    """Of each node."""
    waits: dict[str, Any]
    """Of the appends meanwhile."""


class Course(NamedTuple):
    """One run."""

    alone: dict[str, Any]
    """Appends with nothing beside them."""
    keeping: Phase
    """Two nodes keep the state."""
    sending: Phase
    """The third takes and installs it."""
    elections: int


@contextmanager
def watching(cluster: Cluster, before: Mapping[str, float]) -> Iterator[dict[str, Growth]]:
    """Sample the memory of every node that runs, in a thread; filled in at the end."""
    highest: dict[str, Growth] = {}
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            for node, child in list(cluster.nodes.items()):
                found = memory_mib(child.pid)
                _, own, of_files = highest.get(node, Growth(0, 0, 0))
                highest[node] = Growth(
                    before[node], max(own, found.own), max(of_files, found.of_files)
                )

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield highest
    finally:
        ended.set()
        thread.join()


def measure(
    directory: Path, agreements: Sequence[str], repeats: int, say: Callable[[str], None]
) -> list[Figure]:
    """The whole course, of each agreement."""
    figures = []
    for name in agreements:
        courses = []
        for number in range(repeats):
            say(f"a large state, {name}")
            courses.append(run(directory / f"snapshot-{name}-{number}", name))
        figures += figures_of(name, courses)
    return figures


def run(directory: Path, agreement: str) -> Course:
    """Keep, send and install one state. Raises `ClusterBroken` when the machines come to differ."""
    with Cluster(directory, agreement, retention=RETENTION, state_bytes=STATE_BYTES) as cluster:
        leader = cluster.nodes[cluster.leader]
        laggard = cluster.followers[-1]
        term = cluster.status()[cluster.leader]["term"]
        alone = under_load(leader, lambda: time.sleep(BEFORE_SECONDS))
        before = {node: memory_mib(child.pid).own for node, child in cluster.nodes.items()}
        has = cluster.agree()
        cluster.kill(laggard)
        missed = under_load(leader, lambda: time.sleep(ABSENT_SECONDS))["appended"]
        keeping = phase(cluster, before, lambda: keep(cluster, has + missed))
        sending = phase(cluster, before, lambda: send(cluster, laggard))
        cluster.agree()
        check_machines(cluster)
        elections = cluster.status()[cluster.leader]["term"] - term
        return Course(alone, keeping, sending, elections)


def phase(cluster: Cluster, before: Mapping[str, float], act: Callable[[], object]) -> Phase:
    """What happens to memory and appends while `act` acts."""
    began = time.monotonic()
    with watching(cluster, before) as memory:
        waits = under_load(cluster.nodes[cluster.leader], act)
    return Phase(time.monotonic() - began, memory, waits)


def under_load(leader: Child, act: Callable[[], object]) -> dict[str, Any]:
    """Append through the leader while `act` acts; how long that took."""
    leader.ask({"command": "begin steady", **LOAD})
    act()
    return leader.ask({"command": "end steady"}, SECONDS_MAX)


def keep(cluster: Cluster, end: int) -> None:
    """Every node that runs keeps the state of its machine and drops the log up to this offset."""
    # A snapshot stands for what the machine has taken: a follower's may be behind the leader's.
    wait_until(cluster, cluster.nodes, lambda seen: seen["count"] >= end)
    for child in cluster.nodes.values():
        child.tell({"command": "snapshot"})
    for child in cluster.nodes.values():
        size = child.answer(SECONDS_MAX)["bytes"]
        if size < STATE_BYTES:
            raise ClusterBroken(f"a state of {size} bytes was kept")
    wait_until(cluster, cluster.nodes, lambda seen: seen["first_offset"] >= end)


def send(cluster: Cluster, laggard: str) -> None:
    """Start the node that lacks the log, and wait until its machine has the state."""
    cluster.start(laggard)
    wait_until(cluster, [laggard], lambda seen: seen["restored"])


def wait_until(
    cluster: Cluster, nodes: Iterable[str], holds: Callable[[dict[str, Any]], bool]
) -> None:
    """Wait until this holds of the machines of these nodes. Raises `ClusterBroken`."""
    deadline = time.monotonic() + SECONDS_MAX
    for node in nodes:
        while not holds(seen := cluster.nodes[node].ask({"command": "machine"}, SECONDS_MAX)):
            if seen["failure"] or time.monotonic() > deadline:
                raise ClusterBroken(f"{node} does not get there: {seen}")
            time.sleep(POLL_SECONDS)


def check_machines(cluster: Cluster) -> None:
    """Every machine has taken every record."""
    end = cluster.agree()
    wait_until(cluster, cluster.nodes, lambda seen: seen["count"] == end)


def figures_of(name: str, courses: Sequence[Course]) -> list[Figure]:
    """Bars are for the memory and the elections."""
    parts = {"kept": [one.keeping for one in courses], "sent": [one.sending for one in courses]}
    figure = partial(Figure, question=QUESTION, agreement=name)
    figures = []
    for what, phases in parts.items():
        growths = [max(node.grown for node in one.memory.values()) for one in phases]
        memory = [{node: grown._asdict() for node, grown in one.memory.items()} for one in phases]
        figures += [
            figure(
                name=f"{what}: any node's memory grows by",
                unit="MiB",
                values=tuple(growths),
                at_most=GROWTH_MIB_MAX,
                details={"mib": memory},
            ),
            figure(name=f"{what}: takes", unit="s", values=tuple([one.seconds for one in phases])),
        ]
    loads = {
        "alone": [one.alone for one in courses],
        **{what: [one.waits for one in phases] for what, phases in parts.items()},
    }
    for what, waits in loads.items():
        for key, unit in APPENDS.items():
            label = f"{what}: appends, {key.replace('_', ' ')}"
            values = tuple([found[key] for found in waits])
            figures.append(figure(name=label, unit=unit, values=values))
    elections = tuple([float(one.elections) for one in courses])
    figures.append(figure(name="elections", unit="", values=elections, at_most=0.0))
    return figures
