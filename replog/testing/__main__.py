"""`python -m replog.testing`: simulate many seeds, or repeat one.

Exit codes: 0 no rule was broken, 1 some seed failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

from replog.agreements import DEFAULT_AGREEMENT, load_agreement
from replog.errors import ConfigError
from replog.testing.campaign import Result, run_campaign
from replog.testing.shrink import Size, describe, shrink
from replog.testing.simulation import Simulation, SimulationFailure, simulate

if TYPE_CHECKING:
    from collections.abc import Callable

MS_PER_HOUR = 3_600_000
PROGRESS_SECONDS = 2.0
EXIT_INTERRUPTED = 130


def main() -> int:
    """Carry out the command; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m replog.testing", description=__doc__)
    parser.add_argument(
        "--agreement",
        default=DEFAULT_AGREEMENT,
        help=f"which agreement (default: {DEFAULT_AGREEMENT})",
    )
    parser.add_argument("--seeds", type=int, default=500, help="how many seeds (default: 500)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (default: 0)")
    parser.add_argument("--processes", type=int, default=1, help="how many at once (default: 1)")
    parser.add_argument("--seed", type=int, help="simulate this one only")
    parser.add_argument("--trace", action="store_true", help="with --seed: print every event")
    parser.add_argument(
        "--shrink", action="store_true", help="with --seed: simplify a failing run and print that"
    )
    arguments = parser.parse_args()
    if (
        arguments.seeds < 1
        or arguments.processes < 1
        or ((arguments.trace or arguments.shrink) and arguments.seed is None)
    ):
        parser.error("--seeds and --processes are at least 1; --trace and --shrink need --seed")
    try:
        if arguments.shrink:
            return simplify(arguments.agreement, arguments.seed)
        if arguments.seed is not None:
            return repeat(arguments.agreement, arguments.seed, trace=arguments.trace)
        seeds = range(arguments.first, arguments.first + arguments.seeds)
        return campaign(arguments.agreement, seeds, arguments.processes)
    except ConfigError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def repeat(agreement: str, seed: int, *, trace: bool) -> int:
    """Simulate one seed."""
    write = sys.stdout.write if trace else None
    try:
        outcome = simulate(seed, load_agreement(agreement), write)
    except SimulationFailure as failure:
        say(str(failure))
        return 1
    say(f"seed {seed}: no failure in {outcome.virtual_ms} ms; trace digest {outcome.digest}")
    return 0


def simplify(agreement: str, seed: int) -> int:
    """Simulate one seed; if it fails, look for a simpler run that fails alike, and print it."""
    layer = load_agreement(agreement)
    simulation = Simulation(seed, layer)
    try:
        simulation.run()
    except SimulationFailure as failure:
        say(str(failure))
        say("looking for a simpler run ...")
        shrunk = shrink(simulation, failure, progress())
        with suppress(SimulationFailure):
            simulation.again(shrunk.plan, sys.stdout.write).run()
        say(f"after {shrunk.runs} runs: {describe(shrunk.plan)}")
        say(f"before: {shrunk.before}; after: {shrunk.after}")
        say(f"{shrunk.failure.kind}: {shrunk.failure.reason}")
        return 1
    say(f"seed {seed}: no failure")
    return 0


def progress() -> Callable[[int, Size], None]:
    """What writes a line now and then, called again and again in a long search."""
    spoken = monotonic()

    def tell(runs: int, reached: Size) -> None:
        nonlocal spoken
        if monotonic() - spoken >= PROGRESS_SECONDS:
            spoken = monotonic()
            sys.stderr.write(f"after {runs} runs: {reached}\n")

    return tell


def campaign(agreement: str, seeds: range, processes: int) -> int:
    """Simulate many seeds; a line of progress now and then, and the sums at the end."""
    started = spoken = monotonic()
    total = Result(0, 0, {}, ())
    told = 0
    for total in run_campaign(agreement, seeds, processes):
        for failure in total.failures[told:]:
            say(failure)
        told = len(total.failures)
        if monotonic() - spoken >= PROGRESS_SECONDS:
            spoken = monotonic()
            sys.stderr.write(f"{rate(total, len(seeds), spoken - started)}\n")
    say(rate(total, len(seeds), monotonic() - started))
    say(f"{total.virtual_ms / MS_PER_HOUR:.2f} hours of clusters simulated")
    for name, count in sorted(total.tally.items()):
        say(f"  {name:<32}{count:>12,}")
    return 1 if total.failures else 0


def rate(total: Result, seeds: int, seconds: float) -> str:
    """How far it is, in one line."""
    per_minute = 60 * total.seeds / max(seconds, 0.001)
    failures = len(total.failures)
    return f"{total.seeds} of {seeds} seeds, {per_minute:.0f} a minute, {failures} failed"


def say(text: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
