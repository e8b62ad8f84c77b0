"""The snapshots of this node: written piece by piece, and given to whoever needs one.

Rules of this file:

1. A snapshot is offered once it is whole and on the disk, and never before.
2. The newest is kept. An older one is kept while somebody takes it, and no longer.
3. Whoever takes a snapshot pulls it, part by part: a sender remembers nothing of it but a pin,
   which lapses by itself.
4. What lies above a pinned snapshot is not compacted, for whoever took it needs that next.
5. An offer is made when the core asks for one, and never else. A follower in Raft tells its leader
   that it has what was installed; that is true of this term's leader only because the offer
   answered a refusal in this term (figure 8: an older leader may lack what is committed since).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from replog.entry import INTEGER_MAX
from replog.messages import FetchPiece, OfferSnapshot, SnapshotPart
from replog.replica.effects import LoadPart, SnapshotStatus, Stored
from replog.snapshot import encode_snapshot
from replog.store.interface import StoredSnapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from replog.agreement import Message
    from replog.replica.effects import PartOfPiece, Ticket
    from replog.replica.loads import Loads
    from replog.store.interface import StoredPiece

    Post = Callable[[str, Message, Sequence[bytes]], None]

PIN_MS = 10_000
"""A snapshot that nobody asks for a part of for so long is let go."""
TAKING_MS_MAX = 1000
"""Who asks for no part for so long has what it wanted, or has given up."""
PINS_MS_MAX = 3_600_000
"""And however often somebody asks: an hour after it was first offered to that node."""


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


class _Pin(NamedTuple):
    """Somebody takes a snapshot."""

    stored: StoredSnapshot
    first_offered: int
    until: int


class Snapshots:
    """What of snapshots is on this disk, or on its way there."""

    def __init__(
        self, newest: StoredSnapshot | None, loads: Loads, part_bytes_max: int, post: Post
    ) -> None:
        self.newest = newest
        """Whole, and on its way to the disk at least."""
        self.disk_bytes_free = INTEGER_MAX
        """Set by the host: what the pieces of snapshots may take more of its disk."""
        self._durable = newest
        self._loads = loads
        self._part_bytes_max = part_bytes_max
        self._post = post
        self._dropped: list[int] = []
        self._pieces: list[StoredPiece] = []
        self._sealed: StoredSnapshot | None = None
        self._tickets: list[Stored] = []
        """Of what the next batch brings."""
        self._issued: list[_Issued] = []
        self._old: dict[int, StoredSnapshot] = {}
        """Whole ones that are not the newest any more and still there."""
        self._pins: dict[str, _Pin] = {}
        """By node."""

    # -- writing -------------------------------------------------------------------------------

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
        return unwritten + size <= self.disk_bytes_free

    def stage(self, piece: StoredPiece, ticket: Ticket | None = None) -> None:
        """Write one piece; the ticket comes back once it is on the disk."""
        self._pieces.append(piece)
        if ticket is not None:
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
            self._durable = issued.newest
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

    # -- giving --------------------------------------------------------------------------------

    @property
    def pinned_index(self) -> int | None:
        """Entries above this one are needed behind a snapshot that somebody takes."""
        return min([pin.stored.snapshot.index for pin in self._pins.values()], default=None)

    def offer(self, now: int, peer: str) -> None:
        """A node that lacks what is compacted here: name what it can have instead, and go on
        naming that while it is taking it."""
        stored = self._durable
        if stored is None:
            return
        pin = self._pins.get(peer)
        if pin is not None and now < pin.until - PIN_MS + TAKING_MS_MAX:
            stored = pin.stored
        elif pin is None or pin.stored is not stored:
            self._pins[peer] = _Pin(stored, now, now + PIN_MS)
        header = encode_snapshot(stored.snapshot)
        self._post(peer, OfferSnapshot(stored.snapshot_id), [header])

    def fetched(self, now: int, sender: str, fetch: FetchPiece) -> None:
        """Somebody wants a part. Of what is not offered (any more) nothing is said, not even by a
        new offer: see rule 5."""
        pin = self._pins.get(sender)
        if pin is None or pin.stored.snapshot_id != fetch.snapshot_id:
            return
        self._pins[sender] = pin._replace(until=now + PIN_MS)
        load = LoadPart(*fetch, self._part_bytes_max)
        self._loads.ask(load, lambda _, part: self._give(sender, fetch, part))

    def _give(self, to: str, fetch: FetchPiece, part: PartOfPiece | None) -> None:
        if part is not None:
            message = SnapshotPart(*fetch, part.piece_size, part.piece_crc)
            self._post(to, message, [part.data])

    @property
    def deadline(self) -> int | None:
        """When `let_go` is due."""
        return min([pin.until for pin in self._pins.values()]) if self._pins else None

    def let_go(self, now: int) -> None:
        """Drop what nobody needs any more. A snapshot that is on its way to the disk replaces
        nothing yet."""
        for peer, pin in list(self._pins.items()):
            if now >= min(pin.until, pin.first_offered + PINS_MS_MAX):
                del self._pins[peer]
        if not self._old or self._durable is not self.newest:
            return
        kept = {pin.stored.snapshot_id for pin in self._pins.values()}
        for snapshot_id in [held for held in self._old if held not in kept]:
            del self._old[snapshot_id]
            self._dropped.append(snapshot_id)

    def status(self) -> SnapshotStatus | None:
        """The newest whole one that is on the disk."""
        if self._durable is None:
            return None
        snapshot = self._durable.snapshot
        return SnapshotStatus(snapshot.index, snapshot.position.offset, snapshot.size)
