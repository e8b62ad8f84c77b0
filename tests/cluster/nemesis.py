"""Faults for a cluster of real processes, drawn from a seed, and clients that note times.

Rules of this file:

1. Faults are combined at random. On one member there is one at a time, on the links any number: a
   member may be slow, its neighbour stopped and the link between them cut, all at once.
2. Every fault ends by itself, at the latest in `heal`.
3. A run goes on until each kind of fault has shown its effect.
4. A member that ends without being told to, by a fault that makes it end, is a failure.
"""

from __future__ import annotations

import random
import resource
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from replog.control.client import Reply
from replog.control.words import BARRIER, STATUS
from replog.demo.cluster import ClusterFailed, LocalCluster, Member
from replog.demo.feeder import Feeder, Ledger
from replog.failpoints import VARIABLE
from replog.testing.linearizability import Append, End, LogOperation, Operation
from tests.cluster.load import LINES, SECONDS, Load
from tests.cluster.proxy import Links, Mode

RECORDS_PER_SECOND = 1500
"""For each node."""
SLOW_DISK = {VARIABLE: "writer: before a commit=delay:40%2"}
BROKEN_DISK = {VARIABLE: "writer: inside a transaction=error@30"}
SLOW = "failpoint writer: before a commit delay:40"
BROKEN, FULL = "failpoint writer: inside a transaction", "failed in a commit: "
"""What a node with such a disk says, the last two at its end."""
BLOCK_BYTES = 512
ELECTION_SECONDS = 0.3
"""The longest election timeout of either agreement."""


@dataclass(slots=True)
class TimedLedger(Ledger):
    """A ledger that notes when appends were called and when they returned, in nanoseconds."""

    called_at: dict[int, int] = field(default_factory=dict)
    """By the first sequence number of a request."""
    operations: list[LogOperation] = field(default_factory=list)

    def settle(self, numbers: range, offsets: Any, error: Any) -> None:
        # As a class with slots is made anew, `super()` without arguments does not find it.
        Ledger.settle(self, numbers, offsets, error)
        called_at, returned_at = self.called_at.pop(numbers.start), time.monotonic_ns()
        for first, count in offsets:
            # The lowest says the most of what came before the request, the highest of what after.
            for offset in sorted({first, first + count - 1}):
                given = Append(offset)
                self.operations.append(Operation(self.node, given, offset, called_at, returned_at))


class TimedFeeder(Feeder):
    """Appends, and reads the end of the log behind a barrier."""

    def __init__(self, ledger: TimedLedger) -> None:
        super().__init__(ledger)
        self.times = ledger
        self.reads = 0
        self._read_request = 0
        self._read_called_at = 0

    def turn(self, limit: int) -> None:
        super().turn(limit)
        if self.client is not None and not self.client.ended and not self._read_request:
            self._read_called_at = time.monotonic_ns()
            self._read_request = self.client.submit(BARRIER)

    def submit(self) -> bool:
        self.times.called_at[self.ledger.submitted] = time.monotonic_ns()
        return super().submit()

    def disconnect(self) -> int:
        lost = super().disconnect()
        self._read_request = 0
        return lost

    def _take(self, reply: Reply) -> int:
        if reply.request_id != self._read_request:
            return super()._take(reply)
        self._read_request = 0
        if reply.error is not None or self.client is None:
            return 0
        if reply.value is None:  # behind the barrier
            self._read_request = self.client.submit(STATUS)
            return 0
        called_at, returned_at = self._read_called_at, time.monotonic_ns()
        end = int(reply.value["end_offset"])
        self.times.operations.append(Operation(self.node, End(), end, called_at, returned_at))
        self.reads += 1
        return 0


class TimedLoad(Load):
    """Feeds a cluster, and notes times."""

    def __init__(self, cluster: LocalCluster, records_per_second: int) -> None:
        super().__init__(cluster, records_per_second)
        self.timed = {
            member.name: TimedFeeder(TimedLedger(member.name, LINES)) for member in cluster
        }
        for member in cluster:
            self.timed[member.name].client = member.client
        self.feeders = {**self.timed}

    @property
    def operations(self) -> list[LogOperation]:
        """Of all nodes."""
        return [
            operation for feeder in self.timed.values() for operation in feeder.times.operations
        ]


