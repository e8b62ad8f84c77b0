"""The store of a simulated node: the same rules as on disk, kept in memory.

Rules of this file:

1. `MemoryDisk` is what survives a crash: exactly what a `commit` that returned, or failed after
   applying, has put there.
2. Each open of a disk begins a higher life; the stores of earlier lives are dead from then on.
3. What is stored obeys `replog.store.rules`, as on disk.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from operator import attrgetter
from typing import TYPE_CHECKING, Literal

from replog.entry import NO_EPOCH
from replog.errors import Corruption, InvariantBroken, StoreFailed, WrongStore
from replog.store.interface import Identity, Peer, Restoration, StoredEntry, StoredSnapshot, Usage
from replog.store.rules import EMPTY, Changes, Outline, fold

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from replog.membership import Membership
    from replog.snapshot import Base, Snapshot
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
        """The entries behind the base, in order; in a gap one of `NO_EPOCH` without bytes."""
        self.delivered: list[Delivered] = []
        """The rows behind the base, in order."""
        self.snapshots: dict[int, Snapshot] = {}
        """Those that are whole, by their ids."""
        self.pieces: dict[tuple[int, int], bytes] = {}
        """By snapshot id and number, of whole snapshots and others."""
        self.readers: dict[str, int] = {}
        self.peers: dict[str, Peer] = {}
        self.used_bytes = 0
        self.failing: Literal["", "before", "after"] = ""
        """The next commit fails: before it has changed anything, or after all is on the disk."""

    @property
    def base(self) -> Base:
        """What the log begins behind."""
        return self.outline.base

    def entry(self, index: int) -> StoredEntry | None:
        """The entry at this index; None when there is none (any more)."""
        place = index - self.base.index - 1
        if not 0 <= place < len(self.log) or self.log[place].epoch == NO_EPOCH:
            return None
        return self.log[place]

    def row(self, index: int) -> Delivered | None:
        """What delivery made of entry `index`; None when it is not delivered, or gone."""
        place = index - self.base.index - 1
        return self.delivered[place] if 0 <= place < len(self.delivered) else None

    def wipe(self, store_id: bytes) -> None:
        """Lose everything: whoever holds this disk holds an empty one from here."""
        self.__dict__ = MemoryDisk(store_id).__dict__

    def apply(self, changes: Changes, outline: Outline) -> None:
        """Change what is stored; cannot fail halfway."""
        if changes.truncate_from is not None:
            self._drop_from(changes.truncate_from)
        if changes.base is not None:
            self._begin_behind(changes.base)
        self.outline = outline
        behind = outline.base.index + 1
        for entry in changes.placed:
            place = entry.index - behind
            self.used_bytes += len(entry.data) - len(self.log[place].data)
            self.log[place] = entry
        for entry in changes.appended:
            gap = range(behind + len(self.log), entry.index)
            self.log += [StoredEntry(index, NO_EPOCH, b"") for index in gap]
            self.log.append(entry)
            self.used_bytes += len(entry.data)
        self._drop_from(outline.last_index + 1)  # a gap that truncation has left at the end
        self.delivered += changes.delivered
        self.peers.update(changes.peers)
        self.introduced |= changes.introduced
        self._apply_snapshots(changes)
        for name, offset in changes.readers.items():
            if offset is None:
                self.readers.pop(name, None)
            else:
                self.readers[name] = offset

    def _apply_snapshots(self, changes: Changes) -> None:
        for snapshot_id in changes.dropped_snapshots:
            self.drop_snapshot(snapshot_id)
        for snapshot_id, number, data in changes.pieces:
            self.used_bytes += len(data) - len(self.pieces.get((snapshot_id, number), b""))
            self.pieces[snapshot_id, number] = data
        for stored in changes.sealed:
            self.snapshots[stored.snapshot_id] = stored.snapshot

    def drop_snapshot(self, snapshot_id: int) -> None:
        """Delete all that is stored of a snapshot."""
        self.snapshots.pop(snapshot_id, None)
        for key in [key for key in self.pieces if key[0] == snapshot_id]:
            self.used_bytes -= len(self.pieces.pop(key))

    def sweep_snapshots(self) -> StoredSnapshot | None:
        """Keep the newest whole snapshot alone, and return it."""
        ids = {*self.snapshots, *[snapshot_id for snapshot_id, _ in self.pieces]}
        newest = max(self.snapshots, key=lambda one: (self.snapshots[one].index, one), default=None)
        for snapshot_id in ids:
            if snapshot_id != newest:
                self.drop_snapshot(snapshot_id)
        return None if newest is None else StoredSnapshot(newest, self.snapshots[newest])

    def _drop_from(self, first: int) -> None:
        place = max(first - self.base.index - 1, 0)
        self.used_bytes -= sum([len(entry.data) for entry in self.log[place:]])
        del self.log[place:]

    def _begin_behind(self, base: Base) -> None:
        count = base.index - self.base.index
        self.used_bytes -= sum([len(entry.data) for entry in self.log[:count]])
        del self.log[:count]
        del self.delivered[:count]


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
        disk.outline = disk.outline._replace(snapshot=disk.sweep_snapshots())
        self._disk = disk
        self._reason = ""
        self._restoration = Restoration(
            identity=self._identity,
            membership=disk.membership or membership,
            introduced=disk.introduced,
            promise=disk.outline.promise,
            epochs=disk.outline.epochs,
            base=disk.base,
            last_index=disk.outline.last_index,
            position=disk.outline.position,
            snapshot=disk.outline.snapshot,
            peers=dict(disk.peers),
            tail=[entry for entry in disk.log[len(disk.delivered) :] if entry.epoch != NO_EPOCH],
            readers=dict(disk.readers),
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
            changes, outline = fold(disk.outline, batches, disk.row)
        except InvariantBroken as error:
            self._reason = f"was given what must not be stored: {error}"
            raise
        disk.apply(changes, outline)
        if failing == "after":
            raise self._fail("failed after it wrote")

    def usage(self) -> Usage:
        """As `interface.Store.usage`: the bytes of entries and pieces."""
        return Usage(self._disk.used_bytes, self._disk.used_bytes)

    def is_held_back(self) -> bool:
        """As `interface.Store.is_held_back`: never."""
        return False

    def entries(self, first: int, last: int, bytes_max: int) -> list[StoredEntry]:
        """As `interface.Reader.entries`."""
        self._check()
        found: list[StoredEntry] = []
        size = 0
        for index in range(first, last + 1):
            entry = self._disk.entry(index)
            if entry is None:
                break
            size += len(entry.data)
            if found and size > bytes_max:
                break
            found.append(entry)
        return found

    def delivered(self, offset: int, bytes_max: int) -> list[tuple[Delivered, StoredEntry]]:
        """As `interface.Reader.delivered`."""
        self._check()
        disk = self._disk
        found: list[tuple[Delivered, StoredEntry]] = []
        size = 0
        if not disk.base.offset <= offset < disk.outline.position.offset:
            return found
        first = bisect_right(disk.delivered, offset, key=_base_offset) - 1
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
        row = self._disk.row(index)
        return None if row is None else row.digest

    def position(self) -> Position:
        """As `interface.Reader.position`."""
        self._check()
        return self._disk.outline.position

    def base(self) -> Base:
        """As `interface.Reader.base`."""
        self._check()
        return self._disk.base

    def snapshot(self) -> StoredSnapshot | None:
        """As `interface.Reader.snapshot`."""
        self._check()
        return self._disk.outline.snapshot

    def piece(self, snapshot_id: int, number: int) -> bytes | None:
        """As `interface.Reader.piece`."""
        self._check()
        return self._disk.pieces.get((snapshot_id, number))

    def readers(self) -> Mapping[str, int]:
        """As `interface.Reader.readers`."""
        self._check()
        return dict(self._disk.readers)

    def index_below(self, offset: int) -> int:
        """As `interface.Reader.index_below`."""
        self._check()
        ends = bisect_right(self._disk.delivered, offset, key=_end_offset)
        return self._disk.base.index + ends

    def offset_at(self, timestamp_ms: int) -> int:
        """As `interface.Reader.offset_at`."""
        self._check()
        rows = self._disk.delivered
        for row in rows[bisect_left(rows, timestamp_ms, key=_timestamp_ms) :]:
            if row.count:
                return row.base_offset
        return self._disk.outline.position.offset

    def offset_behind(self, index: int) -> int:
        """As `interface.Reader.offset_behind`."""
        self._check()
        if index <= self._disk.base.index:
            return self._disk.base.offset
        row = self._disk.row(index)
        if row is None:
            raise Corruption(f"the row of entry {index} is missing")
        return row.end_offset

    def log_extent(self) -> tuple[int, int]:
        """As `interface.Reader.log_extent`: the bytes of the entries."""
        self._check()
        entries = [entry for entry in self._disk.log if entry.epoch != NO_EPOCH]
        return sum([len(entry.data) for entry in entries]), len(entries)

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


_base_offset = attrgetter("base_offset")
_end_offset = attrgetter("end_offset")
_timestamp_ms = attrgetter("timestamp_ms")
