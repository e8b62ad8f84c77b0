"""The store of a node on disk: one LMDB environment in a directory of its own.

Rules of this file:

1. A group of batches is one LMDB transaction, synced before `commit` returns; begin to commit is
   one call on one thread.
2. Each open makes a new, higher life durable before anything else may happen: that also makes
   durable what a dead life left in the page cache.
3. Whatever goes wrong in a commit poisons the store. Whether that commit is on disk is unknown, and
   a second sync would not tell (a failed one may have dropped the pages): only a new open does.
4. Both copies of the promise are written together; the newer of those that are whole counts.
"""

from __future__ import annotations

import os
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

import lmdb

from replog import failpoints
from replog.errors import Corruption, InvariantBroken, StoreError, StoreFailed
from replog.snapshot import HEADER_BYTES_MAX
from replog.store import layout
from replog.store.directory import (
    DATA_FILE,
    STRETCH_BYTES,
    DirectoryLock,
    is_marked,
    mark,
    prepare,
    read_data_file,
    stretch,
)
from replog.store.interface import Usage
from replog.store.layout import StoredPromise
from replog.store.lmdb_reader import (
    LMDB_DAMAGE,
    LmdbReader,
    LmdbReads,
    Transaction,
    open_environment,
    open_reader,
    table_extent,
)
from replog.store.opening import Opened, Owner, begin_life, drop_from, drop_snapshot, put_promise
from replog.store.rules import Changes, Outline, fold

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from replog.membership import Membership
    from replog.snapshot import Base
    from replog.store.epochs import RunChanges
    from replog.store.interface import Batch, Restoration

    Row = TypeVar("Row")
    Packed = tuple[bytes, bytes]
    """Key and value."""

__all__ = ["LmdbReader", "LmdbStore", "create_or_open", "open_reader"]

SPARE_BYTES = 1 << 20
"""More than LMDB takes for a transaction beside its rows."""
HELD_BACK_COMMITS = 64
"""A transaction that began so many commits ago reads for long: reads of a node are short."""
ROW_BYTES_MAX = 8192
"""More than LMDB takes for a row beside twice its content: pages are half full at worst."""


def room_for_freed(used_bytes: int) -> int:
    """More than LMDB takes to write down which pages of a file it frees: 8 bytes for each."""
    return used_bytes >> 8


