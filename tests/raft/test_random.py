"""Random runs: after every step the facts of figure 3 hold, and a healed cluster makes progress."""

from __future__ import annotations

import pytest

from raftlog import Raft
from tests.agreement.chaos import Chaos, run_seed
from tests.agreement.harness import Cluster
from tests.raft.watcher import Watcher

STEPS = 1000


def make_cluster(seed: int) -> Cluster:
    size = (1, 2, 3, 3, 3, 4, 5)[seed % 7]
    agreement = Raft(inflight_entries_max=(4, 64)[seed % 2], inflight_bytes_max=16)
    names = [f"n{number}" for number in range(1, size + 1)]
    return Cluster(agreement, names, seed=seed, watch=Watcher())


def seeds_from(first_seed: int, config: pytest.Config) -> list[int]:
    blocks = config.getoption("--random-blocks", default=1)
    return [100 * block + first_seed + seed for block in range(blocks) for seed in range(20)]


@pytest.mark.parametrize("first_seed", range(0, 100, 20))
def test_random_runs_are_safe_and_live(first_seed: int, pytestconfig: pytest.Config) -> None:
    seeds = seeds_from(first_seed, pytestconfig)
    runs = [run_seed(make_cluster, seed, STEPS) for seed in seeds]
    assert all(run.cluster.committed for run in runs)
    # The runs are not idle ones: they change leaders, crash, commit and read.
    count = len(runs)
    assert sum(len(run.cluster.leaders) for run in runs) > 5 * count
    assert sum(run.crashes for run in runs) > 3 * count
    assert sum(len(run.cluster.committed) for run in runs) > 10 * count
    assert sum(len(run.cluster.confirmed) for run in runs) > 3 * count
    assert sum(len(run.cluster.failed) for run in runs) > count


@pytest.mark.parametrize("first_seed", range(0, 100, 20))
def test_runs_that_compact_are_safe_and_live(first_seed: int, pytestconfig: pytest.Config) -> None:
    seeds = seeds_from(first_seed, pytestconfig)
    clusters = [run_seed(make_cluster, seed, STEPS, compacting=True).cluster for seed in seeds]
    members = [member for cluster in clusters for member in cluster.members.values()]
    # Most logs are compacted, and some snapshots are needed.
    assert sum(member.disk.base.index > 0 for member in members) > len(members) / 2
    assert sum(cluster.installs for cluster in clusters) > len(seeds) / 10


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
    assert trace(10) != first
