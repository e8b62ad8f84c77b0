"""A node may die between any two of its effects: here it does, once between each."""

from __future__ import annotations

import pytest

from raftlog import Raft
from replog.testing import Plan, Simulation, Weather
from replog.testing.host import Host

PLAN = Plan(
    nodes=3,
    weather=Weather(delay_ms_max=3, commit_ms_max=3),
    start_ms_max=0,
    trouble_ms=500,
    request_ms_mean=10,
    strike_length_ms_max=100,
)
SEED = 1
CHUNK = 40
EFFECTS_AT_LEAST = 100
"""Of each node in the scenario: sends, batches handed to the writer, commits, reports, answers."""


def simulation(plan: Plan = PLAN) -> Simulation:
    return Simulation(SEED, Raft(), plan)


def effects() -> dict[str, int]:
    """How many effects each node has until the end of the safety phase."""
    uncut = simulation()
    uncut.trouble()
    assert uncut.world.tally["leader changes"] == 0
    assert uncut.world.tally["acknowledged"] > 100
    return {node: host.effects for node, host in uncut.hosts.items()}


def leader() -> Host:
    uncut = simulation()
    uncut.trouble()
    return next(host for host in uncut.hosts.values() if host.replica and host.replica.leads)


EFFECTS = effects()
LEADER = leader().node
FOLLOWER = min(set(EFFECTS) - {LEADER})
CUTS = [
    (node, first) for node in (LEADER, FOLLOWER) for first in range(1, EFFECTS[node] + 1, CHUNK)
]


def test_the_scenario_has_many_effects() -> None:
    assert min(EFFECTS[LEADER], EFFECTS[FOLLOWER]) > EFFECTS_AT_LEAST


@pytest.mark.parametrize(("node", "first"), CUTS)
def test_a_node_may_die_before_each_of_its_effects(node: str, first: int) -> None:
    for cut_at in range(first, min(first + CHUNK, EFFECTS[node] + 1)):
        cut = simulation()
        cut.hosts[node].cut_at = cut_at
        outcome = cut.run()
        assert outcome.tally["crashes"] == 1, f"cut before effect {cut_at}"
        assert cut.hosts[node].life == 2
