"""What a store holds besides its entries, and how large it is: for whoever looks at a directory.

Rule of this file: what can change together is read in one short transaction, so that it fits
together also while the node runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from replog.errors import Corruption
from replog.store import layout
from replog.store.directory import read_data_file
from replog.store.lmdb_reader import load_snapshots, newest_snapshot, table_extent
from replog.store.opening import read_promises

if TYPE_CHECKING:
    from collections.abc import Mapping

    import lmdb

    from replog.entry import Epoch
    from replog.snapshot import Base
    from replog.store.epochs import EpochRun
    from replog.store.interface import Peer, Position, StoredSnapshot
    from replog.store.layout import Era
    from replog.store.lmdb_reader import LmdbReader, Transaction


class TableSize(NamedTuple):
    """How large one table is."""

    rows: int
    bytes: int
    """Of all its pages."""


class Survey(NamedTuple):
    """What a store holds, but for its entries."""

    era: Era
    """The one stretch of the log: agreement, members and first index."""
    introduced: bool
    """Whether it may vote."""
    promise: Epoch
    epochs: tuple[EpochRun, ...]
    """(first index, epoch) of each run of entries of one epoch; `NO_EPOCH` for a gap."""
    last_index: int
    """Of the last entry, committed or not; the base's for an empty log."""
    base: Base
    """What the log begins behind."""
    position: Position
    snapshot: StoredSnapshot | None
    """The newest whole one."""
    readers: Mapping[str, int]
    """Named readers, and the offset up to which each has acknowledged."""
    peers: Mapping[str, Peer]
    tables: Mapping[str, TableSize]
    map_bytes: int
    """What the file may grow to."""
    used_bytes: int
    """Of the file, up to its last page."""
    file_bytes: int
    """Length of the file; what lies behind `used_bytes` takes no room on the disk."""


def survey(reader: LmdbReader) -> Survey:
    """Look at a store, in time and memory O(epochs). Raises `Corruption`."""
    file, tables = reader.file, reader.tables
    with reader.reading(layout.META) as txn:
        meta = tables[layout.META]
        last_index = reader.load_last_index(txn)
        base = reader.load_base(txn)
        position = layout.parse_position(file, txn.get(layout.POSITION_KEY, db=meta))
        era = layout.parse_eras(file, txn.get(layout.ERAS_KEY, db=meta))
        introduced = layout.parse_introduced(file, txn.get(layout.INTRODUCED_KEY, db=meta))
        promise = _newest_promise(reader, txn)
        epochs = tuple(
            [layout.parse_epoch(file, *row) for row in txn.cursor(tables[layout.EPOCHS])]
        )
        peers = dict(layout.parse_peer(file, *row) for row in txn.cursor(tables[layout.PEERS]))
        snapshots = load_snapshots(file, txn, tables)
        rows = txn.cursor(tables[layout.READERS])
        readers = dict(layout.parse_reader(file, *row) for row in rows)
        sizes = {name: _size(txn, table) for name, table in tables.items()}
    data_file = read_data_file(Path(file).parent)
    if data_file is None:
        raise Corruption(f"{file} has lost its data")
    return Survey(
        era=era,
        introduced=introduced,
        promise=promise,
        epochs=epochs,
        last_index=last_index,
        base=base,
        position=position,
        snapshot=newest_snapshot(snapshots),
        readers=readers,
        peers=peers,
        tables=sizes,
        map_bytes=reader.map_bytes,
        used_bytes=data_file.used_bytes,
        file_bytes=data_file.file_bytes,
    )


def _newest_promise(reader: LmdbReader, txn: Transaction) -> Epoch:
    """Of the newest whole copy: a damaged one beside it is for `verify` to name."""
    whole, damage = read_promises(reader.file, txn, reader.tables)
    if not whole:
        raise damage[-1]
    return max(whole).promise


def _size(txn: Transaction, table: lmdb._Database) -> TableSize:
    size, rows = table_extent(txn, table)
    return TableSize(rows, size)
