"""The judges of a simulated run: each knows one rule, and what it has seen.

With what they judge they share how quorums are counted, how epochs are ordered, and how entries are
unpacked.

================== =============================================================================
class              rule
================== =============================================================================
`History`          every node delivers the same entries, rows and digests, in index order, also
                   across restarts; every record once, as it was submitted, each producer's in order
`Durability`       whatever is delivered anywhere lies on the disks of a commit quorum
`Choices`          what a commit quorum's disks have held under one epoch is not called committed
                   sooner, and nothing else follows it; see `choices`
`Leaders`          an epoch has one leader, in one of its lives
`Votes`, `Ballots` a promise on a disk never falls; no message leaves that promises more than the
                   sender's disk has held; see `promises`
`Contents`         an index and an epoch name the same bytes on every disk
`Acknowledgements` an acknowledged record lies where it was said to, behind all that were
                   acknowledged before it was submitted, and is acknowledged once; a refused one
                   never appears
`Barriers`         a barrier that holds covers all that was delivered anywhere before it was asked
`Stewards`         a leader that hears no quorum for long is one no more
`Manners`          a node finds no fault with its peers: all of them are correct
================== =============================================================================

Each raises `Violation`.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from replog.entry import DIGEST_START, Epoch, unpack_records
from replog.producers import Producers
from replog.testing.bases import Bases
from replog.testing.choices import Choices
from replog.testing.promises import Ballots, Votes
from replog.testing.violation import Violation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from replog.agreement import Message
    from replog.entry import Entry
    from replog.producers import ProducerRow
    from replog.quorum import Quorums
    from replog.replica.effects import Completion
    from replog.retention import Retention
    from replog.store.interface import Delivered, Position, StoredEntry, StoredWrite
    from replog.store.memory import MemoryDisk


class AppendTicket(NamedTuple):
    """One append: the records it is about, and who was asked."""

    number: int
    node: str
    life: int
    payloads: tuple[bytes, ...]
    """One; all of them for a run."""


class History:
    """What was delivered: the same on every node, whichever comes first."""

    def __init__(self) -> None:
        self.rows: list[Delivered] = []
        """Entry `index` lies at `index - 1`."""
        self.records: list[bytes] = []
        """By offset."""
        self.offsets: dict[bytes, int] = {}
        """By record."""
        self.submitted: set[bytes] = set()
        self.excluded: set[bytes] = set()
        """Records of which a client was told that they are not in the log and never will be."""
        self.applied: dict[str, int] = {}
        """The last index each node's present life has delivered, or started from."""
        self._installed_offsets: dict[str, int] = {}
        self._data: list[bytes] = []
        self._producers = Producers({})
        self._rows_of_producers: list[Mapping[str, ProducerRow]] = [{}]
        """After each entry."""
        self._last: dict[bytes, tuple[int, int]] = {}
        """Of each node, the life and number of its latest record."""

    @property
    def last_index(self) -> int:
        """The highest index delivered anywhere."""
        return len(self.rows)

    def entry(self, index: int) -> bytes:
        """The bytes of a delivered entry."""
        return self._data[index - 1]

    def started(self, node: str, position: Position) -> None:
        """A life begins with what its disk says was delivered."""
        index = position.index
        if index > self.last_index:
            raise Violation(
                f"{node} starts at entry {index}; nobody delivered beyond {self.last_index}"
            )
        offset, digest = 0, DIGEST_START
        if index:
            row = self.rows[index - 1]
            offset, digest = row.end_offset, row.digest
        if (position.offset, position.digest) != (offset, digest):
            raise Violation(
                f"{node} starts at entry {index} with another digest than was delivered"
            )
        if position.producers != self._rows_of_producers[index]:
            raise Violation(
                f"{node} starts at entry {index} with {position.producers}, others know "
                f"{self._rows_of_producers[index]}"
            )
        self.applied[node] = index

    def installed(self, node: str, position: Position) -> None:
        """A snapshot takes a node further than it has delivered."""
        before = self.applied[node]
        self.started(node, position)
        self._installed_offsets[node] = position.offset
        if position.index <= before:
            raise Violation(f"{node} installs a snapshot of {position.index} after {before}")

    def installed_offset(self, node: str) -> int:
        """The offset behind the latest snapshot that a node has installed."""
        return self._installed_offsets.get(node, 0)

    def delivered(self, node: str, row: Delivered, entry: Entry) -> bool:
        """A node delivers an entry; whether it is the first to do so."""
        index = row.index
        if index != self.applied[node] + 1:
            raise Violation(f"{node} delivers entry {index} after {self.applied[node]}")
        self.applied[node] = index
        if index <= self.last_index:
            if entry.data != self._data[index - 1]:
                raise Violation(f"{node} delivers other bytes at entry {index} than was delivered")
            if row != self.rows[index - 1]:
                raise Violation(f"{node} delivers {row}, others {self.rows[index - 1]}")
            return False
        if row.base_offset != len(self.records):
            raise Violation(f"{row} at entry {index}, but the next offset is {len(self.records)}")
        if self.rows and row.timestamp_ms < self.rows[-1].timestamp_ms:
            raise Violation(f"{row} at entry {index} is older than the entry before it")
        for place in row.accepted:
            for record in unpack_records(entry, place):
                self._append(record)
        if len(self.records) != row.end_offset:
            raise Violation(f"{row} counts other records than the entry holds")
        for run in entry.runs:
            self._producers.accept(run)
        self._rows_of_producers.append(self._producers.snapshot())
        self.rows.append(row)
        self._data.append(entry.data)
        return True

    def _append(self, record: bytes) -> None:
        if record not in self.submitted or record in self.excluded:
            raise Violation(f"{record!r} is delivered, which nobody has submitted, or was refused")
        node, life, number = record.split(b" ", 1)[0].split(b"/")
        this = (int(life), int(number))
        before = self._last.get(node, (0, -1))
        if this != (before[0], before[1] + 1) and not (this[0] > before[0] and this[1] == 0):
            raise Violation(f"{record!r} is delivered after life {before[0]}, number {before[1]}")
        self._last[node] = this
        self.offsets[record] = len(self.records)
        self.records.append(record)


