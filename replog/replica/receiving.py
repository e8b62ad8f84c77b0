"""Receiving a snapshot: pulled part by part, checked, written, read back, and then installed.

Rules of this file:

1. One snapshot is received at a time, and one part is asked for at a time. A lost question or
   answer is asked again on a timer; a sender that stays silent is given up for whoever offers next.
2. A piece is written once its checksum is right, and the snapshot is installed once all of its
   pieces were read back from the disk and make its digest. Until then nothing of this node has
   changed.
3. Pieces on their way to the disk are bounded. What the disk has no room for is not begun; if that
   changes on the way, the transfer is given up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

from replog.agreement import EntryRef
from replog.errors import PeerFault
from replog.messages import FetchPiece
from replog.replica.effects import LoadDigest
from replog.replica.snapshots import Snapshots, Written
from replog.snapshot import (
    PIECE_BYTES_MAX,
    PIECES_UNWRITTEN_MAX,
    StateDigest,
    decode_snapshot,
    received_snapshot_id,
)
from replog.store.interface import StoredPiece, StoredSnapshot

if TYPE_CHECKING:
    from collections.abc import Callable

    from replog.agreement import Core, Message
    from replog.membership import Membership
    from replog.messages import OfferSnapshot, SnapshotPart
    from replog.replica.loads import Loads
    from replog.snapshot import Snapshot

SILENCES_MAX = 10
"""Questions without an answer after which another offer is taken."""


class Transfer:
    """A snapshot on its way here."""

    def __init__(self, sender: str, their_id: int, snapshot: Snapshot) -> None:
        self.sender = sender
        self.their_id = their_id
        self.snapshot = snapshot
        self.own = StoredSnapshot(received_snapshot_id(snapshot.index), snapshot)
        self.piece = bytearray()
        """What has come of the piece under way."""
        self.digest = StateDigest()
        """Over the pieces before it."""
        self.unwritten = 0
        """Pieces on their way to the disk."""
        self.silences = 0
        self.checking = False

    @property
    def complete(self) -> bool:
        """Whether every piece has come."""
        return self.digest.pieces == self.snapshot.pieces


class Receiving:
    """The one snapshot that is received, if any."""

    def __init__(
        self,
        core: Core,
        membership: Membership,
        snapshots: Snapshots,
        loads: Loads,
        *,
        retry_ms: int,
        post: Callable[[str, Message], None],
    ) -> None:
        self._core = core
        self._membership = membership
        self._snapshots = snapshots
        self._loads = loads
        self._retry_ms = retry_ms
        self._post = post
        self._transfer: Transfer | None = None
        self._refused = ""
        """Why the last offer was not taken, if it was the disk."""
        self.installing: StoredSnapshot | None = None
        """On its way to becoming the base of this node's log."""
        self.deadline: int | None = None
        """When `ask_again` is due."""

    def offered(
        self, now: int, sender: str, offer: OfferSnapshot, header: bytes, delivered_index: int
    ) -> None:
        """Somebody has compacted what this node lacks. Raises `PeerFault` for a malformed header,
        or one of another membership."""
        snapshot = decode_snapshot(header)
        if snapshot.membership != self._membership:
            raise PeerFault(f"{sender} offers a snapshot of another membership")
        under_way = self._transfer
        if snapshot.index <= delivered_index or self.installing is not None:
            return
        if not self._snapshots.has_room_for(snapshot.size):
            self._refused = (
                f"no room on the disk for {snapshot.size} bytes of a snapshot of entry "
                f"{snapshot.index} from {sender}: open the directory with a larger map_bytes_max"
            )
            return
        if under_way is not None:
            same = (sender, offer.snapshot_id) == (under_way.sender, under_way.their_id)
            other = sender != under_way.sender
            if same or under_way.checking or (other and under_way.silences < SILENCES_MAX):
                return
            self.give_up()
        self._refused = ""
        self._transfer = Transfer(sender, offer.snapshot_id, snapshot)
        # What an earlier transfer may have left of the same one.
        self._snapshots.drop(self._transfer.own.snapshot_id)
        self._go_on(now)

    def part(self, now: int, sender: str, part: SnapshotPart, data: bytes) -> None:
        """A part has come. Raises `PeerFault` when it or its piece cannot be of this snapshot."""
        transfer = self._transfer
        if transfer is None or (sender, part.snapshot_id) != (transfer.sender, transfer.their_id):
            return
        number, start = transfer.digest.pieces + 1, len(transfer.piece)
        if transfer.complete or (part.number, part.start) != (number, start):
            return  # asked for twice
        size = part.piece_size
        left = transfer.snapshot.size - transfer.digest.size
        if size > min(PIECE_BYTES_MAX, left) or not min(size, 1) <= len(data) <= size - start:
            raise PeerFault(f"{len(data)} bytes at {start} of a piece of {size}, with {left} left")
        transfer.silences = 0
        transfer.piece += data
        if len(transfer.piece) == size:
            piece = bytes(transfer.piece)
            transfer.piece.clear()
            if crc32(piece) != part.piece_crc:
                raise PeerFault(f"piece {number} does not match its checksum")
            if not self._snapshots.has_room_for(size):
                self.give_up()
                return
            transfer.digest.add(piece)
            transfer.unwritten += 1
            stored = StoredPiece(transfer.own.snapshot_id, number, piece)
            self._snapshots.stage(stored, Written(transfer))
        self._go_on(now)

    def written(self, now: int, transfer: Transfer) -> None:
        """A piece is on the disk."""
        transfer.unwritten -= 1
        if transfer is self._transfer:
            self._go_on(now)

    def give_up(self) -> None:
        """Forget the transfer: it is not needed any more, or nobody answers."""
        if self._transfer is not None:
            self._snapshots.drop(self._transfer.own.snapshot_id)
        self._transfer = None
        self.deadline = None

    def ask_again(self, now: int, delivered_index: int) -> None:
        """No part has come for a while, or the log has caught up by itself."""
        transfer = self._transfer
        if transfer is None or self.installing is not None:
            return
        if delivered_index >= transfer.snapshot.index:
            self.give_up()
        elif self.deadline is not None and now >= self.deadline:
            transfer.silences += 1
            if transfer.silences > SILENCES_MAX:
                self.give_up()
            else:
                self._ask(now, transfer)

    def installed(self) -> None:
        """The snapshot is on the disk as the base of the log."""
        self.installing = None
        self._transfer = None
        self.deadline = None

    def status(self) -> str:
        """How far the transfer has come, or why none was begun; empty when none was offered."""
        transfer = self._transfer
        if transfer is None:
            return self._refused
        snapshot = transfer.snapshot
        return (
            f"{transfer.digest.size} of {snapshot.size} bytes of a snapshot of entry "
            f"{snapshot.index} from {transfer.sender}"
        )

    def _go_on(self, now: int) -> None:
        transfer = self._transfer
        if transfer is None or transfer.checking:
            return
        if not transfer.complete:
            if transfer.unwritten < PIECES_UNWRITTEN_MAX:
                self._ask(now, transfer)
            else:
                self.deadline = None
        elif not transfer.unwritten:
            transfer.checking = True
            self.deadline = None
            load = LoadDigest(transfer.own.snapshot_id, transfer.snapshot.pieces)
            self._loads.ask(load, lambda now, found: self._checked(now, transfer, found))

    def _ask(self, now: int, transfer: Transfer) -> None:
        self.deadline = now + self._retry_ms
        number, start = transfer.digest.pieces + 1, len(transfer.piece)
        self._post(transfer.sender, FetchPiece(transfer.their_id, number, start))

    def _checked(self, now: int, transfer: Transfer, found: StateDigest) -> None:
        if transfer is not self._transfer:
            return
        snapshot = transfer.snapshot
        whole = snapshot.is_made_of(found)
        self.installing = transfer.own
        if not whole or not self._core.install(now, EntryRef(snapshot.index, snapshot.epoch)):
            self.installing = None
            self.give_up()
