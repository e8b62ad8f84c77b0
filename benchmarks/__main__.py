"""`python -m benchmarks`: measure, show, and keep the figures if asked to."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from benchmarks import (
    agreements,
    failover,
    floor,
    latency,
    loss,
    machine,
    recovery,
    results,
    snapshot,
    space,
    throughput,
)
from benchmarks.cluster import Cluster, ClusterBroken
from benchmarks.processes import ROOT, ChildFailed
from benchmarks.samples import median
from replog.agreements import DEFAULT_AGREEMENT, load_agreement
from replog.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.results import Figure

DEFAULT_QUESTIONS = ("floor", "latency", "throughput")
COMPARISONS = (failover.QUESTION, agreements.QUESTION, loss.QUESTION)
"""Asked of both agreements unless one is named."""
OF_ONE = (snapshot.QUESTION, recovery.QUESTION, space.QUESTION)
"""Of what is persisted: minutes and gigabytes, asked of one agreement unless more are named."""
QUESTIONS = (*DEFAULT_QUESTIONS, *COMPARISONS, *OF_ONE)
BOTH = "both"
PAIR = ("raft", "paxos")
"""What `both` stands for; ratios are of the second to the first."""
FLOOR_SAMPLES_PER_SECOND = 200
COLUMNS = 100
"""Width of what is printed into a file."""


def main() -> int:
    given = arguments()
    console = Console(width=None if sys.stdout.isatty() else COLUMNS)
    try:
        machine.check_disk(given.directory)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    directory = scratch(given.directory)
    description = machine.describe(directory)
    with tempfile.TemporaryDirectory(prefix="run-", dir=directory) as data, progress() as shown:
        task = shown.add_task("", total=steps(given))

        def say(what: str) -> None:
            shown.update(task, description=what)
            shown.advance(task)
            if not shown.console.is_terminal:
                print(what, file=sys.stderr, flush=True)

        try:
            figures = measure(given, Path(data), say)
        except (ChildFailed, ClusterBroken) as error:
            shown.stop()
            print(f"no figures: {error}", file=sys.stderr)
            return 1
    if given.write:  # before they are shown: they took long
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        path = ROOT / "benchmarks" / "results" / f"{moment}.json"
        names = ("questions", "agreements", "seconds", "repeats")
        settings = {name: getattr(given, name) for name in names}
        results.write(path, description, settings, figures)
        console.print(f"written to {path.relative_to(ROOT)}")
    results.show(console, description, figures)
    return 0


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "questions",
        nargs="*",
        metavar="QUESTION",
        help=f"of {', '.join(QUESTIONS)}; default: {', '.join(DEFAULT_QUESTIONS)}",
    )
    parser.add_argument(
        "--agreement",
        action="append",
        default=[],
        dest="agreements",
        metavar="NAME",
        help=f"{', '.join(PAIR)}, {BOTH}, or module:Class; may be repeated "
        f"(default: {DEFAULT_AGREEMENT}; {', '.join(COMPARISONS)}: {BOTH})",
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load (default: 5)")
    parser.add_argument("--repeats", type=int, default=1, help="of every measurement (default: 1)")
    parser.add_argument(
        "--directory",
        type=Path,
        default=ROOT / ".bench",
        help="for the data, on a disk (default: .bench in the checkout)",
    )
    parser.add_argument(
        "--write", action="store_true", help="keep the figures in benchmarks/results/"
    )
    given = parser.parse_args(argv)
    given.questions = given.questions or list(DEFAULT_QUESTIONS)
    if unknown := set(given.questions) - {*QUESTIONS}:
        parser.error(f"no question {', '.join(sorted(unknown))}; there are {', '.join(QUESTIONS)}")
    if given.seconds <= 0 or given.repeats <= 0:
        parser.error("--seconds and --repeats must be positive")
    given.agreements = each_once(given.agreements)
    try:
        for name in given.agreements:
            load_agreement(name)
    except ConfigError as error:
        parser.error(str(error))
    if agreements.QUESTION in given.questions and len(
        agreements_for(given, is_comparison=True)
    ) != len(PAIR):
        parser.error(f"{agreements.QUESTION} compares two: name two, or none")
    return given


def each_once(names: Sequence[str]) -> list[str]:
    """These agreements in their order, `both` spelt out."""
    spelt = [one for name in names for one in (PAIR if name == BOTH else (name,))]
    return list(dict.fromkeys(spelt))


def agreements_for(given: argparse.Namespace, *, is_comparison: bool) -> list[str]:
    """Whom a question is asked of."""
    named: list[str] = given.agreements
    return named or (list(PAIR) if is_comparison else [DEFAULT_AGREEMENT])


def scratch(directory: Path) -> Path:
    """The directory for the data, invisible to git."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / ".gitignore").write_text("*\n", encoding="utf-8")
    return directory


