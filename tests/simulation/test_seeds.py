"""Hundreds of simulated clusters under faults break no rule; and the faults did strike."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest

from raftlog import Raft
from replog.testing.campaign import Result, find_agreement, run_seeds
from replog.testing.plan import STRIKES
from replog.testing.simulation import simulate

AGREEMENTS = ("raft",)
TIGHT = (
    Raft(inflight_entries_max=1, inflight_bytes_max=1),
    Raft(inflight_entries_max=3, inflight_bytes_max=200),
    Raft(election_timeout_ms_min=60, election_timeout_ms_max=90, heartbeat_ms=20),
)
SEEDS = 500
CHUNK = 50
CHUNKS = range(0, SEEDS, CHUNK)

REGRESSION_SEEDS: dict[str, dict[int, str]] = {
    "raft": {
        1534: "the reply to a past term's heartbeat confirmed a round of reads of this term",
        2890: "the answer to a read of an earlier life let a barrier of this life pass",
    },
}
"""Seeds on which a fault was found that is no more, and what it was."""

HAPPENED_AT_LEAST = {
    "leader changes": 300,
    "restarts": 1000,
    "unsynced batches lost": 100,
    "commits of several batches": 300,
    "commits that nobody was told of": 50,
    "doomed leader": 50,
    "disk stalls": 50,
    "loads": 1000,
    "drops": 5000,
    "duplicates": 5000,
    "reordered": 1000,
    "long delays": 100,
    "frames held back": 500,
    "refusals": 500,
    "acknowledged": 50_000,
    "barriers passed": 2000,
} | dict.fromkeys(STRIKES, 100)


@cache
def simulated(agreement: str, first: int) -> Result:
    return run_seeds(agreement, range(first, first + CHUNK))


@pytest.mark.parametrize("first", CHUNKS)
@pytest.mark.parametrize("agreement", AGREEMENTS)
def test_no_seed_breaks_a_rule(agreement: str, first: int) -> None:
    result = simulated(agreement, first)
    assert not result.failures, "\n".join(result.failures)
    assert result.seeds == CHUNK


@pytest.mark.parametrize("agreement", TIGHT, ids=repr)
def test_no_seed_breaks_a_rule_under_tight_settings(agreement: Raft) -> None:
    for seed in range(SEEDS, SEEDS + 20):
        assert simulate(seed, agreement).tally["records"] > 0


@pytest.mark.parametrize("agreement", AGREEMENTS)
def test_every_kind_of_fault_has_struck(agreement: str) -> None:
    tally: Counter[str] = Counter()
    for first in CHUNKS:
        tally.update(simulated(agreement, first).tally)
    too_rare = {
        name: tally[name] for name, least in HAPPENED_AT_LEAST.items() if tally[name] < least
    }
    assert not too_rare


@pytest.mark.parametrize(
    ("agreement", "seed"),
    [(agreement, seed) for agreement, seeds in REGRESSION_SEEDS.items() for seed in seeds],
)
def test_a_seed_that_once_failed_breaks_no_rule(agreement: str, seed: int) -> None:
    assert simulate(seed, find_agreement(agreement)).tally["records"] > 0
