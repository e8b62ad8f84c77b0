"""How a log stays bounded, and how a node that lacks what is dropped catches up all the same.

::

   machine's thread: pieces ----> stage, seal        the newest snapshot, whole
   core of a node that has compacted ---> offer ....> part by part ...> read back ---> core.install
   retention ---> what may go ---> step by step, behind the newest snapshot

Rules of this file:

1. `installing` is from the moment that the core has issued the write of an install until that is
   durable. Nothing is delivered in between, and nobody is told anything.
2. A snapshot's position is on the disk before or with its header, and its header before or with the
   first entry that it lets go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from replog.errors import InvariantBroken
from replog.replica.compaction import Compaction, Needed
from replog.replica.giving import Giving
from replog.replica.loads import Loads
from replog.replica.readers import ReaderOffsets
from replog.replica.receiving import Receiving
from replog.replica.snapshots import Snapshots, Written
from replog.snapshot import NotKept, Snapshot, StateDigest, check_header, own_snapshot_id
from replog.store.interface import StoredSnapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from replog.agreement import Core, Message
    from replog.config import Limits
    from replog.replica.delivery import Delivery
    from replog.replica.effects import Stored, Ticket
    from replog.retention import Retention
    from replog.snapshot import Position
    from replog.store.interface import Batch, Restoration

    Post = Callable[[str, Message, Sequence[bytes]], None]


class CompactionPolicy(NamedTuple):
    """What a node may drop of its log."""

    retention: Retention | None = None
    """What may be dropped; None: nothing."""
    with_state: bool = False
    """Only a machine's snapshots let anything go."""


KEEP_EVERYTHING = CompactionPolicy()


