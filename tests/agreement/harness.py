"""A cluster of cores in one thread: fake disks, fake network, virtual time. Knows no protocol.

What is written stays in the member's queue until `persist`, what is sent stays in the network until
`deliver`; a crash forgets every write that was not persisted. So a test decides what happens when,
and the same calls give the same run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from replog.agreement import (
    Agreement,
    Core,
    EntryRef,
    Leadership,
    Message,
    Meta,
    ReadState,
    Restored,
    Send,
)
from replog.entry import NO_EPOCH, Epoch, Kind
from replog.errors import PeerFault
from tests.agreement.image import (
    Image,
    Offer,
    Stored,
    StoredWrite,
    Value,
    Words,
    describe_message,
)

TURNS_MAX = 1000
"""A core that still wants something after so many calls of `ready` never stops wanting."""


class Packet(NamedTuple):
    """A message in the network."""

    source: str
    target: str
    message: Message
    entries: tuple[tuple[Meta, Value], ...]


@dataclass
class Member:
    """One member as its host sees it."""

    name: str
    disk: Image
    core: Core
    memory: Image
    up: bool = True
    unpersisted: deque[StoredWrite] = field(default_factory=deque)
    """Writes under way to the disk."""
    held: list[Send] = field(default_factory=list)
    """Sends that wait for a write."""
    durable_write_id: int = 0
    staged: dict[EntryRef, Value] = field(default_factory=dict)
    """Payloads that arrived or were proposed in this turn."""
    shown: Leadership | None = None
    reading: set[int] = field(default_factory=set)
    """Reads neither confirmed nor failed."""
    unreported: deque[tuple[str, int, int]] = field(default_factory=deque)
    """Reports of `sent` that the core waits for."""
    offered: dict[int, EntryRef] = field(default_factory=dict)
    """The bases of snapshots that the core installs in this turn."""

    def value_of(self, index: int, source: Epoch) -> Value:
        """The payload of an entry to write: it has just come, or is in memory under that name."""
        ref = EntryRef(index, source)
        if ref in self.staged:
            return self.staged[ref]
        stored = self.memory.find(ref)
        assert stored is not None, f"{self.name} writes {ref}, which it does not have"
        return stored.value


class Cluster:
    """Members, their disks and the network between them."""

    def __init__(
        self,
        agreement: Agreement,
        names: Iterable[str],
        *,
        number_is_enough: bool = False,
        seed: int = 0,
        disks: Mapping[str, Image] | None = None,
        watch: Callable[[Cluster, Member], None] = lambda cluster, member: None,
        write_line: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.agreement = agreement
        self.words = Words(number_is_enough=number_is_enough)
        self.names = tuple(names)
        self.membership = agreement.membership(frozenset(self.names))
        self.random = Random(seed)
        self.now = 1000
        self.network: list[Packet] = []
        self.cut: set[tuple[str, str]] = set()
        """Links that lose everything silently."""
        self.refused: set[tuple[str, str]] = set()
        """Links whose loss the sender's host notices."""
        self.reports_wait = False
        """Whether `sent` is reported only by `report`."""
        self.entries_per_packet_max = 1 << 30
        self.committed: dict[int, Value] = {}
        """Every entry that any member has delivered."""
        self.leaders: dict[Epoch, str] = {}
        """Who has led each epoch."""
        self.asked: dict[int, int] = {}
        """The highest index committed anywhere when each read was asked for."""
        self.confirmed: dict[int, int] = {}
        self.failed: set[int] = set()
        self.offers = self.installs = 0
        """Snapshots sent, and those that were needed."""
        self.faults: list[str] = []
        """Messages that a member took for a fault of their sender: correct members send none."""
        self.watch = watch
        self.write_line = write_line
        disks = disks or {}
        self.members: dict[str, Member] = {}
        for name in self.names:
            disk = disks.get(name, Image())
            member = Member(name, disk, self._core(name, disk), disk.copy())
            self.members[name] = member
            self._show_leadership(member)

    # --- inputs -----------------------------------------------------------------------------------

    def tick(self, name: str) -> None:
        member = self.members[name]
        member.core.tick(self.now)
        self._turn(member)

    def campaign(self, name: str) -> None:
        """Let the time pass at which this member gives up waiting for a leader."""
        deadline = self.members[name].core.deadline
        assert deadline is not None
        self.now = max(self.now, deadline)
        self.tick(name)

    def wait(self, duration_ms: int, settle: Callable[[], None] = lambda: None) -> None:
        """Let time pass for all, tick by tick; `settle` after each and at the end."""
        end = self.now + duration_ms
        while due := [pair for pair in self._deadlines() if pair[0] <= end]:
            deadline, name = min(due)
            self.now = max(self.now, deadline)
            self.tick(name)
            settle()
        self.now = end
        settle()

    def propose(self, name: str, data: str) -> EntryRef | None:
        member = self.members[name]
        ref = self._propose(member, Value(Kind.RECORDS, data))
        self._turn(member)
        return ref

    def read(self, name: str) -> int | None:
        """Ask for a confirmed read; its token."""
        member = self.members[name]
        token = len(self.asked) + 1
        if not member.core.read(self.now, token):
            return None
        self.asked[token] = max(self.committed, default=0)
        member.reading.add(token)
        self._turn(member)
        return token

    def deliver(self, *packets: Packet) -> None:
        """Hand packets to their one target, which must be up; ask its core once, at the end."""
        member = self.members[packets[0].target]
        for packet in packets:
            if isinstance(packet.message, Offer):
                self._install(member, packet.message.base)
                continue
            for meta, value in packet.entries:
                member.staged[EntryRef(meta.index, meta.epoch)] = value
            metas = [meta for meta, _ in packet.entries]
            try:
                member.core.receive(self.now, packet.source, packet.message, metas)
            except PeerFault as fault:
                self.faults.append(f"{member.name} drops {packet}: {fault}")
                self.write_line(f"{member.name} drops it: {fault}")
        self._turn(member)

    def persist(self, name: str, count: int | None = None) -> None:
        """Make the oldest writes durable: all of them, or so many."""
        member = self.members[name]
        count = len(member.unpersisted) if count is None else count
        for _ in range(count):
            change = member.unpersisted.popleft()
            member.disk.apply(change)
            member.disk.position = change.position
            member.durable_write_id = change.write.write_id
        if count:
            self.write_line(f"{name} has write {member.durable_write_id} on disk")
            member.core.durable(self.now, member.durable_write_id)
            leaving = [s for s in member.held if s.after_write_id <= member.durable_write_id]
            member.held = [s for s in member.held if s.after_write_id > member.durable_write_id]
            for send in leaving:
                self._leave(member, send)
            self._turn(member)

    def report(self, name: str) -> None:
        """Tell the core of the oldest send with entries that it has left."""
        member = self.members[name]
        member.core.sent(*member.unreported.popleft())
        self._turn(member)

    def lose(self, name: str, peer: str) -> None:
        """Tell the core that something for this peer did not arrive; true or not, it must cope."""
        member = self.members[name]
        member.unreported = deque([report for report in member.unreported if report[0] != peer])
        member.core.lost(peer)
        self._turn(member)

    def snapshot(self, name: str) -> int:
        """Take a snapshot of what is delivered, as the disk has it; the index it stands for."""
        member = self.members[name]
        ref = member.disk.ref_at(member.disk.position)
        if ref.index >= max(member.memory.base.index, 1):  # else an install is on its way
            assert member.core.epoch_at(ref.index) in {NO_EPOCH, ref.epoch}
        member.disk.snapshot = ref
        return ref.index

    def compact(self, name: str, index: int) -> None:
        """Drop every entry up to this one: delivered on this disk, and in its snapshot."""
        member = self.members[name]
        if index <= member.disk.base.index:
            return
        assert index <= min(member.disk.position, member.disk.snapshot.index)
        self.write_line(f"{name} compacts to {index}")
        base = member.disk.ref_at(index)
        member.disk.compact(base)
        if index > member.memory.base.index:  # else an install is on its way to the disk
            member.memory.compact(base)
            member.core.compacted(index)
            self._turn(member)

    def crash(self, name: str) -> None:
        """Lose the memory and every write that was not persisted."""
        member = self.members[name]
        member.up = False
        member.unpersisted.clear()
        member.held.clear()
        member.reading.clear()
        member.unreported.clear()
        member.staged.clear()

    def restart(self, name: str) -> None:
        """Come back with what is on disk."""
        member = self.members[name]
        assert not member.up
        member.up = True
        member.core = self._core(name, member.disk)
        member.memory = member.disk.copy()
        member.durable_write_id = 0
        self._show_leadership(member)
        self._turn(member)

    def partition(self, groups: Iterable[Iterable[str]]) -> None:
        """Cut every link between these groups."""
        side = {name: number for number, group in enumerate(groups) for name in group}
        self.cut = {(a, b) for a in self.names for b in self.names if side.get(a) != side.get(b)}

    def heal(self) -> None:
        self.cut.clear()
        self.refused.clear()

    def stabilize(self, names: Iterable[str] | None = None) -> None:
        """Persist and deliver until nothing is left, among these members."""
        chosen = set(self.names if names is None else names)
        moved = True
        while moved:
            moved = False
            for name in sorted(chosen):
                member = self.members[name]
                if member.up and member.unpersisted:
                    self.persist(name)
                    moved = True
                while member.up and member.unreported:
                    self.report(name)
            for packet in self.take(lambda packet: packet.target in chosen):
                if self.members[packet.target].up:
                    self.write_line(f"{packet.target} <- {packet.source}: {_name(packet)}")
                    self.deliver(packet)
                moved = True

    def take(self, wanted: Callable[[Packet], bool]) -> list[Packet]:
        """Remove packets from the network, oldest first."""
        taken: list[Packet] = []
        left: list[Packet] = []
        for packet in self.network:
            (taken if wanted(packet) else left).append(packet)
        self.network[:] = left
        return taken

    # --- what a host does -------------------------------------------------------------------------

    def _turn(self, member: Member) -> None:
        """Collect what the core wants, until it wants nothing."""
        self._open_leadership(member)
        for _ in range(TURNS_MAX):
            if not member.core.has_ready():
                break
            self._take_ready(member)
        else:
            raise AssertionError(f"{member.name} never stops wanting something")
        assert not member.offered, f"{member.name} does not install {member.offered}"
        member.staged.clear()
        self.watch(self, member)

    def _open_leadership(self, member: Member) -> None:
        """Offer no-ops for as long as a new leader takes them."""
        self._show_leadership(member)
        while (leadership := member.core.leadership).role == "leader":
            words = f"{member.name} leads {leadership.epoch.number}"
            if leadership.first_index or not self._propose(member, Value(Kind.NOOP, words)):
                break

    def _take_ready(self, member: Member) -> None:
        ready = member.core.ready()
        for write in ready.writes:
            entries = {
                index: Stored(epoch, member.value_of(index, source))
                for index, epoch, source in write.entries
            }
            installed = self._installed(member, write.install)
            change = StoredWrite(write, entries, member.memory.position, installed)
            self.write_line(f"{member.name} writes {self.words.write(change)}")
            member.memory.apply(change)
            member.unpersisted.append(change)
        for send in ready.sends:
            if send.after_write_id > member.durable_write_id:
                self.write_line(
                    f"{member.name} holds for write {send.after_write_id}: "
                    f"{describe_message(send.message)} to {send.to}"
                )
                member.held.append(send)
            else:
                self._leave(member, send)
        self._commit(member, ready.commit_index)
        for read in ready.reads:
            self._confirm(member, read)
        for token in ready.reads_failed:
            self.write_line(f"{member.name} cannot confirm read {token}")
            self.failed.add(token)
            member.reading.remove(token)
        assert len(set(ready.snapshots_for)) == len(ready.snapshots_for)
        for peer in ready.snapshots_for:
            self._offer(member, peer)

    def _leave(self, member: Member, send: Send) -> None:
        carried = tuple(self._carried(member, send))
        line = f"{member.name} -> {send.to}: {describe_message(send.message)}"
        if carried:
            line += " with " + " ".join([f"{meta.index}:{value}" for meta, value in carried])
        link = (member.name, send.to)
        if link in self.refused:
            self.write_line(f"{line} (refused)")
            if carried:
                member.core.lost(send.to)
            return
        self.write_line(f"{line} (lost)" if link in self.cut else line)
        if link not in self.cut:
            self.network.append(Packet(member.name, send.to, send.message, carried))
        if carried:
            last, size = carried[-1][0].index, sum(meta.size for meta, _ in carried)
            member.unreported.append((send.to, last, size))
            if not self.reports_wait:
                member.core.sent(*member.unreported.popleft())

    def _offer(self, member: Member, peer: str) -> None:
        """Send the newest whole snapshot, all of it at once."""
        base = member.disk.snapshot
        line = f"{member.name} -> {peer}: {describe_message(Offer(base))}"
        lost = {(member.name, peer)} & (self.cut | self.refused)
        self.write_line(f"{line} (lost)" if lost else line)
        if not lost and base.index:
            self.offers += 1
            self.network.append(Packet(member.name, peer, Offer(base), ()))

    def _install(self, member: Member, base: EntryRef) -> None:
        """A snapshot has come, whole."""
        known = max([other.memory.position for other in self.members.values()])
        assert base.index <= known, "a snapshot of what is not committed"
        before = member.core.last_index
        if not member.core.install(self.now, base):
            assert member.core.last_index == before
            self.write_line(f"{member.name} needs no snapshot up to {base.index}")
            return
        member.offered[base.index] = base

    def _installed(self, member: Member, index: int | None) -> EntryRef | None:
        """A write that installs: everything up to the base counts as delivered."""
        if index is None:
            return None
        base = member.offered.pop(index)
        assert base.index > member.memory.position, f"{member.name} goes back to {base.index}"
        member.memory.position = base.index
        self.installs += 1
        return base

    def _carried(self, member: Member, send: Send) -> Iterator[tuple[Meta, Value]]:
        """The entries beside a message, under the epochs they are stored with."""
        for ref in send.entries[: self.entries_per_packet_max]:
            stored = member.memory.find(ref)
            assert stored is not None, f"{member.name} sends {ref}, which it does not have"
            epoch, value = stored
            yield Meta(ref.index, epoch, value.kind, len(value.data)), value

    def _commit(self, member: Member, commit_index: int) -> None:
        memory = member.memory
        news = range(memory.position + 1, commit_index + 1)
        for index in news:
            value = memory.entries[index].value
            if index not in self.committed:
                self.committed[index] = value
                self._check_durable(index, value)
            known = self.committed[index]
            assert known == value, f"{member.name} commits {value} at {index}, others {known}"
        if news:
            words = [f"{index}:{memory.entries[index].value}" for index in news]
            self.write_line(f"{member.name} commits {' '.join(words)}")
            memory.position = commit_index

    def _check_durable(self, index: int, value: Value) -> None:
        """What is committed lies on the disks of a commit quorum."""
        held = {name: member.disk.entries.get(index) for name, member in self.members.items()}
        holders = {name for name, stored in held.items() if stored and stored.value == value}
        assert self.membership.quorums.can_commit(holders), f"{index}:{value} is on {holders} only"

    def _confirm(self, member: Member, read: ReadState) -> None:
        self.write_line(f"{member.name} confirms read {read.token} at {read.index}")
        assert read.index >= self.asked[read.token], f"read {read.token} misses a committed entry"
        assert read.index <= member.memory.position
        self.confirmed[read.token] = read.index
        member.reading.remove(read.token)

    def _propose(self, member: Member, value: Value) -> EntryRef | None:
        ref = member.core.propose(value.kind, len(value.data))
        if ref is not None:
            member.staged[ref] = value
        return ref

    def _show_leadership(self, member: Member) -> None:
        now = member.core.leadership._replace(first_index=0)
        if now != member.shown:
            member.shown = now
            self.write_line(f"{member.name} is {self.words.leadership(now)}")
        if now.role == "leader":
            known = self.leaders.setdefault(now.epoch, member.name)
            assert known == member.name, f"both {known} and {member.name} led {now.epoch}"

    def _core(self, name: str, disk: Image) -> Core:
        restored = Restored(
            disk.promise,
            disk.epochs,
            disk.last_index,
            disk.position,
            self.membership,
            disk.base,
            disk.tail,
        )
        return self.agreement.core(name, restored, self.now, Random(self.random.getrandbits(32)))

    def _deadlines(self) -> Iterator[tuple[int, str]]:
        for member in self.members.values():
            if member.up and member.core.deadline is not None:
                yield member.core.deadline, member.name


def _name(packet: Packet) -> str:
    return type(packet.message).__name__