def progress() -> Progress:
    return Progress(
        SpinnerColumn(),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} {task.description}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def steps(given: argparse.Namespace) -> int:
    """How often `say` will be called."""
    alone, compared = (len(agreements_for(given, is_comparison=yes)) for yes in (False, True))
    per_repeat = {
        "floor": 3,
        "latency": latency.ROUNDS * alone,
        "throughput": len(throughput.LOADS) * alone,
        failover.QUESTION: failover.KILLS * compared,
        agreements.QUESTION: agreements.ROUNDS * len(agreements.MEASURES) * compared,
        loss.QUESTION: loss.ROUNDS * 2 * compared,
        snapshot.QUESTION: alone,
        space.QUESTION: len(space.MIXES) * alone,
    }
    repeats: int = given.repeats
    once = recovery.STEPS * alone if recovery.QUESTION in given.questions else 0
    return 1 + once + repeats * sum(per_repeat.get(question, 0) for question in given.questions)


def measure(given: argparse.Namespace, directory: Path, say: Callable[[str], None]) -> list[Figure]:
    """The figures of every question asked."""
    figures: list[Figure] = []
    say("starting the processes")
    if {*DEFAULT_QUESTIONS} & {*given.questions}:
        with floor.Floor(directory) as beside:
            if "floor" in given.questions:
                figures += measure_floor(beside, directory, given, say)
            if {"latency", "throughput"} & {*given.questions}:
                for name in agreements_for(given, is_comparison=False):
                    figures += measure_alone(name, beside, directory, given, say)
    names = agreements_for(given, is_comparison=True)
    if {failover.QUESTION, agreements.QUESTION} & {*given.questions}:
        with ExitStack() as stack:
            clusters = {
                name: stack.enter_context(Cluster(directory / f"both-{name}", name))
                for name in names
            }
            if failover.QUESTION in given.questions:
                figures += failover.measure(clusters, given.repeats, say)
            if agreements.QUESTION in given.questions:
                figures += agreements.measure(clusters, given.seconds, given.repeats, say)
    if loss.QUESTION in given.questions:
        figures += loss.measure(directory, names, given.seconds, given.repeats, say)
    names = agreements_for(given, is_comparison=False)
    for part in (snapshot, recovery, space):
        if part.QUESTION in given.questions:
            with tempfile.TemporaryDirectory(dir=directory) as own:
                figures += part.measure(Path(own), names, given.repeats, say)
    return figures


def measure_alone(
    name: str,
    beside: floor.Floor,
    directory: Path,
    given: argparse.Namespace,
    say: Callable[[str], None],
) -> list[Figure]:
    """Latency and throughput of one agreement."""
    figures: list[Figure] = []
    with Cluster(directory / f"alone-{name}", name) as cluster:
        if "latency" in given.questions:
            figures += latency.measure(cluster, beside, given.seconds, given.repeats, say)
        if "throughput" in given.questions:
            figures += throughput.measure(cluster, given.seconds, given.repeats, say)
    return [replace(figure, agreement=name) for figure in figures]


def measure_floor(
    beside: floor.Floor, directory: Path, given: argparse.Namespace, say: Callable[[str], None]
) -> list[Figure]:
    """The disk, LMDB and ZeroMQ, each alone."""
    samples = max(1, int(FLOOR_SAMPLES_PER_SECOND * given.seconds))
    parts: dict[str, Callable[[], list[float]]] = {
        "fdatasync of 4 KiB, p50": partial(floor.sync_us, directory, samples),
        "raw LMDB commit, p50": partial(floor.commit_us, directory, samples),
        "raw ZeroMQ round trip, p50": partial(beside.round_trips_us, samples),
    }
    values: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(given.repeats):
        for name, part in parts.items():
            say(name)
            values[name].append(median(part()))
    return [
        results.Figure(question="floor", name=name, unit="us", values=tuple(found))
        for name, found in values.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
