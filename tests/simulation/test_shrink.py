"""A failing run is made simpler, and told event by event."""

from __future__ import annotations

import re
import sys
from dataclasses import fields, replace
from typing import NamedTuple

import pytest

from replog.agreements import load_agreement
from replog.config import Limits
from replog.producers import ProducerRow, Producers
from replog.replica.replica import Replica
from replog.testing import Simulation, SimulationFailure
from replog.testing import __main__ as command
from replog.testing.plan import CALM, Plan, Weather
from replog.testing.shrink import Shrunk, Size, describe, shrink

RAFT = load_agreement("raft")
LINE = re.compile(r" *\d+  (n\d|\*) +[a-z]+ .*")
SIZE = r"\d+ events, \d+ requests, \d+ strikes"
SETTLING_RECORDS_PER_NODE = 2

Patch = pytest.MonkeyPatch
Capture = pytest.CaptureFixture[str]


def accept_everything(self: Producers, run) -> bool:
    self.rows[run.node] = ProducerRow(run.life, run.first_sequence + run.count)
    return True


def fail_with_two_limits(self: Replica, *_) -> None:
    if self._limits.forward_runs_max == 1 and self._limits.window_bytes_max == 1:
        raise RuntimeError("both")


def troubles(plan: Plan) -> int:
    stormy = [
        field.name
        for field in fields(Weather)
        if getattr(plan.weather, field.name) != getattr(CALM, field.name)
    ]
    return len(stormy) + len(plan.strikes) + plan.restart_all


def failing(simulation: Simulation) -> SimulationFailure:
    with pytest.raises(SimulationFailure) as found:
        simulation.run()
    return found.value


def first_failure() -> tuple[Simulation, SimulationFailure]:
    for seed in range(100):
        simulation = Simulation(seed, RAFT)
        try:
            simulation.run()
        except SimulationFailure as failure:
            plan = simulation.world.plan
            if troubles(plan) > 3 and plan.limits != Limits() and plan.retention is None:
                return simulation, failure
    raise AssertionError("no seed fails with much going on")


class Search(NamedTuple):
    simulation: Simulation
    failure: SimulationFailure
    shrunk: Shrunk
    told: list[tuple[int, Size]]
    again: Simulation
    """The shrunk plan, carried out once more."""
    repeated: SimulationFailure


@pytest.fixture(scope="module")
def search() -> Search:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Producers, "accept", accept_everything)
        simulation, failure = first_failure()
        told: list[tuple[int, Size]] = []
        shrunk = shrink(simulation, failure, lambda *progress: told.append(progress))
        again = simulation.again(shrunk.plan)
        return Search(simulation, failure, shrunk, told, again, failing(again))


def test_a_shrunk_run_fails_alike_with_less(search: Search) -> None:
    plan, shrunk = search.simulation.world.plan, search.shrunk
    assert shrunk.failure.kind == search.failure.kind
    assert shrunk.runs > 0
    assert troubles(shrunk.plan) < troubles(plan)
    assert shrunk.plan.trouble_ms <= plan.trouble_ms
    assert shrunk.plan.limits == Limits()
    assert shrunk.before.events == search.simulation.world.trace.events
    assert shrunk.after.events <= shrunk.before.events
    assert shrunk.after.requests < shrunk.before.requests


def test_the_shrunk_plan_makes_the_shrunk_run(search: Search) -> None:
    shrunk, again = search.shrunk, search.again
    assert search.repeated.kind == search.failure.kind
    assert search.repeated.reason == shrunk.failure.reason
    requests, strikes = again.clients.put, again.strikes.struck
    assert Size(again.world.trace.events, len(requests), len(strikes)) == shrunk.after
    assert tuple(requests) == shrunk.plan.requests_kept
    assert tuple(strikes) == shrunk.plan.strikes_kept


