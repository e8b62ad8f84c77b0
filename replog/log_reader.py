"""The records in a directory, read beside its running node or without one."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Self

from replog.entry import parse_entry, unpack_runs
from replog.errors import Corruption, EntryCompacted, OffsetOutOfRange
from replog.keeping import state_pieces
from replog.machine import make_records
from replog.reading import READ_BYTES_MAX, read_range
from replog.store import layout
from replog.store.lmdb_reader import load_snapshots, newest_snapshot, open_reader
from replog.store.survey import survey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

    from replog.entry import Entry
    from replog.machine import Record
    from replog.membership import Membership
    from replog.snapshot import Base
    from replog.store.interface import (
        Delivered,
        Identity,
        Position,
        StoredEntry,
        StoredSnapshot,
    )
    from replog.store.survey import Survey

BATCH_RECORDS_MAX = 256
"""Records of a batch: exactly so many, but for the last batch and for large records. Two batches at
a time stay below what makes Python's garbage collector look (700 objects): with it in the loop a
replay takes a third longer."""


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
        """The offset of the first record that can be read: grows as the node compacts. Raises
        `Corruption`."""
        return self.base().offset

    def base(self) -> Base:
        """What the log begins behind, as of now: entries up to its index are gone, and so are
        records below its offset. Raises `Corruption`."""
        return self._reader.base()

    @property
    def last_index(self) -> int:
        """Index of the last entry, committed or not."""
        return self._reader.last_index

    def position(self) -> Position:
        """How far delivery has come by now. Raises `Corruption`."""
        return self._reader.position()

    def survey(self) -> Survey:
        """What is written down besides the entries, as of now. Raises `Corruption`."""
        return survey(self._reader)

    def row(self, index: int) -> Delivered:
        """What delivery made of a delivered entry.

        Raises `EntryCompacted` when it is gone, `Corruption` when its row is missing or damaged.
        """
        row = self._reader.delivered_row(index)
        if row is None:
            raise self._missing(f"the row of entry {index}", index)
        return row

    def entry(self, index: int) -> tuple[StoredEntry, Entry]:
        """A delivered entry. Raises as `row`."""
        for found in self.stored_entries(index, index + 1):
            return found
        raise self._missing(f"entry {index}", index)

    def _missing(self, what: str, index: int) -> EntryCompacted | Corruption:
        base = self.base()
        if index <= base.index:
            return EntryCompacted(index, base.index + 1)
        return Corruption(f"{self._reader.file}: {what} is missing")

    def digest(self, index: int) -> bytes:
        """The chain's digest after a delivered entry, or after the last one that is gone; that of
        an empty log for 0 while nothing is.

        Raises as `row`.
        """
        base = self.base()
        return base.digest if index == base.index else self.row(index).digest

    def snapshot_before(self, offset: int) -> StoredSnapshot | None:
        """The newest whole snapshot that has a state and stands for no record from this offset on.
        Raises `Corruption`."""
        with self._reader.reading(layout.SNAPSHOTS) as txn:
            found = load_snapshots(self._reader.file, txn, self._reader.tables)
        return newest_snapshot(
            {
                snapshot_id: stored
                for snapshot_id, stored in found.items()
                if stored and stored.snapshot.pieces and stored.snapshot.position.offset <= offset
            }
        )

    def state(self, stored: StoredSnapshot) -> Iterator[bytes]:
        """The state of a snapshot, in its pieces. The iterator raises `Corruption` when they are
        not what was kept, or when the node has put a newer one in its place meanwhile."""
        return state_pieces(self._reader, stored)

    def records(self, start: int | None = None, stop: int | None = None) -> Iterator[Record]:
        """As `ReplicatedLog.read`. The iterator raises `Corruption` for damaged data, and
        `OffsetOutOfRange` when the node compacts what is to come."""
        return chain.from_iterable(self.batches(start, stop))

    def batches(self, start: int | None = None, stop: int | None = None) -> Iterator[list[Record]]:
        """What `records` gives, in lists that are not empty: the fast way through a long log."""
        return read_range(self.bounds, self._batches, start, stop)

    def bounds(self) -> tuple[int, int]:
        """First and end offset by now. Raises `Corruption`."""
        first = self.first_offset  # before the end, which is never below it
        return first, self.position().offset

    def check_bound(self, offset: int) -> None:
        """Raise `OffsetOutOfRange` for what cannot begin or end a range of records now."""
        first, end = self.bounds()
        if not first <= offset <= end:
            raise OffsetOutOfRange(offset, first, end)

    def entries(self, start: int, stop: int) -> Iterator[tuple[Delivered, Entry]]:
        """The delivered entries that hold the records from `start` up to, not including, `stop`:
        what delivery made of each, and the entry. Raises `Corruption`, and `OffsetOutOfRange`
        when the node compacts what is to come."""
        while start < stop:
            rows = self._reader.delivered(start, READ_BYTES_MAX)
            if not rows:
                first = self.first_offset
                if start < first:  # compacted since, by the running node
                    raise OffsetOutOfRange(start, first, self.position().offset)
                raise Corruption(f"{self._reader.file}: the record at offset {start} is missing")
            for row, stored in rows:
                if row.base_offset >= stop:
                    return
                yield row, parse_entry(stored.data)
            start = row.end_offset

    def stored_entries(self, start: int, stop: int) -> Iterator[tuple[StoredEntry, Entry]]:
        """The entries from index `start` up to, not including, `stop`, committed or not. Indexes
        without an entry are left out. Raises `Corruption`."""
        while start < stop:
            following = self._reader.next_index(start)
            if following is None:
                return
            start = following
            for stored in self._reader.entries(start, stop - 1, READ_BYTES_MAX):
                yield stored, parse_entry(stored.data)
                start = stored.index + 1

    def _batches(self, start: int, stop: int) -> Iterator[list[Record]]:
        batch: list[Record] = []
        size = 0
        for row, entry in self.entries(start, stop):
            offset = row.base_offset
            for place, data in zip(row.accepted, unpack_runs(entry, row.accepted), strict=True):
                size += entry.runs[place].size
                at, last = max(start - offset, 0), min(stop - offset, len(data))
                while at < last:
                    part = data[at : min(last, at + BATCH_RECORDS_MAX - len(batch))]
                    batch += make_records(offset + at, part, row.timestamp_ms)
                    at += len(part)
                    if len(batch) == BATCH_RECORDS_MAX or size >= READ_BYTES_MAX:
                        yield batch
                        batch, size = [], 0
                offset += len(data)
        if batch:
            yield batch

    def close(self) -> None:
        """Let the directory go. Idempotent."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
