"""What a commit accepts, what it does all or nothing, and what stands after one that failed."""

from __future__ import annotations

import threading
from itertools import pairwise
from pathlib import Path

import lmdb
import pytest

from replog.entry import NO_EPOCH, Epoch
from replog.errors import InvariantBroken, StoreError, StoreFailed
from replog.store import layout
from replog.store.interface import (
    Batch,
    Peer,
    Store,
    StoredWrite,
)
from replog.store.lmdb import LmdbStore
from replog.store.lmdb_reader import Transaction
from replog.store.memory import MemoryDisk
from replog.store.rules import Changes
from tests.store.author import (
    TERM_1,
    append,
    deliver,
    fill,
    memory_store,
    noop,
    open_store,
    record_of,
    rows_of,
    run_entry,
    sample,
    stored,
    write,
)

TERM_2 = Epoch(2, "n2")


def batches_that_break_a_rule() -> dict[str, Batch]:
    data = sample()
    start = deliver(memory_store(MemoryDisk(b"")).position(), data[:7])[1]
    next_two, after = deliver(start, data[7:])
    next_three, after_three = deliver(start, [*data[7:], noop()])
    rows = next_two.delivered
    return {
        "an entry over a delivered one": append(7, [noop()]),
        "an entry before the first": append(0, [noop()]),
        "an entry without an epoch": append(10, [noop()], NO_EPOCH),
        "an entry over a delivered one behind a fine one": write(TERM_1, 10, 7),
        "truncation of a delivered entry": append(7, [], truncate_from=7),
        "truncation of all": append(0, [], truncate_from=0),
        "a promise that falls": Batch([StoredWrite(Epoch(4, "n1"))]),
        "delivered rows without a position": next_two._replace(position=None),
        "a position without its rows": Batch(position=after),
        "a position of another offset": next_two._replace(position=after._replace(offset=7)),
        "a position of another digest": next_two._replace(position=after._replace(digest=b"x")),
        "delivered rows with a gap": Batch(delivered=rows[1:], position=after),
        "a row delivered twice": Batch(delivered=[rows[0], *rows], position=after),
        "a row at another offset": Batch(
            delivered=[rows[0]._replace(base_offset=1), rows[1]], position=after
        ),
        "a delivered row beyond the log": Batch(
            append(9, [], truncate_from=9).writes, rows, position=after
        ),
        "a gap delivered": Batch(
            write(TERM_1, 11).writes, next_three.delivered, position=after_three
        ),
    }


@pytest.mark.parametrize("name", batches_that_break_a_rule())
def test_a_batch_that_breaks_a_rule_is_refused_whole_and_ends_the_store(store: Store, name: str):
    fine = Batch(peers={"n2": Peer(b"p" * 16, 1)})
    with pytest.raises(InvariantBroken):
        store.commit([fine, batches_that_break_a_rule()[name]])
    with pytest.raises(StoreFailed, match="must not be stored"):
        store.entries(1, 1, 1)
    with pytest.raises(StoreFailed, match="must not be stored"):
        store.commit([fine])


def test_what_those_batches_are_made_of_is_fine_by_itself(store: Store):
    """Else the test above would show nothing."""
    next_three, after = deliver(store.position(), [*sample()[7:], noop()])
    store.commit([Batch([StoredWrite(Epoch(5, "n3"))]), append(10, [noop()]), next_three])
    assert store.position() == after


def test_the_refused_group_left_nothing_on_the_disk(tmp_path: Path):
    store = open_store(tmp_path)
    fill(store)
    fine = Batch([StoredWrite(Epoch(9, "n1"))], peers={"n2": Peer(b"p" * 16, 1)}, introduced=True)
    with pytest.raises(InvariantBroken):
        store.commit([fine, write(TERM_2, 8, 12, 7)])
    store.close()
    restored = open_store(tmp_path).restore()
    assert (restored.promise, restored.introduced, restored.peers) == (Epoch(5, "n3"), False, {})
    assert (restored.last_index, len(restored.tail)) == (9, 2)


def test_one_group_may_append_replace_and_deliver_what_it_appends(store: Store):
    replaced = [run_entry("n2", 3, 300, [b"new"]), noop()]
    batch, after = deliver(store.position(), replaced[:1])
    store.commit(
        [
            append(10, [noop(), noop()], TERM_1),
            append(8, [noop(), noop(), noop()], TERM_1, truncate_from=8),
            append(8, replaced, TERM_2, truncate_from=8),
            batch,
        ]
    )
    assert [(entry.epoch, entry.data) for entry in store.entries(8, 20, 1 << 20)] == [
        (TERM_2, replaced[0]),
        (TERM_2, replaced[1]),
    ]
    assert store.position() == after
    assert [entry.index for _, entry in store.delivered(302, 1 << 20)] == [7, 8]


