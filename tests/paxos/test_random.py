"""Random runs: after every step the facts of Paxos hold, and a healed cluster makes progress."""

from __future__ import annotations

import pytest

from paxoslog import MultiPaxos
from tests.agreement.chaos import Chaos, run_seed
from tests.agreement.harness import Cluster
from tests.paxos.watcher import Watcher

STEPS = 1000
SIZES = [(1, None), (2, None), (3, None), (3, None), (4, None), (5, None), (5, 2), (4, 2), (3, 1)]
"""How many members, and how many of them choose a value."""


def make_cluster(seed: int) -> Cluster:
    size, accept_quorum = SIZES[seed % len(SIZES)]
    agreement = MultiPaxos(
        inflight_entries_max=(4, 64)[seed % 2],
        inflight_bytes_max=16,
        accept_quorum=accept_quorum,
    )
    names = [f"n{number}" for number in range(1, size + 1)]
    return Cluster(agreement, names, seed=seed, watch=Watcher())


def test_random_runs_are_safe_and_live(pytestconfig: pytest.Config) -> None:
    count = pytestconfig.getoption("--random-runs", default=100)
    runs = [run_seed(make_cluster, seed, STEPS) for seed in range(count)]
    assert all(run.cluster.committed for run in runs)
    # The runs are not idle ones: they change leaders, crash, commit and read.
    assert sum(len(run.cluster.leaders) for run in runs) > 1.5 * count
    assert sum(run.crashes for run in runs) > count
    assert sum(len(run.cluster.committed) for run in runs) > 20 * count
    assert sum(len(run.cluster.confirmed) for run in runs) > 5 * count
    assert sum(len(run.cluster.failed) for run in runs) > 10


def test_random_runs_that_compact_are_safe_and_live(pytestconfig: pytest.Config) -> None:
    count = pytestconfig.getoption("--random-runs", default=100)
    runs = [run_seed(make_cluster, seed, STEPS, compacting=True) for seed in range(count)]
    clusters = [run.cluster for run in runs]
    # Snapshots are taken, and lost, and late; many are needed by members that have crashed or not.
    assert sum(cluster.offers for cluster in clusters) > count / 2
    assert sum(cluster.installs for cluster in clusters) > count / 4
    bases = [member.disk.base.index for cluster in clusters for member in cluster.members.values()]
    assert sum(base > 0 for base in bases) > len(bases) / 2


def trace(seed: int) -> list[str]:
    lines: list[str] = []
    cluster = make_cluster(seed)
    cluster.write_line = lines.append
    Chaos(cluster, seed).run(STEPS)
    return lines


def test_the_same_seed_gives_the_same_run() -> None:
    first = trace(3)
    assert len(first) > STEPS / 2
    assert trace(3) == first
    assert trace(12) != first
