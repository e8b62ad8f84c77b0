"""Stores to test, and an author who fills one as a node would: for all tests of this folder."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import lmdb

from replog.entry import Epoch, Kind, Run, chain_digest, make_entry, pack_run, parse_entry
from replog.membership import Membership, cluster_id
from replog.producers import Producers
from replog.quorum import majorities
from replog.snapshot import Snapshot, StateDigest
from replog.store.interface import (
    Batch,
    Delivered,
    Position,
    Store,
    StoredEntry,
    StoredPiece,
    StoredSnapshot,
    StoredWrite,
)
from replog.store.lmdb import LmdbStore, create_or_open
from replog.store.memory import MemoryDisk, MemoryStore
from replog.store.rules import EMPTY

ROOT = Path(__file__).resolve().parents[2]
MEMBERSHIP = Membership(majorities({"n1", "n2", "n3"}))
MAP_BYTES = 1 << 30
TERM_1 = Epoch(1, "n1")
OWNER: dict[str, object] = {
    "node": "n1",
    "cluster_id": cluster_id("raft", MEMBERSHIP),
    "agreement": "raft",
    "membership": MEMBERSHIP,
    "unix_ms": 1000,
}
"""Whose the stores are, and when they are opened."""


def open_store(path: Path, **changes: object) -> LmdbStore:
    """The store of node n1 of three, but for `changes`."""
    arguments = OWNER | {"map_bytes_max": MAP_BYTES} | changes
    return create_or_open(path, **arguments)  # type: ignore[arg-type]


def memory_store(disk: MemoryDisk, **changes: object) -> MemoryStore:
    """The same on a disk in memory."""
    return MemoryStore(disk, **(OWNER | changes))  # type: ignore[arg-type]


def program(source: str, *arguments: object) -> subprocess.Popen[str]:
    """Python running `source` in a process of its own, its output to be read."""
    command = [sys.executable, "-c", source, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)


def printed(source: str, *arguments: object) -> str:
    """What `source` prints; it must end well."""
    with program(source, *arguments) as running:
        output, _ = running.communicate(timeout=30)
    assert running.returncode == 0
    return output


def run_entry(node: str, life: int, first_sequence: int, records: list[bytes]) -> bytes:
    """The bytes of an entry that holds one run."""
    body = pack_run(records)
    run = Run(node, life, first_sequence, len(records), len(body))
    return make_entry(Kind.RECORDS, [run], [body], timestamp_ms=5000 + first_sequence).data


def noop() -> bytes:
    """The bytes of an entry without records."""
    return make_entry(Kind.NOOP, [], [], timestamp_ms=5000).data


def append(
    first: int, data: list[bytes], epoch: Epoch = TERM_1, truncate_from: int | None = None
) -> Batch:
    """A batch that appends these entries from index `first` on."""
    entries = [StoredEntry(first + place, epoch, one) for place, one in enumerate(data)]
    return Batch([StoredWrite(truncate_from=truncate_from, entries=entries)])


def write(epoch: Epoch, *indexes: int) -> Batch:
    """A batch that writes a small entry at each of these indexes, in their order."""
    entries = [StoredEntry(index, epoch, record_of(epoch, index)) for index in indexes]
    return Batch([StoredWrite(entries=entries)])


def record_of(epoch: Epoch, index: int) -> bytes:
    """The bytes of an entry that no other (epoch, index) has: one record."""
    return run_entry("n1", 20, index, [f"{epoch.number} {epoch.node} {index}".encode()])


def deliver(position: Position, data: list[bytes]) -> tuple[Batch, Position]:
    """The batch that delivers the next entries, which hold `data`, and the position after it."""
    index, offset, digest, timestamp_ms, rows = position
    producers = Producers(rows)
    delivered = []
    for one in data:
        entry = parse_entry(one)
        index += 1
        accepted = tuple(place for place, run in enumerate(entry.runs) if producers.accept(run))
        count = sum(entry.runs[place].count for place in accepted)
        timestamp_ms = max(timestamp_ms, entry.timestamp_ms)
        digest = chain_digest(digest, index, offset, accepted, entry)
        delivered.append(Delivered(index, offset, count, accepted, timestamp_ms, digest))
        offset += count
    after = Position(index, offset, digest, timestamp_ms, producers.snapshot())
    return Batch(delivered=delivered, position=after), after


def stored(store: Store, first: int) -> list[tuple[int, Epoch]]:
    """The entries from this index on, to the first gap, each with the bytes it was written with."""
    found = store.entries(first, 50, 1 << 20)
    assert [entry.data for entry in found] == [
        record_of(entry.epoch, entry.index) for entry in found
    ]
    return [(entry.index, entry.epoch) for entry in found]


def sample() -> list[bytes]:
    """Entries of every sort: records, a no-op, a repeated run, a new life, and two large ones."""
    return [
        noop(),
        run_entry("n1", 7, 0, [b"a", b"bc"]),
        run_entry("n2", 3, 0, [b"" for _ in range(300)]),
        noop(),
        noop(),
        run_entry("n1", 7, 0, [b"a", b"bc"]),
        run_entry("n1", 7, 2, [bytes(20_000)]),
        run_entry("n1", 9, 0, [b"after a restart"]),
        run_entry("n3", 1, 0, [bytes(5000)] * 3),
    ]


def fill(store: Store, delivered: int = 7) -> list[bytes]:
    """Store the sample, of which so many are delivered; a promise, two epochs and two peers."""
    data = sample()
    store.commit([append(1, data[:4], Epoch(2, "n2"))])
    store.commit([append(5, data[4:], Epoch(4, "n1"))])
    store.commit([Batch([StoredWrite(Epoch(4, "n1"))])])
    store.commit([Batch([StoredWrite(Epoch(5, "n3"))])])
    batch, _ = deliver(store.position(), data[:delivered])
    store.commit([batch])
    return data


def snapshot_at(position: Position, epoch: Epoch, pieces: Sequence[bytes] = ()) -> Snapshot:
    """The header of a snapshot of this position whose state is these pieces."""
    state = StateDigest()
    for piece in pieces:
        state.add(piece)
    return Snapshot(position, epoch, MEMBERSHIP, state.pieces, state.size, state.value())


def stage(snapshot_id: int, pieces: Sequence[bytes]) -> Batch:
    """A batch with all pieces of a snapshot."""
    return Batch(
        pieces=[StoredPiece(snapshot_id, number, piece) for number, piece in enumerate(pieces, 1)]
    )


def taken(index: int, pieces: Sequence[bytes] = ()) -> StoredSnapshot:
    """A snapshot of the sample up to this index, as its node would take it."""
    _, position = deliver(EMPTY.position, sample()[:index])
    epoch = Epoch(2, "n2") if index < 5 else Epoch(4, "n1")
    return StoredSnapshot(index << 1, snapshot_at(position, epoch, pieces))


STATE = [b"the state of a machine"]


def compact(store: Store, compact_to: int = 5) -> StoredSnapshot:
    """Take a snapshot of the sample up to entry 6, and compact behind it."""
    stored = taken(6, STATE)
    store.commit([stage(stored.snapshot_id, STATE)])
    store.commit([Batch(sealed=stored, compact_to=compact_to)])
    return stored


GAPPED = {12: Epoch(6, "n2"), 13: Epoch(6, "n2"), 15: Epoch(7, "n1")}
"""What `fill_with_gaps` stores behind the sample: 10, 11 and 14 are gaps."""


def fill_with_gaps(store: Store) -> None:
    """Store the sample, of which 7 are delivered, and entries behind gaps, written backwards."""
    fill(store)
    for index, epoch in reversed(GAPPED.items()):
        store.commit([write(epoch, index)])


def edit(path: Path, change: Callable[[lmdb.Environment], object]) -> None:
    """Let `change` write to a closed store behind its back."""
    environment = lmdb.open(str(path), max_dbs=16, map_size=MAP_BYTES, lib_version=0)
    try:
        change(environment)
    finally:
        environment.close()


def drop_tables(path: Path, *tables: str) -> None:
    """Delete whole tables behind the store's back."""

    def drop(environment: lmdb.Environment) -> None:
        for table in tables:
            database = environment.open_db(table.encode(), create=False)
            with environment.begin(write=True) as txn:
                txn.drop(database)

    edit(path, drop)


def put(path: Path, table: str, key: bytes, value: bytes | None) -> None:
    """Replace one value behind the store's back, or delete it."""

    def change(environment: lmdb.Environment) -> None:
        database = environment.open_db(table.encode(), create=False)
        with environment.begin(write=True) as txn:
            if value is None:
                assert txn.delete(key, db=database)
            else:
                assert txn.put(key, value, db=database)

    edit(path, change)


def rows_of(path: Path, table: str) -> list[tuple[bytes, bytes]]:
    """Every row of a table of a closed store."""
    rows: list[tuple[bytes, bytes]] = []

    def read(environment: lmdb.Environment) -> None:
        database = environment.open_db(table.encode(), create=False)
        with environment.begin() as txn:
            rows.extend(txn.cursor(database))

    edit(path, read)
    return rows


def flipped(value: bytes, bit: int) -> bytes:
    """The value with one bit turned over."""
    changed = bytearray(value)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
