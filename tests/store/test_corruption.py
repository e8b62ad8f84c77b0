"""Damaged values: every bit of each counts, and no damage is served or repaired by guessing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from replog.entry import NO_EPOCH, Epoch
from replog.errors import Corruption, StoreFailed
from replog.store import layout
from replog.store.interface import (
    Batch,
    Peer,
    StoredEntry,
    StoredWrite,
)
from replog.store.lmdb import open_reader
from replog.store.verify import verify_directory
from tests.store.author import (
    append,
    compact,
    fill,
    fill_with_gaps,
    flipped,
    noop,
    open_store,
    put,
    rows_of,
)

SINGLE = [b"format", b"identity", b"eras", b"life", b"introduced", b"position", b"base"]
"""The values of which there is one copy."""


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A closed store that holds the sample, two peers, a snapshot and two named readers."""
    store = open_store(tmp_path)
    fill(store)
    store.commit([Batch(peers={"n2": Peer(b"2" * 16, 5), "n3": Peer(b"3" * 16, 6)})])
    compact(store, compact_to=0)
    store.commit([Batch(readers={"billing": 3, "søk": 0})])
    store.close()
    return tmp_path


def value_of(path: Path, table: str, key: bytes) -> bytes:
    return dict(rows_of(path, table))[key]


# --- every bit, without the disk ------------------------------------------------------------------


def parsers() -> dict[str, Callable[[bytes, bytes], object]]:
    def of(parse: Callable[..., object]) -> Callable[[bytes, bytes], object]:
        return lambda key, value: parse("file", key, value)

    def meta(key: bytes, value: bytes) -> object:
        named = {
            b"format": layout.parse_format,
            b"identity": layout.parse_identity,
            b"eras": layout.parse_eras,
            b"life": layout.parse_life,
            b"introduced": layout.parse_introduced,
            b"position": layout.parse_position,
            b"base": layout.parse_base,
        }
        if key == b"promise":
            return layout.parse_promise("file", "meta", key, value)
        return named[key]("file", value)

    def snapshots(key: bytes, value: bytes) -> object:
        header = key[8:] == bytes(4)
        return (layout.parse_snapshot if header else layout.parse_piece)("file", key, value)

    return {
        "meta": meta,
        "promise": lambda key, value: layout.parse_promise("file", "promise", key, value),
        "log": of(layout.parse_log_row),
        "epochs": of(layout.parse_epoch),
        "delivered": of(layout.parse_delivered),
        "peers": of(layout.parse_peer),
        "snapshots": snapshots,
        "readers": of(layout.parse_reader),
    }


@pytest.mark.parametrize("table", layout.TABLES)
def test_every_flipped_bit_of_every_value_is_found(filled: Path, table: str):
    parse = parsers()[table]
    rows = rows_of(filled, table)
    assert rows
    for key, value in rows:
        parse(key, value)
        step = 1 if len(value) < 200 else 97
        for bit in range(0, 8 * len(value), step):
            with pytest.raises(Corruption, match=f"file: table {table}, key "):
                parse(key, flipped(value, bit))


@pytest.mark.parametrize("table", layout.TABLES)
def test_a_value_cut_short_or_under_another_key_is_found(filled: Path, table: str):
    parse = parsers()[table]
    rows = rows_of(filled, table)
    for key, value in rows:
        for length in range(min(len(value), 40)):
            with pytest.raises(Corruption):
                parse(key, value[:length])
        with pytest.raises(Corruption):
            parse(key, value + b"\0")
        for other, _ in rows:
            if other != key:
                with pytest.raises(Corruption):
                    parse(other, value)


def test_the_copies_of_the_promise_cannot_stand_for_each_other(filled: Path):
    value = value_of(filled, "meta", b"promise")
    with pytest.raises(Corruption):
        layout.parse_promise("file", "promise", b"copy", value)


# --- the promise ----------------------------------------------------------------------------------

COPIES = [("meta", b"promise"), ("promise", b"copy")]


@pytest.mark.parametrize(("table", "key"), COPIES, ids=["meta", "promise"])
@pytest.mark.parametrize("damage", ["flipped", "missing"])
def test_one_damaged_copy_of_the_promise_is_served_and_mended_by_the_other(
    filled: Path, table: str, key: bytes, damage: str
):
    value = value_of(filled, table, key)
    put(filled, table, key, flipped(value, 60) if damage == "flipped" else None)
    assert [fault for fault in verify_directory(filled).faults if f"table {table}," in fault]
    store = open_store(filled)
    assert store.restore().promise == Epoch(5, "n3")
    store.close()
    assert value_of(filled, table, key) == value
    assert verify_directory(filled).faults == ()