def test_truncation_beyond_the_log_is_nothing(store: Store):
    store.commit([append(10, [], truncate_from=10), append(10, [], truncate_from=50)])
    assert len(store.entries(1, 20, 1 << 20)) == 9


def test_entries_may_be_written_in_any_order_and_reads_end_at_a_gap(store: Store):
    store.commit([write(TERM_2, 14), write(TERM_2, 11, 10)])
    assert len(store.entries(1, 50, 1 << 20)) == 11
    assert store.entries(12, 50, 1 << 20) == []
    assert stored(store, 10) == [(10, TERM_2), (11, TERM_2)]
    assert stored(store, 14) == [(14, TERM_2)]
    store.commit([write(TERM_1, 13), write(TERM_2, 12)])
    assert stored(store, 11) == [(11, TERM_2), (12, TERM_2), (13, TERM_1), (14, TERM_2)]


def test_an_entry_is_replaced_and_those_behind_it_are_kept(store: Store):
    store.commit([write(TERM_1, 8, 9, 10)])
    store.commit([write(TERM_2, 9)])
    assert stored(store, 8) == [(8, TERM_1), (9, TERM_2), (10, TERM_1)]
    store.commit([write(TERM_1, 10), write(TERM_2, 8, 10, 8)])
    assert stored(store, 8) == [(8, TERM_2), (9, TERM_2), (10, TERM_2)]


def test_one_group_may_write_replace_truncate_and_write_again(store: Store):
    store.commit([write(TERM_1, 8, 9, 12)])
    store.commit(
        [
            write(TERM_2, 20, 9, 14),
            append(11, [], truncate_from=11),
            write(TERM_2, 12),
            append(10, [], truncate_from=10),
            write(TERM_2, 11, 8),
        ]
    )
    assert stored(store, 8) == [(8, TERM_2), (9, TERM_2)]
    assert stored(store, 10) == []
    assert stored(store, 11) == [(11, TERM_2)]
    assert stored(store, 12) == stored(store, 14) == stored(store, 20) == []


def test_what_may_be_written_is_decided_batch_by_batch(store: Store):
    replaced = record_of(TERM_2, 8)
    delivery, after = deliver(store.position(), [replaced])
    store.commit([write(TERM_2, 8), delivery, write(TERM_2, 9)])
    assert (store.position(), stored(store, 8)) == (after, [(8, TERM_2), (9, TERM_2)])
    delivery, _ = deliver(after, [record_of(TERM_2, 9)])
    with pytest.raises(InvariantBroken, match="entries to 9 are delivered"):
        store.commit([delivery, write(TERM_1, 9)])


E1, E2, E3 = Epoch(1, "n1"), Epoch(2, "n2"), Epoch(3, "n1")
Steps = list[tuple[Batch, tuple[tuple[int, Epoch], ...]]]
"""Batches, and the runs of epochs after each."""
APPENDED: Steps = [
    (append(1, [noop()] * 3, E1), ((1, E1),)),
    (append(4, [noop()] * 3, E1), ((1, E1),)),
    (append(7, [noop()] * 3, E2), ((1, E1), (7, E2))),
    (append(9, [], truncate_from=9), ((1, E1), (7, E2))),
    (append(9, [noop()], E2), ((1, E1), (7, E2))),
    (append(7, [], truncate_from=7), ((1, E1),)),
    (append(7, [noop()], E3), ((1, E1), (7, E3))),
    (append(5, [noop()], E3, truncate_from=5), ((1, E1), (5, E3))),
    (append(5, [noop()], E1, truncate_from=5), ((1, E1),)),
    (append(1, [], truncate_from=1), ()),
    (append(1, [noop()], E2), ((1, E2),)),
]
SCATTERED: Steps = [
    (write(E2, 5), ((1, NO_EPOCH), (5, E2))),
    (write(E1, 1, 2), ((1, E1), (3, NO_EPOCH), (5, E2))),
    (write(E2, 3), ((1, E1), (3, E2), (4, NO_EPOCH), (5, E2))),
    (write(E2, 4), ((1, E1), (3, E2))),
    (write(E3, 4), ((1, E1), (3, E2), (4, E3), (5, E2))),
    (write(E3, 1), ((1, E3), (2, E1), (3, E2), (4, E3), (5, E2))),
    (write(E3, 3), ((1, E3), (2, E1), (3, E3), (5, E2))),
    (write(E3, 5, 2), ((1, E3),)),
    (write(E3, 9, 7), ((1, E3), (6, NO_EPOCH), (7, E3), (8, NO_EPOCH), (9, E3))),
    (append(9, [], truncate_from=9), ((1, E3), (6, NO_EPOCH), (7, E3))),
    (append(7, [], truncate_from=7), ((1, E3),)),
    (write(E3, 8), ((1, E3), (6, NO_EPOCH), (8, E3))),
    (append(8, [], truncate_from=8), ((1, E3),)),
    (write(E3, 6), ((1, E3),)),
    (append(1, [], truncate_from=1), ()),
    (write(E1, 2), ((1, NO_EPOCH), (2, E1))),
    (append(2, [], truncate_from=2), ()),
]


