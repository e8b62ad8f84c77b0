"""Rows: the state of a machine as a sequence of small tuples, for its snapshot and its digest.

Layout of a snapshot: msgpack objects one after the other::

    [form, count]      the form names the machine and the version of its rows
    row                count times

Rules of this file:

1. No piece is longer than `PIECE_BYTES_MAX`, however long a row is.
2. A snapshot is read whole or not at all: a missing, foreign or surplus byte raises `Corruption`.
3. The digest depends on the form and the set of rows, not on their order.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from hashlib import blake2b
from itertools import chain, islice
from types import UnionType
from typing import Any

import msgpack

from replog.errors import Corruption
from replog.machines.commands import shapes_of

PIECE_BYTES_MAX = 1 << 20
DIGEST_BYTES = 16
ROW_HASH_BYTES = 64
NIL = b"\xc0"

Row = tuple[Any, ...]


class Rows:
    """Rows of these types, in a snapshot of this form."""

    def __init__(self, form: str, *types: type | UnionType) -> None:
        self._form = form
        self._shapes = shapes_of(*types)

    def pieces(self, rows: Collection[Row]) -> Iterator[bytes]:
        """The snapshot, packed as it is taken. `rows` must not change meanwhile."""
        pack = msgpack.Packer().pack
        packed = bytearray()
        for row in chain(((self._form, len(rows)),), rows):
            packed += pack(row)
            while len(packed) >= PIECE_BYTES_MAX:
                yield bytes(packed[:PIECE_BYTES_MAX])
                del packed[:PIECE_BYTES_MAX]
        if packed:
            yield bytes(packed)

    def read(self, pieces: Iterable[bytes]) -> Iterator[Row]:
        """The rows of a snapshot, in these pieces or others.

        Raises `Corruption` when it is of another form, cut or damaged: take every row before you
        trust one.
        """
        # A nil after the last piece must come out alone: else something was cut before it.
        values = _unpacked(chain(pieces, (NIL,)))
        match next(values, None):
            case (self._form, int(count)):
                pass
            case _:
                raise Corruption(f"this is no snapshot of the form {self._form}")
        for place in range(count):
            row = next(values, None)
            if type(row) is not tuple or tuple(map(type, row)) not in self._shapes:
                raise Corruption(f"row {place} of {count} of this snapshot is missing or damaged")
            yield row
        if list(islice(values, 2)) != [None]:
            raise Corruption(f"this snapshot goes on after its {count} rows")

    def digest(self, rows: Iterable[Row]) -> bytes:
        """16 bytes; O(n), about a microsecond a row.

        The hashes of the rows are added up, so that their order does not matter. It tells states
        apart that differ by accident, not rows that somebody chose to collide.
        """
        pack = msgpack.Packer().pack
        total = sum(
            int.from_bytes(blake2b(pack(row), digest_size=ROW_HASH_BYTES).digest()) for row in rows
        )
        total %= 1 << 8 * ROW_HASH_BYTES
        state = pack(self._form) + total.to_bytes(ROW_HASH_BYTES)
        return blake2b(state, digest_size=DIGEST_BYTES).digest()


def _unpacked(pieces: Iterable[bytes]) -> Iterator[Any]:
    """The objects in these bytes. What `pieces` itself raises is let through."""
    unpacker = msgpack.Unpacker(use_list=False, max_buffer_size=0, max_map_len=0, max_ext_len=0)
    for piece in pieces:
        view = memoryview(piece)
        for start in range(0, len(view), PIECE_BYTES_MAX):
            try:
                unpacker.feed(view[start : start + PIECE_BYTES_MAX])
                yield from unpacker
            except Exception as error:  # msgpack raises several unrelated classes for bad bytes
                raise Corruption(f"this snapshot does not unpack: {error}") from error