@pytest.mark.parametrize(("table", "key"), COPIES, ids=["meta", "promise"])
def test_of_two_whole_copies_the_newer_counts(filled: Path, table: str, key: bytes):
    old = value_of(filled, table, key)
    store = open_store(filled)
    store.commit([Batch([StoredWrite(Epoch(8, "n2"))])])
    store.close()
    put(filled, table, key, old)
    store = open_store(filled)
    assert store.restore().promise == Epoch(8, "n2")
    store.commit([Batch([StoredWrite(Epoch(9, "n2"))])])
    store.close()
    assert open_store(filled).restore().promise == Epoch(9, "n2")


def test_without_a_whole_copy_of_the_promise_the_node_does_not_open(filled: Path):
    for table, key in COPIES:
        put(filled, table, key, flipped(value_of(filled, table, key), 60))
    with pytest.raises(Corruption, match=r"table meta, key promise.*table promise, key copy.*vote"):
        open_store(filled)


# --- the other tables -----------------------------------------------------------------------------


@pytest.mark.parametrize("key", SINGLE, ids=[key.decode() for key in SINGLE])
@pytest.mark.parametrize("damage", ["flipped", "missing"])
def test_a_damaged_value_of_meta_stops_the_open(filled: Path, key: bytes, damage: str):
    value = value_of(filled, "meta", key)
    put(filled, "meta", key, flipped(value, 35) if damage == "flipped" else None)
    with pytest.raises(Corruption, match=f"table meta, key {key.decode()}"):
        open_store(filled)
    assert [fault for fault in verify_directory(filled).faults if key.decode() in fault]


@pytest.mark.parametrize("place", [0, 40, 170_000 - 1], ids=["row", "header", "body"])
def test_a_damaged_entry_is_not_served_and_its_neighbours_are(filled: Path, place: int):
    key = layout.index_key(7)
    value = value_of(filled, "log", key)
    put(filled, "log", key, flipped(value, min(place, 8 * len(value) - 1)))
    store = open_store(filled)
    assert [entry.index for entry in store.entries(1, 6, 1 << 20)] == [1, 2, 3, 4, 5, 6]
    assert [entry.index for entry in store.entries(8, 9, 1 << 20)] == [8, 9]
    where = r"data\.mdb: table log, key 7: "
    for read in (
        lambda: store.entries(7, 7, 1),
        lambda: store.entries(1, 9, 1 << 20),
        lambda: store.delivered(302, 1 << 20),
    ):
        with pytest.raises(Corruption, match=where):
            read()
    assert store.delivered(0, 1)
    store.close()
    faults = verify_directory(filled).faults
    assert len(faults) == 2
    assert "table log, key 7: " in faults[0]
    assert "from entry 7 on could not be checked" in faults[1]


def test_a_damaged_row_of_delivered_is_not_served(filled: Path):
    (key,) = [key for key, _ in rows_of(filled, "delivered") if key[8:] == layout.index_key(3)]
    put(filled, "delivered", key, flipped(value_of(filled, "delivered", key), 50))
    store = open_store(filled)
    where = "table delivered, key offset 2, index 3: "
    for read in (
        lambda: store.delivered(100, 1),
        lambda: store.delivered(0, 1 << 20),
        lambda: store.digest(3),
    ):
        with pytest.raises(Corruption, match=where):
            read()
    assert store.digest(4) is not None
    assert store.delivered(302, 1)
    store.close()
    (fault,) = verify_directory(filled).faults
    assert where in fault


def test_a_damaged_position_is_not_served_to_readers_either(filled: Path):
    store = open_store(filled)
    with store._environment.begin(write=True) as txn:
        txn.put(b"position", b"\0" * 60, db=store.tables["meta"])
    with pytest.raises(Corruption, match="table meta, key position"):
        store.position()


