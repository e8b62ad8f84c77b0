"""Damaged pieces, headers and bases: each fault is found and named."""

from __future__ import annotations

from pathlib import Path

import pytest

from replog.entry import Epoch
from replog.errors import Corruption
from replog.producers import ProducerRow
from replog.snapshot import Base
from replog.store import layout
from replog.store.interface import Batch, Delivered, StoredEntry, StoredPiece, StoredSnapshot
from replog.store.verify import verify_directory
from tests.store.author import (
    fill,
    flipped,
    noop,
    open_store,
    put,
    rows_of,
    snapshot_at,
    stage,
    taken,
)

Rows = list[tuple[str, bytes, bytes | None]]
"""(table, key, value) to be put; None deletes."""


def log_row(index: int, epoch: Epoch) -> tuple[str, bytes, bytes | None]:
    return "log", *layout.pack_log_row(StoredEntry(index, epoch, noop()))


def epoch_row(first_index: int, epoch: Epoch) -> tuple[str, bytes, bytes | None]:
    return "epochs", *layout.pack_epoch((first_index, epoch))


@pytest.fixture
def compacted(tmp_path: Path) -> Path:
    """A closed store: the sample compacted to 4, with a snapshot of entry 6 in three pieces."""
    store = open_store(tmp_path)
    fill(store)
    pieces = [b"one", b"two", b"three"]
    store.commit([stage(12, pieces)])
    store.commit([Batch(sealed=taken(6, pieces), compact_to=4)])
    store.close()
    assert verify_directory(tmp_path).faults == ()
    return tmp_path


@pytest.mark.parametrize("number", [1, 3])
def test_a_whole_snapshot_without_its_first_or_last_piece_stops_the_open(
    compacted: Path, number: int
):
    put(compacted, "snapshots", layout.piece_key(12, number), None)
    where = f"table snapshots, key snapshot 12, piece {number}: is missing"
    with pytest.raises(Corruption, match=where):
        open_store(compacted)
    assert [fault for fault in verify_directory(compacted).faults if where in fault]


def test_a_damaged_piece_is_not_served_and_its_neighbours_are(compacted: Path):
    key = layout.piece_key(12, 2)
    put(compacted, "snapshots", key, flipped(dict(rows_of(compacted, "snapshots"))[key], 40))
    where = "table snapshots, key snapshot 12, piece 2: does not match its checksum"
    store = open_store(compacted)
    assert [store.piece(12, number) for number in (1, 3)] == [b"one", b"three"]
    with pytest.raises(Corruption, match=where):
        store.piece(12, 2)
    store.close()
    (fault,) = verify_directory(compacted).faults
    assert where in fault


def piece_row(number: int, data: bytes) -> tuple[str, bytes, bytes | None]:
    return "snapshots", *layout.pack_piece(StoredPiece(12, number, data))


def header_row(snapshot: StoredSnapshot) -> tuple[str, bytes, bytes | None]:
    return "snapshots", *layout.pack_snapshot(snapshot._replace(snapshot_id=12))


def base_row(base: Base) -> tuple[str, bytes, bytes | None]:
    return "meta", b"base", layout.pack_base(base)


# What the verification finds where each value is whole and they do not fit together.
UNFIT: dict[str, tuple[Rows, str]] = {
    "a piece gone": (
        [("snapshots", layout.piece_key(12, 2), None)],
        "key snapshot 12, piece 2: is missing",
    ),
    "another piece": ([piece_row(2, b"tow")], "key snapshot 12, header: is not that of its pieces"),
    "a piece too many": ([piece_row(4, b"")], "key snapshot 12, header: is not that of its pieces"),
    "an epoch below the base": (
        [epoch_row(2, Epoch(2, "n2"))],
        "table epochs, key 2: begins the epochs, but the log begins at 5",
    ),
    "an entry below the base": ([log_row(4, Epoch(2, "n2"))], "table log holds 6 rows"),
    "a row below the base": (
        [("delivered", *layout.pack_delivered(Delivered(4, 302, 0, (), 1, b"d" * 16)))],
        "table delivered holds 4 rows",
    ),
    "another base": ([base_row(taken(3).snapshot.base)], "table delivered holds 3 rows"),
    "a base of another digest": (
        [base_row(taken(4).snapshot.base._replace(digest=b"?" * 16))],
        "table delivered, index 5: is Delivered",
    ),
    "a base of another offset": (
        [base_row(taken(4).snapshot.base._replace(offset=301))],
        "table delivered, index 5: is Delivered",
    ),
    "a base beyond the snapshot": (
        [base_row(taken(7).snapshot.base)],
        "table snapshots, key snapshot 12, header: is Base",
    ),
    "a base without a snapshot": (
        [("snapshots", layout.piece_key(12, number), None) for number in range(4)],
        "table snapshots, key header: is missing",
    ),
    "a snapshot beyond the position": (
        [header_row(taken(8, [b"one", b"two", b"three"]))],
        "table meta, key position: is Base",
    ),
    "a snapshot of other producers": (
        [
            header_row(
                StoredSnapshot(
                    12,
                    snapshot_at(
                        taken(6).snapshot.position._replace(producers={"n1": ProducerRow(7, 9)}),
                        Epoch(4, "n1"),
                        [b"one", b"two", b"three"],
                    ),
                )
            )
        ],
        "table meta, key position",
    ),
    "a snapshot of another digest": (
        [
            header_row(
                StoredSnapshot(
                    12,
                    snapshot_at(
                        taken(6).snapshot.position._replace(digest=b"?" * 16),
                        Epoch(4, "n1"),
                        [b"one", b"two", b"three"],
                    ),
                )
            )
        ],
        "table snapshots, key snapshot 12, header: is of Position",
    ),
}
SEEN_AT_OPEN = {
    "an epoch below the base",
    "an entry below the base",
    "a row below the base",
    "another base",
    "a base of another offset",
    "a base beyond the snapshot",
    "a base without a snapshot",
    "a snapshot beyond the position",
}


@pytest.mark.parametrize("name", UNFIT)
def test_values_that_do_not_fit_the_base_or_the_snapshot_are_found(compacted: Path, name: str):
    rows, found = UNFIT[name]
    for row in rows:
        put(compacted, *row)
    faults = verify_directory(compacted).faults
    assert [fault for fault in faults if found in fault], faults
    if name in SEEN_AT_OPEN:
        with pytest.raises(Corruption):
            open_store(compacted)
    else:
        open_store(compacted).close()
