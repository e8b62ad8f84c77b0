"""The store: what a node keeps on disk, as values, and the operations on them.

Rules of this file:

1. A `Batch` is applied all or nothing, and is on disk when `commit` returns.
2. Every value is checked against its checksum on every read; a mismatch raises `Corruption`.
3. After any failed commit the store is poisoned: every later call raises `StoreFailed`.
4. `commit` is called from one thread; reads may come from any thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from replog.entry import Epoch
from replog.producers import ProducerRow as ProducerRow  # noqa: PLC0414 - exported
from replog.snapshot import Position as Position  # noqa: PLC0414 - exported

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from replog.membership import Membership
    from replog.snapshot import Base, Snapshot


class Identity(NamedTuple):
    """Who a directory belongs to."""

    cluster_id: bytes
    node: str
    agreement: str
    store_id: bytes
    """Random, drawn once when the directory was formatted; 16 bytes."""
    life: int
    """`max(previous + 1, unix ms)`, written durably at this open."""


class StoredEntry(NamedTuple):
    """One entry as it lies in the `log` table."""

    index: int  # type: ignore[assignment]
    epoch: Epoch
    data: bytes


class StoredSnapshot(NamedTuple):
    """The header of a snapshot, under the id of its pieces."""

    snapshot_id: int
    snapshot: Snapshot


class StoredPiece(NamedTuple):
    """One piece of a snapshot."""

    snapshot_id: int
    number: int
    """From 1."""
    data: bytes


class StoredWrite(NamedTuple):
    """One `agreement.Write` with its bytes; applied in the order of the fields."""

    promise: Epoch | None = None
    truncate_from: int | None = None
    """Drop every entry from this index on."""
    install: StoredSnapshot | None = None
    """Begin the log anew behind this snapshot, whose pieces are stored and which becomes the newest
    one: every entry up to its index goes, with every delivered row, and its position counts. The
    entries above it stay."""
    entries: Sequence[StoredEntry] = ()
    """Each at any index above the position: behind the last entry, over one, or leaving a gap."""


class Delivered(NamedTuple):
    """One delivered entry: a row of the `delivered` table."""

    index: int  # type: ignore[assignment]
    base_offset: int
    """Offset of its first accepted record (or of the next one, when it has none)."""
    count: int  # type: ignore[assignment]
    """How many records it delivered."""
    accepted: tuple[int, ...]
    """The runs that delivery accepted, by their place in the entry."""
    timestamp_ms: int
    """Of its records: the leader's wall clock, never falling."""
    digest: bytes
    """The chain's digest after this entry."""

    @property
    def end_offset(self) -> int:
        """The offset behind its last record."""
        return self.base_offset + self.count


class Peer(NamedTuple):
    """What this node remembers of another: the identity it first showed."""

    store_id: bytes
    life: int


class Batch(NamedTuple):
    """One group of changes, applied all or nothing: dropped snapshots and pieces first, then the
    others in the order of the fields."""

    writes: Sequence[StoredWrite] = ()
    delivered: Sequence[Delivered] = ()
    """Ascending; follows the last row already there."""
    position: Position | None = None
    peers: Mapping[str, Peer] | None = None
    """Rows to replace."""
    introduced: bool = False
    """Set once a majority of the other bootstrap members have bound this store id."""
    dropped_snapshots: Sequence[int] = ()
    """Ids of snapshots that go, whole or not, before new pieces come."""
    pieces: Sequence[StoredPiece] = ()
    """Of a snapshot that is not whole yet."""
    sealed: StoredSnapshot | None = None
    """This snapshot is whole from here; its index is at or below the position."""
    compact_to: int | None = None
    """Every entry up to this index goes, with its delivered row: at or below the position, and at
    or below the newest whole snapshot."""
    readers: Mapping[str, int | None] | None = None
    """Named readers, and the offset up to which each has acknowledged; None: it is forgotten."""


