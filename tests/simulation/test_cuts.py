"""A node may die between any two of its effects: here it does, once between each."""

from __future__ import annotations

import pytest

from replog.agreements import load_agreement
from replog.testing import Plan, Simulation, Weather

AGREEMENTS = ("raft", "paxos")
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


def simulation(agreement: str) -> Simulation:
    return Simulation(SEED, load_agreement(agreement), PLAN)


def uncut(agreement: str) -> Simulation:
    """At the end of the safety phase."""
    whole = simulation(agreement)
    whole.trouble()
    assert whole.world.tally["leader changes"] == 0
    assert whole.world.tally["acknowledged"] > 100
    return whole


def cuts(agreement: str) -> list[tuple[str, str, int, int]]:
    """All effects of the leader, and of one that follows it: agreement, node, first and last."""
    hosts = uncut(agreement).hosts
    leader = next(node for node, host in hosts.items() if host.replica and host.replica.leads)
    return [
        (agreement, node, first, min(first + CHUNK - 1, hosts[node].effects))
        for node in (leader, min(set(hosts) - {leader}))
        for first in range(1, hosts[node].effects + 1, CHUNK)
    ]


CUTS = [cut for agreement in AGREEMENTS for cut in cuts(agreement)]


@pytest.mark.parametrize("agreement", AGREEMENTS)
def test_the_scenario_has_many_effects(agreement: str) -> None:
    effects = {node: last for of, node, _, last in CUTS if of == agreement}
    assert len(effects) == 2
    assert min(effects.values()) > EFFECTS_AT_LEAST


@pytest.mark.parametrize(("agreement", "node", "first", "last"), CUTS)
def test_a_node_may_die_before_each_of_its_effects(
    agreement: str, node: str, first: int, last: int
) -> None:
    for cut_at in range(first, last + 1):
        cut = simulation(agreement)
        cut.hosts[node].cut_at = cut_at
        outcome = cut.run()
        assert outcome.tally["crashes"] == 1, f"cut before effect {cut_at}"
        assert cut.hosts[node].life == 2