class Durability:
    """Delivered means committed, and that means: on a quorum's disks."""

    def __init__(self, quorums: Quorums, disks: Mapping[str, MemoryDisk]) -> None:
        self._quorums = quorums
        self._disks = disks
        self._lost: dict[str, MemoryDisk] = {}

    def lost(self, node: str, disk: MemoryDisk) -> None:
        """A node has lost this disk. It still speaks for what had been promised with it."""
        self._lost[node] = disk

    def delivered(self, index: int, data: bytes) -> None:
        """An entry is delivered for the first time."""
        holders = {
            node
            for node, disk in (*self._disks.items(), *self._lost.items())
            if self._holds(disk, index, data)
        }
        if not self._quorums.can_commit(holders):
            raise Violation(
                f"entry {index} is delivered, but only {sorted(holders)} have it on disk"
            )

    def _holds(self, disk: MemoryDisk, index: int, data: bytes) -> bool:
        """What is dropped was committed, and is in a snapshot on that disk."""
        entry = disk.entry(index)
        return index <= disk.base.index or (entry is not None and entry.data == data)


class Leaders:
    """One leader for each epoch."""

    def __init__(self, *, by_number: bool) -> None:
        self._by_number = by_number
        self._leaders: dict[Epoch, tuple[str, int]] = {}
        """The node and its life."""
        self.changes = 0
        """How often another epoch got its leader, after the first."""

    def leads(self, node: str, life: int, epoch: Epoch) -> bool:
        """A node sees itself leading; whether that is news."""
        key = Epoch(epoch.number, "") if self._by_number else epoch
        known = self._leaders.get(key)
        if known == (node, life):
            return False
        if known is not None or epoch.node != node:
            other, its_life = known or (epoch.node, 0)
            raise Violation(f"life {life} of {node} leads {epoch}, led by {other} ({its_life})")
        self._leaders[key] = node, life
        self.changes = len(self._leaders) - 1
        return True


