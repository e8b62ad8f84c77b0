"""What a replica wants to read from its store, carried out: by a node's loader, or a simulator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from zlib import crc32

from replog.replica.effects import LoadDigest, LoadEntries, LoadPart, PartOfPiece
from replog.retention import droppable
from replog.snapshot import StateDigest

if TYPE_CHECKING:
    from replog.replica.effects import Load
    from replog.store.interface import Reader


def carry_out(reader: Reader, load: Load) -> Any:
    """What this load wants. Raises as the store does."""
    if isinstance(load, LoadEntries):
        return reader.entries(load.first, load.last, load.bytes_max)
    if isinstance(load, LoadPart):
        return _part(reader, load)
    if isinstance(load, LoadDigest):
        return _digest(reader, load)
    return droppable(reader, *load)


def _part(reader: Reader, load: LoadPart) -> PartOfPiece | None:
    piece = reader.piece(load.snapshot_id, load.number)
    if piece is None:
        return None
    data = piece[load.start : load.start + load.bytes_max]
    return PartOfPiece(data, len(piece), crc32(piece))


def _digest(reader: Reader, load: LoadDigest) -> StateDigest:
    digest = StateDigest()
    for number in range(1, load.pieces + 1):
        piece = reader.piece(load.snapshot_id, number)
        if piece is None:
            break
        digest.add(piece)
    return digest
