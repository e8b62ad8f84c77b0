"""What applications hand to the node's thread: appends, barriers and questions.

Rules of this file:

1. Order of arrival is kept among appends.
2. Appends are gathered into ready lists as they come, so the node's work is per batch.
3. Bytes waiting are bounded by `pending_bytes_max`, counted from `append` to its outcome.
4. The application adds first and then wakes the node if it sleeps; the node says that it sleeps,
   looks once more and only then waits.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from replog.errors import Busy, Closed, NodeStopped, StoreFailed
from replog.pending import Pending, fail_all, resolve_all

if TYPE_CHECKING:
    from collections.abc import Callable

RECORD_COST_BYTES = 64
"""What a waiting record costs beside its bytes."""


def end_reason(failure: BaseException | None) -> str:
    """Why nothing is taken any more."""
    return "the log is closed" if failure is None else f"the node stopped: {failure}"


def end_error(failure: BaseException | None) -> Closed | NodeStopped:
    """What a call other than an append ends with."""
    reason = end_reason(failure)
    error = Closed(reason) if failure is None else NodeStopped(reason)
    error.__cause__ = failure
    return error


def disk_full(bytes_free: int) -> Busy:
    """What is refused for want of room on the disk ends with this."""
    return Busy(
        f"the store may take {max(bytes_free, 0)} bytes more: let it drop what is old (a "
        f"`Retention`, or a snapshot for one that waits for it), let a backup or reader that holds "
        f"on to that come to its end, or open the directory with a larger map_bytes_max"
    )


class Records(NamedTuple):
    """Single appends that came one after the other."""

    records: list[bytes]
    tickets: list[Pending[int]]
    size: int


class PackedRun(NamedTuple):
    """One `append_many`."""

    body: bytes
    count: int  # type: ignore[assignment]
    ticket: Pending[range]


class Inbox:
    """Between the application's threads and the node's."""

    def __init__(self, pending_bytes_max: int, wake: Callable[[], None]) -> None:
        self.sleeping = False
        """Set by the node before it waits: whoever adds then wakes it."""
        self.disk_bytes_free = 0
        """What the store may take more. Appends that wait count twice against it: a page of LMDB
        may be half empty."""
        self.disk_was_short = False
        """An append was refused since that was measured."""
        self._wake = wake
        self._bytes_max = pending_bytes_max
        self._lock = threading.Lock()
        self._groups: list[Records | PackedRun] = []
        self._singles: list[tuple[bytes, Pending[int]]] = []
        """Pairs, each added at once: an exception of a signal must not part them."""
        self._added_bytes = 0
        self._finished_bytes = 0
        self._requests: list[tuple[Callable[[Pending[Any]], None], Pending[Any]]] = []
        self._waiting_for_room: list[Pending[None]] = []
        self._is_closed = False
        self._failure: BaseException | None = None

    # -- the application's side ----------------------------------------------------------------

    def append(self, record: bytes) -> Pending[int]:
        """Add one record. Raises `Busy` or `Closed`."""
        pending: Pending[int] = Pending()
        size = len(record)
        with self._lock:
            self._admit(size + RECORD_COST_BYTES)
            self._singles.append((record, pending))
        if self.sleeping:
            self._wake()
        return pending

    def append_run(self, body: bytes, records: int) -> Pending[range]:
        """Add one packed run. Raises `Busy` or `Closed`."""
        pending: Pending[range] = Pending()
        with self._lock:
            self._admit(len(body) + RECORD_COST_BYTES)
            self._gather()
            self._groups.append(PackedRun(body, records, pending))
        if self.sleeping:
            self._wake()
        return pending

    def request(self, run: Callable[[Pending[Any]], None]) -> Pending[Any]:
        """Have the node's thread call `run(pending)`. Raises `Closed` or `NodeStopped`."""
        pending: Pending[Any] = Pending()
        with self._lock:
            self.check_open()
            self._requests.append((run, pending))
        if self.sleeping:
            self._wake()
        return pending

    def room(self) -> Pending[None]:
        """Resolved once half of `pending_bytes_max` is free. Raises `Closed` or `NodeStopped`, and
        `Busy` when the disk is what is full: waiting would not help."""
        pending: Pending[None] = Pending()
        with self._lock:
            self.check_open()
            if self.disk_bytes_free <= 0:
                raise self._disk_short()
            self._waiting_for_room.append(pending)
        self._grant_room()
        return pending

    def _admit(self, size: int) -> None:
        if self._is_closed:
            raise Closed(end_reason(self._failure)) from self._failure
        waiting = self._added_bytes - self._finished_bytes
        if waiting and waiting + size > self._bytes_max:
            raise Busy(
                f"{waiting} bytes of appends are waiting, {self._bytes_max} are allowed: "
                f"await log.room() and append again"
            )
        if 2 * (waiting + size) > self.disk_bytes_free:
            raise self._disk_short()
        self._added_bytes += size

    def _disk_short(self) -> Busy:
        """The refusal; the node measures again, for what held back the room may be gone."""
        self.disk_was_short = True
        if self.sleeping:
            self._wake()
        return disk_full(self.disk_bytes_free)

    def disown(self) -> None:
        """In a forked child, where no node runs: refuse everything. Takes no lock, for a thread
        that is not here may hold it for ever."""
        self._is_closed = True
        self._failure = StoreFailed("this log was opened before this process was forked")
        self._lock = threading.Lock()

    def set_disk_bytes_free(self, bytes_free: int) -> None:
        """What the store may take more, as measured now."""
        self.disk_bytes_free = bytes_free
        self.disk_was_short = False

    def check_open(self) -> None:
        """Raise `Closed` or `NodeStopped` once nothing is taken any more."""
        if self._is_closed:
            raise end_error(self._failure)

    # -- the node's side -----------------------------------------------------------------------

    @property
    def has_items(self) -> bool:
        """Whether anything waits for the node."""
        return bool(self._singles or self._groups or self._requests)

    def take(
        self,
    ) -> tuple[
        list[Records | PackedRun], list[tuple[Callable[[Pending[Any]], None], Pending[Any]]]
    ]:
        """Everything that arrived since the last call: appends in order, and requests."""
        with self._lock:
            self._gather()
            groups, self._groups = self._groups, []
            requests, self._requests = self._requests, []
        return groups, requests

    def finished(self, records: int, size: int) -> None:
        """Appends of `size` bytes, `records` of them single, have their outcome."""
        self._finished_bytes += size + records * RECORD_COST_BYTES
        if self._waiting_for_room:
            self._grant_room()

    def close(self, failure: BaseException | None) -> None:
        """Refuse everything from here. What was added before is still there to `take`."""
        with self._lock:
            self._failure = failure
            self._is_closed = True
            waiting, self._waiting_for_room = self._waiting_for_room, []
        fail_all(waiting, end_error(failure))

    def _gather(self) -> None:
        if self._singles:
            records, tickets = map(list, zip(*self._singles, strict=True))
            self._singles = []
            self._groups.append(Records(records, tickets, sum(map(len, records))))

    def _grant_room(self) -> None:
        with self._lock:
            if 2 * (self._added_bytes - self._finished_bytes) > self._bytes_max:
                return
            granted, self._waiting_for_room = self._waiting_for_room, []
        resolve_all([(pending, None) for pending in granted])
