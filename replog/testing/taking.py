"""Snapshots in a simulated run: what a node keeps of its state, and what another makes of it.

A run without machines keeps bytes that follow from the log's digest, so that whatever is installed
can be told from what should have been.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

from replog.entry import NO_EPOCH
from replog.snapshot import Snapshot, StateDigest, cut_into_pieces, own_snapshot_id
from replog.store.interface import StoredPiece, StoredSnapshot
from replog.testing.violation import Violation

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from random import Random

    from replog.config import Limits
    from replog.membership import Membership
    from replog.replica.effects import PartOfPiece
    from replog.snapshot import Position
    from replog.store.interface import Reader

STATE_BYTES_MAX = 2000


class PieceTicket(NamedTuple):
    """Comes back when a piece is stored."""

    taking: Taking


class SealTicket(NamedTuple):
    """Comes back when a snapshot is whole."""

    taking: Taking


class Taking:
    """A snapshot that a node takes."""

    def __init__(
        self, position: Position, state: Iterable[bytes], membership: Membership, limits: Limits
    ) -> None:
        snapshot_id = own_snapshot_id(position.index)
        digest = StateDigest()
        self.pieces: list[StoredPiece] = []
        for number, piece in enumerate(cut_into_pieces(state, limits.piece_bytes_max), start=1):
            digest.add(piece)
            self.pieces.append(StoredPiece(snapshot_id, number, piece))
        snapshot = Snapshot(
            position, NO_EPOCH, membership, digest.pieces, digest.size, digest.value()
        )
        self.stored = StoredSnapshot(snapshot_id, snapshot)
        self.missing = digest.pieces
        """Pieces on their way to the disk."""


def state_at(position: Position) -> Sequence[bytes]:
    """What stands for the state of a run without machines, in two chunks."""
    digest = position.digest
    size = int.from_bytes(digest[:2], "big") % STATE_BYTES_MAX
    state = (digest * (size // len(digest) + 1))[:size]
    return state[: size >> 1], state[size >> 1 :]


def damaged(part: PartOfPiece, start: int, piece: bytes, random: Random) -> PartOfPiece:
    """Other bytes than were kept, from `start` of this piece on: every other time under a checksum
    that fits them."""
    if not part.data:
        return part
    wrong = bytearray(piece)
    wrong[start + random.randrange(len(part.data))] ^= 1 + random.randrange(255)
    crc = crc32(wrong) if random.random() < 0.5 else part.piece_crc
    return part._replace(data=bytes(wrong[start : start + len(part.data)]), piece_crc=crc)


def state_of(reader: Reader, stored: StoredSnapshot) -> list[bytes]:
    """The pieces of a whole snapshot. Raises `Violation` when one is missing."""
    pieces: list[bytes] = []
    for number in range(1, stored.snapshot.pieces + 1):
        piece = reader.piece(stored.snapshot_id, number)
        if piece is None:
            raise Violation(f"piece {number} of a whole snapshot is missing")
        pieces.append(piece)
    return pieces