class Fault(NamedTuple):
    """Something that is wrong now."""

    kind: str
    until: float
    end: Callable[[], None]


class Nemesis:
    """What is done to a cluster whose links go through proxies."""

    def __init__(self, cluster: LocalCluster, links: Links, seed: int) -> None:
        self.cluster = cluster
        self.links = links
        self.load = TimedLoad(cluster, RECORDS_PER_SECOND)
        self.struck: Counter[str] = Counter()
        """How often a fault of each kind has shown its effect."""
        self._random = random.Random(seed)
        self._began = time.monotonic()
        self._members: dict[str, Fault] = {}
        self._links: dict[tuple[str, str], Fault] = {}
        self._kinds: dict[str, Callable[[Member, float], None]] = {
            "killed": self._kill,
            "leader killed": self._kill,
            "stopped": self._pause,
            "leader stopped for long": self._pause_long,
            "all killed": self._kill_all,
            "slow disk": partial(self._restart_with, "slow disk", SLOW_DISK),
            "broken disk": partial(self._restart_with, "broken disk", BROKEN_DISK),
            "full disk": self._fill_disk,
            "one way lost": partial(self._cut_one_way, Mode.SWALLOW),
            "one way held back": partial(self._cut_one_way, Mode.HOLD),
            "two cut apart": self._cut_pair,
            "isolated": self._isolate,
            "leader isolated": self._isolate,
        }

    def run(self, seconds: float) -> None:
        """Torment the cluster for so long, and until every kind of fault has struck."""
        end = self._began + seconds
        next_strike, next_line = self._began, self._began
        while (now := time.monotonic()) < end or self._owed():
            assert now < end + SECONDS, f"{self._owed()} did not strike: {self._shown()}"
            if now >= next_strike:
                self._strike(now)
                next_strike = now + self._random.uniform(0.05, 0.7)
            if now >= next_line:
                print(f"{now - self._began:6.1f} s  {self._shown()}")
                next_line = now + 1
            self._turn(now)

    def heal(self) -> float:
        """End all faults and wait until every member appends again; the seconds it took."""
        began = time.monotonic()
        while self._members or self._links or not self._all_serve():
            assert time.monotonic() < began + SECONDS, f"not healed: {self._shown()}"
            self._turn(float("inf"))
        self.load.until_more(list(self.load.feeders))
        return time.monotonic() - began

    def _owed(self) -> list[str]:
        return [kind for kind in self._kinds if not self.struck[kind]]

    def _shown(self) -> str:
        states = [
            f"{name} {self._members[name].kind if name in self._members else '-':<23}"
            for name in self.load.feeders
        ]
        links = [f"{a}>{b} {self.links.mode(a, b).value}" for a, b in self._links]
        return f"{' '.join(states)} {self.load.acknowledged:>8,} acknowledged  {', '.join(links)}"

    def _all_serve(self) -> bool:
        return all(feeder.client is not None for feeder in self.load.feeders.values())

    def _turn(self, now: float) -> None:
        faults: list[dict[Any, Fault]] = [self._members, self._links]
        for group in faults:
            for key, fault in list(group.items()):
                if now >= fault.until:
                    del group[key]
                    fault.end()
        for member in self.cluster:
            feeder = self.load.feeders[member.name]
            if member.name in self._members and self._members[member.name].kind.endswith("killed"):
                continue
            if not member.runs:
                self._take_end(member)
            elif feeder.client is None:
                with suppress(ClusterFailed):  # it ended meanwhile: the next turn looks why
                    self.load.try_to_return(member)
        self.load.turn()

    def _take_end(self, member: Member) -> None:
        """It ended by itself: as its disk made it, or the run has failed."""
        fault = self._members.pop(member.name, None)
        expected = {"broken disk": BROKEN, "full disk": FULL}.get(fault.kind if fault else "")
        said = member.said("ended by itself")
        assert fault is not None, said
        assert expected is not None, said
        assert expected in said, said
        self.struck[fault.kind] += 1
        self._come_back(member)

    # -- striking ------------------------------------------------------------------------------

    def _strike(self, now: float) -> None:
        """One more fault, of a kind that has not struck yet while there are such."""
        active = {fault.kind for fault in [*self._members.values(), *self._links.values()]}
        kind = self._random.choice([k for k in self._owed() if k not in active] or [*self._kinds])
        up = [member for member in self.cluster if self._is_free(member)]
        if "leader" in kind:
            up = [member for member in up if self._leads(member)]
        if up:
            self._kinds[kind](self._random.choice(up), now)
            if not kind.endswith("disk"):  # which shows its effect later
                self.struck[kind] += 1

    def _is_free(self, member: Member) -> bool:
        feeder = self.load.feeders[member.name]
        return member.runs and feeder.client is not None and member.name not in self._members

    def _leads(self, member: Member) -> bool:
        """As its own node last said."""
        status = self.load.feeders[member.name].status
        return status is not None and status["role"] == "leader"

    def _until(self, now: float, low: float = 0.05, high: float = 1.5) -> float:
        return now + self._random.uniform(low, high)

    def _kill(self, member: Member, now: float) -> None:
        self.load.kill(member)
        self._members[member.name] = Fault("killed", self._until(now), member.start)

    def _kill_all(self, _: Member, now: float) -> None:
        for member in self.cluster:
            if member.runs:
                self.load.kill(member)
                # What else was wrong with it ends with its process.
                self._members[member.name] = Fault("killed", now, member.start)

    def _pause(self, member: Member, now: float, low: float = 0.05, high: float = 1.0) -> None:
        member.pause()
        self._members[member.name] = Fault("stopped", self._until(now, low, high), member.resume)

    def _pause_long(self, member: Member, now: float) -> None:
        self._pause(member, now, 2 * ELECTION_SECONDS, 5 * ELECTION_SECONDS)

    def _restart_with(
        self, kind: str, environment: dict[str, str], member: Member, now: float
    ) -> None:
        self.load.kill(member)
        member.start(environment)
        until = self._until(now, 2.0, 4.0)
        self._members[member.name] = Fault(kind, until, partial(self._restart, member))

    def _restart(self, member: Member) -> None:
        """The end of a disk's fault that has not ended the process before."""
        if SLOW in member.output.read_text().splitlines():
            self.struck["slow disk"] += 1
        if member.runs:
            member.kill()
        self._come_back(member)

    def _come_back(self, member: Member) -> None:
        member.wait(SECONDS)
        self.load.feeders[member.name].disconnect()
        member.start()

    def _fill_disk(self, member: Member, now: float) -> None:
        """No file of this process may grow beyond what its data takes now."""
        used = (member.directory / "data.mdb").stat().st_blocks * BLOCK_BYTES
        resource.prlimit(member.pid, resource.RLIMIT_FSIZE, (used, resource.RLIM_INFINITY))
        until = self._until(now, 2.0, 4.0)
        self._members[member.name] = Fault("full disk", until, partial(self._restart, member))

    # -- links ---------------------------------------------------------------------------------

    def _cut(self, sender: str, receiver: str, mode: Mode, until: float) -> None:
        self.links.set(sender, receiver, mode)
        heal = partial(self.links.set, sender, receiver, Mode.CARRY)
        self._links[sender, receiver] = Fault("cut", until, heal)

    def _cut_one_way(self, mode: Mode, member: Member, now: float) -> None:
        other = self._random.choice(self.load.others(member))
        self._cut(member.name, other, mode, self._until(now))

    def _cut_pair(self, member: Member, now: float) -> None:
        other, until = self._random.choice(self.load.others(member)), self._until(now)
        mode = self._random.choice([Mode.HOLD, Mode.SWALLOW, Mode.REFUSE])
        self._cut(member.name, other, mode, until)
        self._cut(other, member.name, mode, until)

    def _isolate(self, member: Member, now: float) -> None:
        until = self._until(now, 2 * ELECTION_SECONDS, 5 * ELECTION_SECONDS)
        mode = self._random.choice([Mode.HOLD, Mode.SWALLOW, Mode.REFUSE])
        for other in self.load.others(member):
            self._cut(member.name, other, mode, until)
            self._cut(other, member.name, mode, until)
