"""Readers beside a running writer, in other processes and other threads."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from replog.errors import (
    EntryCompacted,
    OffsetOutOfRange,
    StoreError,
    StoreFailed,
    WrongStore,
)
from replog.log_reader import LogReader
from replog.store.interface import Batch, Store
from replog.store.lmdb import open_reader
from tests.store.author import append, compact, deliver, fill, noop, open_store, program, run_entry

FOLLOW = """
import sys
from replog.entry import parse_entry, unpack_records
from replog.store.lmdb import open_reader
reader = open_reader(sys.argv[1])
print(reader.identity.node, sorted(reader.membership.voters), reader.last_index, flush=True)
for line in sys.stdin:
    rows = reader.delivered(int(line), 1 << 20)
    records = 0
    for row, entry in rows:
        for run in row.accepted:
            records += len(unpack_records(parse_entry(entry.data), run))
    print(reader.position().offset, reader.last_index, records, flush=True)
"""


def test_a_reader_in_another_process_sees_each_delivery_and_nothing_beyond(tmp_path: Path):
    store = open_store(tmp_path)
    position = store.position()
    with program(FOLLOW, tmp_path) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        assert reader.stdout.readline() == "n1 ['n1', 'n2', 'n3'] 0\n"
        for index in range(1, 40):
            data = run_entry("n1", 5, 2 * (index - 1), [b"x" * 1000 * index, b""])
            store.commit([append(index, [data])])
            reader.stdin.write(f"{position.offset}\n")
            reader.stdin.flush()
            assert reader.stdout.readline() == f"{position.offset} {index} 0\n"
            batch, position = deliver(position, [data])
            store.commit([batch])
            reader.stdin.write("0\n")
            reader.stdin.flush()
            assert reader.stdout.readline() == f"{position.offset} {index} {2 * index}\n"
        reader.stdin.close()
    assert reader.returncode == 0


def test_a_reader_needs_a_store(tmp_path: Path):
    with pytest.raises(WrongStore, match="holds no store"):
        open_reader(tmp_path)
    with pytest.raises(WrongStore, match="holds no store"):
        open_reader(tmp_path / "missing")
    assert not (tmp_path / "missing").exists()


def test_a_reader_closes_twice_and_then_refuses(tmp_path: Path):
    open_store(tmp_path).close()
    reader = open_reader(tmp_path)
    reader.close()
    reader.close()
    with pytest.raises(StoreFailed, match="is closed"):
        reader.position()


def test_a_reader_follows_into_a_map_that_has_grown(tmp_path: Path):
    store = open_store(tmp_path, map_bytes_max=1 << 20)
    fill(store)
    store.close()
    store = open_store(tmp_path, map_bytes_max=64 << 20)
    with program(FOLLOW, tmp_path) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        reader.stdout.readline()
        store.commit([append(10, [run_entry("n1", 9, 1, [bytes(4 << 20)])])])
        reader.stdin.write("0\n")
        reader.stdin.close()
        assert reader.stdout.readline() == "303 10 303\n"


def test_threads_read_while_the_writer_commits(tmp_path: Path):
    store = open_store(tmp_path)
    position = store.position()
    done = threading.Event()
    seen: list[int] = []
    faults: list[Exception] = []

    def read() -> None:
        try:
            while not done.is_set():
                offset = store.position().offset
                rows = store.delivered(0, 1 << 30)
                assert sum(row.count for row, _ in rows) >= offset
                assert [row.base_offset for row, _ in rows] == list(range(len(rows)))
                seen.append(len(rows))
        except (AssertionError, StoreError) as error:
            faults.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for index in range(1, 60):
        data = run_entry("n1", 5, index - 1, [bytes(500)])
        batch, position = deliver(position, [data])
        store.commit([append(index, [data]), batch])
    while not seen or (not faults and seen[-1] < 59):
        store.position()
    done.set()
    for thread in threads:
        thread.join()
    assert faults == []
    assert store.delivered(58, 1)


def read_offsets(store: Store, offset: int, bytes_max: int) -> list[int]:
    return [row.base_offset for row, _ in store.delivered(offset, bytes_max)]


def test_reads_are_bounded_by_bytes_but_give_at_least_one_entry(tmp_path: Path):
    store = open_store(tmp_path)
    data = [run_entry("n1", 5, 10 * place, [bytes(100)] * 10) for place in range(5)]
    batch, _ = deliver(store.position(), data)
    store.commit([append(1, data), batch])
    size = len(data[0])
    assert read_offsets(store, 0, 0) == [0]
    assert read_offsets(store, 19, 2 * size) == [10, 20]
    assert read_offsets(store, 20, 3 * size - 1) == [20, 30]
    assert read_offsets(store, 49, 1 << 20) == [40]
    assert read_offsets(store, 50, 1 << 20) == []
    assert [entry.index for entry in store.entries(2, 5, 2 * size)] == [2, 3]
    assert [entry.index for entry in store.entries(5, 9, 0)] == [5]
    assert store.entries(6, 9, 1 << 20) == []


def test_entries_without_records_have_digests_but_no_offsets(tmp_path: Path):
    store = open_store(tmp_path)
    data = [noop(), noop(), run_entry("n1", 5, 0, [b"a"]), noop(), noop()]
    batch, position = deliver(store.position(), data)
    store.commit([append(1, data), batch])
    assert read_offsets(store, 0, 1 << 20) == [0]
    assert read_offsets(store, 1, 1 << 20) == []
    digests = [store.digest(index) for index in range(7)]
    assert digests == [None, *(row.digest for row in batch.delivered), None]
    assert digests[5] == position.digest
    store.commit([Batch()])


def test_a_long_read_transaction_is_never_left_open(tmp_path: Path):
    """Pages are used again: many small replacements do not make the file grow."""
    store = open_store(tmp_path)
    fill(store)
    for _ in range(20):
        store.commit([append(8, [noop()], truncate_from=8)])
    used_bytes = store.usage().file_bytes
    for _ in range(200):
        store.commit([append(8, [noop()], truncate_from=8)])
        store.entries(1, 8, 1 << 20)
        store.delivered(0, 1 << 20)
    assert store.usage().file_bytes == used_bytes


def test_a_log_reader_begins_at_the_first_record_that_is_kept(tmp_path: Path):
    store = open_store(tmp_path)
    fill(store)
    before = {index: store.digest(index) for index in range(1, 8)}
    snapshot = compact(store, compact_to=6)
    store.commit([Batch(readers={"billing": 302})])
    store.close()
    with LogReader(tmp_path) as reader:
        assert (reader.first_offset, reader.base().index, reader.last_index) == (302, 6, 9)
        assert [record.offset for record in reader.records()] == [302]
        assert [stored.index for stored, _ in reader.stored_entries(1, 10)] == [7, 8, 9]
        assert {index: reader.digest(index) for index in (6, 7)} == {
            index: before[index] for index in (6, 7)
        }
        with pytest.raises(OffsetOutOfRange, match=r"offset 2 .* offsets 302 to 302"):
            reader.records(2)
        with pytest.raises(OffsetOutOfRange):
            next(reader.entries(2, 303))
        for ask in (reader.row, reader.digest):
            with pytest.raises(EntryCompacted, match=r"entry 5 is compacted: .* begins at entry 7"):
                ask(5)
        found = reader.survey()
    assert (found.base, found.snapshot) == (snapshot.snapshot.base, snapshot)
    assert (found.last_index, found.readers) == (9, {"billing": 302})
    assert found.tables["snapshots"].rows == 2
