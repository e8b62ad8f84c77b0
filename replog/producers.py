"""Producers: how far each node's records are delivered, and so which runs count.

Rules of this file:

1. A run is accepted once: in the life of the node's row if it begins where the row ends, or in a
   higher life if it begins that life; the row then ends after it. Every other run is skipped.
2. The decision depends on the runs seen so far alone, so every node decides the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replog.entry import Run


class ProducerRow(NamedTuple):
    """How far one node's records are delivered."""

    life: int
    next_sequence: int


NO_ROW = ProducerRow(0, 0)
"""The row of a node of which nothing is delivered; every real life is above 0."""


class Producers:
    """The producer table: one row for each node that ever had a record delivered."""

    __slots__ = ("rows",)

    def __init__(self, rows: Mapping[str, ProducerRow]) -> None:
        self.rows = dict(rows)

    def accept(self, run: Run) -> bool:
        """Whether delivery takes this run, rule 1; if so, its row moves on."""
        row = self.rows.get(run.node, NO_ROW)
        if run.life == row.life:
            accepted = run.first_sequence == row.next_sequence
        else:
            accepted = run.life > row.life and run.first_sequence == 0
        if accepted:
            self.rows[run.node] = ProducerRow(run.life, run.first_sequence + run.count)
        return accepted

    def copy(self) -> Producers:
        """A table that moves on by itself."""
        return Producers(self.rows)

    def snapshot(self) -> Mapping[str, ProducerRow]:
        """The rows as they are now."""
        return dict(self.rows)
