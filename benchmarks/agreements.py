"""Two agreements beside each other: what the choice between them costs.

Both clusters run all the time and are measured in turn, so that both meet the same weather; who is
first changes from round to round. What counts is the ratio within each round. A measurement during
which a leadership was lost, on a machine too busy to keep one, is taken again and counted.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks import latency, throughput
from benchmarks.cluster import LeaderLost
from benchmarks.failover import SEED, kill_leader
from benchmarks.results import side_by_side
from benchmarks.samples import in_turn, median

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.cluster import Cluster
    from benchmarks.results import Figure

QUESTION = "agreements"
ROUNDS = 5
KILLS_PER_ROUND = 3
TAKES_MAX = 5
"""Of one measurement, until the leadership lasts."""
RATIO_MIN = 0.85
"""Of throughput, the second agreement's by the first's."""
RATIO_MAX = 1.15
"""Of what should be short."""


class Measure(NamedTuple):
    """One thing to compare, measured once in each round."""

    name: str
    unit: str
    take: Callable[[Cluster, float, Random], float]
    ratio_min: float | None = None
    ratio_max: float | None = None


def measure(
    clusters: Mapping[str, Cluster], seconds: float, repeats: int, say: Callable[[str], None]
) -> list[Figure]:
    """Every measure of every cluster in each round; `seconds` for each load."""
    random = Random(SEED)
    values: dict[str, dict[str, list[float]]] = {
        part.name: {name: [] for name in clusters} for part in MEASURES
    }
    retaken: dict[str, dict[str, Counter[str]]] = {
        part.name: {name: Counter() for name in clusters} for part in MEASURES
    }
    for number in range(ROUNDS * repeats):
        for part in MEASURES:
            for name in in_turn(clusters, number):
                say(f"round {number + 1}: {part.name}, {name}")
                value, takes = _take(part, clusters[name], seconds, random)
                values[part.name][name].append(value)
                retaken[part.name][name]["measurements taken again"] += takes - 1
    figures: list[Figure] = []
    for part in MEASURES:
        bars: dict[str, Any] = {"at_least": part.ratio_min, "at_most": part.ratio_max}
        details = {name: dict(counted) for name, counted in retaken[part.name].items()}
        figures += side_by_side(
            QUESTION, part.name, part.unit, values[part.name], details=details, **bars
        )
    return figures


def _take(part: Measure, cluster: Cluster, seconds: float, random: Random) -> tuple[float, int]:
    """The value, and how often it was taken until no leadership was lost meanwhile."""
    for takes in range(1, TAKES_MAX):
        cluster.settle()
        try:
            return part.take(cluster, seconds, random), takes
        except LeaderLost:
            continue
    cluster.settle()
    return part.take(cluster, seconds, random), TAKES_MAX


def _one_append_us(cluster: Cluster, node: str, seconds: float) -> float:
    asked = {
        "command": "one by one",
        "samples": latency.samples_in(seconds),
        "record_bytes": latency.RECORD_BYTES,
        "pause_seconds": latency.PAUSE_SECONDS,
    }
    answer = cluster.nodes[node].ask(asked, latency.SECONDS_MAX)
    cluster.agree()
    return median(answer["durations_us"])


def _through_leader_us(cluster: Cluster, seconds: float, _: Random) -> float:
    return _one_append_us(cluster, cluster.leader, seconds)


def _through_follower_us(cluster: Cluster, seconds: float, _: Random) -> float:
    return _one_append_us(cluster, cluster.followers[0], seconds)


def _single_appends(cluster: Cluster, seconds: float, _: Random) -> float:
    return _records_per_second(cluster, throughput.SINGLE_APPENDS, seconds)


def _runs(cluster: Cluster, seconds: float, _: Random) -> float:
    return _records_per_second(cluster, throughput.RUNS, seconds)


def _records_per_second(cluster: Cluster, command: dict[str, Any], seconds: float) -> float:
    found = throughput.run(cluster, command, [cluster.leader], seconds)
    return float(found["records_per_second"])


def _failover_ms(cluster: Cluster, _: float, random: Random) -> float:
    kills = [kill_leader(cluster, random).milliseconds for _ in range(KILLS_PER_ROUND)]
    return median(kills)


MEASURES = (
    Measure("one append, leader, p50", "us", _through_leader_us, ratio_max=RATIO_MAX),
    Measure("one append, a follower, p50", "us", _through_follower_us, ratio_max=RATIO_MAX),
    Measure("append, 16 B, leader", "records/s", _single_appends, ratio_min=RATIO_MIN),
    Measure("append_many(1000), 16 B, leader", "records/s", _runs, ratio_min=RATIO_MIN),
    Measure(
        f"fail-over, median of {KILLS_PER_ROUND} kills", "ms", _failover_ms, ratio_max=RATIO_MAX
    ),
)
