"""Delivered entries that are not yet on this node's disk as delivered, and who waits for more.

Rules of this file:

1. What was delivered and is not here is on the disk: an entry leaves only after its row is durable.
2. The node's thread writes; any thread reads.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from replog.errors import NodeStopped, StoreFailed
from replog.pending import Pending, fail_all, resolve_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replog.entry import Entry
    from replog.store.interface import Delivered


class Recent:
    """The newest part of the delivered log."""

    def __init__(self, end_offset: int) -> None:
        self.end_offset = end_offset
        """The offset after the last delivered record."""
        self._lock = threading.Lock()
        self._items: deque[tuple[Delivered, Entry]] = deque()
        self._waiting: list[tuple[int, Pending[None]]] = []
        self._end: BaseException | None = None

    def add(self, items: Sequence[tuple[Delivered, Entry]]) -> None:
        """Newly delivered entries, in index order."""
        with self._lock:
            self._items.extend(items)
            last = items[-1][0]
            self.end_offset = end = last.base_offset + last.count
            ready = [pending for offset, pending in self._waiting if offset < end]
            if ready:
                self._waiting = [item for item in self._waiting if item[0] >= end]
        if ready:
            resolve_all([(pending, None) for pending in ready])

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