class Usage(NamedTuple):
    """How much of its map a store takes."""

    live_bytes: int
    """Of the pages that hold something. Those that were freed are used again."""
    file_bytes: int
    """Up to the last page ever used: never falls."""


class Restoration(NamedTuple):
    """Everything a node needs to go on after an open: costs O(epochs + tail), not the whole log."""

    identity: Identity
    membership: Membership
    introduced: bool
    """Whether this store may vote; see `Batch.introduced`."""
    promise: Epoch
    epochs: tuple[tuple[int, Epoch], ...]
    """(first index, epoch) of each run of entries of one epoch, ascending; `NO_EPOCH` for a gap,
    which only lies above `position.index` and below `last_index`."""
    base: Base
    """`NO_BASE` until something is compacted."""
    last_index: int
    """Of the highest entry; the base's for none."""
    position: Position
    snapshot: StoredSnapshot | None
    """The newest whole one. Whatever else there is of snapshots is gone by now."""
    peers: Mapping[str, Peer]
    tail: Sequence[StoredEntry]
    """The entries above `position.index`, ascending, checked as by any read. Bounded by what a
    leader may have in flight."""
    readers: Mapping[str, int]
    """As `Reader.readers`."""


class Reader(Protocol):
    """Reads of one store, in short transactions, from any thread."""

    def entries(self, first: int, last: int, bytes_max: int) -> list[StoredEntry]:
        """Entries `first` to `last`, cut once `bytes_max` is exceeded, at least one if present;
        ends early at the first missing index. Raises `Corruption`."""

    def delivered(self, offset: int, bytes_max: int) -> list[tuple[Delivered, StoredEntry]]:
        """Delivered entries that hold records, beginning with the one that holds `offset`, with
        their stored bytes, cut as `entries` is. Empty when `offset` is not delivered yet, or not
        kept any more. Raises `Corruption`."""

    def digest(self, index: int) -> bytes | None:
        """The chain's digest after entry `index`; None when its row is not here."""

    def position(self) -> Position:
        """How far delivery has come on this disk. Raises `Corruption`."""

    def base(self) -> Base:
        """What the log begins behind. Raises `Corruption`."""

    def snapshot(self) -> StoredSnapshot | None:
        """The newest whole snapshot, if there is one. Raises `Corruption`."""

    def piece(self, snapshot_id: int, number: int) -> bytes | None:
        """One piece of a snapshot, whole or not; None when it is not here (any more).
        Raises `Corruption`."""

    def readers(self) -> Mapping[str, int]:
        """Named readers, and the offset up to which each has acknowledged. Raises `Corruption`."""

    def index_below(self, offset: int) -> int:
        """The highest delivered index all of whose records, and all before, lie below this offset;
        the base's for none. Raises `Corruption`."""

    def offset_at(self, timestamp_ms: int) -> int:
        """The first offset still kept whose record is not older than this; the next offset to be
        given when there is none. Raises `Corruption`."""

    def offset_behind(self, index: int) -> int:
        """The offset after the records of this delivered entry; the base's for the base
        and for what has been compacted meanwhile. Raises `Corruption` when its row is missing or
        damaged."""

    def log_extent(self) -> tuple[int, int]:
        """Bytes of the pages that the entries take, and how many entries there are."""

    def close(self) -> None:
        """Release the store; harmless twice. Later reads raise `StoreFailed`."""


class Store(Reader, Protocol):
    """A store that may be written."""

    def restore(self) -> Restoration:
        """The durable state as of this open."""

    def commit(self, batches: Sequence[Batch]) -> None:
        """Apply these batches in one transaction and sync it. Raises `StoreFailed` (the store is
        then poisoned)."""

    def usage(self) -> Usage:
        """How much of the map is taken, as of the last commit."""

    def is_held_back(self) -> bool:
        """Whether somebody reads for so long that what is dropped makes no room meanwhile."""
