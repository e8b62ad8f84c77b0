"""Many seeds: one after another, or on several processes."""

from __future__ import annotations

import signal
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import TYPE_CHECKING, NamedTuple

from replog.agreements import load_agreement
from replog.testing.simulation import SimulationFailure, simulate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SEEDS_PER_TASK = 10


class Result(NamedTuple):
    """What came of some seeds."""

    seeds: int
    virtual_ms: int
    tally: Mapping[str, int]
    failures: Sequence[str]
    """What each failing seed has to say."""


def run_seeds(agreement: str, seeds: Sequence[int]) -> Result:
    """Simulate these seeds, whatever comes of each."""
    core = load_agreement(agreement)
    virtual_ms = 0
    tally: Counter[str] = Counter()
    failures: list[str] = []
    for seed in seeds:
        try:
            outcome = simulate(seed, core)
        except SimulationFailure as failure:
            failures.append(str(failure))
        else:
            virtual_ms += outcome.virtual_ms
            tally.update(outcome.tally)
    return Result(len(seeds), virtual_ms, tally, failures)


def run_campaign(agreement: str, seeds: Sequence[int], processes: int) -> Iterator[Result]:
    """Simulate these seeds on this many processes; yields the sum so far, again and again."""
    tasks = [
        seeds[place : place + SEEDS_PER_TASK] for place in range(0, len(seeds), SEEDS_PER_TASK)
    ]
    total = Result(0, 0, {}, ())
    if processes == 1:
        for task in tasks:
            total = add(total, run_seeds(agreement, task))
            yield total
        return
    # Ctrl-C ends the workers at once: one that caught it would go on with its next task.
    with ProcessPoolExecutor(
        processes,
        mp_context=get_context("spawn"),
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_DFL),
    ) as pool:
        try:
            for future in as_completed([pool.submit(run_seeds, agreement, task) for task in tasks]):
                total = add(total, future.result())
                yield total
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def add(one: Result, other: Result) -> Result:
    """Both together."""
    return Result(
        one.seeds + other.seeds,
        one.virtual_ms + other.virtual_ms,
        Counter(one.tally) + Counter(other.tally),
        [*one.failures, *other.failures],
    )
