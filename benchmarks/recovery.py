"""What comes before a long log is of use again: opening it, replaying it, verifying it.

The log is made once, by one node without a network. It is opened by a new process, measured from
inside, once with its pages in the system's cache and once without; replayed by `replog replay` into
a machine that counts; and verified by `replog verify`, its child process included.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import deque
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import replog
from benchmarks.load import ANSWER_SECONDS_MAX
from benchmarks.processes import ROOT, ChildFailed
from benchmarks.results import Figure
from replog.agreements import load_agreement
from replog.machines import Counter
from replog.store.directory import DATA_FILE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from replog import Pending

QUESTION = "recovery"
COMMAND_SECONDS_MAX = 300.0
OPEN_SECONDS_MAX = 1.0
REPLAYED_PER_SECOND_MIN = 2_000_000
VERIFIED_MB_PER_SECOND_MIN = 300.0
MB = 1_000_000
OUTSTANDING = 32
MACHINES = {
    "a machine that counts": ("benchmarks.state:Count", REPLAYED_PER_SECOND_MIN),
    "Counter": ("replog.machines:Counter", None),
}
"""To replay into, and the bar."""
COUNTED = "0123456789ab"
"""Makes a command of `Counter` 16 bytes long."""


class Log(NamedTuple):
    """A log to be read again."""

    name: str
    records: int
    record_bytes: int
    records_per_run: int


SMALL = Log("10 M records of 16 B", 10_000_000, 16, 1000)
LARGE = Log("1 M records of 1 KiB", 1_000_000, 1024, 100)
STEPS = 3


def measure(
    directory: Path, agreements: Sequence[str], repeats: int, say: Callable[[str], None]
) -> list[Figure]:
    """Open and replay many small records; verify larger ones."""
    figures = []
    for name in agreements:
        small, large = directory / f"small-{name}", directory / f"large-{name}"
        say(f"{SMALL.name}, {name}")
        entries = fill(small, name, SMALL)
        warm = [open_seconds(small, name) for _ in range(repeats)]
        cold = []
        for _ in range(repeats):
            evict(small / DATA_FILE)
            cold.append(open_seconds(small, name))
        say(f"replay, {name}")
        figure = partial(Figure, question=QUESTION, agreement=name)
        opening = partial(figure, unit="s", at_most=OPEN_SECONDS_MAX)
        opened = f"open, {SMALL.name}"
        figures += [
            opening(name=opened, values=tuple(warm), details={"entries": entries}),
            opening(name=f"{opened}, not in the cache", values=tuple(cold)),
        ]
        for shown, (machine, per_second_min) in MACHINES.items():
            replayed = figure(
                name=f"replay into {shown}",
                unit="records/s",
                values=tuple([replayed_per_second(small, machine) for _ in range(repeats)]),
                at_least=per_second_min,
            )
            figures.append(replayed)
        say(f"{LARGE.name}, {name}")
        entries = fill(large, name, LARGE)
        verified = figure(
            name=f"verify, {LARGE.name}",
            unit="MB/s",
            values=tuple([verified_mb_per_second(large, LARGE) for _ in range(repeats)]),
            at_least=VERIFIED_MB_PER_SECOND_MIN,
            details={"entries": entries},
        )
        figures.append(verified)
    return figures


def fill(directory: Path, agreement: str, log: Log) -> int:
    """Make this log in runs; how many entries it has."""
    command = Counter.add(COUNTED)
    run = [command.ljust(log.record_bytes, b"\0")] * log.records_per_run
    waiting: deque[Pending[range]] = deque()
    with replog.open(directory, agreement=load_agreement(agreement)) as opened:
        for _ in range(log.records // log.records_per_run):
            waiting.append(opened.append_many(run))
            if len(waiting) >= OUTSTANDING:
                waiting.popleft().result(ANSWER_SECONDS_MAX)
        for pending in waiting:
            pending.result(ANSWER_SECONDS_MAX)
        return opened.status().applied_index


def evict(file: Path) -> None:
    """Ask the system to forget a file that nobody has open."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def open_seconds(directory: Path, agreement: str) -> float:
    """From `replog.open` to the last record, in a new process."""
    return float(_run([sys.executable, "-m", "benchmarks.recovery", str(directory), agreement]))


def open_and_read(directory: str, agreement: str) -> float:
    """What the new process does."""
    layer = load_agreement(agreement)
    began = time.perf_counter()
    with replog.open(directory, agreement=layer) as log:
        (_,) = log.read(log.end_offset - 1)
        return time.perf_counter() - began


def replayed_per_second(directory: Path, machine: str) -> float:
    """As `replog replay` says."""
    found = _replog("replay", str(directory), "--machine", machine)
    return float(found["records"] / found["seconds"])


def verified_mb_per_second(directory: Path, log: Log) -> float:
    """Of the records' bytes, by the clock of who waits for `replog verify`. Raises `ChildFailed`
    when it finds the log damaged."""
    began = time.perf_counter()
    found = _replog("verify", str(directory))
    seconds = time.perf_counter() - began
    if not found["whole"] or found["records"] != log.records:
        raise ChildFailed(f"replog verify found {found}")
    return log.records * log.record_bytes / MB / seconds


def _replog(*arguments: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(
        _run([sys.executable, "-m", "replog", *arguments, "--json"])
    )
    return answer


def _run(command: list[str]) -> str:
    ended = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS_MAX,
        check=False,
    )
    if ended.returncode:
        raise ChildFailed(f"{command} ended with {ended.returncode}\n{ended.stderr[-2000:]}")
    return ended.stdout


if __name__ == "__main__":
    print(open_and_read(sys.argv[1], sys.argv[2]))
