"""Delivered entries that are not yet on this node's disk as delivered, and who waits for more.

Rules of this file:

1. What was delivered and is not here is on the disk, or below `first_offset`: an entry leaves only
   after its row is durable, or when a snapshot that is durable stands for it.
2. Offsets come without gaps, but for an install.
3. The node's thread writes; any thread reads.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from replog.errors import InvariantBroken, NodeStopped, StoreFailed
from replog.pending import Pending, fail_all, resolve_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replog.entry import Entry
    from replog.store.interface import Delivered, Position


class Recent:
    """The newest part of the delivered log."""

    def __init__(self, end_offset: int, first_offset: int = 0) -> None:
        self.first_offset = first_offset
        """The offset of the first record that can be read."""
        self.end_offset = end_offset
        """The offset after the last delivered record."""
        self._lock = threading.Lock()
        self._items: deque[tuple[Delivered, Entry]] = deque()
        self._waiting: list[tuple[int, Pending[None]]] = []
        self._end: BaseException | None = None

    def add(self, items: Sequence[tuple[Delivered, Entry]]) -> None:
        """Newly delivered entries, in index order."""
        first, last = items[0][0], items[-1][0]
        if first.base_offset != self.end_offset:
            raise InvariantBroken(f"offset {first.base_offset} delivered after {self.end_offset}")
        with self._lock:
            self._items.extend(items)
            ready = self._reach(last.end_offset)
        if ready:
            resolve_all([(pending, None) for pending in ready])

    def begin_at(self, offset: int) -> None:
        """Records below this offset, all of them durable, can be read no more."""
        with self._lock:
            self.first_offset = max(self.first_offset, offset)

    def bounds(self) -> tuple[int, int]:
        """First and end offset as of one moment."""
        with self._lock:
            return self.first_offset, self.end_offset

    def install(self, position: Position) -> None:
        """A snapshot that is durable stands for everything up to this position, which lies behind
        all that was delivered."""
        with self._lock:
            self._items.clear()
            self.first_offset = position.offset
            ready = self._reach(position.offset)
        resolve_all([(pending, None) for pending in ready])

    def _reach(self, end_offset: int) -> list[Pending[None]]:
        """With the lock held: move the end; who has waited for that."""
        self.end_offset = end_offset
        ready = [pending for offset, pending in self._waiting if offset < end_offset]
        if ready:
            self._waiting = [item for item in self._waiting if item[0] >= end_offset]
        return ready

    def drop(self, through: int) -> None:
        """Rows up to this index are durable."""
        with self._lock:
            while self._items and self._items[0][0].index <= through:
                self._items.popleft()

    def holding(self, offset: int) -> list[tuple[Delivered, Entry]]:
        """The entries from the one that holds `offset` on; empty when it is not here."""
        with self._lock:
            if not self._items or offset < self._items[0][0].base_offset:
                return []
            return [item for item in self._items if item[0].base_offset + item[0].count > offset]

    def wait(self, offset: int) -> Pending[None]:
        """Resolved once the record at `offset` is delivered; fails when no more will come."""
        pending: Pending[None] = Pending()
        with self._lock:
            if offset >= self.end_offset and self._end is None:
                self._waiting.append((offset, pending))
                return pending
            end = self._end if offset >= self.end_offset else None
        if end is not None:
            fail_all((pending,), end)
        else:
            resolve_all(((pending, None),))
        return pending

    def end(self, error: BaseException) -> None:
        """Nothing more will be delivered: who waits, and will wait, gets this error."""
        with self._lock:
            self._end = error
            waiting, self._waiting = self._waiting, []
        fail_all([pending for _, pending in waiting], error)

    def disown(self) -> None:
        """In a forked child: nothing more comes. The lock may be held by a thread not here."""
        self._lock = threading.Lock()
        self._waiting = []
        cause = StoreFailed("this log was opened before this process was forked")
        self._end = NodeStopped(f"the node stopped: {cause}")
