"""Delivery, recomputed from the entries: which runs count, offsets, timestamps, the digest chain.

Rules of this file:

1. A recount begins behind a base, from what the base says. It gives what delivery must have made
   of each entry, and is compared with what was written down.
2. A base does not say how far the producers had come. Behind one, a producer is learnt at first
   sight, from the first run of it that was accepted, and judged from there on; a snapshot on the
   way says it of them all, and is compared with what is known by then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replog.entry import chain_digest
from replog.producers import ProducerRow, Producers
from replog.store.interface import Delivered

if TYPE_CHECKING:
    from replog.entry import Entry
    from replog.snapshot import Base, Position


class Recount:
    """What delivery comes to behind a base, entry by entry."""

    def __init__(self, base: Base) -> None:
        self.index = base.index
        """Of the last entry counted."""
        self.offset = base.offset
        self.digest = base.digest
        self._timestamp_ms = base.timestamp_ms
        self._producers = Producers({})
        self._all_known = base.index == 0

    def deliver(self, entry: Entry, row: Delivered | None) -> Delivered | None:
        """What delivery must have made of the next entry. `row` is what is written down of it, as
        far as it can be believed. None when that cannot be told, and nothing behind it either."""
        accepted = self._accept(entry, row)
        if accepted is None:
            return None
        self.index += 1
        count = sum([entry.runs[place].count for place in accepted])
        self._timestamp_ms = max(self._timestamp_ms, entry.timestamp_ms)
        self.digest = chain_digest(self.digest, self.index, self.offset, accepted, entry)
        expected = Delivered(
            self.index, self.offset, count, accepted, self._timestamp_ms, self.digest
        )
        self.offset += count
        return expected

    def _accept(self, entry: Entry, row: Delivered | None) -> tuple[int, ...] | None:
        accepted = []
        for place, run in enumerate(entry.runs):
            if self._all_known or run.node in self._producers.rows:
                accepts = self._producers.accept(run)
            elif row is None:
                return None
            else:
                accepts = place in row.accepted
                if accepts:
                    end = run.first_sequence + run.count
                    self._producers.rows[run.node] = ProducerRow(run.life, end)
            if accepts:
                accepted.append(place)
        return tuple(accepted)

    def agrees(self, position: Position) -> bool:
        """Whether this position, of the entry counted last, is what was counted. From a position
        that is, all producers are known."""
        rows = self._producers.rows
        agrees = (self.index, self.offset, self.digest, self._timestamp_ms) == position[:4]
        if self._all_known:
            agrees &= rows == position.producers
        else:
            agrees &= rows.items() <= position.producers.items()
        if agrees:
            self._producers, self._all_known = Producers(position.producers), True
        return agrees

    def __str__(self) -> str:
        counted = f"entry {self.index}, next offset {self.offset}, digest {self.digest.hex()}"
        return f"{counted}, time {self._timestamp_ms}, producers {self._producers.rows}"
