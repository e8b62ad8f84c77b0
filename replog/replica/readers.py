"""Named readers of this node: from where on the log is kept for each.

Rules of this file:

1. A reader begins at the first record that is left, and from that moment on the log is kept for it.
2. What is said of a reader is written with the next batch, of several words the last one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from replog.replica.compaction import Compaction
    from replog.replica.effects import Ticket


class ReaderOffsets:
    """What each named reader has acknowledged."""

    def __init__(
        self,
        offsets: Mapping[str, int],
        compaction: Compaction,
        tell: Callable[[Ticket, object], None],
    ) -> None:
        """`tell` gives a ticket back, with a result, once the next batch is on the disk."""
        self._offsets = dict(offsets)
        self._compaction = compaction
        self._tell = tell
        self._changes: dict[str, int | None] = {}

    def begin(self, name: str) -> int:
        """What this reader reads first: from this moment on it is kept for it."""
        if name not in self._offsets:
            self._compaction.needs_more()
            self._offsets[name] = self._compaction.first_offset
        return self._offsets[name]

    def acknowledge(self, name: str, offset: int | None, ticket: Ticket) -> None:
        """A reader needs nothing below this offset any more; None: it is no more."""
        if offset is None:
            self._offsets.pop(name, None)
        else:
            self.begin(name)
            self._offsets[name] = offset
        self._compaction.look_again()
        self._changes[name] = offset
        self._tell(ticket, None)

    @property
    def offsets(self) -> dict[str, int]:
        """By name."""
        return dict(self._offsets)

    @property
    def needed_offset(self) -> int | None:
        """The log from here on is needed by some reader; None where there are none."""
        return min(self._offsets.values(), default=None)

    @property
    def has_changes(self) -> bool:
        """Whether `take_changes` has anything to give."""
        return bool(self._changes)

    def take_changes(self) -> Mapping[str, int | None] | None:
        """Rows for the next batch, see `Batch.readers`."""
        changes, self._changes = self._changes, {}
        return changes or None