class Catchup:
    """Snapshots, compaction, named readers and install of one replica."""

    def __init__(
        self,
        restoration: Restoration,
        core: Core,
        delivery: Delivery,
        *,
        policy: CompactionPolicy,
        limits: Limits,
        post: Post,
    ) -> None:
        self.loads = Loads()
        self.snapshots = Snapshots(restoration.snapshot)
        self.giving = Giving(
            self.snapshots, self.loads, part_bytes_max=limits.part_bytes_max, post=post
        )
        self.receiving = Receiving(
            core,
            restoration.membership,
            self.snapshots,
            self.loads,
            retry_ms=limits.retry_ms,
            post=lambda to, message: post(to, message, ()),
        )
        self._compaction = Compaction(policy.retention, restoration.base, self.loads)
        self.readers = ReaderOffsets(restoration.readers, self._compaction, self.snapshots.tell)
        # Where a state was kept, a header alone must not take its place.
        self._with_state = policy.with_state or self.snapshots.newest_state_index > 0
        self._core = core
        self._membership = restoration.membership
        self._delivery = delivery
        self._written_index = restoration.position.index
        """Up to here the disk knows what is delivered, or will with the batches issued."""
        self.alarm = ""
        """Empty, or why nothing is compacted."""
        self._install_batch: int | None = None
        """0: the write of the install is not in a batch yet."""

    # -- what the host asks for ----------------------------------------------------------------

    def attach_machine(self) -> None:
        """From here on only snapshots of the machine let anything go."""
        self._with_state = True
        self._compaction.needs_more()

    def seal(self, stored: StoredSnapshot, ticket: Ticket | None) -> None:
        """All pieces of this snapshot are on the disk: it becomes the newest, unless a newer one
        has come meanwhile. Epoch and membership are filled in here. Raises `NotKept`."""
        snapshot_id, snapshot = stored
        index = snapshot.index
        if index > self._delivery.index:
            raise InvariantBroken(f"a snapshot of {index}, delivered to {self._delivery.index}")
        if index > self.snapshots.newest_index:
            epoch = self._core.epoch_at(index)
            snapshot = snapshot._replace(epoch=epoch, membership=self._membership)
            check_header(snapshot)
        self.snapshots.seal(StoredSnapshot(snapshot_id, snapshot), ticket)
        self.alarm = ""
        self._compaction.look_again()

    def seal_header(self, ticket: Ticket | None) -> None:
        """A snapshot of the log alone, as of now. Where a machine's is wanted, and of an empty log,
        the ticket gets the newest there is instead, or None. Raises `NotKept`."""
        if self._with_state or not self._delivery.index:
            self.snapshots.tell_newest(ticket)
            return
        digest = StateDigest().value()
        position, epoch = self._delivery.position(), self._core.epoch_at(self._delivery.index)
        snapshot = Snapshot(position, epoch, self._membership, 0, 0, digest)
        self.seal(StoredSnapshot(own_snapshot_id(position.index), snapshot), ticket)

    @property
    def position(self) -> Position:
        """How far delivery has come."""
        return self._delivery.position()

    def drain(self) -> list[Ticket]:
        """At the end: the tickets of what is not known to be on the disk."""
        return self.snapshots.drain()

    # -- the course of a step ------------------------------------------------------------------

    @property
    def deadline(self) -> int | None:
        """When `turn` is due."""
        due = self._compaction.deadline
        for other in (self.giving.deadline, self.receiving.deadline):
            if other is not None and (due is None or other < due):
                due = other
        return due

    def delivered(self, now: int, records: int, size: int) -> None:
        """One more entry is delivered."""
        self._compaction.delivered(now, records, size)

    def turn(self, now: int, wall_ms: int) -> None:
        """Whatever is due."""
        self.giving.let_go(now)
        self.receiving.ask_again(now, self._delivery.index)
        self._compaction.look(now, wall_ms, self._needed)
        if self._drops:
            lets_go = self.snapshots.newest_index >= self._compaction.target_index
            if not lets_go:
                self._let_go()

    @property
    def _drops(self) -> bool:
        """Whether the next batch drops a part of the log."""
        return self._compaction.has_step and not self.is_installing

    def _needed(self) -> Needed:
        """What compaction must leave."""
        bounds = [self._written_index]
        if self._with_state:
            bounds.append(self.snapshots.newest_state_index)
        if self.giving.pinned_index is not None:
            bounds.append(self.giving.pinned_index)
        return Needed(min(bounds), self.readers.needed_offset)

    def _let_go(self) -> None:
        """A header that lets go what may go."""
        try:
            self.seal_header(None)
        except NotKept as error:
            self._compaction.give_up()
            self.alarm = f"nothing is compacted: {error}"

    @property
    def wants_batch(self) -> bool:
        """Whether `fill` has anything to put into a batch."""
        return bool(self.snapshots.has_changes or self.readers.has_changes or self._drops)

    @property
    def wants_position(self) -> bool:
        """Whether the next batch must say how far delivery has come."""
        return self.snapshots.seals

    def fill(self, batch_id: int, batch: Batch) -> Batch:
        """The next batch, with what this part has for it."""
        if batch.position is not None:
            self._written_index = batch.position.index
        if self._install_batch == 0:
            self._install_batch = batch_id
        compact_to = None
        if self._drops:
            compact_to = self._compaction.step(batch_id)
            self._core.compacted(compact_to)
        changes = self.snapshots.take_changes(batch_id)
        return batch._replace(
            dropped_snapshots=changes.dropped,
            pieces=changes.pieces,
            sealed=changes.sealed,
            compact_to=compact_to,
            readers=self.readers.take_changes(),
        )

    def take_first_offset(self) -> int | None:
        """See `Effects.first_offset`."""
        return self._compaction.take_first_offset()

    @property
    def first_offset(self) -> int:
        """Of the first record that can be read."""
        return self._compaction.first_offset

    # -- install -------------------------------------------------------------------------------

    @property
    def is_installing(self) -> bool:
        """See rule 1."""
        return self._install_batch is not None

    def begin_install(self, index: int) -> StoredSnapshot:
        """The core has issued the write of an install; the snapshot."""
        stored = self.receiving.installing
        if stored is None or stored.snapshot.index != index:
            raise InvariantBroken(f"the core installs a snapshot of {index} that is not here")
        self._install_batch = 0
        self._written_index = index
        self.snapshots.installs(stored)
        return stored

    def durable(self, now: int, batch_id: int) -> tuple[list[Stored], Snapshot | None]:
        """Every batch up to this id is on the disk: whom to tell, and the snapshot that is
        installed by that."""
        told: list[Stored] = []
        self._compaction.durable(batch_id)
        for stored in self.snapshots.durable(batch_id):
            if isinstance(stored.ticket, Written):
                self.receiving.written(now, stored.ticket.transfer)
            else:
                told.append(stored)
        installed = None
        if self._install_batch and self._install_batch <= batch_id:
            self._install_batch = None
            if self.receiving.installing is not None:
                installed = self.receiving.installing.snapshot
                self._compaction.installed(installed.base)
            self.receiving.installed()
        return told, installed
