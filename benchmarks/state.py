"""State machines that cost nothing: one that only counts, and one with a large state.

What is measured beside them is replog's own.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from replog import Record

CHUNK_BYTES = 1 << 16
DIGEST_BYTES = 64
COUNT_BYTES = 16


class Count:
    """Knows how many records there were."""

    def __init__(self) -> None:
        self.count = 0

    def apply(self, records: Sequence[Record]) -> list[None]:
        self.count += len(records)
        return [None] * len(records)


class LargeState(Count):
    """Has a state of so many bytes and holds none of them: each is made from the count of records
    when somebody takes it, and compared when it comes back."""

    def __init__(self, state_bytes: int) -> None:
        super().__init__()
        self._chunks = -(-state_bytes // CHUNK_BYTES)
        self.restored = 0
        """How often its state was replaced."""

    def snapshot(self) -> Iterator[bytes]:
        """The count, then what follows from it."""
        return self._state_of(self.count)

    def restore(self, pieces: Iterable[bytes]) -> None:
        """Raises `ValueError` for anything but what `snapshot` gives."""
        found = blake2b()
        head = b""
        for piece in pieces:
            head = head or piece[:COUNT_BYTES]
            found.update(piece)
        count = int.from_bytes(head, "big")
        expected = blake2b()
        for chunk in self._state_of(count):
            expected.update(chunk)
        if found.digest() != expected.digest():
            raise ValueError(f"this is not the state after {count} records")
        self.count = count
        self.restored += 1

    def digest(self) -> bytes:
        return self.count.to_bytes(COUNT_BYTES, "big")

    def _state_of(self, count: int) -> Iterator[bytes]:
        yield count.to_bytes(COUNT_BYTES, "big")
        for number in range(self._chunks):
            yield blake2b(b"%d %d" % (count, number)).digest() * (CHUNK_BYTES // DIGEST_BYTES)
