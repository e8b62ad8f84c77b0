"""How long a cluster takes no appends when its leader's process is killed.

Through a follower, one record a millisecond is appended. Then the leader is killed with SIGKILL.
What counts is the time from there to the first acknowledgement of a record appended after it: the
wait until somebody campaigns, the election, the new leader's first entry, and one append.
"""

from __future__ import annotations

import time
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.cluster import ClusterBroken
from benchmarks.results import side_by_side
from replog.agreements import load_agreement

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.cluster import Cluster
    from benchmarks.results import Figure

QUESTION = "failover"
KILLS = 7
"""Of each agreement's leaders, in turn."""
PAUSE_SECONDS = 0.001
RECORD_BYTES = 16
BEFORE_SECONDS = 0.2
"""Appends run at least this long before the kill."""
PHASE_SECONDS = 0.03
"""And up to this much longer: kills must not keep step with heartbeats."""
AFTER_SECONDS = 0.8
"""Appends run this long after the kill; those that are still open are waited for."""
ANSWER_SECONDS_MAX = 30.0
SEED = 1


class Failover(NamedTuple):
    """One kill and what came of it."""

    milliseconds: float
    killed: str
    successor: str
    appended: int


def measure(
    clusters: Mapping[str, Cluster], repeats: int, say: Callable[[str], None]
) -> list[Figure]:
    """Kill the leaders of these clusters in turn, and restart each."""
    random = Random(SEED)
    found: dict[str, list[Failover]] = {name: [] for name in clusters}
    for number in range(KILLS * repeats):
        for name, cluster in clusters.items():
            say(f"kill {number + 1} of a leader, {name}")
            found[name].append(kill_leader(cluster, random))
    return side_by_side(
        QUESTION,
        "leader killed, until the next append",
        "ms",
        {name: [one.milliseconds for one in ones] for name, ones in found.items()},
        details={
            name: {
                "agreement": repr(load_agreement(name)),
                "rounds": [one._asdict() for one in ones],
            }
            for name, ones in found.items()
        },
    )


def kill_leader(cluster: Cluster, random: Random) -> Failover:
    """Kill it while a follower appends, then start it again and wait until all nodes agree.

    Raises `ClusterBroken` unless every record appended is acknowledged and delivered, once.
    """
    before = cluster.settle()
    killed = cluster.leader
    through = cluster.nodes[cluster.followers[0]]
    kill_at = time.monotonic() + BEFORE_SECONDS + random.uniform(0, PHASE_SECONDS)
    through.tell(
        {
            "command": "paced",
            "pause_seconds": PAUSE_SECONDS,
            "record_bytes": RECORD_BYTES,
            "end": kill_at + AFTER_SECONDS,
        }
    )
    time.sleep(max(0.0, kill_at - time.monotonic()))
    killed_at = time.monotonic()
    cluster.kill(killed)
    gone_at = time.monotonic()
    moments = through.answer(ANSWER_SECONDS_MAX)["moments"]
    cluster.settle()
    successor = cluster.leader
    cluster.start(killed)
    delivered = cluster.settle() - before
    if delivered != len(moments):
        raise ClusterBroken(f"{len(moments)} records were acknowledged, {delivered} delivered")
    return Failover(outage_ms(moments, killed_at, gone_at), killed, successor, len(moments))


def outage_ms(moments: Sequence[Sequence[float]], killed_at: float, gone_at: float) -> float:
    """From the kill to the first acknowledgement of a record submitted once the leader was gone.

    Raises `ClusterBroken` when none was: the appends ended before the kill.
    """
    answered = [acknowledged for submitted, acknowledged in moments if submitted >= gone_at]
    if not answered:
        raise ClusterBroken("nothing was appended after the kill")
    return 1000 * (min(answered) - killed_at)
