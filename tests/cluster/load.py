"""Appends through all nodes of a cluster at once, while a test does to it what it wants."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from replog.control import wait_for_any
from replog.demo.audit import AuditReport, audit
from replog.demo.cluster import LocalCluster, Member
from replog.demo.feeder import Feeder, Ledger

LINES = [b"a line of %d bytes " % size + b"x" * size for size in (1, 20, 300, 4000, 7)]
SECONDS = 30.0
"""Longer than anything here takes; a wait that reaches it has failed."""
TURN_MS = 20


class Load:
    """One feeder for each node; the methods that change the cluster keep their ledgers true."""

    def __init__(self, cluster: LocalCluster, records_per_second: int = 3000) -> None:
        """`records_per_second` is what each node is given at most."""
        self.cluster = cluster
        self.feeders = {member.name: Feeder(Ledger(member.name, LINES)) for member in cluster}
        self._rate = records_per_second
        self._began = time.monotonic()
        for member in cluster:
            self.feeders[member.name].client = member.client

    @property
    def acknowledged(self) -> int:
        """Records acknowledged by all nodes together."""
        return sum([feeder.ledger.acknowledged for feeder in self.feeders.values()])

    def acknowledged_by(self, names: Sequence[str]) -> int:
        return sum([self.feeders[name].ledger.acknowledged for name in names])

    def others(self, member: Member) -> list[str]:
        return [name for name in self.feeders if name != member.name]

    def turn(self, limit: int | None = None) -> None:
        """Take answers, submit what is due, wait a little."""
        due = int((time.monotonic() - self._began) * self._rate) + 1
        clients = []
        for feeder in self.feeders.values():
            feeder.turn(due if limit is None else limit)
            if feeder.client is not None and not feeder.client.ended:
                clients.append(feeder.client)
        wait_for_any(clients, TURN_MS)

    def until(self, condition: Callable[[], bool], what: str, limit: int | None = None) -> None:
        give_up = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < give_up, f"{what} took longer than {SECONDS} s"
            self.turn(limit)

    def until_more(self, names: Sequence[str], count: int = 500) -> None:
        """Go on until these nodes have acknowledged that many more, each of them some."""
        marks = {name: self.feeders[name].ledger.acknowledged for name in names}
        wanted = self.acknowledged_by(names) + count

        def is_reached() -> bool:
            each = [self.feeders[name].ledger.acknowledged > mark for name, mark in marks.items()]
            return all(each) and self.acknowledged_by(names) >= wanted

        self.until(is_reached, f"{count} more appends through {', '.join(names)}")

    def kill(self, member: Member) -> int:
        """SIGKILL; how many records are left unknown."""
        member.kill()
        return self.feeders[member.name].disconnect()

    def try_to_return(self, member: Member) -> bool:
        """Feed a restarted node again, once it serves."""
        client = member.try_to_connect()
        self.feeders[member.name].client = client
        return client is not None

    def restart(self, member: Member) -> None:
        member.start()
        self.until(lambda: self.try_to_return(member), f"the restart of {member.name}")

    def finish(self) -> AuditReport:
        """Let everything in flight end and the nodes get even, stop them, and compare."""
        everyone = self.feeders.values()
        self.until(lambda: not any(f.in_flight for f in everyone), "what is in flight", limit=0)
        self.cluster.wait_until(self.cluster.is_even, "the nodes are not even")
        self.cluster.stop()
        return self.report()

    def report(self) -> AuditReport:
        directories = {member.name: member.directory for member in self.cluster}
        return audit(directories, [feeder.ledger for feeder in self.feeders.values()])
