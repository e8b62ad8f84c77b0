"""The rules of a commit, the same for every store.

Rules of this file:

1. An entry may be written at any index that is not delivered: behind the last one, over another, or
   so that a gap is left. Which of these an agreement uses is its own affair.
2. Nothing delivered is replaced or truncated, and nothing is delivered that is not in the log.
3. Delivered rows follow one another without gaps, and come with the position after them.
4. A promise's number never falls.
5. A group of batches becomes one truncation, one new base, and one write of each entry and row
   that is left: no page is taken for what the same transaction drops or replaces.
6. base <= newest whole snapshot <= position, by index. What is up to the base is gone, what is
   behind it is here: a log is compacted behind a snapshot, and never beyond what is delivered.
7. A snapshot that is installed is ahead of the position; one that is sealed is not, nor is it
   behind the newest one. The newest one is neither dropped nor written to.
8. That the pieces of a snapshot are all here, and give its digest, is for who seals it.
"""

from __future__ import annotations

from bisect import bisect_right
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from replog.entry import DIGEST_START, NO_EPOCH
from replog.errors import InvariantBroken
from replog.snapshot import NO_BASE, Base
from replog.store.epochs import ChangingEpochs
from replog.store.interface import Position, StoredPiece, StoredSnapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence, Set

    from replog.entry import Epoch
    from replog.store.epochs import EpochRun, RunChanges
    from replog.store.interface import Batch, Delivered, Peer, StoredEntry, StoredWrite

    FindRow = Callable[[int], Delivered | None]
    """The stored row of a delivered entry."""


class Outline(NamedTuple):
    """What of the stored state decides which batch may follow."""

    promise: Epoch
    epochs: tuple[EpochRun, ...]
    """See `replog.store.epochs`."""
    last_index: int
    """Of the highest entry; the base's for none."""
    position: Position
    base: Base = NO_BASE
    snapshot: StoredSnapshot | None = None
    """The newest whole one."""


EMPTY = Outline(NO_EPOCH, (), 0, Position(0, 0, DIGEST_START, 0, {}))
"""The outline of a store as it is formatted."""


class Changes(NamedTuple):
    """What a group of batches comes to, to be applied in the order of the fields."""

    promise: Epoch | None
    truncate_from: int | None
    """Drop every stored entry from this index on."""
    base: Base | None
    """Drop every stored entry and delivered row up to this one."""
    installs: bool
    """Whether a snapshot takes their place: then no delivered row is left, and few entries."""
    placed: Sequence[StoredEntry]
    """To be written over stored entries or into their gaps, ascending."""
    appended: Sequence[StoredEntry]
    """To be written behind every stored entry, ascending."""
    epochs: RunChanges
    delivered: Sequence[Delivered]
    position: Position | None
    peers: Mapping[str, Peer]
    introduced: bool
    dropped_snapshots: Set[int]
    """Drop what is stored of these."""
    pieces: Sequence[StoredPiece]
    sealed: Sequence[StoredSnapshot]
    readers: Mapping[str, int | None]
    """Rows to replace; None: to drop."""


def fold(before: Outline, batches: Sequence[Batch], find_row: FindRow) -> tuple[Changes, Outline]:
    """What these batches, in their order, change, and the outline after them.

    `find_row` is asked for what compaction takes from a row that is stored already. Raises
    `InvariantBroken` when one of them breaks a rule; then none may be applied.
    """
    group = _Group(before)
    for batch in batches:
        if batch.dropped_snapshots or batch.pieces:
            group.stage(batch)
        for write in batch.writes:
            group.write(write)
        group.deliver(batch)
        group.peers.update(batch.peers or {})
        group.introduced |= batch.introduced
        if batch.sealed is not None:
            group.seal(batch.sealed)
        if batch.compact_to is not None:
            group.compact(batch.compact_to, find_row)
        group.readers.update(batch.readers or {})
    return group.result()


