"""One member: a real core, frozen between two steps, with the disk and the host around it.

Rules of this file:

1. A member is a value, and a step of it a function of the member and what happens to it. So each
   step is computed once, in however many states of the cluster it is possible.
2. The host does as `replog.agreement` says: a write is a state that the disk will be in, one after
   the other; a message that waits for a write leaves after it.
3. What one member can be seen to do wrong is found here, whatever the others do.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from replog.agreement import EntryRef, Message, Meta, Restored, WriteEntry
from replog.entry import NO_EPOCH, Epoch, Kind
from replog.membership import Membership
from replog.quorum import Quorums
from replog.testing.exploration.bounds import Act
from replog.testing.exploration.capture import Capture
from replog.testing.promises import falls
from replog.testing.violation import Violation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replog.agreement import Agreement, Core, Ready, Send, Write

ENTRY_BYTES = 1
PAUSE_MS = 150
"""The least that passes when a timer does. Two of these without answers depose a leader, and one
lets it repeat what was not answered, with the default tunings."""
TURNS_MAX = 100


class Latest(Random):
    """Draws the highest number, always: which one is drawn matters not where every order of events
    is tried."""

    def randint(self, a: int, b: int) -> int:
        """The upper end."""
        return b


class Value(NamedTuple):
    """What an entry holds: told apart by where and when it was proposed, not by its epoch."""

    kind: Kind
    node: str
    life: int
    number: int


class Stored(NamedTuple):
    """An entry on a disk."""

    index: int  # type: ignore[assignment]
    epoch: Epoch
    value: Value


class Image(NamedTuple):
    """What a disk holds."""

    promise: Epoch = NO_EPOCH
    position: int = 0
    """How far the member had delivered."""
    entries: tuple[Stored, ...] = ()
    """Ascending."""

    def find(self, ref: EntryRef) -> Stored | None:
        """The entry of this name, `NO_EPOCH` standing for any."""
        for entry in self.entries:
            if entry.index == ref.index and ref.epoch in {NO_EPOCH, entry.epoch}:
                return entry
        return None

    @property
    def committed(self) -> tuple[Value, ...]:
        """What was delivered."""
        entries = self.entries[: self.position]
        if [entry.index for entry in entries] != list(range(1, self.position + 1)):
            raise Violation(f"entries up to {self.position} are committed, and some are not here")
        return tuple([entry.value for entry in entries])

    @property
    def restored(self) -> tuple[tuple[tuple[int, Epoch], ...], int, tuple[EntryRef, ...]]:
        """The runs of epochs, the last index, and what lies above the position."""
        held = {entry.index: entry.epoch for entry in self.entries}
        last = max(held, default=0)
        runs: list[tuple[int, Epoch]] = []
        for index in range(1, last + 1):
            epoch = held.get(index, NO_EPOCH)
            if not runs or runs[-1][1] != epoch:
                runs.append((index, epoch))
        refs = [EntryRef(index, held[index]) for index in sorted(held) if index > self.position]
        return tuple(runs), last, tuple(refs)


class Packet(NamedTuple):
    """A message in the network."""

    source: str
    target: str
    kind: type[Message]
    """The message's class: tuples of different classes may be equal."""
    message: Message
    entries: tuple[tuple[Meta, Value], ...]


class Held(NamedTuple):
    """A message that waits for a write."""

    after_write_id: int
    packet: Packet


class Member(NamedTuple):
    """One member between two steps."""

    core: Any
    """Frozen."""
    disk: Image
    writes: tuple[Image, ...] = ()
    """What the disk will hold after each write that is under way."""
    written: int = 0
    """The last write that is on the disk."""
    held: frozenset[Held] = frozenset()
    applied: int = 0
    """How far this life has delivered."""
    clock: int = 0
    """Milliseconds since this life began."""
    life: int = 0
    proposed: int = 0
    """How many entries this life has proposed."""

    @property
    def memory(self) -> Image:
        """What the disk holds once every write is on it."""
        return (self.writes[-1] if self.writes else self.disk)._replace(position=self.applied)


