"""Hundreds of simulated clusters under faults break no rule; and the faults did strike."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache
from random import Random

import pytest

from paxoslog import MultiPaxos
from raftlog import Raft
from replog.agreement import Agreement
from replog.agreements import load_agreement
from replog.testing.campaign import Result, run_seeds
from replog.testing.plan import PROFILE_STRIKES, RARE_STRIKES, STRIKES, draw_plan
from replog.testing.simulation import Simulation, simulate

AGREEMENTS = ("raft", "paxos")
TIGHT = (
    Raft(inflight_entries_max=1, inflight_bytes_max=1),
    Raft(inflight_entries_max=3, inflight_bytes_max=200),
    Raft(election_timeout_ms_min=60, election_timeout_ms_max=90, heartbeat_ms=20),
    MultiPaxos(inflight_entries_max=1, inflight_bytes_max=1),
    MultiPaxos(inflight_entries_max=3, inflight_bytes_max=200),
    MultiPaxos(election_timeout_ms_min=60, election_timeout_ms_max=90, heartbeat_ms=20),
)
SEEDS = 300
"""Of each agreement."""
CHUNK = 50
CHUNKS = [(agreement, first) for agreement in AGREEMENTS for first in range(0, SEEDS, CHUNK)]
BEYOND = SEEDS
"""Seeds from here on are not among those above."""

REGRESSION_SEEDS: dict[str, dict[int, str]] = {
    "raft": {
        1534: "the reply to a past term's heartbeat confirmed a round of reads of this term",
        441: "the answer to a read of an earlier life let a barrier of this life pass",
        131442: "an old NotLeader sent appends to a node that does not lead, for ever",
        207837: "an old NotLeader sent appends to a node that does not lead, for ever",
    },
    "paxos": {},
}
"""Seeds that show a fault which is no more, and what it was."""

HAPPENED_AT_LEAST_PER_100_SEEDS = {
    "leader changes": 60,
    "restarts": 200,
    "unsynced batches lost": 20,
    "commits of several batches": 60,
    "commits that nobody was told of": 10,
    "doomed leader": 10,
    "doomed voter": 10,
    "disk stalls": 10,
    "loads": 200,
    "drops": 1000,
    "duplicates": 1000,
    "reordered": 200,
    "long delays": 20,
    "frames held back": 100,
    "refusals": 100,
    "acknowledged": 10_000,
    "barriers passed": 400,
    "left behind": 20,
    "compactions": 100,
    "snapshots taken": 60,
    "snapshots offered": 15,
    "transfers begun": 5,
    "snapshots installed": 5,
    "givers ended": 1,
    "takers ended": 1,
    "doomed giver": 1,
    "doomed taker": 1,
    "doomed installer": 1,
    "damaged parts": 1,
    "words of readers": 400,
} | dict.fromkeys(STRIKES, 20)
HAPPENED_AT_LEAST_PER_100_SEEDS |= dict.fromkeys((*RARE_STRIKES, *PROFILE_STRIKES), 1)


@cache
def simulated(agreement: str, first: int) -> Result:
    return run_seeds(agreement, range(first, first + CHUNK))


@pytest.mark.parametrize(("agreement", "first"), CHUNKS)
def test_no_seed_breaks_a_rule(agreement: str, first: int) -> None:
    result = simulated(agreement, first)
    assert not result.failures, "\n".join(result.failures)
    assert result.seeds == CHUNK


@pytest.mark.parametrize("agreement", TIGHT, ids=repr)
def test_no_seed_breaks_a_rule_under_tight_settings(agreement: Agreement) -> None:
    for seed in range(BEYOND, BEYOND + 20):
        assert simulate(seed, agreement).tally["records"] > 0


@pytest.mark.parametrize(("accept_quorum", "prepare_quorum"), [(2, 4), (4, 2)])
def test_no_seed_breaks_a_rule_under_flexible_quorums(
    accept_quorum: int, prepare_quorum: int
) -> None:
    agreement = MultiPaxos(accept_quorum=accept_quorum)
    for seed in range(BEYOND, BEYOND + 15):
        five = Simulation(seed, agreement, replace(draw_plan(Random(seed)), nodes=5))
        quorums = five.world.membership.quorums
        assert (quorums.elect, quorums.commit) == (prepare_quorum, accept_quorum)
        assert five.run().tally["records"] > 0


@pytest.mark.parametrize("agreement", AGREEMENTS)
def test_every_kind_of_fault_has_struck(agreement: str) -> None:
    tally: Counter[str] = Counter()
    for first in range(0, SEEDS, CHUNK):
        tally.update(simulated(agreement, first).tally)
    too_rare = {
        name: tally[name]
        for name, least in HAPPENED_AT_LEAST_PER_100_SEEDS.items()
        if tally[name] * 100 < least * SEEDS
    }
    assert not too_rare


@pytest.mark.parametrize(
    ("agreement", "seed"),
    [(agreement, seed) for agreement, seeds in REGRESSION_SEEDS.items() for seed in seeds],
)
def test_a_seed_that_once_failed_breaks_no_rule(agreement: str, seed: int) -> None:
    assert simulate(seed, load_agreement(agreement)).tally["records"] > 0
