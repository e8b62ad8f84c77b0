"""Shrinking: a failing run is made simpler while it fails in the same way.

What is tried is always the same: a shorter run, fewer strikes, calmer weather, fewer nodes. The
seed stays. A simpler plan makes another run of it, which counts only if the same judge notices
it.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from replog.testing.plan import CALM, Plan, Weather
from replog.testing.simulation import Simulation, SimulationFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from replog.agreement import Agreement

RUNS_MAX = 400
"""Simulations at most; each takes about a tenth of a second."""


class Shrunk(NamedTuple):
    """The simplest failing run that was found."""

    plan: Plan
    failure: SimulationFailure
    runs: int
    """How many were tried."""


def shrink(failure: SimulationFailure, agreement: Agreement, plan: Plan) -> Shrunk:
    """Simplify the plan of this failure as far as it keeps failing in the same way."""
    runs = 0
    simpler = True
    while simpler:
        simpler = False
        for candidate in _simpler(plan):
            if runs == RUNS_MAX:
                return Shrunk(plan, failure, runs)
            runs += 1
            found = _failure(failure.seed, agreement, candidate)
            if found is not None and found.kind == failure.kind:
                plan, failure, simpler = candidate, found, True
                break
    return Shrunk(plan, failure, runs)


def trace(seed: int, agreement: Agreement, plan: Plan, write: Callable[[str], object]) -> None:
    """Write the events of a failing run, one a line; see `replog.testing.trace`."""
    try:
        Simulation(seed, agreement, plan, write).run()
    except SimulationFailure:
        return


def describe(plan: Plan) -> str:
    """What of a plan differs from one in which nothing happens."""
    return ", ".join([*_differences(plan, Plan()), *_differences(plan.weather, CALM)]) or "calm"


def _differences(some: Any, plain: Any) -> list[str]:
    return [
        f"{field.name}={getattr(some, field.name)}"
        for field in fields(some)
        if field.name != "weather" and getattr(some, field.name) != getattr(plain, field.name)
    ]


def _failure(seed: int, agreement: Agreement, plan: Plan) -> SimulationFailure | None:
    try:
        Simulation(seed, agreement, plan).run()
    except SimulationFailure as failure:
        return failure
    return None


def _simpler(plan: Plan) -> Iterator[Plan]:
    """Plans with one thing less, the largest steps first."""
    if plan.trouble_ms > 100:
        yield replace(plan, trouble_ms=plan.trouble_ms >> 1)
    for strike in plan.strikes:
        yield replace(plan, strikes=tuple([other for other in plan.strikes if other != strike]))
    for field in fields(Weather):
        calm: dict[str, Any] = {field.name: getattr(CALM, field.name)}
        weather = replace(plan.weather, **calm)
        if weather != plan.weather:
            yield replace(plan, weather=weather)
    if plan.nodes > 1:
        yield replace(plan, nodes=plan.nodes - 1)
    if plan.readers_ms_mean:
        yield replace(plan, readers_ms_mean=0)
    if plan.retention is not None:
        yield replace(plan, retention=None, snapshot_ms_mean=0)
    if plan.restart_all:
        yield replace(plan, restart_all=False)
    if plan.drift_max:
        yield replace(plan, drift_max=0.0)
    if plan.trouble_ms > 100:
        yield replace(plan, trouble_ms=plan.trouble_ms * 9 // 10)
