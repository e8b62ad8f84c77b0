"""The records in a directory, read beside its running node or without one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from replog.entry import DIGEST_START, parse_entry
from replog.errors import Corruption, OffsetOutOfRange
from replog.machine import Record
from replog.reading import READ_BYTES_MAX, records_of
from replog.store.lmdb_reader import open_reader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

    from replog.entry import Entry
    from replog.membership import Membership
    from replog.store.interface import Delivered, Identity, Position


class LogReader:
    """Sees what the node in a directory has delivered and written down, and nothing beyond.

    A context manager. Raises as `replog.store.lmdb_reader.open_reader`.
    """

    def __init__(self, directory: str | PathLike[str]) -> None:
        self._reader = open_reader(directory)

    @property
    def identity(self) -> Identity:
        """Whose directory it is."""
        return self._reader.identity

    @property
    def membership(self) -> Membership:
        """The members the directory was made for."""
        return self._reader.membership

    @property
    def first_offset(self) -> int:
        """The offset of the first record that can be read."""
        return 0

    @property
    def last_index(self) -> int:
        """Index of the last entry, committed or not."""
        return self._reader.last_index

    def position(self) -> Position:
        """How far delivery has come by now. Raises `Corruption`."""
        return self._reader.position()

    def digest(self, index: int) -> bytes:
        """The chain's digest after a delivered entry; that of an empty log for 0.

        Raises `Corruption` when its row is missing or damaged.
        """
        digest = self._reader.digest(index) if index else DIGEST_START
        if digest is None:
            raise Corruption(f"{self._reader.file}: the row of entry {index} is missing")
        return digest

    def records(self, start: int | None = None, stop: int | None = None) -> Iterator[Record]:
        """As `ReplicatedLog.read`. The iterator raises `Corruption` for damaged data."""
        first, end = self.first_offset, self.position().offset
        start = first if start is None else start
        stop = end if stop is None else stop
        for bound in (start, stop):
            if not first <= bound <= end:
                raise OffsetOutOfRange(bound, first, end)
        return self._records(start, stop)

    def entries(self, start: int, stop: int) -> Iterator[tuple[Delivered, Entry]]:
        """The delivered entries that hold the records from `start` up to, not including, `stop`:
        what delivery made of each, and the entry. Raises `Corruption`."""
        while start < stop:
            rows = self._reader.delivered(start, READ_BYTES_MAX)
            if not rows:
                raise Corruption(f"{self._reader.file}: the record at offset {start} is missing")
            for row, stored in rows:
                if row.base_offset >= stop:
                    return
                yield row, parse_entry(stored.data)
            start = row.base_offset + row.count

    def _records(self, start: int, stop: int) -> Iterator[Record]:
        for row, entry in self.entries(start, stop):
            records = records_of(row, entry)
            yield from records[max(0, start - row.base_offset) : stop - row.base_offset]

    def close(self) -> None:
        """Let the directory go. Idempotent."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
