"""How long one append takes on an idle cluster, beside what it cannot do without."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.results import Figure
from benchmarks.samples import median, percentile

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.cluster import Cluster
    from benchmarks.floor import AppendFloor, Floor

QUESTION = "latency"
RECORD_BYTES = 128
ROUNDS = 5
SAMPLES_PER_SECOND = 40
SAMPLES_MIN = 10
SECONDS_MAX = 120.0
RATIO_MAX = 1.5
"""The bar, for a thread on the leader."""


def measure(
    cluster: Cluster, floor: Floor, seconds: float, repeats: int, say: Callable[[str], None]
) -> list[Figure]:
    """Rounds of floor and appends in turn, so that both meet the same weather."""
    samples = max(SAMPLES_MIN, int(SAMPLES_PER_SECOND * seconds))
    follower = cluster.followers[0]
    ways = {
        "thread, leader": (cluster.leader, "one by one"),
        "coroutine, leader": (cluster.leader, "awaited one by one"),
        "thread, a follower": (follower, "one by one"),
    }
    floors: list[AppendFloor] = []
    durations: dict[str, list[list[float]]] = {way: [] for way in ways}
    for number in range(ROUNDS * repeats):
        say(f"one append at a time, round {number + 1}")
        floors.append(floor.append(samples))
        for way, (node, command) in ways.items():
            asked = {"command": command, "samples": samples, "record_bytes": RECORD_BYTES}
            durations[way].append(cluster.nodes[node].ask(asked, SECONDS_MAX)["durations_us"])
        cluster.agree()
    return [*_of_floor(floors), *_of_appends(floors, durations)]


def _of_floor(floors: list[AppendFloor]) -> list[Figure]:
    parts = {
        "second of three raw LMDB commits": [found.commits_us for found in floors],
        "raw ZeroMQ round trip": [found.round_trip_us for found in floors],
        "floor of an append: their sum": [found.sum_us for found in floors],
    }
    return [
        Figure(question=QUESTION, name=f"{name}, p50", unit="us", values=tuple(values))
        for name, values in parts.items()
    ]


def _of_appends(floors: list[AppendFloor], durations: dict[str, list[list[float]]]) -> list[Figure]:
    figures = []
    for way, rounds in durations.items():
        medians = [median(found) for found in rounds]
        worst = [percentile(found, 99) for found in rounds]
        ratios = [middle / found.sum_us for middle, found in zip(medians, floors, strict=True)]
        bar = RATIO_MAX if way == "thread, leader" else None
        figures += [
            _figure(f"append, {way}, p50", "us", medians),
            _figure(f"append, {way}, p99", "us", worst),
            _figure(f"append, {way}, p50 / floor", "x", ratios, bar),
        ]
    return figures


def _figure(name: str, unit: str, values: list[float], bar: float | None = None) -> Figure:
    return Figure(question=QUESTION, name=name, unit=unit, values=tuple(values), at_most=bar)
