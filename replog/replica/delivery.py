"""Delivery: committed entries become records with offsets, once, in index order.

Rules of this file:

1. Entries are delivered in index order without gaps; a delivered one is never delivered again.
2. Offsets are given here and only here, to accepted runs, in the order of the entry.
3. What is accepted depends on the log alone, so every node decides the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replog.entry import chain_digest
from replog.errors import InvariantBroken
from replog.producers import Producers
from replog.store.interface import Delivered, Position

if TYPE_CHECKING:
    from replog.entry import Entry

DIGESTS_KEPT = 1024
"""Of how many recent entries the digest is remembered for comparison."""


class Delivery:
    """How far this node has delivered, and what of that is not yet handed to the store."""

    def __init__(self, position: Position) -> None:
        self.index = position.index
        self.offset = position.offset
        self.digest = position.digest
        self.timestamp_ms = position.timestamp_ms
        self.producers = Producers(position.producers)
        self._rows: list[Delivered] = []
        self._digests = {position.index: position.digest}

    def deliver(self, index: int, entry: Entry) -> Delivered:
        """Give offsets to the accepted runs of the next entry."""
        if index != self.index + 1:
            raise InvariantBroken(f"entry {index} delivered after {self.index}")
        accepted = tuple(
            [place for place, run in enumerate(entry.runs) if self.producers.accept(run)]
        )
        count = sum([entry.runs[place].count for place in accepted])
        self.timestamp_ms = max(self.timestamp_ms, entry.timestamp_ms)
        self.digest = chain_digest(self.digest, index, self.offset, accepted, entry)
        row = Delivered(index, self.offset, count, accepted, self.timestamp_ms, self.digest)
        self.index = index
        self.offset += count
        self._rows.append(row)
        self._remember(index)
        return row

    def install(self, position: Position) -> None:
        """A snapshot stands for everything up to here, further than was delivered."""
        if position.index <= self.index:
            raise InvariantBroken(f"a snapshot of {position.index} installed over {self.index}")
        self.index, self.offset, self.digest, self.timestamp_ms, rows = position
        self.producers = Producers(rows)
        self._rows.clear()
        self._digests = {position.index: position.digest}

    @property
    def unwritten(self) -> int:
        """How many entries were delivered since `take_rows`."""
        return len(self._rows)

    def take_rows(self) -> tuple[list[Delivered], Position | None]:
        """The rows delivered since the last call and the position after them, for the store."""
        if not self._rows:
            return [], None
        rows, self._rows = self._rows, []
        return rows, self.position()

    def position(self) -> Position:
        """How far delivery has come."""
        return Position(
            self.index, self.offset, self.digest, self.timestamp_ms, self.producers.snapshot()
        )

    def digest_at(self, index: int) -> bytes:
        """The digest after this entry if it was delivered recently, else nothing."""
        return self._digests.get(index, b"")

    def _remember(self, index: int) -> None:
        self._digests[index] = self.digest
        if len(self._digests) > DIGESTS_KEPT:
            del self._digests[next(iter(self._digests))]
