"""Checking a whole store against itself, offline or beside its running node.

Rules of this file:

1. Everything is recomputed: checksums from the bytes, epochs from the rows, delivery (which runs
   count, offsets, timestamps, the digest chain) from the first entry on, the digest of a snapshot
   from its pieces.
2. Each step reads in one short transaction. Delivered entries never change, so they may be read
   one step after the other while the node runs; of the others each step is checked by itself.
   Where the node has compacted meanwhile what was to come, the walk goes on behind the new base.
3. What cannot be recomputed behind a damaged entry is said to be unchecked, not guessed.
4. A gap is whole where the epochs say so and nothing is delivered; an entry in one is a fault.
5. LMDB's pages carry no checksum, and damaged ones can kill a process: `verify_in_child` lets them
   kill a child and reports its death.

As a program, `python -m replog.store.verify PATH` prints JSON, one object a line: any number of
`{"progress": [entries checked, entries]}`, then `{"report": {...}}`; or `{"wrong": text}` for a
`WrongStore`, `{"refused": text}` for another `StoreError`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from replog.entry import NO_EPOCH
from replog.errors import Corruption, StoreError, WrongStore
from replog.snapshot import NO_BASE
from replog.store import layout
from replog.store.epochs import count_entries, epoch_at, next_entry
from replog.store.interface import Delivered
from replog.store.lmdb_reader import LmdbReader, load_snapshots, newest_snapshot, open_reader
from replog.store.opening import PROMISE_COPIES, check_base
from replog.store.pieces import check_pieces
from replog.store.recount import Recount
from replog.store.rules import EMPTY

if TYPE_CHECKING:
    from collections.abc import Callable

    from replog.entry import Entry, Epoch
    from replog.snapshot import Base
    from replog.store.epochs import EpochRun
    from replog.store.interface import StoredSnapshot

    Progress = Callable[[int, int], None]
    """Called with the entries checked so far and the entries there are."""

STEP_BYTES = 4 << 20
"""Bytes read in one transaction."""
FAULTS_MAX = 100
"""Faults reported one by one."""
MISSING = Delivered(0, 0, 0, (), 0, b"")
"""Stands for a row that is not there."""


class VerifyReport(NamedTuple):
    """What a verification found; the store is whole when `faults` is empty."""

    entries: int
    """Entries in the log: those that are kept."""
    records: int
    """Records delivered, in those entries."""
    delivered: int
    """Entries delivered: known to be committed."""
    beyond: int
    """Entries behind those, not known to be committed."""
    digest: bytes
    """The chain's digest after the delivered entries, recomputed; empty when it could not be."""
    faults: tuple[str, ...]
    """Each names file, table and key."""
    pieces: int = 0
    """Pieces of snapshots."""


def verify_directory(
    path: str | os.PathLike[str], progress: Progress | None = None
) -> VerifyReport:
    """Check every byte of a store; its node may be running in another process.

    Raises `WrongStore` when there is no store of a known format, `StoreInUse` when this process has
    it open (use `verify_in_child`).
    """
    try:
        reader = open_reader(path)
    except Corruption as error:
        return VerifyReport(0, 0, 0, 0, b"", (str(error),))
    try:
        return _Verification(reader, progress).run()
    finally:
        reader.close()


Rows = list[tuple[bytes, bytes]]
"""Keys and values as they are stored."""


class _Step(NamedTuple):
    """What one transaction read."""

    epochs: Rows
    log: Rows
    """The next entries."""
    delivered: Rows
    """Their rows."""
    base: Base
    """Where the log began."""
    snapshot: StoredSnapshot | None
    last_index: int
    """Where it ended."""


