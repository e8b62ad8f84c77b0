"""What strikes at random moments: stops, pauses, partitions, clock jumps, failing and full disks.

Rule of this file: whatever it does to a node or a link ends by itself, or with `relieve`.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING

from replog.disk_room import UNBOUNDED, DiskRoom
from replog.entry import NO_EPOCH
from replog.store.opening import STORE_ID_BYTES
from replog.testing.network import links_but
from replog.testing.plan import is_kept

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replog.testing.host import Host
    from replog.testing.network import Link, Network
    from replog.testing.world import World

CLOCK_JUMP_MS_MAX = 3_600_000
CUT_EFFECTS_MAX = 12
LEADER_STRIKES = frozenset({"isolated leader", "isolated new leader", "unheard leader"})
"""What strikes the leader, if there is one."""
BARRIERS_PER_PARTITION = 10
LEFT_BEHIND_MS_MIN = 300
LEFT_BEHIND_MS_MAX = 1500
STALE_LEADER_MS_MAX = 400
"""Longer than a leader that hears nobody believes in itself."""


class Strikes:
    """Draws what happens to whom, and when."""

    def __init__(self, world: World, hosts: Sequence[Host], network: Network) -> None:
        self._world = world
        self._hosts = hosts
        self._network = network
        self._partitions: list[list[Link]] = []
        self._over = False
        self._isolated = NO_EPOCH
        """The latest leadership that was struck as a new one."""
        self._number = 0
        """Of the last strike that was drawn."""
        self.struck: list[int] = []
        """The numbers of the strikes that happened."""

    def begin(self) -> None:
        """The safety phase begins."""
        if self._world.plan.strikes:
            self._await_next()

    def relieve(self) -> None:
        """Nothing strikes any more, and whatever did is over; crashed nodes stay down."""
        self._over = True
        self._world.trace.record("*", "fault", "all over")
        for links in self._partitions:
            self._network.heal(links)
        self._partitions.clear()
        for host in self._hosts:
            host.paused_until = host.cut_at = 0
            host.disk.failing = ""
            self._fill_disk(host, full=False)

    def _await_next(self) -> None:
        delay_ms = 1 + self._world.interval_ms(self._world.plan.strike_ms_mean)
        self._world.schedule.after(delay_ms, self._strike)

    def _strike(self) -> None:
        if self._over:
            return
        self._await_next()
        self._number += 1
        plan = self._world.plan
        if is_kept(self._number, plan.strikes_kept):
            self.struck.append(self._number)
            what = self._world.random.choice(plan.strikes)
            self._carry_out(what, self._victim(what))

    def _carry_out(self, what: str, host: Host) -> None:
        world = self._world
        match what:
            case "crash":
                world.record_fault(host.node, what)
                self._crash(host)
            case "crash all":
                world.record_fault("*", what)
                for each in self._hosts:
                    self._crash(each)
            case "close":
                world.record_fault(host.node, what)
                host.close()
                world.schedule.after(self._length(), self._restart, host)
            case "cut":
                world.record_fault(host.node, what)
                host.cut_at = host.effects + 1 + world.below(CUT_EFFECTS_MAX)
            case "disk failure":
                world.record_fault(host.node, what)
                host.disk.failing = world.random.choice(("before", "after"))
                world.schedule.after(self._length(), self._restart, host)
            case "disk full":
                world.record_fault(host.node, what)
                self._fill_disk(host, full=True)
                world.schedule.after(self._length(), self._empty_disk, host)
            case "pause":
                duration_ms = self._length()
                world.record_fault(host.node, what, duration_ms)
                host.pause(duration_ms)
            case "wiped disk" | "left behind":
                (self._wipe if what == "wiped disk" else self._leave_behind)(host)
            case "clock jump":
                jump_ms = world.random.randint(-CLOCK_JUMP_MS_MAX, CLOCK_JUMP_MS_MAX)
                world.record_fault(host.node, what, jump_ms)
                host.clock_skew_ms += jump_ms
            case _:
                self._cut_links(what, host)

    def _length(self) -> int:
        return 1 + self._world.below(self._world.plan.strike_length_ms_max)

    def _victim(self, what: str) -> Host:
        """Any node; every other time the leader, if there is one."""
        leaders = [host for host in self._hosts if host.replica is not None and host.replica.leads]
        wanted = what in LEADER_STRIKES or self._world.chance(0.5)
        return self._world.random.choice(leaders if leaders and wanted else self._hosts)

    def _crash(self, host: Host) -> None:
        host.crash("struck")
        self._world.schedule.after(self._length(), self._restart, host)

    def _restart(self, host: Host) -> None:
        host.disk.failing = ""
        host.start()

    def _fill_disk(self, host: Host, *, full: bool) -> None:
        if host.replica is not None:
            host.replica.set_disk_room(DiskRoom(0, 0, 0) if full else UNBOUNDED)

    def _empty_disk(self, host: Host) -> None:
        self._fill_disk(host, full=False)

    def _leave_behind(self, host: Host) -> None:
        """Nothing comes to the node for long, or it is down for long: the others go on."""
        world = self._world
        if not all(each.disk.introduced for each in self._hosts):
            return
        duration_ms = LEFT_BEHIND_MS_MIN + world.below(LEFT_BEHIND_MS_MAX - LEFT_BEHIND_MS_MIN)
        world.record_fault(host.node, "left behind", duration_ms)
        if world.chance(0.5):
            host.crash("left behind")
            world.schedule.after(duration_ms, self._restart, host)
            return
        others = [other.node for other in self._hosts if other is not host]
        links = [(other, host.node) for other in others]
        self._network.cut(links)
        self._partitions.append(links)
        world.schedule.after(duration_ms, self._heal, links)

    def _wipe(self, host: Host) -> None:
        """The node loses its data. The others must refuse it from here, so it happens once, and
        only when all are introduced: those that are not would need it."""
        world = self._world
        introduced = all(each.disk.introduced for each in self._hosts)
        if len(self._hosts) < 3 or world.expected_to_stop or not introduced:
            return
        world.record_fault(host.node, "wiped disk")
        host.crash("its disk is wiped")
        world.checkers.durability.lost(host.node, copy(host.disk))
        world.expected_to_stop = frozenset({host.node})
        host.disk.wipe(world.random.randbytes(STORE_ID_BYTES))
        world.schedule.after(self._length(), self._restart, host)

    def _links(self, what: str, host: Host, others: Sequence[str]) -> list[Link]:
        """What to cut, each link in its one direction."""
        world = self._world
        if what in {"bridge", "chain", "star"}:
            return self._partial(what, [host.node, *world.random.sample(others, len(others))])
        if what in LEADER_STRIKES:
            near, far = [host.node], [*others]
        elif what == "broken link":
            near, far = [host.node], [world.random.choice(others)]
        else:
            size = world.below(len(others))
            near = [host.node, *world.random.sample(others, size)]
            far = [node for node in others if node not in near]
        links = [(one, other) for one in near for other in far]
        if what == "unheard leader":
            return links
        if what != "one-way partition":
            links += [(other, one) for one, other in links]
        elif world.chance(0.5):
            links = [(other, one) for one, other in links]
        return links

    def _partial(self, what: str, nodes: Sequence[str]) -> list[Link]:
        """All links but those of a hub and its rays, of a chain, or of two halves and a bridge."""
        half = (len(nodes) + 1) >> 1

        def stays(one: int, other: int) -> bool:
            low, high = sorted((one, other))
            if what == "star":
                return low == 0
            if what == "chain":
                return high == low + 1
            return low == 0 or (low < half) == (high < half)

        return links_but(nodes, stays)

    def _newly_leads(self, host: Host) -> bool:
        """Whether it leads, and was not asked about in this leadership before."""
        epoch = host.replica.leadership.epoch if host.replica is not None else NO_EPOCH
        if epoch.node != host.node or epoch <= self._isolated:
            return False
        self._isolated = epoch
        return True

    def _cut_links(self, what: str, host: Host) -> None:
        world = self._world
        others = [other.node for other in self._hosts if other is not host]
        if not others or (what == "isolated new leader" and not self._newly_leads(host)):
            return
        links = self._links(what, host, others)
        duration_ms = self._length() + (STALE_LEADER_MS_MAX if what in LEADER_STRIKES else 0)
        world.record_fault(
            "*", what, " ".join([f"{one}-{other}" for one, other in links]), duration_ms
        )
        self._network.cut(links)
        self._partitions.append(links)
        world.schedule.after(duration_ms, self._heal, links)
        # A leader that was cut off and does not know it yet must not confirm a read.
        for _ in range(BARRIERS_PER_PARTITION):
            delay_ms = world.below(min(duration_ms, STALE_LEADER_MS_MAX))
            world.schedule.after(delay_ms, self._ask_barrier, host)

    def _ask_barrier(self, host: Host) -> None:
        if host.replica is not None and not self._over:
            host.barrier()

    def _heal(self, links: list[Link]) -> None:
        if links in self._partitions:
            self._partitions.remove(links)
            self._network.heal(links)
