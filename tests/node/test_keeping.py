"""Keeping a state: whole or not at all, read back before it counts, in flat memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replog.errors import Closed, Corruption, ReplogError
from replog.keeping import Keeping
from replog.pending import Pending, fail_all, resolve
from replog.snapshot import PIECES_UNWRITTEN_MAX, Snapshot
from replog.store.interface import Batch, StoredPiece, StoredSnapshot
from tests.node.stand_in import StandIn, settled
from tests.store.author import MEMBERSHIP, open_store, sample
from tests.store.author import append as appended
from tests.store.author import deliver as delivered


@pytest.fixture
def node() -> StandIn:
    node = StandIn()
    node.grow([b"a", b"b"])
    return node


def small(node: StandIn, piece_bytes: int = 10, **changes: Any) -> Keeping:
    """The keeping of this node, with small pieces."""
    parts: dict[str, Any] = {"store": node.store, "stage": node.stage, "seal": node.seal} | changes
    return Keeping(**parts, drop=node.drop, membership=MEMBERSHIP, piece_bytes=piece_bytes)


@given(chunks=st.lists(st.binary(max_size=40), max_size=10))
def test_what_is_kept_comes_back(chunks: list[bytes]) -> None:
    node = StandIn()
    node.grow([b"a"])
    keeping = small(node)
    snapshot = keeping.keep(node.store.position(), chunks)
    stored = keeping.newest()
    assert stored == StoredSnapshot(1 << 1, snapshot)
    assert snapshot.position == node.store.position()
    pieces = list(keeping.pieces(stored))
    assert b"".join(pieces) == b"".join(chunks)
    assert len(pieces) == snapshot.pieces == max(1, -(-snapshot.size // 10))
    assert node.dropped == []


def test_a_state_that_is_kept_already_is_not_drawn_again(node: StandIn) -> None:
    kept = node.keeping.keep(node.store.position(), [b"state"])

    def drawn() -> Iterator[bytes]:
        raise AssertionError("nobody needs this state")
        yield b""

    assert node.keeping.keep(node.store.position(), drawn()) == kept


def test_a_header_that_stands_for_as_much_is_in_the_way_and_stays(node: StandIn) -> None:
    node.seal_header()
    before = node.keeping.newest()
    with pytest.raises(ReplogError, match="without a state stands for entry 1"):
        node.keeping.keep(node.store.position(), [b"state"])
    assert node.keeping.newest() == before
    assert node.dropped == []
    node.grow([b"c"])
    assert node.keeping.keep(node.store.position(), [b"state"]).pieces == 1


def test_what_the_state_raises_drops_what_was_staged(node: StandIn) -> None:
    def drawn() -> Iterator[bytes]:
        yield bytes(35)
        raise OSError("no state")

    with pytest.raises(OSError, match="no state"):
        small(node).keep(node.store.position(), drawn())
    assert node.dropped == [2]
    assert node.keeping.newest() is None
    assert node.store.piece(2, 1) is None


@pytest.mark.parametrize("broken", [None, b"other byte", b""])
def test_a_piece_that_does_not_come_back_as_it_was_fails_the_snapshot(
    node: StandIn, monkeypatch: pytest.MonkeyPatch, broken: bytes | None
) -> None:
    piece = node.store.piece
    monkeypatch.setattr(
        node.store, "piece", lambda at, number: broken if number == 2 else piece(at, number)
    )
    with pytest.raises(Corruption, match="entry 1 is"):
        small(node).keep(node.store.position(), [bytes(35)])
    assert node.keeping.newest() is None
    assert node.dropped == [2]


def test_few_pieces_are_on_their_way_at_a_time_and_none_after_the_drop(node: StandIn) -> None:
    waiting: list[Pending[None]] = []
    seen: list[int] = []

    def stage(piece: StoredPiece) -> Pending[None]:
        node.stage(piece)
        pending: Pending[None] = Pending()
        waiting.append(pending)
        seen.append(sum(not one.done() for one in waiting))
        return pending

    def drawn() -> Iterator[bytes]:
        for number in range(8):
            # The disk is done with the oldest one just when the next is made.
            if sum(not one.done() for one in waiting) == PIECES_UNWRITTEN_MAX:
                resolve(next(one for one in waiting if not one.done()), None)
            yield bytes([number]) * 10
        for one in waiting:
            resolve(one, None)
        raise OSError("the end")

    def drop(snapshot_id: int) -> None:
        assert all(one.done() for one in waiting)
        node.drop(snapshot_id)

    keeping = Keeping(node.store, stage, node.seal, drop, MEMBERSHIP, piece_bytes=10)
    with pytest.raises(OSError, match="the end"):
        keeping.keep(node.store.position(), drawn())
    assert max(seen) == PIECES_UNWRITTEN_MAX
    assert len(seen) >= 6
    assert node.dropped == [2]


def test_a_log_that_closes_meanwhile_ends_the_snapshot_with_that(node: StandIn) -> None:
    def stage(piece: StoredPiece) -> Pending[None]:
        pending: Pending[None] = Pending()
        fail_all((pending,), Closed("the log is closed"))
        return pending

    def drop(snapshot_id: int) -> None:
        raise Closed("the log is closed")

    keeping = Keeping(node.store, stage, node.seal, drop, MEMBERSHIP)
    with pytest.raises(Closed):
        keeping.keep(node.store.position(), [b"state"])


def test_a_missing_piece_of_a_whole_snapshot_is_told(node: StandIn) -> None:
    keeping = small(node)
    keeping.keep(node.store.position(), [bytes(35)])
    stored = keeping.newest()
    assert stored is not None
    node.grow([b"c"])
    keeping.keep(node.store.position(), [bytes(35)])
    node.store.commit([Batch(dropped_snapshots=[stored.snapshot_id])])
    with pytest.raises(Corruption, match="piece 1 of 4 of the snapshot of entry 1 is missing"):
        list(keeping.pieces(stored))


def test_memory_stays_flat_however_large_the_state_is(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    data = sample()
    store.commit([appended(1, data)])
    store.commit([delivered(store.position(), data)[0]])

    def stage(piece: StoredPiece) -> Pending[None]:
        store.commit([Batch(pieces=[piece])])
        return settled()  # type: ignore[return-value]

    def seal(stored: StoredSnapshot) -> Pending[Snapshot]:
        store.commit([Batch(sealed=stored)])
        return settled(stored.snapshot)  # type: ignore[return-value]

    chunk_bytes, chunks = 100_000, 400
    keeping = Keeping(store, stage, seal, lambda _: None, MEMBERSHIP)
    tracemalloc.start()
    try:
        snapshot = keeping.keep(
            store.position(), (bytes([n % 256]) * chunk_bytes for n in range(chunks))
        )
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        store.close()
    assert snapshot.size == chunk_bytes * chunks == 40_000_000
    assert peak_bytes < 10_000_000