class _Verification:
    """One walk through a store."""

    def __init__(self, reader: LmdbReader, progress: Progress | None) -> None:
        self._reader = reader
        self._file = reader.file
        self._progress = progress
        self._faults: dict[str, None] = {}
        """In the order found, each once; those beyond `FAULTS_MAX` are only counted:"""
        self._faults_more = 0
        self._entries = 0
        self._entries_all = 0
        """When the walk began."""
        self._beyond = 0
        self._index = 1
        """Of the next entry."""
        self._last_index = 0
        self._end = EMPTY.position
        """Where delivery had come when the walk began."""
        self._snapshot: StoredSnapshot | None = None
        """On the way there."""
        self._delivered_key = b""
        """The last key of `delivered` that was read."""
        self._delivered = 0
        self._records = 0
        self._pieces = 0
        self._chained = True
        """Whether delivery could be recomputed so far; what it came to:"""
        self._recount = Recount(NO_BASE)

    def run(self) -> VerifyReport:
        try:
            self._begin()
            while self._index <= self._last_index:
                self._check_step(self._read_step())
                if self._progress:
                    self._progress(self._entries, self._entries_all)
            self._check_end()
        except Corruption as error:
            self._fault(str(error))
            self._chained = False
        self._check_snapshots()
        if self._faults_more:
            self._faults[f"{self._file}: {self._faults_more} more faults"] = None
        return VerifyReport(
            entries=self._entries,
            records=self._records,
            delivered=self._delivered,
            beyond=self._beyond,
            digest=self._recount.digest if self._chained else b"",
            faults=tuple(self._faults),
            pieces=self._pieces,
        )

    def _fault(self, text: str) -> None:
        if len(self._faults) < FAULTS_MAX:
            self._faults[text] = None
        else:
            self._faults_more += 1

    def _begin(self) -> None:
        """Check the small values; note how far log and delivery go, in one transaction."""
        file, tables = self._file, self._reader.tables
        with self._reader.reading(layout.META) as txn:
            promises = [(*copy, txn.get(copy[1], db=tables[copy[0]])) for copy in PROMISE_COPIES]
            introduced = txn.get(layout.INTRODUCED_KEY, db=tables[layout.META])
            position = txn.get(layout.POSITION_KEY, db=tables[layout.META])
            base_value = txn.get(layout.BASE_KEY, db=tables[layout.META])
            peers = list(txn.cursor(tables[layout.PEERS]))
            readers = list(txn.cursor(tables[layout.READERS]))
            snapshots = self._try(load_snapshots, file, txn, tables)
            epoch_rows = list(txn.cursor(tables[layout.EPOCHS]))
            self._entries_all = txn.stat(tables[layout.LOG])["entries"]
            delivered = txn.stat(tables[layout.DELIVERED])["entries"]
            self._last_index = self._reader.load_last_index(txn)
        for table, key, value in promises:
            self._try(layout.parse_promise, file, table, key, value)
        self._try(layout.parse_introduced, file, introduced)
        for key, value in peers:
            self._try(layout.parse_peer, file, key, value)
        for key, value in readers:
            self._try(layout.parse_reader, file, key, value)
        self._end = layout.parse_position(file, position)
        base = layout.parse_base(file, base_value)
        snapshot = newest_snapshot(snapshots or {})
        if snapshots is not None:
            self._try(check_base, file, base, snapshot, self._end)
        self._begin_behind(base, snapshot)
        if delivered != max(0, self._end.index - base.index):
            self._fault(
                f"{file}: table delivered holds {delivered} rows for entries to {self._end.index}"
            )
        epochs = self._check_epochs(epoch_rows, base, self._last_index)
        if epochs is not None and self._entries_all != count_entries(epochs, self._last_index):
            self._fault(
                f"{file}: table log holds {self._entries_all} rows, not those of table epochs, "
                f"for entries to {self._last_index}"
            )

    def _begin_behind(self, base: Base, snapshot: StoredSnapshot | None) -> None:
        self._index = base.index + 1
        self._recount = Recount(base)
        self._snapshot = snapshot
        self._meet_snapshot()

    def _try(self, parse: Callable[..., Any], *arguments: object) -> Any:
        """What `parse` gives; None, and a fault, when the value is damaged."""
        try:
            return parse(*arguments)
        except Corruption as error:
            self._fault(str(error))
            return None

    def _read_step(self) -> _Step:
        tables = self._reader.tables
        log: Rows = []
        delivered: Rows = []
        with self._reader.reading(layout.LOG) as txn:
            base = self._reader.load_base(txn)
            snapshots = load_snapshots(self._file, txn, tables)
            last_index = self._reader.load_last_index(txn)
            epochs = list(txn.cursor(tables[layout.EPOCHS]))
            size = 0
            cursor = txn.cursor(tables[layout.LOG])
            if cursor.set_range(layout.index_key(self._index)):
                for key, value in cursor:
                    log.append((key, value))
                    size += len(value)
                    if size > STEP_BYTES:
                        break
            cursor = txn.cursor(tables[layout.DELIVERED])
            if log and cursor.set_range(self._delivered_key + b"\0"):
                last = min(int.from_bytes(log[-1][0], "big"), self._end.index)
                for key, value in cursor:
                    if int.from_bytes(key[8:], "big") > last:
                        break
                    delivered.append((key, value))
        return _Step(epochs, log, delivered, base, newest_snapshot(snapshots), last_index)

    def _check_step(self, step: _Step) -> None:
        if step.base.index >= self._index:
            self._begin_behind(step.base, step.snapshot)
        if not step.log:
            # What is not delivered may be gone since the walk began.
            if self._index <= self._end.index:
                self._fault(f"{self._file}: table log, key {self._index}: is missing")
            self._last_index = self._index - 1
            return
        epochs = self._check_epochs(step.epochs, step.base, step.last_index)
        rows: dict[int, Delivered | None] = {}
        for key, value in step.delivered:
            index = layout.parse_delivered_key(self._file, key)[1]
            rows[index] = self._try(layout.parse_delivered, self._file, key, value)
            self._delivered_key = key
        self._delivered += len(rows)
        for key, value in step.log:
            index = layout.parse_index_key(self._file, layout.LOG, key)
            self._check_missing(epochs, index)
            self._index = index + 1
            self._entries += 1
            self._beyond += index > self._end.index
            parsed = self._try(layout.parse_log_row, self._file, key, value)
            if parsed is not None and epochs is not None:
                self._check_epoch(epochs, index, parsed[0].epoch)
            if index <= self._end.index:
                self._check_delivery(index, parsed[1] if parsed else None, rows.get(index, MISSING))

    def _check_missing(self, epochs: list[EpochRun] | None, found: int) -> None:
        """Whether the entries between the last one and the one found should be there."""
        missing = self._index
        if missing > self._end.index:
            if epochs is None:
                return
            missing = next_entry(epochs, missing)
        if missing < found:
            self._fault(f"{self._file}: table log, key {missing}: is missing")
            self._unchain(missing)

    def _check_epochs(self, rows: Rows, base: Base, last_index: int) -> list[EpochRun] | None:
        """The runs of epochs of a log that begins and ends there; None when one is damaged."""
        parsed = [self._try(layout.parse_epoch, self._file, *row) for row in rows]
        if None in parsed:
            return None
        epochs: list[EpochRun] = parsed
        if epochs and epochs[0][0] != base.index + 1:
            self._fault(
                f"{self._file}: table epochs, key {epochs[0][0]}: begins the epochs, but the log "
                f"begins at {base.index + 1}"
            )
        for (_, before), (first_index, epoch) in pairwise([(0, None), *epochs]):
            where = f"{self._file}: table epochs, key {first_index}"
            if first_index > last_index or before == epoch:
                self._fault(f"{where}: begins no new epoch")
            if epoch == NO_EPOCH and first_index <= self._end.index:
                self._fault(f"{where}: is a gap, but entries to {self._end.index} were delivered")
        return epochs

    def _check_epoch(self, epochs: list[EpochRun], index: int, found: Epoch) -> None:
        expected = epoch_at(epochs, index)
        if expected == NO_EPOCH:
            self._fault(f"{self._file}: table log, key {index}: lies in a gap of table epochs")
        elif expected != found:
            self._fault(
                f"{self._file}: table log, key {index}: has {found}, not that of table epochs"
            )

    def _check_delivery(self, index: int, entry: Entry | None, row: Delivered | None) -> None:
        """Recompute the delivery of an entry; None for what is damaged."""
        if row is MISSING:
            self._fault(f"{self._file}: table delivered, index {index}: is missing")
        if entry is None:
            self._unchain(index)
        if entry is None or not self._chained:
            return
        expected = self._recount.deliver(entry, None if row is MISSING else row)
        if expected is None:
            self._unchain(index)
            return
        if row not in {None, MISSING, expected}:
            self._fault(
                f"{self._file}: table delivered, index {index}: is {row}, but the log up to there "
                f"gives {expected}"
            )
        self._records += expected.count
        self._meet_snapshot()

    def _meet_snapshot(self) -> None:
        """Where the snapshot lies, it says what was counted."""
        stored = self._snapshot
        if stored is None or stored.snapshot.index != self._recount.index:
            return
        if not self._recount.agrees(stored.snapshot.position):
            where = layout.piece_name(stored.snapshot_id, layout.HEADER_NUMBER)
            self._fault(
                f"{self._file}: table snapshots, key {where}: is of "
                f"{stored.snapshot.position}, but the log up to there gives {self._recount}"
            )

    def _unchain(self, index: int) -> None:
        if self._chained and index <= self._end.index:
            self._chained = False
            self._fault(f"{self._file}: delivery from entry {index} on could not be checked")

    def _check_end(self) -> None:
        self._unchain(self._index)
        if not self._chained or self._recount.index > self._end.index:
            return
        if not self._recount.agrees(self._end):
            self._fault(
                f"{self._file}: table meta, key position: is {self._end}, but the log up to there "
                f"gives {self._recount}"
            )

    def _check_snapshots(self) -> None:
        try:
            with self._reader.reading(layout.SNAPSHOTS) as txn:
                found = load_snapshots(self._file, txn, self._reader.tables)
            for snapshot_id, stored in found.items():
                self._pieces += check_pieces(self._reader, snapshot_id, stored, self._fault)
        except Corruption as error:
            self._fault(str(error))