class Contents:
    """What the entries on the disks hold."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, Epoch], bytes] = {}

    def data(self, index: int, epoch: Epoch) -> bytes | None:
        """What was ever stored as this entry."""
        return self._known.get((index, epoch))

    def wrote(self, node: str, entry: StoredEntry) -> None:
        """A commit has written an entry."""
        if self._known.setdefault((entry.index, entry.epoch), entry.data) != entry.data:
            raise Violation(f"{node} stores other bytes as entry {entry.index} of {entry.epoch}")


class Acknowledgements:
    """What clients were told."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._done: set[int] = set()
        self._end = 0
        """The offset after the highest acknowledged record."""
        self._floors: dict[int, int] = {}
        """Of each open ticket, what that was when it was submitted."""

    def submitted(self, tickets: Sequence[AppendTicket]) -> None:
        """Records are handed to a node."""
        self._floors.update({ticket.number: self._end for ticket in tickets})

    def acknowledged(self, node: str, life: int, completion: Completion) -> Sequence[AppendTicket]:
        """Records of this life are said to be in the log; their tickets."""
        tickets: list[AppendTicket] = []
        offset, size = completion.base_offset, 0
        for ticket in completion.tickets:
            if not isinstance(ticket, AppendTicket) or (ticket.node, ticket.life) != (node, life):
                raise Violation(f"life {life} of {node} acknowledges {ticket}")
            if ticket.number in self._done:
                raise Violation(f"{ticket} is acknowledged twice")
            self._done.add(ticket.number)
            if offset < self._floors.pop(ticket.number, 0):
                raise Violation(f"{ticket} lies at offset {offset}, before what was acknowledged")
            end = offset + len(ticket.payloads)
            if tuple(self._history.records[offset:end]) != ticket.payloads:
                raise Violation(f"{ticket} is acknowledged at offset {offset}, where it is not")
            offset = end
            size += sum(map(len, ticket.payloads))
            tickets.append(ticket)
        self._end = max(self._end, offset)
        if offset != completion.base_offset + completion.count:
            raise Violation(f"{completion} acknowledges another number of records")
        whole = len(tickets) == 1 and (completion.whole or completion.count > 1)
        if whole != completion.whole or (not whole and size != completion.size):
            raise Violation(f"{completion} gives back other room than it took: {size} bytes")
        return tickets

    def skipped(self, node: str, life: int, completion: Completion) -> Sequence[AppendTicket]:
        """Records of this life are said to be in the log, nobody knows where; their tickets."""
        tickets: list[AppendTicket] = []
        for ticket in completion.tickets:
            if not isinstance(ticket, AppendTicket) or (ticket.node, ticket.life) != (node, life):
                raise Violation(f"life {life} of {node} has {ticket} skipped")
            if ticket.number in self._done:
                raise Violation(f"{ticket} is answered twice")
            self._done.add(ticket.number)
            end = self._history.installed_offset(node)
            if any(self._history.offsets.get(one, end) >= end for one in ticket.payloads):
                raise Violation(f"{ticket} is skipped, and is not in the snapshot")
            tickets.append(ticket)
        return tickets

    def refused(self, tickets: Sequence[object]) -> None:
        """A node that is closed says that these are not in the log and never will be."""
        for ticket in tickets:
            if not isinstance(ticket, AppendTicket) or ticket.number in self._done:
                raise Violation(f"{ticket} is refused after it was acknowledged")
            if ticket.payloads[0] in self._history.records:
                raise Violation(f"{ticket} is refused and yet in the log")
            self._history.excluded.update(ticket.payloads)