class _Group:
    """A group of batches on its way to becoming `Changes`."""

    def __init__(self, before: Outline) -> None:
        self._before = before
        self._promise = before.promise
        self._truncate_from: int | None = None
        self._base = before.base
        self._installs = False
        self._entries: dict[int, StoredEntry] = {}
        """What the group writes, by index, as it is by now."""
        self._epochs = ChangingEpochs(before.epochs, before.last_index, before.position.index)
        self._delivered: list[Delivered] = []
        self._position = before.position
        self._snapshot = before.snapshot
        self._dropped: set[int] = set()
        self._pieces: dict[tuple[int, int], StoredPiece] = {}
        self._sealed: dict[int, StoredSnapshot] = {}
        self.peers: dict[str, Peer] = {}
        self.introduced = False
        self.readers: dict[str, int | None] = {}

    def stage(self, batch: Batch) -> None:
        newest = None if self._snapshot is None else self._snapshot.snapshot_id
        for snapshot_id in batch.dropped_snapshots:
            if snapshot_id == newest:
                raise InvariantBroken(f"snapshot {snapshot_id}, the newest one, dropped")
            self._dropped.add(snapshot_id)
            self._sealed.pop(snapshot_id, None)
            for key in [key for key in self._pieces if key[0] == snapshot_id]:
                del self._pieces[key]
        for piece in batch.pieces:
            snapshot_id, number, _ = piece
            if snapshot_id == newest or number < 1:
                raise InvariantBroken(
                    f"piece {number} of snapshot {snapshot_id} written, with {newest} the newest"
                )
            self._pieces[snapshot_id, number] = piece

    def write(self, write: StoredWrite) -> None:
        if write.promise is not None:
            if write.promise.number < self._promise.number:
                raise InvariantBroken(f"promise {write.promise} after {self._promise}")
            self._promise = write.promise
        if write.truncate_from is not None:
            self._truncate(write.truncate_from)
        if write.install is not None:
            self._install(write.install)
        delivered_to = self._position.index
        for entry in write.entries:
            index, epoch, _ = entry
            if index <= delivered_to:
                raise InvariantBroken(
                    f"entry {index} written, but entries to {delivered_to} are delivered"
                )
            self._entries[index] = entry
            self._epochs.write(index, epoch)

    def _install(self, stored: StoredSnapshot) -> None:
        snapshot = stored.snapshot
        if snapshot.index <= self._position.index:
            raise InvariantBroken(
                f"a snapshot of entry {snapshot.index} installed, but entries to "
                f"{self._position.index} are delivered"
            )
        self._position = snapshot.position
        self._installs = True
        self._put_header(stored)
        self._begin_behind(snapshot.base)

    def _put_header(self, stored: StoredSnapshot) -> None:
        self._sealed[stored.snapshot_id] = self._snapshot = stored

    def _begin_behind(self, base: Base) -> None:
        """Whatever is up to this base, stored or only in this group, goes."""
        self._base = base
        self._epochs.cut(base.index)
        self._entries = {at: entry for at, entry in self._entries.items() if at > base.index}
        self._delivered = [row for row in self._delivered if row.index > base.index]

    def _truncate(self, index: int) -> None:
        if index <= self._position.index:
            raise InvariantBroken(
                f"truncation from entry {index}, but entries to {self._position.index} "
                "are delivered"
            )
        if index > self._epochs.last_index:
            return
        self._epochs.truncate(index)
        self._entries = {at: entry for at, entry in self._entries.items() if at < index}
        if index <= self._stored_to:
            self._truncate_from = index

    @property
    def _stored_to(self) -> int:
        """What is stored before this group, and left by its truncation, ends here or below."""
        if self._truncate_from is None:
            return self._before.last_index
        return self._truncate_from - 1

    def deliver(self, batch: Batch) -> None:
        index, offset, digest = self._position.index, self._position.offset, self._position.digest
        whole_to = self._epochs.whole_to if batch.delivered else 0
        for row in batch.delivered:
            if row.index != index + 1 or row.base_offset != offset or row.index > whole_to:
                raise InvariantBroken(
                    f"entry {row.index} at offset {row.base_offset} delivered after entry {index} "
                    f"with next offset {offset} in a log without gaps to entry {whole_to}"
                )
            index, offset, digest = row.index, offset + row.count, row.digest
        self._delivered += batch.delivered
        position = batch.position
        if position is None and batch.delivered:
            raise InvariantBroken(f"entries to {index} delivered without their position")
        if position is not None:
            if (position.index, position.offset, position.digest) != (index, offset, digest):
                raise InvariantBroken(
                    f"position of entry {position.index}, next offset {position.offset}, "
                    f"with entries to {index}, next offset {offset}, delivered"
                )
            self._position = position

    def seal(self, stored: StoredSnapshot) -> None:
        index = stored.snapshot.index
        oldest = 0 if self._snapshot is None else self._snapshot.snapshot.index
        if not oldest <= index <= self._position.index:
            raise InvariantBroken(
                f"a snapshot of entry {index} sealed, with one of entry {oldest}, and entries to "
                f"{self._position.index} delivered"
            )
        self._put_header(stored)

    def compact(self, index: int, find_row: FindRow) -> None:
        if index <= self._base.index:
            return
        limit = 0 if self._snapshot is None else self._snapshot.snapshot.index
        if index > min(limit, self._position.index):
            raise InvariantBroken(
                f"compaction to entry {index}, with a snapshot of entry {limit}, and entries to "
                f"{self._position.index} delivered"
            )
        rows = self._delivered
        row = rows[index - rows[0].index] if rows and index >= rows[0].index else find_row(index)
        if row is None:
            raise InvariantBroken(f"the row of entry {index} is missing")
        epoch = self._epochs.epoch_at(index)
        offset = row.end_offset
        self._begin_behind(Base(index, epoch, offset, row.digest, row.timestamp_ms))

    def result(self) -> tuple[Changes, Outline]:
        before = self._before
        entries = [self._entries[index] for index in sorted(self._entries)]
        placed = bisect_right(entries, self._stored_to, key=_index)
        epochs, run_changes = self._epochs.result()
        changes = Changes(
            promise=self._promise if self._promise != before.promise else None,
            truncate_from=self._truncate_from,
            base=self._base if self._base is not before.base else None,
            installs=self._installs,
            placed=entries[:placed],
            appended=entries[placed:],
            epochs=run_changes,
            delivered=self._delivered,
            position=self._position if self._position is not before.position else None,
            peers=self.peers,
            introduced=self.introduced,
            dropped_snapshots=self._dropped,
            pieces=[*self._pieces.values()],
            sealed=[*self._sealed.values()],
            readers=self.readers,
        )
        outline = Outline(
            self._promise,
            epochs,
            self._epochs.last_index,
            self._position,
            self._base,
            self._snapshot,
        )
        return changes, outline


_index = attrgetter("index")
