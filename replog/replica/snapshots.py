"""The snapshots of this node: written piece by piece, the newest of them kept.

Rules of this file:

1. Of what comes too late nothing is written: neither the pieces nor the header of a snapshot that
   stands for no more than the newest one. Its tickets come back all the same.
2. The newest is kept. An older one is kept until the newest is on the disk and nobody takes the
   older one any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from replog.entry import INTEGER_MAX
from replog.replica.effects import SnapshotStatus, Stored

if TYPE_CHECKING:
    from collections.abc import Sequence, Set

    from replog.replica.effects import Ticket
    from replog.store.interface import StoredPiece, StoredSnapshot


class Written(NamedTuple):
    """The ticket of a piece that this replica writes for itself."""

    transfer: Any


class Changes(NamedTuple):
    """What the next batch does to snapshots."""

    dropped: Sequence[int]
    pieces: Sequence[StoredPiece]
    sealed: StoredSnapshot | None


class _Issued(NamedTuple):
    """A batch on its way to the disk."""

    batch_id: int
    newest: StoredSnapshot | None
    """The newest whole one, once this batch is on the disk."""
    tickets: list[Stored]
    piece_bytes: int


class Snapshots:
    """What of snapshots is on this disk, or on its way there."""

    def __init__(self, newest: StoredSnapshot | None) -> None:
        self.newest = newest
        """Whole, and on its way to the disk at least."""
        self.durable_newest = newest
        """The newest that is whole on the disk."""
        self.disk_bytes_free = INTEGER_MAX
        """Set by the host: what the pieces of snapshots may take more of its disk."""
        self._dropped: list[int] = []
        self._pieces: list[StoredPiece] = []
        self._sealed: StoredSnapshot | None = None
        self._tickets: list[Stored] = []
        """Of what the next batch brings."""
        self._issued: list[_Issued] = []
        self._old: dict[int, StoredSnapshot] = {}
        """Whole ones that are not the newest any more and still there."""

    @property
    def has_changes(self) -> bool:
        """Whether the next batch does anything, or whoever waits can be told by it."""
        return bool(self._dropped or self._pieces or self._sealed or self._tickets)

    @property
    def seals(self) -> bool:
        """Whether the next batch makes a snapshot whole."""
        return self._sealed is not None

    @property
    def newest_index(self) -> int:
        """Index of the newest whole snapshot; 0 for none."""
        return self.newest.snapshot.index if self.newest is not None else 0

    @property
    def newest_state_index(self) -> int:
        """Index of the newest whole snapshot if it holds the state of a machine, else 0."""
        return self.newest_index if self.newest is not None and self.newest.snapshot.pieces else 0

    def has_room_for(self, size: int) -> bool:
        """Whether the disk can take this many bytes of pieces more."""
        unwritten = sum([len(piece.data) for piece in self._pieces])
        unwritten += sum([issued.piece_bytes for issued in self._issued])
        return not size or unwritten + size <= self.disk_bytes_free

    def stage(self, piece: StoredPiece, ticket: Ticket) -> None:
        """Write one piece; the ticket comes back once it is on the disk, or see rule 1."""
        self._pieces.append(piece)
        self.tell(ticket, None)

    def drop(self, snapshot_id: int) -> None:
        """Remove what there is of a snapshot that is not whole."""
        self._pieces = [piece for piece in self._pieces if piece.snapshot_id != snapshot_id]
        if self.newest is None or snapshot_id != self.newest.snapshot_id:
            self._dropped.append(snapshot_id)

    def seal(self, stored: StoredSnapshot, ticket: Ticket | None = None) -> None:
        """All pieces are on the disk: this is the newest snapshot. Its ticket comes back with what
        is the newest by then: a newer one may have come meanwhile."""
        if stored.snapshot.index <= self.newest_index:
            self.drop(stored.snapshot_id)
        else:
            self._sealed = stored
            self._replace(stored)
        self.tell_newest(ticket)

    def tell_newest(self, ticket: Ticket | None) -> None:
        """The ticket comes back with what is the newest by now, once that is on the disk."""
        if ticket is not None:
            self.tell(ticket, self.newest.snapshot if self.newest is not None else None)

    def tell(self, ticket: Ticket, result: object) -> None:
        """The ticket comes back with this, once all that is to be written by now is on the disk."""
        self._tickets.append(Stored(ticket, result))

    def installs(self, stored: StoredSnapshot) -> None:
        """A write of the next batch makes this one whole, and the base of the log."""
        self._replace(stored)

    def take_changes(self, batch_id: int) -> Changes:
        """What the next batch, of this id, does."""
        newest_id = self.newest.snapshot_id if self.newest is not None else 0
        # A newer one may have come while an older one was being written.
        pieces = [piece for piece in self._pieces if piece.snapshot_id > newest_id]
        changes = Changes(self._dropped, pieces, self._sealed)
        piece_bytes = sum([len(piece.data) for piece in pieces])
        self._issued.append(_Issued(batch_id, self.newest, self._tickets, piece_bytes))
        self._dropped, self._pieces, self._sealed, self._tickets = [], [], None, []
        return changes

    def durable(self, batch_id: int) -> list[Stored]:
        """Every batch up to this id is on the disk; whom to tell."""
        told: list[Stored] = []
        while self._issued and self._issued[0].batch_id <= batch_id:
            issued = self._issued.pop(0)
            self.durable_newest = issued.newest
            told += issued.tickets
        return told

    def drain(self) -> list[Ticket]:
        """At the end: the host's tickets of what is not known to be on the disk."""
        tickets = [*self._tickets, *[one for issued in self._issued for one in issued.tickets]]
        return [stored.ticket for stored in tickets if not isinstance(stored.ticket, Written)]

    def _replace(self, stored: StoredSnapshot) -> None:
        if self.newest is not None:
            self._old[self.newest.snapshot_id] = self.newest
        self.newest = stored

    def let_go(self, kept: Set[int]) -> None:
        """Drop what is whole and nobody needs any more: neither the newest nor one of these ids. A
        snapshot that is on its way to the disk replaces nothing yet."""
        if not self._old or self.durable_newest is not self.newest:
            return
        for snapshot_id in [held for held in self._old if held not in kept]:
            del self._old[snapshot_id]
            self._dropped.append(snapshot_id)

    def status(self) -> SnapshotStatus | None:
        """The newest whole one that is on the disk."""
        if self.durable_newest is None:
            return None
        snapshot = self.durable_newest.snapshot
        return SnapshotStatus(snapshot.index, snapshot.position.offset, snapshot.size)