class Barriers:
    """Reads after a barrier see whatever was there before it."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._floors: list[int] = []

    def asked(self) -> int:
        """A barrier is asked for somewhere; its number."""
        self._floors.append(self._history.last_index)
        return len(self._floors) - 1

    def passed(self, node: str, number: int) -> None:
        """A node says that a barrier holds."""
        floor, applied = self._floors[number], self._history.applied[node]
        if applied < floor:
            raise Violation(
                f"barrier {number} holds on {node}, which has delivered up to entry {applied}; "
                f"entry {floor} was delivered before it was asked for"
            )


class Stewards:
    """A leader that no quorum can have answered steps down (Raft: dissertation section 6.2)."""

    def __init__(self, quorums: Quorums, silence_ms_max: int | None) -> None:
        """`silence_ms_max`: longer than a leader may go on without answers; None: not judged."""
        self._quorums = quorums
        self._silence_ms_max = silence_ms_max
        self._heard: dict[str, dict[str, int]] = {}
        """Of each node, when it was last sent anything by each other."""
        self._since: dict[str, tuple[int, Epoch, int]] = {}
        """The life and epoch in which each node leads, and since when."""

    def heard(self, node: str, sender: str, now: int) -> None:
        """A node has taken a frame; it may have lain there while the node was paused."""
        self._heard.setdefault(node, {})[sender] = now

    def leads(self, node: str, life: int, epoch: Epoch, now: int) -> None:
        """A node sees itself leading."""
        known = self._since.get(node)
        if known is None or known[:2] != (life, epoch):
            known = self._since[node] = life, epoch, now
        if self._silence_ms_max is None or now - known[2] < self._silence_ms_max:
            return
        since = now - self._silence_ms_max
        heard = {peer for peer, at in self._heard.get(node, {}).items() if at >= since}
        if not self._quorums.can_commit(heard | {node}):
            raise Violation(
                f"{node} still leads {epoch}, and for {self._silence_ms_max} ms heard only from "
                f"{sorted(heard)}"
            )


class Manners:
    """What nodes think of each other."""

    def __init__(self, *, damage: bool = False) -> None:
        """`damage`: parts of snapshots are damaged on purpose."""
        self._damage = damage
        self._blamed: dict[str, int] = {}

    def blames(self, node: str, faults: Counter[str], fault: str) -> None:
        """A node has these counts of dropped frames, and this to say of the latest fault."""
        known, count = self._blamed.get(node, 0), faults["peer fault"]
        self._blamed[node] = count
        if self._damage and fault.endswith("does not match its checksum"):
            return
        if count > known:
            raise Violation(f"{node} drops a frame as its peer's fault: {fault}")


class Checkers:
    """All of them; `tally` counts what was judged."""

    def __init__(
        self,
        quorums: Quorums,
        disks: Mapping[str, MemoryDisk],
        tally: Counter[str],
        *,
        by_number: bool,
        silence_ms_max: int | None = None,
        retention: Retention | None = None,
        with_state: bool = False,
        damage: bool = False,
    ) -> None:
        self.tally = tally
        self.history = History()
        self.durability = Durability(quorums, disks)
        self.leaders = Leaders(by_number=by_number)
        self.choices = Choices(quorums, by_number=by_number)
        self.promises = Votes(disks) if by_number else Ballots(disks, self.choices)
        self.contents = Contents()
        self.bases = Bases(
            self.history, self.contents, retention, by_number=by_number, with_state=with_state
        )
        self.acknowledgements = Acknowledgements(self.history)
        self.barriers = Barriers(self.history)
        self.stewards = Stewards(quorums, silence_ms_max)
        self.manners = Manners(damage=damage)

    def wrote(self, node: str, write: StoredWrite) -> None:
        """A commit has carried out a write, or passed through the state after it."""
        self.promises.wrote(node, write)
        for entry in write.entries:
            self.contents.wrote(node, entry)
            self.choices.wrote(node, entry)

    def leaves(self, node: str, to: str, message: Message) -> None:
        """A message leaves."""
        self.promises.leaves(node, to, message)
        self.choices.says(node, message)

    def delivered(self, node: str, row: Delivered, entry: Entry) -> None:
        """A node delivers an entry."""
        self.choices.delivered(node, row.index)
        if self.history.delivered(node, row, entry):
            self.durability.delivered(row.index, entry.data)
            self.tally["records"] += row.count