@pytest.mark.parametrize("steps", [APPENDED, SCATTERED], ids=["appended", "scattered"])
@pytest.mark.parametrize("where", ["memory", "lmdb"])
def test_epochs_are_runs_with_gaps_cut_with_truncation(tmp_path: Path, where: str, steps: Steps):
    disk = MemoryDisk(b"s" * 16)

    def opened() -> Store:
        return memory_store(disk) if where == "memory" else open_store(tmp_path)

    for batch, epochs in steps:
        store = opened()
        store.commit([batch])
        store.close()
        store = opened()
        restored = store.restore()
        assert restored.epochs == epochs
        assert [(entry.index, entry.epoch) for entry in restored.tail] == [
            (index, epoch)
            for (first, epoch), (end, _) in pairwise([*epochs, (restored.last_index + 1, E1)])
            for index in range(first, end)
            if epoch != NO_EPOCH
        ]
        assert restored.last_index == max([entry.index for entry in restored.tail], default=0)
        for entry in restored.tail:
            assert store.entries(entry.index, entry.index, 1) == [entry]
        store.close()


def test_each_promise_is_written_twice_under_a_higher_generation(tmp_path: Path):
    store = open_store(tmp_path)
    for number in (1, 2, 2, 3):
        store.commit([Batch([StoredWrite(Epoch(number, "n2"))])])
    store.close()
    rows = [*rows_of(tmp_path, "meta"), *rows_of(tmp_path, "promise")]
    values = {key: value for key, value in rows if key in {b"promise", b"copy"}}
    copies = [
        layout.parse_promise("", "meta", b"promise", values[b"promise"]),
        layout.parse_promise("", "promise", b"copy", values[b"copy"]),
    ]
    assert copies == [(3, Epoch(3, "n2"))] * 2


def test_a_fresh_store_has_promised_nothing(tmp_path: Path):
    assert open_store(tmp_path).restore().promise == NO_EPOCH


def test_keys_sort_as_their_numbers_do():
    numbers = [0, 1, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**63 - 1, 2**63]
    assert sorted(map(layout.index_key, numbers)) == [*map(layout.index_key, numbers)]
    pairs = [(offset, index) for offset in numbers for index in numbers]
    keys = [layout.delivered_key(*pair) for pair in pairs]
    assert sorted(keys) == keys


# --- a commit that failed -------------------------------------------------------------------------


def assert_poisoned(store: LmdbStore, reason: str) -> None:
    for use in (
        lambda: store.commit([Batch()]),
        lambda: store.entries(1, 9, 1),
        lambda: store.delivered(0, 1),
        lambda: store.digest(1),
        store.position,
        store.restore,
    ):
        with pytest.raises(StoreFailed, match=reason):
            use()


def test_a_full_map_ends_the_store_and_a_larger_one_goes_on(tmp_path: Path):
    store = open_store(tmp_path, map_bytes_max=1 << 20)
    data, last, failure = run_entry("n1", 5, 0, [bytes(100_000)]), 0, StoreFailed()
    for index in range(1, 12):
        try:
            store.commit([append(index, [data])])
        except StoreFailed as error:
            failure = error
            break
        last = index
    assert f"map_bytes_max = {1 << 20}" in str(failure)
    assert isinstance(failure.__cause__, lmdb.MapFullError)
    assert last >= 5
    assert store.usage().file_bytes > 500_000
    assert_poisoned(store, f"map_bytes_max = {1 << 20}")
    store.close()
    store = open_store(tmp_path, map_bytes_max=2 << 20)
    assert store.restore().last_index == last
    store.commit([append(last + 1, [data])])


