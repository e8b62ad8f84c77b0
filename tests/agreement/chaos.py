"""Random runs of a cluster: one seed, one run. Knows no protocol."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from replog.errors import ReplogError
from replog.quorum import majority
from tests.agreement.harness import Cluster, Member

NETWORK_PACKETS_MAX = 50
SETTLE_MS = 10_000
"""Time within which a healed cluster must agree on a new entry."""


class Chaos:
    """Loses, repeats and reorders messages, cuts links, crashes members, delays disks and time."""

    def __init__(self, cluster: Cluster, seed: int, *, compacting: bool = False) -> None:
        self.cluster = cluster
        self.random = Random(seed)
        self.proposed = 0
        self.crashes = 0
        size = len(cluster.names)
        weighted: list[tuple[int, Callable[[], None]]] = [
            (60 * size**2, self._deliver),
            (60 * size, self._persist),
            (100, self._pass_time),
            (self.random.choice([0, 5]), self._campaign),
            (80, self._propose),
            (20, self._read),
            (self.random.choice([5, 60]), self._drop),
            (self.random.choice([0, 10]), self._lose),
            (self.random.choice([0, 10]), self._crash),
            (15, self._restart),
            (self.random.choice([0, 10]), self._cut),
            (5, cluster.heal),
        ]
        self._actions = [action for _, action in weighted]
        self._weights = [weight for weight, _ in weighted]
        cluster.reports_wait = self.random.random() < 0.5
        cluster.entries_per_packet_max = self.random.choice([1, 3, 64])
        self._pauses_ms = self.random.choice([(1, 5, 10), (1, 10, 30), (10, 30, 100)])
        self._clear = self.random.choice([0.0, 0.0, 0.5, 1.0])
        self._disk_speed = self.random.choice([0.05, 0.3])
        self._narrow = self.random.choice([0.0, 0.8])
        self._reign_steps = self.random.choice([15, 30, 60])
        self._duplicate = self.random.choice([0.0, 0.1, 0.3])
        self._batch = self.random.choice([0.0, 0.1, 0.5])
        self._reorder = self.random.choice([0.0, 0.5])
        self._compacting = self.random.choice([0.02, 0.1, 0.5]) if compacting else 0.0

    def run(self, steps: int) -> None:
        """So many random steps: all kinds mixed, or one reign after the other."""
        if self.random.random() < 0.4:
            for action in self.random.choices(self._actions, self._weights, k=steps):
                action()
                self._compact()
        else:
            self.cluster.reports_wait = False
            for _ in range(steps // 8):
                self._reign()
                self._compact()

    def settle(self) -> None:
        """End all faults; then a new entry must reach everybody."""
        cluster = self.cluster
        cluster.heal()
        cluster.reports_wait = False
        for member in cluster.members.values():
            if not member.up:
                cluster.restart(member.name)
        cluster.stabilize()
        end = cluster.now + SETTLE_MS
        last = max(cluster.committed, default=0)
        while min(member.memory.position for member in cluster.members.values()) <= last:
            assert cluster.now < end, "a healed cluster does not agree on anything new"
            for name in cluster.names:
                cluster.propose(name, "one more")
            cluster.wait(50, cluster.stabilize)
        assert not any(member.reading for member in cluster.members.values()), "a read hangs"

    # --- steps ------------------------------------------------------------------------------------

    def _deliver(self) -> None:
        network = self.cluster.network
        if not network:
            self._pass_time()
            return
        at = self.random.randrange(len(network)) if self.random.random() < self._reorder else 0
        self._arrive(at)

    def _drop(self) -> None:
        network = self.cluster.network
        if network:
            network.pop(self.random.randrange(len(network)))
        self._thin_out()

    def _thin_out(self) -> None:
        network = self.cluster.network
        while len(network) > NETWORK_PACKETS_MAX:
            network.pop(self.random.randrange(len(network)))

    def _persist(self) -> None:
        waiting = [member for member in self._up() if member.unpersisted]
        if waiting:
            member = self.random.choice(waiting)
            self.cluster.persist(member.name, self.random.randint(1, len(member.unpersisted)))
        for member in self._up():
            if member.unreported and self.random.random() < 0.5:
                self.cluster.report(member.name)

    def _pass_time(self) -> None:
        self.cluster.now += self.random.choice(self._pauses_ms)
        for member in self._up():
            if self.random.random() < 0.9:
                self.cluster.tick(member.name)

    def _campaign(self) -> None:
        """One clock runs ahead of what reaches its node."""
        member = self.random.choice(self._up())
        if member.core.deadline is not None:
            self.cluster.campaign(member.name)

    def _reign(self) -> None:
        """Somebody tries to lead some of the others, for a while; figure 8 is four of these."""
        cluster = self.cluster
        if self.random.random() < 0.5:
            self._restart()
        group = [member.name for member in self._up()]
        self.random.shuffle(group)
        if self.random.random() < self._narrow:
            del group[majority(len(cluster.names)) :]
        else:
            del group[self.random.randint(1, len(group)) :]
        if self.random.random() < self._clear:
            cluster.network.clear()
        self._thin_out()
        cluster.now += self.random.choice([0, 100, 300])
        for name in self.random.choice([[], group]):
            cluster.tick(name)
        for name in group[:2]:
            if cluster.members[name].core.deadline is not None:
                cluster.campaign(name)
            self._exchange(group, self.random.randrange(self._reign_steps))
        self.random.choice([self._read, self._read, self._propose, self._crash, self._drop])()

    def _exchange(self, group: list[str], steps: int) -> None:
        """Messages among these members, and their writes, one by one."""
        network = self.cluster.network
        for _ in range(steps):
            at = [n for n, p in enumerate(network) if {p.source, p.target} <= {*group}]
            slow = [name for name in group if self.cluster.members[name].unpersisted]
            if at and not (slow and self.random.random() < self._disk_speed):
                self._arrive(self.random.choice([at[0], at[-1], self.random.choice(at)]))
            elif slow:
                self.cluster.persist(self.random.choice(slow), 1)
            else:
                break

    def _arrive(self, at: int) -> None:
        """A packet reaches its target; a copy of it may stay under way."""
        network = self.cluster.network
        packet = network[at] if self.random.random() < self._duplicate else network.pop(at)
        if not self.cluster.members[packet.target].up:
            return
        if self.random.random() < self._batch:
            more = self.cluster.take(lambda other: other.target == packet.target)
            self.cluster.deliver(packet, *more)
        else:
            self.cluster.deliver(packet)

    def _propose(self) -> None:
        for member in self._up():
            if member.core.leadership.role == "leader":
                self.proposed += 1
                self.cluster.propose(member.name, f"x{self.proposed}")

    def _read(self) -> None:
        """Ask everybody, also who leads no more and does not know it; late answers come at once."""
        for member in self._up():
            if self.cluster.read(member.name) is not None and self.random.random() < 0.5:
                self._deliver_all(member.name)

    def _deliver_all(self, name: str) -> None:
        packets = self.cluster.take(lambda packet: packet.target == name)
        if packets:
            self.cluster.deliver(*packets)

    def _lose(self) -> None:
        member, peer = self._link()
        if member != peer and self.cluster.members[member].up:
            self.cluster.lose(member, peer)

    def _crash(self) -> None:
        up = self._up()
        if len(up) > 1:
            self.crashes += 1
            busy = [member for member in up if member.unpersisted]
            self.cluster.crash(self.random.choice(busy or up).name)

    def _restart(self) -> None:
        for member in self.cluster.members.values():
            if not member.up:
                self.cluster.restart(member.name)
                return

    def _compact(self) -> None:
        """Somebody takes a snapshot, or drops some of what its newest one stands for."""
        if not self._compacting or self.random.random() >= self._compacting:
            return
        member = self.random.choice(self._up())
        if self.random.random() < 0.5:
            self.cluster.snapshot(member.name)
        base, end = member.disk.base.index, member.disk.snapshot.index
        self.cluster.compact(member.name, self.random.choice([base, (base + end) // 2, end]))

    def _cut(self) -> None:
        names = list(self.cluster.names)
        self.random.shuffle(names)
        if self.random.random() < 0.5:
            at = self.random.randrange(len(names))
            self.cluster.partition([names[:at], names[at:]])
        else:
            links = self.cluster.cut if self.random.random() < 0.5 else self.cluster.refused
            links.add(self._link())

    def _link(self) -> tuple[str, str]:
        return self.random.choice(self.cluster.names), self.random.choice(self.cluster.names)

    def _up(self) -> list[Member]:
        return [member for member in self.cluster.members.values() if member.up]


def run_seed(
    make_cluster: Callable[[int], Cluster], seed: int, steps: int, *, compacting: bool = False
) -> Chaos:
    """One run, healed at its end; a failure names the seed."""
    chaos = Chaos(make_cluster(seed), seed, compacting=compacting)
    try:
        chaos.run(steps)
        chaos.settle()
        assert chaos.cluster.faults == []
    except (AssertionError, ReplogError) as fault:
        fault.add_note(f"seed {seed}, {steps} steps")
        raise
    return chaos
