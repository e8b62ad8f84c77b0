"""The store of a simulated node: the same rules as on disk, kept in memory.

Rules of this file:

1. `MemoryDisk` is what survives a crash: exactly what a `commit` that returned, or failed after
   applying, has put there.
2. Each open of a disk begins a higher life; the stores of earlier lives are dead from then on.
3. What is stored obeys `replog.store.rules`, as on disk.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Literal

from replog.entry import NO_EPOCH
from replog.errors import InvariantBroken, StoreFailed, WrongStore
from replog.store.interface import Identity, Peer, Restoration, StoredEntry
from replog.store.rules import EMPTY, Changes, Outline, fold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replog.membership import Membership
    from replog.store.interface import Batch, Delivered, Position


class MemoryDisk:
    """What one simulated node keeps across crashes."""

    def __init__(self, store_id: bytes) -> None:
        """An empty disk; `store_id` stands for what a real one would draw at random."""
        self.store_id = store_id
        self.identity: Identity | None = None
        """None until formatted, that is opened for the first time."""
        self.membership: Membership | None = None
        self.introduced = False
        self.outline = EMPTY
        self.log: list[StoredEntry] = []
        """Entry `index` lies at `index - 1`; in a gap one of `NO_EPOCH` without bytes."""
        self.delivered: list[Delivered] = []
        """The row of entry `index` lies at `index - 1`."""
        self.base_offsets: list[int] = []
        """Of each delivered row."""
        self.peers: dict[str, Peer] = {}
        self.used_bytes = 0
        self.failing: Literal["", "before", "after"] = ""
        """The next commit fails: before it has changed anything, or after all is on the disk."""

    def wipe(self, store_id: bytes) -> None:
        """Lose everything: whoever holds this disk holds an empty one from here."""
        self.__dict__ = MemoryDisk(store_id).__dict__

    def apply(self, changes: Changes, outline: Outline) -> None:
        """Change what is stored; cannot fail halfway."""
        if changes.truncate_from is not None:
            self._drop(changes.truncate_from)
        for entry in changes.placed:
            self.used_bytes += len(entry.data) - len(self.log[entry.index - 1].data)
            self.log[entry.index - 1] = entry
        for entry in changes.appended:
            gap = range(len(self.log) + 1, entry.index)
            self.log += [StoredEntry(index, NO_EPOCH, b"") for index in gap]
            self.log.append(entry)
            self.used_bytes += len(entry.data)
        self._drop(outline.last_index + 1)  # a gap that truncation has left at the end
        self.delivered += changes.delivered
        self.base_offsets += [row.base_offset for row in changes.delivered]
        self.peers.update(changes.peers)
        self.introduced |= changes.introduced
        self.outline = outline

    def _drop(self, first: int) -> None:
        self.used_bytes -= sum([len(entry.data) for entry in self.log[first - 1 :]])
        del self.log[first - 1 :]


class MemoryStore:
    """`interface.Store` over a `MemoryDisk`."""

    def __init__(
        self,
        disk: MemoryDisk,
        *,
        node: str,
        cluster_id: bytes,
        agreement: str,
        membership: Membership,
        unix_ms: int,
    ) -> None:
        """Open a disk, formatting it at first, with the arguments of `lmdb.create_or_open`.

        Raises `WrongStore` when the disk is another node's, cluster's or agreement's.
        """
        found = disk.identity
        asked = (cluster_id, node, agreement)
        if found is None:
            disk.membership = membership
        elif found[:3] != asked:
            raise WrongStore(f"the disk belongs to {found[:3]}, not {asked}")
        life = max(1 + (found.life if found else 0), unix_ms)
        self._identity = Identity(cluster_id, node, agreement, disk.store_id, life)
        disk.identity = self._identity
        self._disk = disk
        self._reason = ""
        self._restoration = Restoration(
            identity=self._identity,
            membership=disk.membership or membership,
            introduced=disk.introduced,
            promise=disk.outline.promise,
            epochs=disk.outline.epochs,
            first_index=1,
            last_index=disk.outline.last_index,
            position=disk.outline.position,
            peers=dict(disk.peers),
            tail=[
                entry
                for entry in disk.log[disk.outline.position.index :]
                if entry.epoch != NO_EPOCH
            ],
        )

    def restore(self) -> Restoration:
        """As `interface.Store.restore`."""
        self._check()
        return self._restoration

    def commit(self, batches: Sequence[Batch]) -> None:
        """As `interface.Store.commit`; fails as `MemoryDisk.failing` says, once."""
        self._check()
        disk = self._disk
        failing, disk.failing = disk.failing, ""
        if failing == "before":
            raise self._fail("failed before it wrote")
        try:
            changes, outline = fold(disk.outline, batches)
        except InvariantBroken as error:
            self._reason = f"was given what must not be stored: {error}"
            raise
        disk.apply(changes, outline)
        if failing == "after":
            raise self._fail("failed after it wrote")

    def used_bytes(self) -> int:
        """As `interface.Store.used_bytes`: the bytes of the entries."""
        return self._disk.used_bytes

    def entries(self, first: int, last: int, bytes_max: int) -> list[StoredEntry]:
        """As `interface.Reader.entries`."""
        self._check()
        found: list[StoredEntry] = []
        size = 0
        if first < 1:
            return found
        for place in range(first - 1, min(last, len(self._disk.log))):
            entry = self._disk.log[place]
            size += len(entry.data)
            if entry.epoch == NO_EPOCH or (found and size > bytes_max):
                break
            found.append(entry)
        return found

    def delivered(self, offset: int, bytes_max: int) -> list[tuple[Delivered, StoredEntry]]:
        """As `interface.Reader.delivered`."""
        self._check()
        disk = self._disk
        found: list[tuple[Delivered, StoredEntry]] = []
        size = 0
        if offset >= disk.outline.position.offset:
            return found
        first = max(0, bisect_right(disk.base_offsets, offset) - 1)
        for place in range(first, len(disk.delivered)):
            row, entry = disk.delivered[place], disk.log[place]
            if not row.count:
                continue
            size += len(entry.data)
            if found and size > bytes_max:
                break
            found.append((row, entry))
        return found

    def digest(self, index: int) -> bytes | None:
        """As `interface.Reader.digest`."""
        self._check()
        rows = self._disk.delivered
        return rows[index - 1].digest if 0 < index <= len(rows) else None

    def position(self) -> Position:
        """As `interface.Reader.position`."""
        self._check()
        return self._disk.outline.position

    def close(self) -> None:
        """As `interface.Reader.close`."""
        self._reason = self._reason or "is closed"

    def _check(self) -> None:
        if self._reason:
            raise StoreFailed(f"the store of {self._identity.node} {self._reason}")
        if self._disk.identity is not self._identity:
            raise StoreFailed(f"the disk of {self._identity.node} was opened by a later life")

    def _fail(self, reason: str) -> StoreFailed:
        self._reason = reason
        return StoreFailed(f"the store of {self._identity.node} {reason}")