class Event(NamedTuple):
    """What happens to a member."""

    act: Act
    packet: Packet | None = None
    """What is delivered."""
    peer: str = ""
    """To whom entries did not leave."""


class Facts(NamedTuple):
    """What a member shows to who watches all of them."""

    leads: tuple[Epoch, str, int] | None
    """The epoch, and who leads it in which of its lives."""
    committed: tuple[Value, ...]


class Step(NamedTuple):
    """What an event made of a member."""

    member: Member
    packets: tuple[Packet, ...]
    facts: Facts


class Stage:
    """Where members of one cluster take their steps."""

    def __init__(
        self, agreement: Agreement, names: Sequence[str], entries_per_packet_max: int
    ) -> None:
        self.membership = agreement.membership(frozenset(names))
        self.by_number = agreement.epoch_is_its_number
        """Whether an epoch is its number."""
        self.entries_per_packet_max = entries_per_packet_max
        self._agreement = agreement
        self._random = Latest(0)
        self._capture = Capture(
            [type(agreement), Latest, Membership, Quorums, Epoch, EntryRef, WriteEntry]
        )
        package = type(agreement).__module__.partition(".")[0]
        name = f"{package}.invariants"
        self._invariants: Any = import_module(name) if find_spec(name) else None

    def start(self, node: str, disk: Image, life: int = 0) -> Step:
        """A life begins with what is on the disk."""
        runs, last_index, accepted = disk.restored
        restored = Restored(
            disk.promise,
            runs,
            last_index,
            disk.position,
            self.membership,
            accepted=accepted,
        )
        core = self._agreement.core(node, restored, 0, self._random)
        turn = Turn(self, node, Member(None, disk, applied=disk.position, life=life), core)
        return turn.end(self._capture)

    def step(self, node: str, member: Member, event: Event) -> Step | None:
        """What comes of an event; None when it cannot happen now.

        Raises whatever the core raises, and `Violation`.
        """
        if event.act is Act.CRASH:
            return self.start(node, member.disk, member.life + 1)
        core = self._capture.thaw(member.core)
        before = self._observe(core)
        turn = Turn(self, node, member, core)
        if not turn.take(event):
            return None
        step = turn.end(self._capture)
        if self._invariants:
            self._invariants.check_step(before, self._observe(core))
        return step

    def check(self, core: Core) -> None:
        """The invariants of this agreement hold, if it has any."""
        if self._invariants:
            self._invariants.check_state(core)

    def _observe(self, core: Core) -> Any:
        return self._invariants.observe(core) if self._invariants else None


