"""What a network that loses one message in five does to throughput.

Three nodes in one process, each with a directory on the disk, over a loopback network that drops
each message with a seeded probability. One application appends through the node that leads when it
begins. Its records are numbered, so that a record lost, doubled or moved is seen on every node.

The draws come from a seed; which message meets which draw depends on the threads.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from itertools import count, pairwise
from random import Random
from typing import TYPE_CHECKING, NamedTuple

import replog
from benchmarks.cluster import NODES, POLL_SECONDS, SETTLE_SECONDS_MAX, ClusterBroken
from benchmarks.load import ANSWER_SECONDS_MAX, Tally, keep_outstanding
from benchmarks.results import Figure, side_by_side
from benchmarks.samples import in_turn
from replog.agreements import load_agreement
from transport.loopback import LoopbackNetwork

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from replog import Pending, ReplicatedLog
    from transport.frames import FrameHeader
    from transport.interface import Transport

QUESTION = "loss"
LOSS = 0.2
ROUNDS = 3
RECORDS_PER_RUN = 100
RECORD_BYTES = 16
OUTSTANDING = 64
WARM_UP_SECONDS = 0.3


class Lossy(NamedTuple):
    """What one load came to."""

    records_per_second: float
    pause_ms_max: float
    """The longest time between two acknowledgements in the window."""
    appended: int
    messages_lost: int
    elections: int
    """Epochs begun under the load."""


def measure(
    directory: Path,
    agreements: Sequence[str],
    seconds: float,
    repeats: int,
    say: Callable[[str], None],
) -> list[Figure]:
    """Each agreement with and without loss, in turn, each time from empty directories."""
    found: dict[float, dict[str, list[Lossy]]] = {
        loss: {name: [] for name in agreements} for loss in (0.0, LOSS)
    }
    for seed in range(ROUNDS * repeats):
        for loss, of in found.items():
            for name in in_turn(agreements, seed):
                say(f"{100 * loss:.0f} % lost, {name}")
                fresh = directory / f"loss-{seed}-{100 * loss:.0f}-{name}"
                of[name].append(run(fresh, name, loss, seed, seconds))
    return _figures(found)


def _figures(found: Mapping[float, Mapping[str, Sequence[Lossy]]]) -> list[Figure]:
    figures: list[Figure] = []
    speeds: dict[float, dict[str, list[float]]] = {}
    for loss, of in found.items():
        how = f"{100 * loss:.0f} % lost"
        speeds[loss] = {name: [one.records_per_second for one in ones] for name, ones in of.items()}
        rounds = {name: {"rounds": [one._asdict() for one in ones]} for name, ones in of.items()}
        load = f"append_many({RECORDS_PER_RUN}), {RECORD_BYTES} B, one process, {how}"
        figures += side_by_side(QUESTION, load, "records/s", speeds[loss], details=rounds)
        pauses = {name: [one.pause_ms_max for one in ones] for name, ones in of.items()}
        figures += side_by_side(QUESTION, f"longest pause, {how}", "ms", pauses)
    kept = {
        name: [few / all_ for few, all_ in zip(speeds[LOSS][name], whole, strict=True)]
        for name, whole in speeds[0.0].items()
    }
    for name, ratios in kept.items():
        figures += side_by_side(QUESTION, "throughput with loss / without", "x", {name: ratios})
    return figures


def run(directory: Path, agreement: str, loss: float, seed: int, seconds: float) -> Lossy:
    """Load three fresh nodes for so long.

    Raises `ClusterBroken` unless every record acknowledged is on every node, once and in order.
    """
    network = LoopbackNetwork(loss=loss, random=Random(seed))
    with ExitStack() as stack:
        logs = {
            node: stack.enter_context(_open(directory / node, node, agreement, network))
            for node in NODES
        }
        leader, epoch = _wait_for_leader(logs)
        begin = time.monotonic() + WARM_UP_SECONDS
        moments: list[float] = []
        tally = _load(logs[leader], begin, begin + seconds, moments)
        counted = tally.counted()
        _check(logs, counted.appended)
        elections = logs[leader].status().leadership.epoch.number - epoch
    return Lossy(
        counted.acknowledged / seconds,
        pause_ms_max(moments, begin, begin + seconds),
        counted.appended,
        network.lost_count,
        elections,
    )


def pause_ms_max(moments: Sequence[float], begin: float, end: float) -> float:
    """The longest time in this window in which nothing happened."""
    within = [moment for moment in moments if begin < moment < end]
    return 1000 * max([after - before for before, after in pairwise([begin, *within, end])])


def numbered(first: int, records: int) -> list[bytes]:
    """Records that say which they are."""
    return [number.to_bytes(RECORD_BYTES, "big") for number in range(first, first + records)]


def check_records(found: Iterable[bytes], records: int) -> None:
    """Raise `ClusterBroken` unless these are so many numbered records, each once and in order."""
    number = 0
    for number, record in enumerate(found, start=1):
        if int.from_bytes(record, "big") != number - 1:
            raise ClusterBroken(f"record {number - 1} is missing, doubled or out of order")
    if number != records:
        raise ClusterBroken(f"{records} records were appended, {number} are in the log")


def _open(directory: Path, node: str, agreement: str, network: LoopbackNetwork) -> ReplicatedLog:
    def connect(header: FrameHeader, members: Mapping[str, str]) -> Transport:
        return network.attach(node, header, members)

    return replog.open(
        directory,
        node=node,
        agreement=load_agreement(agreement),
        members=dict.fromkeys(NODES, "loopback"),
        connect=connect,
    )


def _wait_for_leader(logs: Mapping[str, ReplicatedLog]) -> tuple[str, int]:
    """A leader that all nodes have introduced themselves to, and the number of its epoch."""
    deadline = time.monotonic() + SETTLE_SECONDS_MAX
    while time.monotonic() < deadline:
        seen = {node: log.status() for node, log in logs.items()}
        for node, status in seen.items():
            if status.leadership.role == "leader" and all(s.introduced for s in seen.values()):
                return node, status.leadership.epoch.number
        time.sleep(POLL_SECONDS)
    raise ClusterBroken(f"no leader in {SETTLE_SECONDS_MAX} s")


def _load(log: ReplicatedLog, begin: float, end: float, moments: list[float]) -> Tally:
    """Append numbered runs until `end`; `moments` is when each was acknowledged."""
    firsts = count(0, RECORDS_PER_RUN)

    def offer() -> Pending[range]:
        return log.append_many(numbered(next(firsts), RECORDS_PER_RUN))

    def take(pending: Pending[range]) -> None:
        pending.result(ANSWER_SECONDS_MAX)
        moments.append(time.monotonic())

    tally = Tally(begin, end)
    keep_outstanding(offer, take, OUTSTANDING, RECORDS_PER_RUN, tally)
    return tally


def _check(logs: Mapping[str, ReplicatedLog], appended: int) -> None:
    deadline = time.monotonic() + SETTLE_SECONDS_MAX
    while any(log.end_offset < appended for log in logs.values()):
        if time.monotonic() > deadline:
            ends = {node: log.end_offset for node, log in logs.items()}
            raise ClusterBroken(f"{appended} records were acknowledged, delivered are {ends}")
        time.sleep(POLL_SECONDS)
    for log in logs.values():
        check_records((record.data for record in log.read()), appended)
