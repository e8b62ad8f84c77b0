"""Reading the delivered log: what is not yet on this node's disk comes from memory, the rest from
the store.

Rules of this file:

1. Whatever lies from `first_offset` to `end_offset` is found in one of the two, for an entry leaves
   the memory only after its row is durable.
2. The first offset moves on at any time. A read of what is gone by then raises `OffsetOutOfRange`,
   never `Corruption`, and skips nothing.
3. Who states no start wants whatever is left: until its first record is read, it begins again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from replog.entry import parse_entry, unpack_runs
from replog.errors import Closed, Corruption, OffsetOutOfRange
from replog.machine import make_records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from replog.entry import Entry
    from replog.machine import Record
    from replog.pending import Pending
    from replog.recent import Recent
    from replog.store.interface import Delivered, Store

    T = TypeVar("T")

READ_BYTES_MAX = 1 << 20
"""Bytes of entries that one step of a reader holds at most, beyond a single entry."""

Item = tuple["Delivered", "Entry"]
"""A delivered entry, and what delivery made of it."""


class DeliveredLog:
    """The log as delivered on this node. Any thread."""

    def __init__(self, store: Store, recent: Recent, check_open: Callable[[], None]) -> None:
        """`check_open` raises `Closed` or `NodeStopped` once the store may be gone."""
        self._store = store
        self._recent = recent
        self._check_open = check_open

    @property
    def first_offset(self) -> int:
        """The offset of the first record that can be read."""
        return self._recent.first_offset

    @property
    def end_offset(self) -> int:
        """The offset after the last record delivered."""
        return self._recent.end_offset

    def bounds(self) -> tuple[int, int]:
        """First and end offset as of one moment."""
        return self._recent.bounds()

    def wait(self, offset: int) -> Pending[None]:
        """Resolved once the record at `offset` is delivered; fails when no more will come."""
        return self._recent.wait(offset)

    def disown(self) -> None:
        """In a forked child, where nothing more is delivered."""
        self._recent.disown()

    def items(self, offset: int) -> Sequence[Item]:
        """Delivered entries from the one that holds `offset` on, which is below `end_offset`.

        Raises `OffsetOutOfRange` when that is compacted, `Corruption` for damaged data, and what
        `check_open` raises.
        """
        self._check_first(offset, self.first_offset)
        held = self._recent.holding(offset)
        if held:
            return _cut(held)
        self._check_open()
        stored = self._store.delivered(offset, READ_BYTES_MAX)
        if not stored or stored[0][0].base_offset > offset:
            # The disk is ahead of the memory: a snapshot may be installed, and not yet announced.
            self._check_first(offset, self._store.base().offset)
            raise Corruption(f"the record at offset {offset} is delivered, but not stored")
        return [(row, parse_entry(entry.data)) for row, entry in stored]

    def _check_first(self, offset: int, first_offset: int) -> None:
        if offset < first_offset:
            raise OffsetOutOfRange(offset, first_offset, max(first_offset, self.end_offset))

    def chunk(self, offset: int) -> list[Record]:
        """The record at `offset`, which is below `end_offset`, and some that follow. Raises as
        `items` does."""
        records: list[Record] = []
        for row, entry in self.items(offset):
            records += records_of(row, entry)
        return [record for record in records if record.offset >= offset]

    def records(self, start: int, stop: int) -> Iterator[Record]:
        """The records from `start` up to, not including, `stop`, which is not beyond the end.
        Raises as `items` does."""
        while start < stop:
            for record in self.chunk(start):
                if record.offset >= stop:
                    return
                yield record
                start = record.offset + 1


class Follower:
    """An endless iterator over records, for one thread or one coroutine.

    Ends when the log is closed. Raises `NodeStopped`, and `OffsetOutOfRange` when what comes next
    is compacted, which names the first offset that is left.
    """

    def __init__(self, log: DeliveredLog, start: int, *, stated: bool = True) -> None:
        """`stated`: whether it has to be that record, see rule 3."""
        self._log = log
        self._position = start
        self._stated = stated
        self._records: list[Record] = []
        """Read and not yet returned, in reverse."""
        self._more: Pending[None] | None = None
        """Resolved when there is more; kept when a caller gives up waiting."""

    def __iter__(self) -> Follower:
        return self

    def __next__(self) -> Record:
        while not self._records:
            try:
                self._wait().result()
                self._fill()
            except Closed:
                raise StopIteration from None
        return self._records.pop()

    def __aiter__(self) -> Follower:
        return self

    async def __anext__(self) -> Record:
        while not self._records:
            try:
                await self._wait()
                self._fill()
            except Closed:
                raise StopAsyncIteration from None
        return self._records.pop()

    def _wait(self) -> Pending[None]:
        if self._more is None:
            self._more = self._log.wait(self._position)
        return self._more

    def _fill(self) -> None:
        self._more = None
        try:
            records = self._log.chunk(self._position)
        except OffsetOutOfRange as gone:
            if self._stated:
                raise
            self._position = gone.first_offset
            return
        self._stated = True
        self._position = records[-1].offset + 1
        records.reverse()
        self._records = records


def read_range(
    bounds: Callable[[], tuple[int, int]],
    read: Callable[[int, int], Iterator[T]],
    start: int | None,
    stop: int | None,
) -> Iterator[T]:
    """What `read` gives of a log with these bounds from offset `start` (default: the first) up to,
    not including, `stop` (default: the end as of now). Rule 3 is kept here.

    Raises `OffsetOutOfRange`, at the call, when a bound is below the first offset or beyond the
    end; the iterator raises it when what is to come is compacted.
    """
    begin, end = _checked(bounds(), start, stop)
    if start is not None:
        return read(begin, end)
    return _read_what_is_left(bounds, read, begin, end, stop)


def _read_what_is_left(
    bounds: Callable[[], tuple[int, int]],
    read: Callable[[int, int], Iterator[T]],
    begin: int,
    end: int,
    stop: int | None,
) -> Iterator[T]:
    while True:
        try:
            items = read(begin, end)
            item = next(items)
        except StopIteration:
            return
        except OffsetOutOfRange:
            begin, end = _checked(bounds(), None, stop)
        else:
            break
    yield item
    yield from items


def _checked(bounds: tuple[int, int], start: int | None, stop: int | None) -> tuple[int, int]:
    """The range that is meant. Raises `OffsetOutOfRange`."""
    first, end = bounds
    for bound in (start, stop):
        if bound is not None and not first <= bound <= end:
            raise OffsetOutOfRange(bound, first, end)
    return first if start is None else start, end if stop is None else stop


def records_of(row: Delivered, entry: Entry) -> list[Record]:
    """The records that one entry delivered."""
    records: list[Record] = []
    for data in unpack_runs(entry, row.accepted):
        records += make_records(row.base_offset + len(records), data, row.timestamp_ms)
    return records


def _cut(items: Sequence[Item]) -> Sequence[Item]:
    """The first of these, up to the entry that goes beyond `READ_BYTES_MAX`."""
    size = 0
    for count, (_, entry) in enumerate(items, start=1):
        size += len(entry.data)
        if size > READ_BYTES_MAX:
            return items[:count]
    return items