@pytest.mark.parametrize(
    ("table", "key", "name"),
    [
        ("epochs", layout.index_key(5), "5"),
        ("peers", b"n3", "n3"),
        ("readers", b"billing", "billing"),
        ("snapshots", layout.piece_key(12, 0), "snapshot 12, header"),
    ],
    ids=["epochs", "peers", "readers", "snapshots"],
)
def test_a_damaged_row_that_every_open_reads_stops_the_open(
    filled: Path, table: str, key: bytes, name: str
):
    value = value_of(filled, table, key)
    put(filled, table, key, flipped(value, min(40, 8 * len(value) - 1)))
    where = f"table {table}, key {name}: "
    with pytest.raises(Corruption, match=where):
        open_store(filled)
    (fault,) = verify_directory(filled).faults
    assert where in fault


@pytest.mark.parametrize(
    ("table", "keys", "found"),
    [
        ("log", [layout.index_key(4)], "table log"),
        ("log", [layout.index_key(1)], "table log"),
        ("log", [layout.index_key(index) for index in (7, 8, 9)], "ends the log"),
        ("epochs", [layout.index_key(1)], "table epochs"),
        ("epochs", [layout.index_key(1), layout.index_key(5)], "table epochs"),
        ("delivered", [layout.delivered_key(2, 3)], "table delivered"),
        ("delivered", [layout.delivered_key(302, 7)], "table delivered"),
    ],
    ids=["hole", "first", "delivered tail", "first epoch", "epochs", "row", "last row"],
)
def test_rows_that_are_gone_stop_the_open(filled: Path, table: str, keys: list[bytes], found: str):
    for key in keys:
        put(filled, table, key, None)
    with pytest.raises(Corruption, match=found):
        open_store(filled)
    assert verify_directory(filled).faults


Rows = list[tuple[str, bytes, bytes | None]]
"""(table, key, value) to be put; None deletes."""


def log_row(index: int, epoch: Epoch) -> tuple[str, bytes, bytes | None]:
    return "log", *layout.pack_log_row(StoredEntry(index, epoch, noop()))


def epoch_row(first_index: int, epoch: Epoch) -> tuple[str, bytes, bytes | None]:
    return "epochs", *layout.pack_epoch((first_index, epoch))


def gone(table: str, index: int) -> tuple[str, bytes, bytes | None]:
    return table, layout.index_key(index), None


# In a log with the runs (1, (2, n2)), (5, (4, n1)), (10, gap), (12, (6, n2)), (14, gap),
# (15, (7, n1)), delivered to 7: what is changed, and what the open and the verification say.
DISAGREEING: dict[str, tuple[Rows, str, str]] = {
    "an entry gone": ([gone("log", 12)], "table log", "table log, key 12: is missing"),
    "an entry gone before a gap": ([gone("log", 9)], "table log", "table log, key 9: is missing"),
    "a delivered entry gone and one in a gap": (
        [gone("log", 6), log_row(11, Epoch(6, "n2"))],
        "table log, key 11: ",
        "table log, key 6: is missing",
    ),
    "an entry in a gap": (
        [log_row(14, Epoch(6, "n2"))],
        "table log",
        "table log, key 14: lies in a gap",
    ),
    "an entry moved into a gap": (
        [gone("log", 12), log_row(11, Epoch(6, "n2"))],
        "table log, key 11: ",
        "table log, key 11: lies in a gap",
    ),
    "an entry of another epoch": (
        [log_row(13, Epoch(7, "n1"))],
        "table log, key 13: ",
        "table log, key 13: has Epoch",
    ),
    "an entry behind the last": (
        [log_row(16, Epoch(6, "n2"))],
        "table log",
        "table log, key 16: has Epoch",
    ),
    "an entry before the first": (
        [log_row(0, Epoch(2, "n2"))],
        "table log",
        "table log holds 13 rows",
    ),
    "an entry before the first and one gone": (
        [log_row(0, Epoch(2, "n2")), gone("log", 3)],
        "table log",
        "table log, key 3: is missing",
    ),
    "a gap lost from the epochs": (
        [gone("epochs", 10)],
        "table log",
        "table log, key 10: is missing",
    ),
    "the end of a gap lost": (
        [gone("epochs", 15)],
        "table epochs",
        "table log, key 15: lies in a gap",
    ),
    "a gap that begins too late": (
        [gone("epochs", 10), epoch_row(11, NO_EPOCH)],
        "table log",
        "table log, key 10: is missing",
    ),
    "a gap in what is delivered": (
        [epoch_row(7, NO_EPOCH), epoch_row(8, Epoch(4, "n1"))],
        "table epochs",
        "table epochs, key 7: is a gap, but entries to 7",
    ),
    "a gap that ends the log": (
        [epoch_row(16, NO_EPOCH)],
        "table epochs",
        "table epochs, key 16: begins no new epoch",
    ),
    "a run behind the last entry": (
        [epoch_row(16, Epoch(8, "n1"))],
        "table epochs",
        "table epochs, key 16: begins no new epoch",
    ),
    "a run that differs in nothing": (
        [epoch_row(13, Epoch(6, "n2"))],
        "table epochs",
        "table epochs, key 13: begins no new epoch",
    ),
    "a gap followed by a gap": (
        [epoch_row(11, NO_EPOCH)],
        "table epochs",
        "table epochs, key 11: begins no new epoch",
    ),
}


