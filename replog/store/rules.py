"""The rules of a commit, the same for every store.

Rules of this file:

1. Entries are appended without gaps; one that is there is replaced only by truncating it first.
2. Nothing delivered is truncated, and nothing is delivered that is not in the log.
3. Delivered rows follow one another without gaps, and come with the position after them.
4. A promise's number never falls.
5. A group of batches becomes one truncation followed by one append: no page is taken for an entry
   that the same transaction drops.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from replog.entry import DIGEST_START, NO_EPOCH
from replog.errors import InvariantBroken
from replog.store.interface import Position

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from replog.entry import Epoch
    from replog.store.interface import Batch, Delivered, Peer, StoredEntry, StoredWrite


class Outline(NamedTuple):
    """What of the stored state decides which batch may follow."""

    promise: Epoch
    epochs: tuple[tuple[int, Epoch], ...]
    """(first index, epoch) of each run of entries of one epoch, ascending."""
    last_index: int
    position: Position


EMPTY = Outline(NO_EPOCH, (), 0, Position(0, 0, DIGEST_START, 0, {}))
"""The outline of a store as it is formatted."""


class Changes(NamedTuple):
    """What a group of batches comes to, to be applied in the order of the fields."""

    promise: Epoch | None
    truncate_from: int | None
    """Drop every stored entry from this index on."""
    entries: Sequence[StoredEntry]
    """To be appended."""
    epochs: Sequence[tuple[int, Epoch]]
    """The runs of epochs that begin among `entries`."""
    delivered: Sequence[Delivered]
    position: Position | None
    peers: Mapping[str, Peer]
    introduced: bool


def fold(before: Outline, batches: Sequence[Batch]) -> tuple[Changes, Outline]:
    """What these batches, in their order, change, and the outline after them.

    Raises `InvariantBroken` when one of them breaks a rule; then none may be applied.
    """
    group = _Group(before)
    for batch in batches:
        for write in batch.writes:
            group.write(write)
        group.deliver(batch)
        group.peers.update(batch.peers or {})
        group.introduced |= batch.introduced
    return group.result()


class _Group:
    """A group of batches on its way to becoming `Changes`."""

    def __init__(self, before: Outline) -> None:
        self._before = before
        self._promise = before.promise
        self._truncate_from: int | None = None
        self._entries: list[StoredEntry] = []
        self._last_index = before.last_index
        self._delivered: list[Delivered] = []
        self._position = before.position
        self.peers: dict[str, Peer] = {}
        self.introduced = False

    def write(self, write: StoredWrite) -> None:
        if write.promise is not None:
            if write.promise.number < self._promise.number:
                raise InvariantBroken(f"promise {write.promise} after {self._promise}")
            self._promise = write.promise
        if write.truncate_from is not None:
            self._truncate(write.truncate_from)
        for entry in write.entries:
            if entry.index != self._last_index + 1:
                raise InvariantBroken(f"entry {entry.index} appended after {self._last_index}")
            self._last_index = entry.index
            self._entries.append(entry)

    def _truncate(self, index: int) -> None:
        if index <= self._position.index:
            raise InvariantBroken(
                f"truncation from entry {index}, but entries to {self._position.index} "
                "are delivered"
            )
        if index > self._last_index:
            return
        stored = self._last_index - len(self._entries)
        if index > stored:
            del self._entries[index - stored - 1 :]
        else:
            self._entries.clear()
            self._truncate_from = index
        self._last_index = index - 1

    def deliver(self, batch: Batch) -> None:
        index, offset, digest = self._position.index, self._position.offset, self._position.digest
        for row in batch.delivered:
            if row.index != index + 1 or row.base_offset != offset or row.index > self._last_index:
                raise InvariantBroken(
                    f"entry {row.index} at offset {row.base_offset} delivered after entry {index} "
                    f"with next offset {offset} in a log to entry {self._last_index}"
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

    def result(self) -> tuple[Changes, Outline]:
        before = self._before
        kept = before.epochs
        if self._truncate_from is not None:
            kept = tuple([run for run in kept if run[0] < self._truncate_from])
        epoch = kept[-1][1] if kept else None
        begun: list[tuple[int, Epoch]] = []
        for entry in self._entries:
            if entry.epoch != epoch:
                epoch = entry.epoch
                begun.append((entry.index, epoch))
        changes = Changes(
            promise=self._promise if self._promise != before.promise else None,
            truncate_from=self._truncate_from,
            entries=self._entries,
            epochs=begun,
            delivered=self._delivered,
            position=self._position if self._position is not before.position else None,
            peers=self.peers,
            introduced=self.introduced,
        )
        epochs = (*kept, *begun) if begun else kept
        return changes, Outline(self._promise, epochs, self._last_index, self._position)