class LmdbStore(LmdbReads):
    """`interface.Store` in a directory. Make it with `create_or_open`."""

    def __init__(
        self,
        directory: Path,
        environment: lmdb.Environment,
        lock: DirectoryLock,
        opened: Opened,
        map_bytes_max: int,
    ) -> None:
        super().__init__(directory, environment, opened.tables)
        restoration = opened.restoration
        self._directory = directory
        self._lock = lock
        self._restoration = restoration
        self._generation = opened.generation
        self._map_bytes_max = map_bytes_max
        self._outline = Outline(
            restoration.promise,
            restoration.epochs,
            restoration.last_index,
            restoration.position,
            restoration.base,
            restoration.snapshot,
        )
        self._committing = Lock()
        self._page_bytes = environment.stat()["psize"]
        self._file_bytes = 0
        with environment.begin() as txn:
            live_bytes = self._live_bytes(txn)
        self._usage = Usage(live_bytes, self._last_page_end())
        self._stretch(0)

    def restore(self) -> Restoration:
        """As `interface.Store.restore`."""
        with self._gate:
            return self._restoration

    def usage(self) -> Usage:
        """As `interface.Store.usage`."""
        return self._usage

    def is_held_back(self) -> bool:
        """As `interface.Store.is_held_back`, by a transaction of any process."""
        with self._gate:
            self._environment.reader_check()  # who has died reads no more
            last = self._environment.info()["last_txnid"]
            for line in self._environment.readers().splitlines():
                txn_id = line.split()[-1:]  # after process and thread; none while it does not read
                if txn_id and txn_id[0].isdigit() and last - int(txn_id[0]) > HELD_BACK_COMMITS:
                    return True
        return False

    def commit(self, batches: Sequence[Batch]) -> None:
        """As `interface.Store.commit`.

        Raises `InvariantBroken`, after which the store is poisoned too, when a batch breaks a rule
        of `replog.store.rules` or two threads commit at once.
        """
        with self._gate:
            try:
                self._commit(batches)
            except InvariantBroken as error:
                self._gate.poison(f"was given what must not be stored: {error}", error)
                raise
            except Exception as error:
                reason = self._reason(error)
                self._gate.poison(reason, error)
                raise StoreFailed(f"{self.file} {reason}") from error
            except BaseException as error:
                self._gate.poison(f"was interrupted in a commit: {error!r}", error)
                raise

    def _commit(self, batches: Sequence[Batch]) -> None:
        if not self._committing.acquire(blocking=False):
            raise InvariantBroken("two threads commit to one store")
        try:
            changes, outline = fold(self._outline, batches, self.delivered_row)
            self._stretch(self._room_for(changes))
            with self._environment.begin(write=True) as txn:
                self._apply(txn, changes)
                failpoints.reach("writer: inside a transaction")
                live_bytes = self._live_bytes(txn)
            self._outline = outline
            self._usage = Usage(live_bytes, self._last_page_end())
        finally:
            self._committing.release()

    def _apply(self, txn: Transaction, changes: Changes) -> None:
        meta = self.tables[layout.META]
        if changes.promise is not None:
            self._generation += 1
            put_promise(txn, self.tables, StoredPromise(self._generation, changes.promise))
        if changes.truncate_from is not None:
            drop_from(txn, self.tables[layout.LOG], changes.truncate_from)
        if changes.base is not None:
            self._begin_behind(txn, changes.base, changes)
        for entry in changes.placed:
            txn.put(*layout.pack_log_row(entry), db=self.tables[layout.LOG])
        self._append(txn, layout.LOG, changes.appended, layout.pack_log_row)
        self._apply_epochs(txn, changes.epochs)
        self._append(txn, layout.DELIVERED, changes.delivered, layout.pack_delivered)
        if changes.position is not None:
            txn.put(layout.POSITION_KEY, layout.pack_position(changes.position), db=meta)
        for node, peer in changes.peers.items():
            txn.put(*layout.pack_peer(node, peer), db=self.tables[layout.PEERS])
        if changes.introduced:
            introduced = layout.pack_introduced(introduced=True)
            txn.put(layout.INTRODUCED_KEY, introduced, db=meta)
        self._apply_kept(txn, changes)

    def _apply_epochs(self, txn: Transaction, changes: RunChanges) -> None:
        if changes.drop_from is not None:
            drop_from(txn, self.tables[layout.EPOCHS], changes.drop_from)
        self._append(txn, layout.EPOCHS, changes.runs, layout.pack_epoch)
        if changes.drop_below is not None:
            self._drop_below(txn, layout.EPOCHS, changes.drop_below)
        for run in changes.first:
            txn.put(*layout.pack_epoch(run), db=self.tables[layout.EPOCHS])

    def _apply_kept(self, txn: Transaction, changes: Changes) -> None:
        """Snapshots and named readers."""
        snapshots = self.tables[layout.SNAPSHOTS]
        for snapshot_id in changes.dropped_snapshots:
            drop_snapshot(txn, snapshots, snapshot_id)
        for piece in changes.pieces:
            txn.put(*layout.pack_piece(piece), db=snapshots)
        for stored in changes.sealed:
            txn.put(*layout.pack_snapshot(stored), db=snapshots)
        readers = self.tables[layout.READERS]
        for name, offset in changes.readers.items():
            if offset is None:
                txn.delete(layout.reader_key(name), db=readers)
            else:
                txn.put(*layout.pack_reader(name, offset), db=readers)

    def _begin_behind(self, txn: Transaction, base: Base, changes: Changes) -> None:
        """Delete every entry and delivered row up to the base."""
        txn.put(layout.BASE_KEY, layout.pack_base(base), db=self.tables[layout.META])
        if not changes.installs:
            for table in (layout.LOG, layout.DELIVERED):
                self._drop_below(txn, table, base.index + 1)
            return
        # Whole tables go at the cost of their pages; the few entries above are put back.
        log = self.tables[layout.LOG]
        cursor = txn.cursor(log)
        above = list(cursor) if cursor.set_range(layout.index_key(base.index + 1)) else []
        above_bytes = 2 * sum([len(value) for _, value in above]) + ROW_BYTES_MAX * len(above)
        self._stretch(self._room_for(changes) + above_bytes)
        txn.drop(log, delete=False)
        txn.drop(self.tables[layout.DELIVERED], delete=False)
        txn.cursor(log).putmulti(above, append=True)

    def _drop_below(self, txn: Transaction, table: str, index: int) -> None:
        """Delete every row before this index, and look at no other. The index ends the key."""
        end = layout.index_key(index)
        cursor = txn.cursor(self.tables[table])
        cursor.first()
        while b"" < cursor.key()[-8:] < end:
            cursor.delete()

    def _append(
        self, txn: Transaction, table: str, rows: Sequence[Row], pack: Callable[[Row], Packed]
    ) -> None:
        if not rows:
            return
        # One row after the other is packed, so that each finds the memory of the last one warm.
        _, added = txn.cursor(self.tables[table]).putmulti(map(pack, rows), append=True)
        if added != len(rows):
            raise Corruption(f"{self.file}: table {table} holds keys beyond its end")

    def _room_for(self, changes: Changes) -> int:
        """More than these changes may lengthen the file by."""
        entries = [*changes.placed, *changes.appended]
        content_bytes = sum([len(entry.data) for entry in entries])
        content_bytes += sum([len(piece.data) for piece in changes.pieces])
        content_bytes += HEADER_BYTES_MAX * len(changes.sealed)
        rows = len(entries) + len(changes.epochs.runs) + len(changes.delivered)
        rows += len(changes.pieces) + len(changes.readers)
        frees = changes.base is not None or changes.dropped_snapshots
        freed_bytes = room_for_freed(self._usage.file_bytes) if frees else 0
        return 2 * content_bytes + ROW_BYTES_MAX * rows + freed_bytes

    def _live_bytes(self, txn: Transaction) -> int:
        return sum([table_extent(txn, table)[0] for table in self.tables.values()])

    def _last_page_end(self) -> int:
        """Known of what is committed."""
        return (self._environment.info()["last_pgno"] + 1) * self._page_bytes

    def _stretch(self, upcoming_bytes: int) -> None:
        """See rule 4 of `replog.store.directory`."""
        wanted = min(self._usage.file_bytes + upcoming_bytes + SPARE_BYTES, self._map_bytes_max)
        if wanted > self._file_bytes:
            ahead = min(wanted + STRETCH_BYTES, self._map_bytes_max)
            self._file_bytes = stretch(self._directory, ahead)

    def _reason(self, error: Exception) -> str:
        if isinstance(error, lmdb.MapFullError):
            return (
                f"is full at map_bytes_max = {self._map_bytes_max}: open the directory again with "
                "a larger one"
            )
        return f"failed in a commit: {error}"

    def close(self) -> None:
        """As `interface.Reader.close`; waits for reads and the commit under way."""
        if not self._gate.forked:
            super().close()
            self._lock.release()