def verify_in_child(path: str | os.PathLike[str], progress: Progress | None = None) -> VerifyReport:
    """`verify_directory` in a process of its own: pages so damaged that they kill it are a fault.

    Raises `WrongStore` or `StoreError` as it does; never `StoreInUse`.
    """
    root = os.fspath(path)
    checked = 0
    report: VerifyReport | None = None
    refused: StoreError | None = None
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([entry or str(Path.cwd()) for entry in sys.path]),
    }
    command = [sys.executable, "-P", "-m", "replog.store.verify", root]
    with subprocess.Popen(  # noqa: S603 - this very file
        # Out of reach of the terminal's Ctrl-C: this process has it, and ends that one.
        command,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
        process_group=0,
    ) as child:
        try:
            for line in child.stdout or ():
                ((kind, content),) = json.loads(line).items()
                if kind == "progress":
                    checked = content[0]
                    if progress:
                        progress(*content)
                elif kind == "report":
                    faults, digest = tuple(content.pop("faults")), content.pop("digest")
                    report = VerifyReport(**content, digest=bytes.fromhex(digest), faults=faults)
                else:
                    refused = WrongStore(content) if kind == "wrong" else StoreError(content)
        except BaseException:
            child.kill()
            raise
    if refused is not None:
        raise refused
    if report is not None:
        return report
    ending = f"failed with status {child.returncode}"
    if child.returncode < 0:
        ending = f"was killed by signal {-child.returncode}, {signal.strsignal(-child.returncode)}"
    fault = f"{root}: after {checked} entries the verifier {ending}: pages are damaged or missing"
    return VerifyReport(checked, 0, 0, 0, b"", (fault,))


def main(path: str) -> None:
    """The program: see the top of this file."""

    def write(kind: str, content: object) -> None:
        sys.stdout.write(json.dumps({kind: content}) + "\n")
        sys.stdout.flush()

    try:
        report = verify_directory(path, lambda checked, all_: write("progress", (checked, all_)))
    except WrongStore as error:
        write("wrong", str(error))
    except StoreError as error:
        write("refused", str(error))
    else:
        write("report", {**report._asdict(), "digest": report.digest.hex()})


if __name__ == "__main__":
    main(sys.argv[1])