class Turn:
    """One step of one live core and its host."""

    def __init__(self, stage: Stage, node: str, member: Member, core: Core) -> None:
        self._stage = stage
        self._node = node
        self._core = core
        self._before = member
        self._disk = member.disk
        self._writes = list(member.writes)
        self._written = member.written
        self._held = set(member.held)
        self._applied = member.applied
        self._clock = member.clock
        self._proposed = member.proposed
        self._memory = member.memory
        self._staged: dict[EntryRef, Value] = {}
        self._leaving: list[Packet] = []

    def take(self, event: Event) -> bool:
        """Let it happen; False when it cannot."""
        core = self._core
        match event.act:
            case Act.DELIVER if event.packet is not None:
                _, _, _, message, entries = event.packet
                for meta, value in entries:
                    self._staged[EntryRef(meta.index, meta.epoch)] = value
                core.receive(
                    self._clock, event.packet.source, message, [meta for meta, _ in entries]
                )
            case Act.PERSIST:
                return self._persist()
            case Act.PROPOSE:
                return self._leads and core.has_room and self._propose(Kind.RECORDS)
            case Act.TIME_OUT | Act.BEAT:
                if core.deadline is None or self._leads is not (event.act is Act.BEAT):
                    return False
                self._clock = max(core.deadline, self._clock + PAUSE_MS)
                core.tick(self._clock)
            case Act.LAPSE:
                return self._lapse()
            case Act.LOSE:
                core.lost(event.peer)
        return True

    def end(self, capture: Capture) -> Step:
        """Carry out what the core wants; what the member is then."""
        while self._leads and not self._core.leadership.first_index:
            if not self._propose(Kind.NOOP):
                break
        for _ in range(TURNS_MAX):
            if not self._core.has_ready():
                break
            self._take_ready(self._core.ready())
        else:
            raise Violation(f"{self._node} never stops wanting something")
        self._stage.check(self._core)
        leadership = self._core.leadership
        life = self._before.life
        member = Member(
            capture.freeze(self._core),
            self._disk,
            tuple(self._writes),
            self._written,
            frozenset(self._held),
            self._applied,
            self._clock,
            life,
            self._proposed,
        )
        leads = (leadership.epoch, self._node, life) if self._leads else None
        return Step(member, tuple(self._leaving), Facts(leads, member.memory.committed))

    @property
    def _leads(self) -> bool:
        return self._core.leadership.role == "leader"

    def _persist(self) -> bool:
        if not self._writes:
            return False
        self._disk = self._writes.pop(0)
        self._written += 1
        self._core.durable(self._clock, self._written)
        leaving = {held for held in self._held if held.after_write_id <= self._written}
        self._held -= leaving
        self._leaving += [held.packet for held in leaving]
        return True

    def _lapse(self) -> bool:
        deadline, leader = self._core.deadline, self._core.leadership.leader
        if deadline is None or leader in {None, self._node} or deadline - 1 <= self._clock:
            return False
        self._clock = deadline - 1
        self._core.tick(self._clock)
        return True

    def _propose(self, kind: Kind) -> bool:
        ref = self._core.propose(kind, ENTRY_BYTES)
        if ref is None:
            return False
        self._proposed += 1
        self._staged[ref] = Value(kind, self._node, self._before.life, self._proposed)
        return True

    def _take_ready(self, ready: Ready) -> None:
        for write in ready.writes:
            self._memory = self._after(write)
            self._writes.append(self._memory)
        for send in ready.sends:
            packet = self._packet(send)
            if send.after_write_id > self._written:
                self._hold(Held(send.after_write_id, packet))
            else:
                self._leaving.append(packet)
            if packet.entries:
                carried = len(packet.entries)
                self._core.sent(send.to, packet.entries[-1][0].index, carried * ENTRY_BYTES)
        if ready.commit_index < self._applied:
            raise Violation(f"{self._node} commits {ready.commit_index} after {self._applied}")
        self._applied = ready.commit_index
        self._memory = self._memory._replace(position=self._applied)

    def _hold(self, held: Held) -> None:
        """One copy is enough, the first that leaves: from then on it is in the mail."""
        if not any(held.packet == other.packet for other in self._held):
            self._held.add(held)

    def _after(self, write: Write) -> Image:
        """What the disk holds after a write."""
        memory = self._memory
        promise = memory.promise if write.promise is None else write.promise
        if falls(memory.promise, promise, by_number=self._stage.by_number):
            raise Violation(f"{self._node} promised {memory.promise}, and now {promise}")
        end = write.truncate_from
        kept = {entry.index: entry for entry in memory.entries if end is None or entry.index < end}
        for index, epoch, source in write.entries:
            value = self._value(EntryRef(index, source))
            kept[index] = Stored(index, epoch, value)
        return Image(promise, memory.position, tuple([kept[index] for index in sorted(kept)]))

    def _value(self, ref: EntryRef) -> Value:
        """The payload of an entry: it has just come, or is in memory under that name."""
        if ref in self._staged:
            return self._staged[ref]
        stored = self._memory.find(ref)
        if stored is None:
            raise Violation(f"{self._node} writes {ref}, which it does not have")
        return stored.value

    def _packet(self, send: Send) -> Packet:
        carried: list[tuple[Meta, Value]] = []
        for ref in send.entries[: self._stage.entries_per_packet_max]:
            stored = self._memory.find(ref)
            if stored is None:
                raise Violation(f"{self._node} sends {ref}, which it does not have")
            kind = stored.value.kind
            carried.append((Meta(ref.index, stored.epoch, kind, ENTRY_BYTES), stored.value))
        return Packet(self._node, send.to, type(send.message), send.message, tuple(carried))
