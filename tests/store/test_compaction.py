"""Compaction, snapshots and named readers: what a commit accepts, and what an open finds."""

from __future__ import annotations

from pathlib import Path

import lmdb
import pytest

from replog.entry import Epoch
from replog.errors import InvariantBroken, StoreFailed
from replog.store import layout
from replog.store.interface import Batch, Store, StoredPiece, StoredSnapshot, StoredWrite
from replog.store.lmdb_reader import Transaction
from replog.store.rules import Changes
from tests.store.author import (
    TERM_1,
    append,
    compact,
    deliver,
    fill,
    open_store,
    printed,
    record_of,
    rows_of,
    run_entry,
    sample,
    snapshot_at,
    stage,
    stored,
    taken,
    write,
)

TERM_2 = Epoch(2, "n2")


def batches_that_break_a_rule_of_snapshots() -> dict[str, Batch]:
    """On a store that holds a snapshot of entry 6 and is compacted to 5."""
    ahead = StoredSnapshot(16, snapshot_at(taken(7).snapshot.position._replace(index=8), TERM_1))
    return {
        "compaction beyond the snapshot": Batch(compact_to=7),
        "compaction beyond the position": Batch(compact_to=8),
        "a snapshot beyond the position": Batch(sealed=ahead),
        "a snapshot behind the newest": Batch(sealed=taken(5)),
        "the newest snapshot dropped": Batch(dropped_snapshots=[12]),
        "a piece of the newest snapshot": stage(12, [b"other"]),
        "a piece in the place of a header": Batch(pieces=[StoredPiece(14, 0, b"")]),
        "an install at the position": Batch([StoredWrite(install=taken(7))]),
        "an install below the position": Batch([StoredWrite(install=taken(6))]),
        "truncation at the base": append(5, [], truncate_from=5),
        "truncation below the base": append(2, [], truncate_from=2),
        "an entry at the base": write(TERM_1, 5),
    }


@pytest.mark.parametrize("name", batches_that_break_a_rule_of_snapshots())
def test_a_batch_that_breaks_a_rule_of_snapshots_is_refused_and_ends_the_store(
    store: Store, name: str
):
    compact(store)
    with pytest.raises(InvariantBroken):
        store.commit([batches_that_break_a_rule_of_snapshots()[name]])
    with pytest.raises(StoreFailed, match="must not be stored"):
        store.base()


def test_nothing_is_compacted_without_a_snapshot(store: Store):
    with pytest.raises(InvariantBroken, match="compaction to entry 1, with a snapshot of entry 0"):
        store.commit([Batch(compact_to=1)])


def test_what_is_compacted_is_gone_and_the_rest_reads_on(store: Store):
    compact(store, compact_to=2)
    store.commit([Batch(compact_to=0), Batch(compact_to=2)])  # at or below the base: nothing
    assert store.base() == taken(2).snapshot.base
    store.commit([Batch(compact_to=6)])
    assert store.base() == taken(6).snapshot.base
    assert [entry.index for entry in store.entries(7, 20, 1 << 20)] == [7, 8, 9]
    assert [store.digest(index) is None for index in (5, 6, 7)] == [True, True, False]
    assert store.entries(6, 9, 1 << 20) == []
    assert store.delivered(301, 1 << 20) == []
    assert [row.index for row, _ in store.delivered(302, 1 << 20)] == [7]
    assert store.log_extent()[1] == 3


def test_an_install_within_a_group_takes_what_the_group_wrote_below_it(store: Store):
    """Entries, rows and pieces before it in the same group; entries and rows behind it."""
    data = sample()
    delivery, _ = deliver(store.position(), data[7:8])
    received = StoredSnapshot(
        21, snapshot_at(taken(7).snapshot.position._replace(index=10), TERM_2)
    )
    behind, after = deliver(received.snapshot.position, [record_of(TERM_2, 11)])
    store.commit(
        [
            delivery,
            write(TERM_1, 9, 10, 12, 14),
            Batch([StoredWrite(install=received, entries=write(TERM_2, 11).writes[0].entries)]),
            behind,
            write(TERM_2, 12),
        ]
    )
    assert store.base() == received.snapshot.base
    assert store.snapshot() == received
    assert store.position() == after
    assert stored(store, 11) == [(11, TERM_2), (12, TERM_2)]
    assert stored(store, 14) == [(14, TERM_1)]
    assert [store.digest(index) is None for index in (8, 10, 11, 12)] == [True, True, False, True]
    assert store.log_extent()[1] == 3


def test_an_install_keeps_the_stored_entries_above_it(store: Store):
    store.commit([write(TERM_2, 12, 13, 15)])
    position = store.position()
    received = StoredSnapshot(21, snapshot_at(position._replace(index=10), TERM_2))
    store.commit([Batch([StoredWrite(install=received)])])
    assert stored(store, 12) == [(12, TERM_2), (13, TERM_2)]
    assert stored(store, 15) == [(15, TERM_2)]
    assert store.entries(11, 20, 1 << 20) == []
    store.commit([write(TERM_1, 11)])
    assert stored(store, 11) == [(11, TERM_1), (12, TERM_2), (13, TERM_2)]


