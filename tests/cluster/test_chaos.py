"""Random nodes are killed, paused and restarted while all three append; nothing may be lost.

`make chaos SECONDS=60` runs it longer, under each agreement, and shows how it goes. The seed
decides what is done to whom and when; the machine decides the rest.
"""

from __future__ import annotations

import random
import time

import pytest
from rich.console import Console
from rich.table import Table

from replog.demo.audit import AuditReport
from replog.demo.cluster import LocalCluster, Member
from tests.cluster.load import Load

RECORDS_PER_SECOND = 2500
"""For each node: enough to have much in flight at each blow, and not too much to compare."""


class Chaos:
    """What is done to a cluster, drawn from a seed."""

    def __init__(self, cluster: LocalCluster, seed: int) -> None:
        self.cluster = cluster
        self.load = Load(cluster, RECORDS_PER_SECOND)
        self.random = random.Random(seed)
        self.began = time.monotonic()
        self.kills = {member.name: 0 for member in cluster}
        self.pauses = dict(self.kills)
        self.unknown = dict(self.kills)
        self.leaders_killed = 0
        self._down: dict[str, float] = {}
        self._starting: set[str] = set()
        self._paused: dict[str, float] = {}

    def run(self, seconds: float) -> None:
        """Torment the cluster for so long, then let all nodes come back."""
        next_blow = time.monotonic() + 0.5
        next_line = 0.0
        while (now := time.monotonic()) < self.began + seconds:
            if now >= next_blow:
                self._strike(now)
                next_blow = now + self.random.uniform(0.1, 1.5)
            if now >= next_line:
                self._print_line(now)
                next_line = now + 1
            self._return_some(now)
            self.load.turn()
        while self._down or self._paused or self._starting:
            assert time.monotonic() < self.began + seconds + 30, "the nodes do not come back"
            self._return_some(float("inf"))
            self.load.turn()

    def _strike(self, now: float) -> None:
        up = [member for member in self.cluster if self._is_up(member)]
        leader = self._leader()
        # One node mostly, sometimes two or all: without a majority nothing goes on, or is lost.
        count = self.random.choices((1, 2, 3), (8, 2, 1))[0]
        self.random.shuffle(up)
        first = not self.leaders_killed  # so that the shortest run kills a leader too
        if leader in up and (first or self.random.random() < 0.5):
            up.remove(leader)
            up.insert(0, leader)
        for member in up[:count]:
            end = now + self.random.uniform(0.05, 1.5)
            if not (first and member is leader) and self.random.random() < 0.25:
                member.pause()
                self._paused[member.name] = end
                self.pauses[member.name] += 1
            else:
                self.unknown[member.name] += self.load.kill(member)
                self._down[member.name] = end
                self.kills[member.name] += 1
                self.leaders_killed += member is leader

    def _return_some(self, now: float) -> None:
        for name, end in list(self._paused.items()):
            if now >= end:
                self.cluster[name].resume()
                del self._paused[name]
        for name, end in list(self._down.items()):
            if now >= end:
                self.cluster[name].start()
                self._starting.add(name)
                del self._down[name]
        for name in list(self._starting):
            if self.load.try_to_return(self.cluster[name]):
                self._starting.remove(name)

    def _is_up(self, member: Member) -> bool:
        return member.name not in {*self._down, *self._paused, *self._starting}

    def _leader(self) -> Member | None:
        """Who leads, as its own node last said."""
        leading = [
            (feeder.status["epoch"], name)
            for name, feeder in self.load.feeders.items()
            if feeder.status and feeder.status["role"] == "leader"
        ]
        return self.cluster[max(leading)[1]] if leading else None

    def _print_line(self, now: float) -> None:
        away = {**dict.fromkeys(self._down, "killed"), **dict.fromkeys(self._paused, "paused")}
        states = [f"{member.name} {away.get(member.name, '......')}" for member in self.cluster]
        seconds = now - self.began
        print(f"{seconds:6.1f} s  {'  '.join(states)}  {self.load.acknowledged:,} acknowledged")

    def print_table(self, report: AuditReport) -> None:
        table = Table(box=None)
        for title in ("node", "kills", "pauses", "appended", "acknowledged", "unknown", "digest"):
            table.add_column(title, justify="left" if title == "node" else "right")
        for name, node in report.nodes.items():
            ledger = self.load.feeders[name].ledger
            counts = (self.kills[name], self.pauses[name], ledger.submitted, ledger.acknowledged)
            numbers = [f"{count:,}" for count in (*counts, self.unknown[name])]
            table.add_row(name, *numbers, node.digest[:16])
        Console(width=100).print(table)
        print(
            f"{self.leaders_killed} kills of a leader; of the unknown records "
            f"{report.unknown_found:,} are in the log and {report.unknown_missing:,} are not"
        )


def test_no_acknowledged_record_is_lost(cluster: LocalCluster, request: pytest.FixtureRequest):
    seconds = request.config.getoption("--chaos-seconds")
    seed = request.config.getoption("--chaos-seed")
    if seed is None:
        seed = random.SystemRandom().randrange(1 << 32)
    print(f"\n{seconds} s of chaos; again with --chaos-seed={seed}")
    chaos = Chaos(cluster, seed)
    chaos.run(seconds)
    report = chaos.load.finish()
    chaos.print_table(report)
    assert report.faults == ()
    assert report.acknowledged == chaos.load.acknowledged
    # It was chaos indeed, and work went on in it.
    assert sum(chaos.kills.values()) >= seconds / 5
    assert chaos.leaders_killed > 0
    assert all(feeder.ledger.acknowledged > 0 for feeder in chaos.load.feeders.values())
