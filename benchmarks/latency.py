"""How long one append takes on an idle cluster, beside what it cannot do without.

Idle means that the last append is over on all nodes, its commit notices and the third disk's write
included: there is a pause before each append, and before each sample of the floor. Back to back,
the end of one append delays the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from benchmarks.results import Figure
from benchmarks.samples import median, percentile

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.cluster import Cluster
    from benchmarks.floor import AppendFloor, Floor

QUESTION = "latency"
RECORD_BYTES = 128
PAUSE_SECONDS = 0.005
ROUNDS = 5
SAMPLES_PER_SECOND = 20
SAMPLES_MIN = 10
SECONDS_MAX = 120.0
RATIO_MAX = 1.5


class Way(NamedTuple):
    """One way to append."""

    name: str
    command: str
    on_leader: bool
    pause_seconds: float
    ratio_max: float | None = None
    """How many times the floor its median may be."""


WAYS = (
    Way("thread, leader", "one by one", True, PAUSE_SECONDS, RATIO_MAX),
    Way("coroutine, leader", "awaited one by one", True, PAUSE_SECONDS),
    Way("thread, a follower", "one by one", False, PAUSE_SECONDS),
    Way("thread, leader, back to back", "one by one", True, 0.0),
)


def measure(
    cluster: Cluster, floor: Floor, seconds: float, repeats: int, say: Callable[[str], None]
) -> list[Figure]:
    """Rounds of floor and appends in turn, so that both meet the same weather."""
    samples = samples_in(seconds)
    floors: dict[float, list[AppendFloor]] = {PAUSE_SECONDS: [], 0.0: []}
    durations: dict[str, list[list[float]]] = {way.name: [] for way in WAYS}
    for number in range(ROUNDS * repeats):
        say(f"one append at a time, round {number + 1}")
        for pause_seconds, found in floors.items():
            found.append(floor.append(samples, pause_seconds))
        for way in WAYS:
            asked = {
                "command": way.command,
                "samples": samples,
                "record_bytes": RECORD_BYTES,
                "pause_seconds": way.pause_seconds,
            }
            node = cluster.leader if way.on_leader else cluster.followers[0]
            answer = cluster.nodes[node].ask(asked, SECONDS_MAX)
            durations[way.name].append(answer["durations_us"])
        cluster.agree()
    figures = [*_of_floor(floors[PAUSE_SECONDS], ""), *_of_floor(floors[0.0], ", back to back")]
    for way in WAYS:
        figures += _of_appends(way, durations[way.name], floors[way.pause_seconds])
    return figures


def samples_in(seconds: float) -> int:
    """How many appends make one round."""
    return max(SAMPLES_MIN, int(SAMPLES_PER_SECOND * seconds))


def _of_floor(floors: list[AppendFloor], how: str) -> list[Figure]:
    parts = {
        "second of three raw LMDB commits": [found.commits_us for found in floors],
        "raw ZeroMQ round trip": [found.round_trip_us for found in floors],
        "floor: their sum": [found.sum_us for found in floors],
    }
    return [_figure(f"{name}{how}, p50", "us", values) for name, values in parts.items()]


def _of_appends(way: Way, rounds: list[list[float]], floors: list[AppendFloor]) -> list[Figure]:
    medians = [median(found) for found in rounds]
    ratios = [middle / found.sum_us for middle, found in zip(medians, floors, strict=True)]
    return [
        _figure(f"{way.name}, p50", "us", medians),
        _figure(f"{way.name}, p99", "us", [percentile(found, 99) for found in rounds]),
        _figure(f"{way.name}, p50 / floor", "x", ratios, way.ratio_max),
    ]


def _figure(name: str, unit: str, values: list[float], bar: float | None = None) -> Figure:
    return Figure(question=QUESTION, name=name, unit=unit, values=tuple(values), at_most=bar)
