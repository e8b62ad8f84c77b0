"""Shrinking: a failing run is made simpler while it fails in the same way.

What is tried is always the same: a shorter run, plain limits, calm weather, fewer strikes, fewer
requests, fewer nodes. The seed stays. A simpler plan makes another run of it.

Rules of this file:

1. A simpler run counts only if the same judge notices it, and if it has no more events.
2. Requests and strikes that did not happen are left out, and the time after a failure is cut off:
   that run is the same, event by event.
"""

from __future__ import annotations

from dataclasses import fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from replog.config import Limits
from replog.testing.plan import Plan, Weather
from replog.testing.simulation import SimulationFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from replog.testing.simulation import Simulation

    Step = Callable[[Plan], Plan]
    """Makes a plan simpler in one respect, or leaves it as it is."""

RUNS_MAX = 1000
"""Simulations at most; each takes about a tenth of a second, and less the shorter it gets."""
PLAIN = Plan()
NO_SIMPLER_AS_DEFAULT = {"nodes", "trouble_ms", "requests_kept", "strikes_kept"}
"""Fields of a plan."""


class LongerRun(Exception):
    """A run has more events than one that fails."""


class Size(NamedTuple):
    """How much happens in a run."""

    events: int
    """Lines of its trace."""
    requests: int
    """That its clients put at random moments."""
    strikes: int

    def __str__(self) -> str:
        return f"{self.events} events, {self.requests} requests, {self.strikes} strikes"


class Failing(NamedTuple):
    """A failing run."""

    plan: Plan
    failure: SimulationFailure
    size: Size


class Shrunk(NamedTuple):
    """The simplest failing run that was found."""

    plan: Plan
    failure: SimulationFailure
    before: Size
    """Of the run to be shrunk."""
    after: Size
    runs: int
    """How many were tried."""


def shrink(
    simulation: Simulation,
    failure: SimulationFailure,
    tell: Callable[[int, Size], object] = lambda *_: None,
) -> Shrunk:
    """Simplify the plan of this simulation, which has failed like this, as far as it fails in the
    same way. `tell` hears before each run how many were tried, and the size reached."""
    given = best = _failing(simulation, failure)
    tried: set[Plan] = set()
    simpler = True
    while simpler and len(tried) < RUNS_MAX:
        simpler = False
        for step in _steps(best.plan):
            candidate = step(best.plan)
            if candidate == best.plan or candidate in tried:
                continue
            if len(tried) == RUNS_MAX:
                break
            tell(len(tried), best.size)
            tried.add(candidate)
            found = _run(simulation.again(candidate, _ending_after(best.size.events)))
            if found is not None and found.failure.kind == failure.kind:
                best, simpler = found, True
    return Shrunk(best.plan, best.failure, given.size, best.size, len(tried))


def describe(plan: Plan) -> str:
    """What of a plan differs from one in which nothing happens."""
    differences = [
        *_differences(plan, PLAIN, ""),
        *_differences(plan.limits, PLAIN.limits, "limits."),
        *_differences(plan.weather, PLAIN.weather, "weather."),
    ]
    return ", ".join(differences) or "calm"


def _differences(some: Any, plain: Any, prefix: str) -> list[str]:
    return [
        f"{prefix}{field.name}={getattr(some, field.name)}"
        for field in fields(some)
        if field.name not in {"limits", "weather"}
        and getattr(some, field.name) != getattr(plain, field.name)
    ]


def _run(simulation: Simulation) -> Failing | None:
    """Carry it out; None if it does not fail."""
    try:
        simulation.run()
    except SimulationFailure as failure:
        return _failing(simulation, failure)
    return None


def _ending_after(events_max: int) -> Callable[[str], None]:
    """Takes the lines of a trace, and ends a run of more events: it would not count."""
    events = 0

    def write(_: str) -> None:
        nonlocal events
        events += 1
        if events > events_max:
            raise LongerRun

    return write


def _failing(simulation: Simulation, failure: SimulationFailure) -> Failing:
    """A run that has failed; its plan without what did not happen (rule 2)."""
    world = simulation.world
    requests, strikes = tuple(simulation.clients.put), tuple(simulation.strikes.struck)
    plan = replace(
        world.plan,
        trouble_ms=min(world.plan.trouble_ms, world.schedule.now),
        requests_kept=requests,
        strikes_kept=strikes,
    )
    return Failing(plan, failure, Size(world.trace.events, len(requests), len(strikes)))


def _steps(plan: Plan) -> Iterator[Step]:
    """What is tried in one round that begins with this plan; the largest steps come first."""
    yield partial(_shorter, percent=50)
    for field in fields(Plan):
        if field.name not in NO_SIMPLER_AS_DEFAULT:
            yield partial(_with_default, name=field.name)
    for group in _groups(plan.strikes_kept or ()):
        yield partial(_without, name="strikes_kept", gone=group)
    for group in _groups(plan.requests_kept or ()):
        yield partial(_without, name="requests_kept", gone=group)
    for strike in plan.strikes:
        yield partial(_without, name="strikes", gone=(strike,))
    for field in fields(Limits):
        yield partial(_with_default_of, part="limits", name=field.name)
    for field in fields(Weather):
        yield partial(_with_default_of, part="weather", name=field.name)
    yield _smaller
    yield partial(_shorter, percent=90)


def _groups(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    """All of these, then halves, quarters, and so on to single ones; the later first."""
    size = len(numbers)
    while size > 0:
        for start in reversed(range(0, len(numbers), size)):
            yield numbers[start : start + size]
        size = (size + 1) >> 1 if size > 1 else 0


def _shorter(plan: Plan, *, percent: int) -> Plan:
    return replace(plan, trouble_ms=plan.trouble_ms * percent // 100)


def _smaller(plan: Plan) -> Plan:
    return replace(plan, nodes=max(1, plan.nodes - 1))


def _with_default(plan: Plan, *, name: str) -> Plan:
    default: dict[str, Any] = {name: getattr(PLAIN, name)}
    return replace(plan, **default)


def _with_default_of(plan: Plan, *, part: str, name: str) -> Plan:
    default: dict[str, Any] = {name: getattr(getattr(PLAIN, part), name)}
    changed: dict[str, Any] = {part: replace(getattr(plan, part), **default)}
    return replace(plan, **changed)


def _without(plan: Plan, *, name: str, gone: Sequence[Any]) -> Plan:
    kept: dict[str, Any] = {name: tuple([one for one in getattr(plan, name) if one not in gone])}
    return replace(plan, **kept)
