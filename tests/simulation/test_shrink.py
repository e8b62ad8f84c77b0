"""A failing run is made simpler, and told event by event."""

from __future__ import annotations

import re
import sys
from dataclasses import fields

import pytest

from replog.agreements import load_agreement
from replog.producers import ProducerRow, Producers
from replog.testing import Simulation, SimulationFailure
from replog.testing import __main__ as command
from replog.testing.plan import CALM, Plan, Weather
from replog.testing.shrink import shrink

RAFT = load_agreement("raft")
LINE = re.compile(r" *\d+  (n\d|\*) +[a-z]+ .*")


def accept_everything(self: Producers, run) -> bool:
    self.rows[run.node] = ProducerRow(run.life, run.first_sequence + run.count)
    return True


def troubles(plan: Plan) -> int:
    stormy = [
        field.name
        for field in fields(Weather)
        if getattr(plan.weather, field.name) != getattr(CALM, field.name)
    ]
    return len(stormy) + len(plan.strikes) + plan.restart_all


def first_failure() -> tuple[Simulation, SimulationFailure]:
    for seed in range(100):
        simulation = Simulation(seed, RAFT)
        try:
            simulation.run()
        except SimulationFailure as failure:
            if troubles(simulation.world.plan) > 3:
                return simulation, failure
    raise AssertionError("no seed fails with much going on")


def test_a_shrunk_run_fails_alike_with_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Producers, "accept", accept_everything)
    simulation, failure = first_failure()
    plan = simulation.world.plan
    shrunk = shrink(failure, RAFT, plan)
    assert shrunk.failure.kind == failure.kind
    assert shrunk.runs > 0
    assert troubles(shrunk.plan) < troubles(plan)
    assert shrunk.plan.trouble_ms <= plan.trouble_ms
    with pytest.raises(SimulationFailure) as again:
        Simulation(failure.seed, RAFT, shrunk.plan).run()
    assert again.value.kind == failure.kind
    assert again.value.reason == shrunk.failure.reason


def test_the_command_prints_the_shrunk_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Producers, "accept", accept_everything)
    _, failure = first_failure()
    monkeypatch.setattr(sys, "argv", ["replog.testing", "--seed", str(failure.seed), "--shrink"])
    assert command.main() == 1
    reason, repeat, _, *events, plan, last = capsys.readouterr().out.splitlines()
    assert reason.startswith(f"seed {failure.seed} at ")
    assert repeat.endswith(f"--agreement raft --seed {failure.seed} --shrink")
    assert len(events) > 3
    assert all(map(LINE.fullmatch, events))
    assert plan.startswith("after ")
    assert last.startswith(failure.kind)


def test_a_seed_that_holds_has_nothing_to_shrink(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["replog.testing", "--seed", "5", "--shrink"])
    assert command.main() == 0
    assert capsys.readouterr().out == "seed 5: no failure\n"