def test_a_commit_of_compaction_looks_at_its_slice_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    opened = open_store(tmp_path)
    position = opened.position()
    data = [run_entry("n1", 5, place, [b"r"]) for place in range(1000)]
    delivery, position = deliver(position, data)
    opened.commit([append(1, data), delivery])
    opened.commit([Batch(sealed=StoredSnapshot(2000, snapshot_at(position, TERM_1)))])
    steps = 0

    class Watched:
        def __init__(self, cursor: lmdb.Cursor) -> None:
            self._cursor = cursor

        def __getattr__(self, name: str) -> object:
            nonlocal steps
            steps += name in {"delete", "next", "prev", "set_range", "__iter__"}
            return getattr(self._cursor, name)

    class Watching:
        def __init__(self, txn: Transaction) -> None:
            self._txn = txn

        def cursor(self, table: object) -> Watched:
            return Watched(self._txn.cursor(table))  # type: ignore[arg-type]

        def __getattr__(self, name: str) -> object:
            assert name != "drop"
            return getattr(self._txn, name)

    apply = opened._apply

    def watched(txn: Transaction, changes: Changes) -> None:
        apply(Watching(txn), changes)  # type: ignore[arg-type]

    monkeypatch.setattr(opened, "_apply", watched)
    opened.commit([Batch(compact_to=20)])
    assert (opened.base().index, opened.log_extent()[1]) == (20, 980)
    assert 40 <= steps <= 50


def test_the_pages_of_what_is_dropped_are_not_live_any_more(tmp_path: Path):
    store = open_store(tmp_path)
    data = [run_entry("n1", 20, index, [bytes(1000)]) for index in range(1000)]
    delivery, position = deliver(store.position(), data)
    store.commit([append(1, data), delivery])
    full = store.usage()
    assert 1000 * 1000 < full.live_bytes < full.file_bytes
    store.commit(
        [Batch(sealed=StoredSnapshot(2000, snapshot_at(position, TERM_1)), compact_to=900)]
    )
    less = store.usage()
    assert less.live_bytes < full.live_bytes / 5
    assert less.file_bytes >= full.file_bytes
    store.close()
    assert open_store(tmp_path).usage().live_bytes == less.live_bytes


def test_a_compacted_log_opens_with_its_base_and_snapshot(tmp_path: Path):
    store = open_store(tmp_path)
    data = fill(store)
    snapshot = compact(store, compact_to=4)
    store.commit([Batch(readers={"billing": 3, "audit": 7}), Batch(readers={"audit": None})])
    store.close()
    restored = open_store(tmp_path).restore()
    assert restored.base == taken(4).snapshot.base
    assert restored.epochs == ((5, Epoch(4, "n1")),)
    assert (restored.last_index, restored.snapshot) == (9, snapshot)
    assert [entry.data for entry in restored.tail] == data[7:]
    assert restored.readers == {"billing": 3}


def test_a_log_that_is_compacted_whole_begins_behind_its_last_entry(tmp_path: Path):
    store = open_store(tmp_path)
    data = fill(store)
    store.commit([append(8, [], truncate_from=8), Batch(sealed=taken(7), compact_to=7)])
    store.close()
    store = open_store(tmp_path)
    restored = store.restore()
    assert (restored.base, restored.epochs, restored.last_index) == (taken(7).snapshot.base, (), 7)
    batch, position = deliver(store.position(), data[7:])
    store.commit([append(8, data[7:]), batch])
    store.close()
    assert open_store(tmp_path).restore().position == position
    assert open_reader_last_index(tmp_path) == 9


def open_reader_last_index(path: Path) -> int:
    source = (
        "import sys; from replog.store.lmdb import open_reader;"
        "print(open_reader(sys.argv[1]).last_index)"
    )
    return int(printed(source, path))


def test_an_open_keeps_the_newest_whole_snapshot_alone(tmp_path: Path):
    store = open_store(tmp_path)
    fill(store)
    older, newer = taken(4, [b"4"]), taken(6, [b"6", b"and more"])
    store.commit([stage(8, [b"4"]), Batch(sealed=older), stage(12, [b"6", b"and more"])])
    store.commit([Batch(sealed=newer), stage(14, [b"never sealed"])])
    assert [store.piece(one, 1) for one in (8, 12, 14)] == [b"4", b"6", b"never sealed"]
    store.close()
    store = open_store(tmp_path)
    assert store.restore().snapshot == store.snapshot() == newer
    assert [store.piece(one, 1) for one in (8, 12, 14)] == [None, b"6", None]
    store.close()
    keys = [layout.parse_piece_key("", key) for key, _ in rows_of(tmp_path, "snapshots")]
    assert keys == [(12, 0), (12, 1), (12, 2)]
