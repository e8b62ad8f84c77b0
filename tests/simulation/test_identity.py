"""A node that comes back without its data is refused and stops; the others go on."""

from __future__ import annotations

import pytest

from replog.agreements import load_agreement
from replog.entry import NO_EPOCH
from replog.errors import IdentityRefused
from replog.testing import Plan, Simulation

AGREEMENTS = ("raft", "paxos")
PLAN = Plan(trouble_ms=1000)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("agreement", AGREEMENTS)
def test_a_wiped_disk_is_refused_before_it_can_vote(agreement: str, seed: int) -> None:
    simulation = Simulation(seed, load_agreement(agreement), PLAN)
    simulation.trouble()
    wiped = simulation.hosts["n2"]
    assert wiped.disk.introduced
    assert wiped.disk.outline.promise != NO_EPOCH
    simulation.world.expected_to_stop = frozenset({"n2"})
    wiped.crash("its disk is wiped")
    wiped.disk.wipe(b"another store id")
    wiped.start()
    assert wiped.replica is not None
    simulation.settle()
    assert isinstance(wiped.stopped_by, IdentityRefused)
    assert wiped.replica is None
    assert wiped.disk.outline.promise == NO_EPOCH
    assert not wiped.disk.log
    assert not wiped.disk.introduced
    assert simulation.hosts["n1"].replica is not None
    assert simulation.hosts["n3"].replica is not None


@pytest.mark.parametrize("agreement", AGREEMENTS)
def test_a_refusal_that_nobody_expects_is_a_failure(agreement: str) -> None:
    simulation = Simulation(0, load_agreement(agreement), PLAN)
    simulation.trouble()
    wiped = simulation.hosts["n2"]
    wiped.crash("its disk is wiped")
    wiped.disk.wipe(b"another store id")
    wiped.start()
    with pytest.raises(IdentityRefused):
        simulation.settle()
