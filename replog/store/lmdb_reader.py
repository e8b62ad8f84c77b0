"""Reading an LMDB store: what the writer and the readers of other processes share.

Rules of this file:

1. A read is one short transaction, bounded by the bytes asked for. What it returns is copied inside
   it and checked behind it, so that no reader keeps LMDB from reusing pages for long.
2. Any thread may read, at any time; after `close` a read raises `StoreFailed`.
3. A reader never writes: it needs no lock of the directory and may look at a live store.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import lmdb

from replog.entry import INTEGER_MAX
from replog.errors import Corruption, StoreError, StoreFailed, WrongStore
from replog.snapshot import PIECES_MAX
from replog.store import layout
from replog.store.directory import DATA_FILE, check_present, in_use, read_data_file
from replog.store.gate import Gate
from replog.store.interface import Delivered, Identity, Position, StoredEntry, StoredSnapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from replog.membership import Membership
    from replog.snapshot import Base

LMDB_ENGINE = 0
"""The 0.9 engine: py-lmdb 3 holds two whose files are incompatible."""
READERS_MAX = 512
"""Read transactions at one time, of all processes."""

LMDB_DAMAGE = (
    lmdb.BadValsizeError,
    lmdb.CorruptedError,
    lmdb.InvalidError,
    lmdb.PageNotFoundError,
    lmdb.VersionMismatchError,
)
"""What LMDB raises when it meets pages that it cannot have written."""

Tables = Mapping[str, lmdb._Database]  # noqa: SLF001 - the binding has no other name for it
Transaction: TypeAlias = "lmdb.Transaction[bytes]"


class Roots(NamedTuple):
    """The values that say whose store it is and what it holds."""

    identity: Identity
    membership: Membership


def open_environment(directory: Path, *, map_bytes: int, readonly: bool) -> lmdb.Environment:
    """Open LMDB in its only mode that keeps every promise: synced, meta pages too, no writable map.

    Raises `StoreInUse` when this process has it open, `Corruption` or `StoreError` when LMDB
    refuses.
    """
    try:
        environment = lmdb.open(
            str(directory),
            map_size=map_bytes,
            max_dbs=len(layout.TABLES),
            max_readers=READERS_MAX,
            mode=0o600,
            readonly=readonly,
            create=not readonly,
            lib_version=LMDB_ENGINE,
            sync=True,
            metasync=True,
            writemap=False,
            lock=True,
        )
        environment.reader_check()
    except LMDB_DAMAGE as error:
        raise Corruption(f"{directory / DATA_FILE} is refused by LMDB: {error}") from error
    except lmdb.Error as error:
        if "already open in this process" in str(error):
            raise in_use(directory, "by this process") from error
        raise StoreError(f"{directory} cannot be opened: {error}") from error
    return environment


def open_tables(environment: lmdb.Environment, txn: Transaction | None, *, create: bool) -> Tables:
    """The tables of a store; raises `lmdb.NotFoundError` when one is not there.

    `txn` must be one that writes, else their handles would end with it; None when only reading.
    """
    return {
        table: environment.open_db(table.encode(), txn=txn, create=create)
        for table in layout.TABLES
    }


def open_stored_tables(file: str, environment: lmdb.Environment, txn: Transaction | None) -> Tables:
    """The tables of a store that was formatted before; `txn` as for `open_tables`.

    Raises `WrongStore` for what is no store, or one of another format, `Corruption` for a damaged
    format.
    """
    try:
        meta = environment.open_db(layout.META.encode(), txn=txn, create=False)
        if txn is None:
            with environment.begin() as reading:
                value = reading.get(layout.FORMAT_KEY, db=meta)
        else:
            value = txn.get(layout.FORMAT_KEY, db=meta)
        found = layout.parse_format(file, value)
        if found != layout.FORMAT:
            raise WrongStore(
                f"{file} has format {found}; this release of replog reads format {layout.FORMAT}: "
                "use the release that wrote it"
            )
        return open_tables(environment, txn, create=False)
    except lmdb.NotFoundError as error:
        raise WrongStore(f"{file} is no store of replog: {error}") from error


def load_roots(file: str, txn: Transaction, tables: Tables) -> Roots:
    """Read the values that never change while a store is open.

    Raises `Corruption` for a damaged value.
    """
    meta = tables[layout.META]
    formatted = layout.parse_identity(file, txn.get(layout.IDENTITY_KEY, db=meta))
    era = layout.parse_eras(file, txn.get(layout.ERAS_KEY, db=meta))
    life = layout.parse_life(file, txn.get(layout.LIFE_KEY, db=meta))
    identity = Identity(
        formatted.cluster_id, formatted.node, era.agreement, formatted.store_id, life
    )
    return Roots(identity, era.membership)


def load_snapshots(file: str, txn: Transaction, tables: Tables) -> dict[int, StoredSnapshot | None]:
    """Every snapshot by its id, ascending; None for one that is not whole. No piece is looked at.

    Raises `Corruption`.
    """
    found: dict[int, StoredSnapshot | None] = {}
    cursor = txn.cursor(tables[layout.SNAPSHOTS])
    behind = b""
    while cursor.set_range(behind):
        key = cursor.key()
        snapshot_id, number = layout.parse_piece_key(file, key)
        whole = number == layout.HEADER_NUMBER
        found[snapshot_id] = layout.parse_snapshot(file, key, cursor.value()) if whole else None
        behind = layout.piece_key(snapshot_id, PIECES_MAX) + b"\0"
    return found


def newest_snapshot(found: Mapping[int, StoredSnapshot | None]) -> StoredSnapshot | None:
    """Of what `load_snapshots` found, the whole one of the highest index; of several, that of the
    highest id."""
    whole = [stored for stored in found.values() if stored is not None]
    return max(whole, key=lambda one: (one.snapshot.index, one.snapshot_id), default=None)


def table_extent(txn: Transaction, table: lmdb._Database) -> tuple[int, int]:
    """Bytes of the pages that a table takes, and how many rows it has."""
    stat = txn.stat(table)
    pages = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
    return pages * stat["psize"], stat["entries"]


def _seek_row(cursor: lmdb.Cursor, offset: int) -> bool:
    """Put a cursor of table delivered at the last row that begins at or below this offset: of those
    with one base offset, the last may hold records and the others cannot. False without any."""
    beyond = cursor.set_range(layout.delivered_key(max(offset + 1, 0), 0))
    return cursor.prev() if beyond else cursor.last()


class LmdbReads:
    """`interface.Reader` over an open environment."""

    def __init__(self, directory: Path, environment: lmdb.Environment, tables: Tables) -> None:
        self.file = str(directory / DATA_FILE)
        """For messages."""
        self.tables = tables
        self._environment = environment
        self._gate = Gate(self.file)

    @contextmanager
    def reading(self, table: str) -> Iterator[Transaction]:
        """A read transaction about this table, to be left soon.

        Raises `Corruption` when LMDB finds its pages damaged, `StoreFailed` when it cannot read.
        """
        with self._gate:
            try:
                with self._environment.begin() as txn:
                    yield txn
            except LMDB_DAMAGE as error:
                raise layout.corruption(self.file, table, "unknown", str(error)) from error
            except lmdb.Error as error:
                raise StoreFailed(f"{self.file} cannot be read: {error}") from error

    def entries(self, first: int, last: int, bytes_max: int) -> list[StoredEntry]:
        """As `interface.Reader.entries`."""
        rows: list[tuple[bytes, bytes]] = []
        size = 0
        with self.reading(layout.LOG) as txn:
            cursor = txn.cursor(self.tables[layout.LOG])
            if cursor.set_key(layout.index_key(first)):
                for key, value in cursor:
                    size += layout.entry_bytes(value)
                    if rows and size > bytes_max:
                        break
                    index = first + len(rows)
                    if index > last or key != layout.index_key(index):
                        break
                    rows.append((key, value))
        return [layout.parse_log_row(self.file, key, value)[0] for key, value in rows]

    def delivered(self, offset: int, bytes_max: int) -> list[tuple[Delivered, StoredEntry]]:
        """As `interface.Reader.delivered`."""
        rows: list[tuple[Delivered, bytes, bytes]] = []
        size = 0
        with self.reading(layout.DELIVERED) as txn:
            cursor = txn.cursor(self.tables[layout.DELIVERED])
            if not _seek_row(cursor, offset):
                return []
            for key, value in cursor:
                row = layout.parse_delivered(self.file, key, value)
                if not rows and row.end_offset <= offset:
                    return []
                if not row.count:
                    continue
                log_key = layout.index_key(row.index)
                log_value = txn.get(log_key, db=self.tables[layout.LOG])
                if log_value is None:
                    raise layout.corruption(
                        self.file, layout.LOG, str(row.index), "is missing, but was delivered"
                    )
                size += layout.entry_bytes(log_value)
                if rows and size > bytes_max:
                    break
                rows.append((row, log_key, log_value))
        return [(row, layout.parse_log_row(self.file, key, value)[0]) for row, key, value in rows]

    def digest(self, index: int) -> bytes | None:
        """As `interface.Reader.digest`."""
        row = self.delivered_row(index)
        return None if row is None else row.digest

    def delivered_row(self, index: int) -> Delivered | None:
        """What delivery made of entry `index`; None when its row is not here. A binary search, for
        offset and index ascend together. Raises `Corruption`."""
        with self.reading(layout.DELIVERED) as txn:
            cursor = txn.cursor(self.tables[layout.DELIVERED])
            if not cursor.last():
                return None
            low, high = 0, layout.parse_delivered_key(self.file, cursor.key())[0]
            while low <= high:
                middle = (low + high) >> 1
                if not cursor.set_range(layout.delivered_key(middle, index)):
                    high = middle - 1
                    continue
                found_offset, found = layout.parse_delivered_key(self.file, cursor.key())
                if found == index:
                    return layout.parse_delivered(self.file, *cursor.item())
                if found < index:
                    low = found_offset
                else:
                    high = middle - 1
        return None

    def position(self) -> Position:
        """As `interface.Reader.position`."""
        with self.reading(layout.META) as txn:
            value = txn.get(layout.POSITION_KEY, db=self.tables[layout.META])
        return layout.parse_position(self.file, value)

    def base(self) -> Base:
        """As `interface.Reader.base`."""
        with self.reading(layout.META) as txn:
            return self.load_base(txn)

    def load_base(self, txn: Transaction) -> Base:
        """What the log begins behind, as this transaction sees it."""
        value = txn.get(layout.BASE_KEY, db=self.tables[layout.META])
        return layout.parse_base(self.file, value)

    def snapshot(self) -> StoredSnapshot | None:
        """As `interface.Reader.snapshot`."""
        with self.reading(layout.SNAPSHOTS) as txn:
            return newest_snapshot(load_snapshots(self.file, txn, self.tables))

    def piece(self, snapshot_id: int, number: int) -> bytes | None:
        """As `interface.Reader.piece`."""
        if not 0 < number <= PIECES_MAX or not 0 <= snapshot_id <= INTEGER_MAX:
            return None  # a peer may have asked for it
        key = layout.piece_key(snapshot_id, number)
        with self.reading(layout.SNAPSHOTS) as txn:
            value = txn.get(key, db=self.tables[layout.SNAPSHOTS])
        return None if value is None else layout.parse_piece(self.file, key, value).data

    def readers(self) -> Mapping[str, int]:
        """As `interface.Reader.readers`."""
        with self.reading(layout.READERS) as txn:
            rows = list(txn.cursor(self.tables[layout.READERS]))
        return dict(layout.parse_reader(self.file, key, value) for key, value in rows)

    def index_below(self, offset: int) -> int:
        """As `interface.Reader.index_below`."""
        with self.reading(layout.DELIVERED) as txn:
            row = self._row_from(txn, offset)
            if row is None:
                return self.load_base(txn).index
        return row.index if row.end_offset <= offset else row.index - 1

    def offset_at(self, timestamp_ms: int) -> int:
        """As `interface.Reader.offset_at`. A binary search, for timestamps never fall."""
        with self.reading(layout.DELIVERED) as txn:
            low = self.load_base(txn).offset
            last = self._row_from(txn, INTEGER_MAX)
            high = low if last is None else last.end_offset
            while low < high:
                middle = (low + high) >> 1
                row = self._row_from(txn, middle)
                if row is None or row.end_offset <= middle:
                    raise layout.corruption(
                        self.file, layout.DELIVERED, f"offset {middle}", "is missing"
                    )
                if row.timestamp_ms >= timestamp_ms:
                    high = row.base_offset
                else:
                    low = row.end_offset
        return low

    def _row_from(self, txn: Transaction, offset: int) -> Delivered | None:
        """The row that `_seek_row` finds."""
        cursor = txn.cursor(self.tables[layout.DELIVERED])
        if not _seek_row(cursor, offset):
            return None
        return layout.parse_delivered(self.file, *cursor.item())

    def offset_behind(self, index: int) -> int:
        """As `interface.Reader.offset_behind`."""
        row = self.delivered_row(index)
        if row is not None:
            return row.end_offset
        base = self.base()
        if base.index < index:
            raise layout.corruption(self.file, layout.DELIVERED, f"index {index}", "is missing")
        return base.offset

    def log_extent(self) -> tuple[int, int]:
        """As `interface.Reader.log_extent`."""
        with self.reading(layout.LOG) as txn:
            return table_extent(txn, self.tables[layout.LOG])

    def close(self) -> None:
        """As `interface.Reader.close`; waits for reads under way."""
        if not self._gate.forked:
            self._gate.shut()
            self._environment.close()


class LmdbReader(LmdbReads):
    """A store of another process, or of none, opened for reading. Make it with `open_reader`."""

    def __init__(
        self, directory: Path, environment: lmdb.Environment, tables: Tables, roots: Roots
    ) -> None:
        super().__init__(directory, environment, tables)
        self.identity = roots.identity
        """As of this open: the life grows with each open of the node."""
        self.membership = roots.membership

    @property
    def last_index(self) -> int:
        """Index of the last entry now, committed or not; the base's for an empty log."""
        with self.reading(layout.LOG) as txn:
            return self.load_last_index(txn)

    def load_last_index(self, txn: Transaction) -> int:
        """`last_index`, as this transaction sees it."""
        cursor = txn.cursor(self.tables[layout.LOG])
        if not cursor.last():
            return self.load_base(txn).index
        return layout.parse_index_key(self.file, layout.LOG, cursor.key())

    @property
    def map_bytes(self) -> int:
        """Size of the map that the store may fill, as its node last opened it."""
        with self._gate:
            size: int = self._environment.info()["map_size"]
            return size

    def copy_to(self, directory: Path) -> None:
        """Write the file as of this moment, without its free pages, into a directory that has none.
        Nothing is checked or synced. Raises `lmdb.Error`."""
        with self._gate:
            self._environment.copy(str(directory), compact=True)

    def next_index(self, index: int) -> int | None:
        """The lowest index of an entry at or above this one, committed or not; None behind the
        last."""
        with self.reading(layout.LOG) as txn:
            cursor = txn.cursor(self.tables[layout.LOG])
            if not cursor.set_range(layout.index_key(index)):
                return None
            return layout.parse_index_key(self.file, layout.LOG, cursor.key())


def open_reader(path: str | os.PathLike[str]) -> LmdbReader:
    """Open a store for reading, also while its node runs in another process.

    Raises `WrongStore` when the directory holds no store or one of another format, `Corruption`
    when its file is cut off or damaged, `StoreInUse` when this process has it open already.
    """
    directory = Path(os.path.realpath(path))
    check_present(directory)
    try:
        if read_data_file(directory) is None:
            raise WrongStore(f"{directory} holds no store: its formatting has not ended")
    except OSError as error:
        raise StoreError(f"{directory} cannot be read: {error}") from error
    environment = open_environment(directory, map_bytes=0, readonly=True)
    try:
        file = str(directory / DATA_FILE)
        tables = open_stored_tables(file, environment, None)
        with environment.begin() as txn:
            roots = load_roots(file, txn, tables)
        return LmdbReader(directory, environment, tables, roots)
    except lmdb.Error as error:
        environment.close()
        raise Corruption(f"{directory / DATA_FILE} cannot be read: {error}") from error
    except BaseException:
        environment.close()
        raise