def test_a_shrinking_tells_how_far_it_is(search: Search) -> None:
    assert [runs for runs, _ in search.told] == list(range(search.shrunk.runs))
    events = [reached.events for _, reached in search.told]
    assert events == sorted(events, reverse=True)
    assert events[0] == search.shrunk.before.events
    assert events[-1] >= search.shrunk.after.events


def test_a_limit_that_the_failure_needs_is_kept(monkeypatch: Patch) -> None:
    monkeypatch.setattr(Replica, "submit_records", fail_with_two_limits)
    small = replace(
        Limits(), forward_runs_max=1, window_bytes_max=1, entry_bytes_max=100, retry_ms=300
    )
    simulation = Simulation(1, RAFT, Plan(limits=small, trouble_ms=1000))
    shrunk = shrink(simulation, failing(simulation))
    assert shrunk.plan.limits == replace(Limits(), forward_runs_max=1, window_bytes_max=1)
    assert "limits.forward_runs_max=1, limits.window_bytes_max=1" in describe(shrunk.plan)
    assert shrunk.after.requests <= 1


@pytest.mark.parametrize("seed", [1, 3, 6])
def test_leaving_out_what_does_not_happen_changes_nothing(seed: int) -> None:
    simulation = Simulation(seed, RAFT)
    outcome = simulation.run()
    requests, strikes = tuple(simulation.clients.put), tuple(simulation.strikes.struck)
    assert len(requests) < requests[-1]
    plan = replace(simulation.world.plan, requests_kept=requests, strikes_kept=strikes)
    assert simulation.again(plan).run().digest == outcome.digest


def test_the_same_plan_makes_the_same_run() -> None:
    simulation = Simulation(3, RAFT)
    again = simulation.again(simulation.world.plan)
    assert simulation.run().digest == again.run().digest


def test_what_is_left_out_does_not_happen() -> None:
    everything = Simulation(1, RAFT, Plan(strikes=("crash",), start_ms_max=0))
    plan = everything.world.plan
    everything.run()
    assert everything.clients.put[:4] == [1, 2, 3, 4]
    assert everything.strikes.struck[:2] == [1, 2]
    some = everything.again(replace(plan, requests_kept=(2, 4), strikes_kept=(2,)))
    assert some.run().tally["crash"] == 1
    assert some.clients.put == [2, 4]
    assert some.strikes.struck == [2]
    nothing = everything.again(replace(plan, requests_kept=(), strikes_kept=())).run()
    assert nothing.tally["submitted"] == plan.nodes * SETTLING_RECORDS_PER_NODE
    assert nothing.tally["crash"] == 0


def test_the_command_prints_the_shrunk_run(monkeypatch: Patch, capsys: Capture) -> None:
    monkeypatch.setattr(Producers, "accept", accept_everything)
    monkeypatch.setattr(command, "PROGRESS_SECONDS", 0.0)
    _, failure = first_failure()
    monkeypatch.setattr(sys, "argv", ["replog.testing", "--seed", str(failure.seed), "--shrink"])
    assert command.main() == 1
    printed = capsys.readouterr()
    reason, repeat, _, *events, plan, sizes, last = printed.out.splitlines()
    assert reason.startswith(f"seed {failure.seed} at ")
    assert repeat.endswith(f"--agreement raft --seed {failure.seed} --shrink")
    assert len(events) > 3
    assert all(map(LINE.fullmatch, events))
    assert plan.startswith("after ")
    assert re.fullmatch(f"before: {SIZE}; after: {len(events)} {SIZE[4:]}", sizes)
    assert last.startswith(failure.kind)
    told = printed.err.splitlines()
    assert len(told) > 3
    assert all(re.fullmatch(rf"after \d+ runs: {SIZE}", line) for line in told)


def test_a_seed_that_holds_has_nothing_to_shrink(monkeypatch: Patch, capsys: Capture) -> None:
    monkeypatch.setattr(sys, "argv", ["replog.testing", "--seed", "5", "--shrink"])
    assert command.main() == 0
    assert capsys.readouterr().out == "seed 5: no failure\n"