def test_a_map_too_small_to_format_is_refused(tmp_path: Path):
    with pytest.raises(StoreError, match="map_bytes_max = 16384"):
        open_store(tmp_path, map_bytes_max=16384)
    open_store(tmp_path).close()


@pytest.mark.parametrize("applied", [False, True])
def test_after_a_failed_sync_only_a_new_open_tells_what_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, applied: bool
):
    store = open_store(tmp_path)
    store.commit([append(1, [noop()])])
    commit = store._apply

    def fail(txn: Transaction, changes: Changes) -> None:
        if applied:
            commit(txn, changes)
            txn.commit()
        raise lmdb.DiskError("fdatasync: Input/output error")

    monkeypatch.setattr(store, "_apply", fail)
    with pytest.raises(StoreFailed, match="Input/output error"):
        store.commit([append(2, [noop()])])
    monkeypatch.undo()
    assert_poisoned(store, "Input/output error")
    store.close()
    assert open_store(tmp_path).restore().last_index == 1 + applied


def test_an_interrupt_inside_a_commit_ends_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = open_store(tmp_path)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "_apply", interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.commit([append(1, [noop()])])
    assert_poisoned(store, "interrupted")


def test_two_threads_that_commit_at_once_end_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = open_store(tmp_path)
    inside, go_on = threading.Event(), threading.Event()
    apply = store._apply

    def wait(txn: Transaction, changes: Changes) -> None:
        inside.set()
        assert go_on.wait(10)
        apply(txn, changes)

    monkeypatch.setattr(store, "_apply", wait)
    first = threading.Thread(target=store.commit, args=([append(1, [noop()])],))
    first.start()
    assert inside.wait(10)
    try:
        with pytest.raises(InvariantBroken, match="two threads"):
            store.commit([append(1, [noop()])])
    finally:
        go_on.set()
        first.join()
    assert_poisoned(store, "two threads")


def test_lmdb_syncs_data_and_meta_pages_before_a_commit_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen: dict[str, object] = {}
    opener = lmdb.open

    def watch(*arguments: object, **options: object) -> lmdb.Environment:
        seen.update(options)
        return opener(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(lmdb, "open", watch)
    store = open_store(tmp_path)
    flags = store._environment.flags()
    assert (flags["sync"], flags["metasync"], flags["writemap"]) == (True, True, False)
    assert store._environment.lib_version()[:2] == (0, 9)
    assert seen["lib_version"] == 0


# --- the memory store's failures ------------------------------------------------------------------


@pytest.mark.parametrize(("failing", "kept"), [("before", 0), ("after", 1)])
def test_a_memory_disk_fails_once_before_or_after_it_applied(failing: str, kept: int):
    disk = MemoryDisk(b"s" * 16)
    store = memory_store(disk)
    disk.failing = failing  # type: ignore[assignment]
    with pytest.raises(StoreFailed, match=failing):
        store.commit([append(1, [noop()])])
    with pytest.raises(StoreFailed):
        store.position()
    store = memory_store(disk)
    assert store.restore().last_index == kept
    store.commit([append(kept + 1, [noop()])])


def test_a_memory_disk_opened_again_ends_the_life_before():
    disk = MemoryDisk(b"s" * 16)
    before = memory_store(disk)
    after = memory_store(disk)
    assert after.restore().identity.life == before._identity.life + 1
    with pytest.raises(StoreFailed, match="later life"):
        before.commit([append(1, [noop()])])
    assert after.restore().last_index == 0
    assert after.usage().live_bytes == 0


def test_a_memory_store_uses_the_bytes_of_its_entries():
    store = memory_store(MemoryDisk(b"s" * 16))
    small, large = noop(), run_entry("n1", 5, 0, [bytes(5000)])
    store.commit([append(1, [small, large, large])])
    store.commit([append(2, [large, small], truncate_from=2)])
    assert store.usage().live_bytes == 2 * len(small) + len(large)
    store.commit([append(2, [small]), append(6, [large, large])])
    assert store.usage().live_bytes == 3 * len(small) + 2 * len(large)
    store.commit([append(6, [], truncate_from=6)])
    assert store.usage().live_bytes == 3 * len(small)


def test_a_memory_disk_of_another_node_is_refused():
    disk = MemoryDisk(b"s" * 16)
    memory_store(disk)
    with pytest.raises(StoreError, match="n2"):
        memory_store(disk, node="n2")
