"""The rules of a commit, the same for every store.

Rules of this file:

1. An entry may be written at any index that is not delivered: behind the last one, over another, or
   so that a gap is left. Which of these an agreement uses is its own affair.
2. Nothing delivered is replaced or truncated, and nothing is delivered that is not in the log.
3. Delivered rows follow one another without gaps, and come with the position after them.
4. A promise's number never falls.
5. A group of batches becomes one truncation followed by one write of each entry that is left: no
   page is taken for an entry that the same transaction drops or replaces.
"""

from __future__ import annotations

from bisect import bisect_right
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from replog.entry import DIGEST_START, NO_EPOCH
from replog.errors import InvariantBroken
from replog.store.epochs import ChangingEpochs
from replog.store.interface import Position

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from replog.entry import Epoch
    from replog.store.epochs import EpochRun, RunChanges
    from replog.store.interface import Batch, Delivered, Peer, StoredEntry, StoredWrite


class Outline(NamedTuple):
    """What of the stored state decides which batch may follow."""

    promise: Epoch
    epochs: tuple[EpochRun, ...]
    """See `replog.store.epochs`."""
    last_index: int
    """Of the highest entry; 0 for none."""
    position: Position


EMPTY = Outline(NO_EPOCH, (), 0, Position(0, 0, DIGEST_START, 0, {}))
"""The outline of a store as it is formatted."""


class Changes(NamedTuple):
    """What a group of batches comes to, to be applied in the order of the fields."""

    promise: Epoch | None
    truncate_from: int | None
    """Drop every stored entry from this index on."""
    placed: Sequence[StoredEntry]
    """To be written over stored entries or into their gaps, ascending."""
    appended: Sequence[StoredEntry]
    """To be written behind every stored entry, ascending."""
    epochs: RunChanges
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
        self._entries: dict[int, StoredEntry] = {}
        """What the group writes, by index, as it is by now."""
        self._epochs = ChangingEpochs(before.epochs, before.last_index, before.position.index)
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
        delivered_to = self._position.index
        for entry in write.entries:
            index, epoch, _ = entry
            if index <= delivered_to:
                raise InvariantBroken(
                    f"entry {index} written, but entries to {delivered_to} are delivered"
                )
            self._entries[index] = entry
            self._epochs.write(index, epoch)

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

    def result(self) -> tuple[Changes, Outline]:
        before = self._before
        entries = [self._entries[index] for index in sorted(self._entries)]
        placed = bisect_right(entries, self._stored_to, key=_index)
        epochs, run_changes = self._epochs.result()
        changes = Changes(
            promise=self._promise if self._promise != before.promise else None,
            truncate_from=self._truncate_from,
            placed=entries[:placed],
            appended=entries[placed:],
            epochs=run_changes,
            delivered=self._delivered,
            position=self._position if self._position is not before.position else None,
            peers=self.peers,
            introduced=self.introduced,
        )
        return changes, Outline(self._promise, epochs, self._epochs.last_index, self._position)


_index = attrgetter("index")