@pytest.mark.parametrize("name", DISAGREEING)
def test_a_log_that_disagrees_with_its_epochs_stops_the_open(tmp_path: Path, name: str):
    store = open_store(tmp_path)
    fill_with_gaps(store)
    store.close()
    rows, refusal, fault = DISAGREEING[name]
    for row in rows:
        put(tmp_path, *row)
    with pytest.raises(Corruption, match=refusal):
        open_store(tmp_path)
    faults = verify_directory(tmp_path).faults
    assert [found for found in faults if fault in found], faults


def test_epochs_of_an_empty_log_stop_the_open(tmp_path: Path):
    open_store(tmp_path).close()
    put(tmp_path, *epoch_row(1, Epoch(1, "n1")))
    with pytest.raises(Corruption, match="table epochs"):
        open_store(tmp_path)
    (fault,) = verify_directory(tmp_path).faults
    assert "table epochs, key 1: begins no new epoch" in fault


def test_without_that_disagreement_the_store_is_whole(tmp_path: Path):
    """Else the test above would show nothing."""
    store = open_store(tmp_path)
    fill_with_gaps(store)
    store.close()
    for index in (12, 13):
        put(tmp_path, *log_row(index, Epoch(6, "n2")))
    assert verify_directory(tmp_path).faults == ()
    open_store(tmp_path).close()


@pytest.mark.parametrize("place", [0, 20, -1], ids=["row", "header", "body"])
def test_a_damaged_entry_of_the_tail_stops_the_open(tmp_path: Path, place: int):
    store = open_store(tmp_path)
    fill_with_gaps(store)
    store.close()
    key = layout.index_key(13)
    value = value_of(tmp_path, "log", key)
    put(tmp_path, "log", key, flipped(value, 8 * (place % len(value))))
    with pytest.raises(Corruption, match=r"data\.mdb: table log, key 13: "):
        open_store(tmp_path)
    (fault,) = verify_directory(tmp_path).faults
    assert "table log, key 13: " in fault


def test_a_damaged_run_of_epochs_hides_no_other_fault_and_makes_none_up(tmp_path: Path):
    store = open_store(tmp_path)
    fill_with_gaps(store)
    store.close()
    key = layout.index_key(10)
    put(tmp_path, "epochs", key, flipped(value_of(tmp_path, "epochs", key), 40))
    (fault,) = verify_directory(tmp_path).faults
    assert "table epochs, key 10: " in fault
    put(tmp_path, *gone("log", 6))
    faults = verify_directory(tmp_path).faults
    assert [fault for fault in faults if "table log, key 6: is missing" in fault]


def test_a_reader_of_a_log_with_holes_reads_up_to_them(filled: Path):
    for index in (4, 7):
        put(filled, "log", layout.index_key(index), None)
    reader = open_reader(filled)
    assert [entry.index for entry in reader.entries(1, 9, 1 << 20)] == [1, 2, 3]
    assert [entry.index for _, entry in reader.delivered(0, 1)] == [2]
    with pytest.raises(Corruption, match="table log, key 7: is missing, but was delivered"):
        reader.delivered(302, 1)
    reader.close()


def test_a_key_beyond_the_end_of_a_table_ends_the_commit(filled: Path):
    store = open_store(filled)
    with store._environment.begin(write=True) as txn:
        txn.put(b"\xff" * 8, b"", db=store.tables["log"])
    with pytest.raises(StoreFailed, match="beyond its end"):
        store.commit([append(10, [noop()])])