def create_or_open(
    path: str | os.PathLike[str],
    *,
    node: str,
    cluster_id: bytes,
    agreement: str,
    membership: Membership,
    unix_ms: int,
    map_bytes_max: int,
) -> LmdbStore:
    """Open the store of this node, formatting the directory if it is empty or missing.

    `unix_ms` is the wall clock, from which the new life is drawn. `membership` is the bootstrap
    membership; it is stored at formatting, and what is stored counts from then on.

    Raises `WrongStore` when the directory is another node's, cluster's, agreement's or format's or
    holds other files; `StoreInUse` when somebody has it open; `Corruption` when it is damaged;
    `StoreError` when the disk cannot be used.
    """
    directory = Path(os.path.realpath(path))
    file = str(directory / DATA_FILE)
    owner = Owner(node, cluster_id, agreement, membership)
    lock: DirectoryLock | None = None
    environment: lmdb.Environment | None = None
    try:
        prepare(directory)
        lock = DirectoryLock(directory)
        found = read_data_file(directory)
        if found is not None:
            room = SPARE_BYTES + room_for_freed(found.used_bytes)
            stretch(directory, min(found.used_bytes + room, map_bytes_max))
        formatted = is_marked(directory)
        environment = open_environment(directory, map_bytes=map_bytes_max, readonly=False)
        failpoints.reach("open: before the life is written")
        with environment.begin(write=True) as txn:
            opened = begin_life(environment, txn, file, owner, unix_ms, formatted=formatted)
        failpoints.reach("open: after the life is written")
        if not formatted:
            mark(directory, f"the replicated log of node {node}")
        return LmdbStore(directory, environment, lock, opened, map_bytes_max)
    except BaseException as error:
        if environment is not None:
            environment.close()
        if lock is not None:
            lock.release()
        if isinstance(error, lmdb.MapFullError):
            raise StoreError(
                f"{file} is full at map_bytes_max = {map_bytes_max}: name a larger one"
            ) from error
        if isinstance(error, LMDB_DAMAGE):
            raise Corruption(f"{file} is damaged: {error}") from error
        if isinstance(error, (OSError, lmdb.Error)):
            raise StoreError(f"{directory} cannot be used: {error}") from error
        raise
