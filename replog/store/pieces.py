"""Checking what is stored of a snapshot: every piece, and that they are what its header says.

Rule of this file: one piece at a time is read, in a transaction of its own. A snapshot that is
dropped meanwhile is nobody's fault.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replog.errors import Corruption
from replog.snapshot import StateDigest
from replog.store import layout

if TYPE_CHECKING:
    from collections.abc import Callable

    from replog.store.interface import StoredSnapshot
    from replog.store.lmdb_reader import LmdbReader


def check_pieces(
    reader: LmdbReader,
    snapshot_id: int,
    stored: StoredSnapshot | None,
    report: Callable[[str], object],
) -> int:
    """Check the pieces of a snapshot. `stored` is None for one that is not whole: then those that
    are here are checked one by one.

    Each fault is reported in words. Returns how many whole pieces there were.
    """
    state = StateDigest()
    number, damaged = 0, False
    while (row := _read_behind(reader, snapshot_id, number, whole=stored is not None)) is not None:
        key, value = row
        if not key:
            break
        expected, (_, number) = number + 1, layout.parse_piece_key(reader.file, key)
        if number != expected and stored is not None:
            report(_fault(reader, snapshot_id, expected, "is missing"))
            damaged = True
        try:
            state.add(layout.parse_piece(reader.file, key, value).data)
        except Corruption as error:
            report(str(error))
            damaged = True
    if row is None or stored is None:
        return state.pieces
    if number < stored.snapshot.pieces:
        report(_fault(reader, snapshot_id, number + 1, "is missing"))
    elif not damaged and not stored.snapshot.is_made_of(state):
        found = f"{state.pieces} pieces of {state.size} bytes, digest {state.value().hex()}"
        report(
            _fault(reader, snapshot_id, layout.HEADER_NUMBER, f"is not that of its pieces: {found}")
        )
    return state.pieces


def _fault(reader: LmdbReader, snapshot_id: int, number: int, reason: str) -> str:
    where = layout.piece_name(snapshot_id, number)
    return str(layout.corruption(reader.file, layout.SNAPSHOTS, where, reason))


def _read_behind(
    reader: LmdbReader, snapshot_id: int, number: int, *, whole: bool
) -> tuple[bytes, bytes] | None:
    """Key and value of the next piece of a snapshot, empty behind the last one; None when the whole
    snapshot is gone."""
    table = reader.tables[layout.SNAPSHOTS]
    header = layout.piece_key(snapshot_id, layout.HEADER_NUMBER)
    with reader.reading(layout.SNAPSHOTS) as txn:
        if whole and txn.get(header, db=table) is None:
            return None
        cursor = txn.cursor(table)
        behind = layout.piece_key(snapshot_id, number) + b"\0"
        end = layout.SNAPSHOT_ID_BYTES
        if not cursor.set_range(behind) or cursor.key()[:end] != header[:end]:
            return b"", b""
        return cursor.item()
