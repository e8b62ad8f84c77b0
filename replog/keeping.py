"""Keeping a machine's state: cut into the pieces of a snapshot, and read back from there.

Rules of this file:

1. A snapshot is sealed only once every piece was read back from the disk and all of them make the
   digest of what was staged. What does not come to that is dropped.
2. However large a state is, a few of its pieces are in memory at a time.
3. A snapshot is kept only above the newest one, whoever took that.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from replog import failpoints
from replog.entry import NO_EPOCH
from replog.errors import Closed, Corruption, NodeStopped, ReplogError
from replog.snapshot import (
    PIECE_BYTES_MAX,
    PIECES_UNWRITTEN_MAX,
    Snapshot,
    StateDigest,
    cut_into_pieces,
    own_snapshot_id,
)
from replog.store.interface import StoredPiece, StoredSnapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from replog.membership import Membership
    from replog.pending import Pending
    from replog.store.interface import Position, Reader


def state_pieces(store: Reader, stored: StoredSnapshot) -> Iterator[bytes]:
    """The state of a whole snapshot. Raises `Corruption` when a piece is missing, because it is
    lost or because a newer snapshot has taken its place, or is not what was kept."""
    snapshot = stored.snapshot
    digest = StateDigest()
    for number in range(1, snapshot.pieces + 1):
        piece = store.piece(stored.snapshot_id, number)
        if piece is None:
            raise Corruption(
                f"piece {number} of {snapshot.pieces} of the snapshot of entry "
                f"{snapshot.index} is missing"
            )
        digest.add(piece)
        yield piece
    if not snapshot.is_made_of(digest):
        raise Corruption(f"the snapshot of entry {snapshot.index} is not what was kept")


class Keeping:
    """The snapshots of one node, for the one thread that runs its machine. Every call waits for the
    disk."""

    def __init__(
        self,
        store: Reader,
        stage: Callable[[StoredPiece], Pending[None]],
        seal: Callable[[StoredSnapshot], Pending[Snapshot]],
        drop: Callable[[int], object],
        membership: Membership,
        *,
        piece_bytes: int = PIECE_BYTES_MAX,
    ) -> None:
        """`stage` is answered once the piece is on the disk, or will not be because a newer
        snapshot has come; `seal` with the newest snapshot by then; `drop` removes what is staged
        under an id. All three raise `Closed` or `NodeStopped`."""
        self._store = store
        self._stage = stage
        self._seal = seal
        self._drop = drop
        self._membership = membership
        self._piece_bytes = piece_bytes

    def newest(self) -> StoredSnapshot | None:
        """The newest whole snapshot, with a state or without. Raises `Corruption`."""
        return self._store.snapshot()

    def pieces(self, stored: StoredSnapshot) -> Iterator[bytes]:
        """The state of a whole snapshot. Raises as `state_pieces`."""
        return state_pieces(self._store, stored)

    def keep(self, position: Position, chunks: Iterable[bytes]) -> Snapshot:
        """Keep the state at this position, which `chunks` gives. Returns the newest snapshot then.

        Takes nothing from `chunks` when a state of this index or a later one is kept already.
        Raises `ReplogError` when the newest snapshot stands for as much and has no state, whatever
        `chunks` raises, `Corruption`, and `Closed` or `NodeStopped`.
        """
        kept = self._kept_already(position)
        if kept is not None:
            return kept
        snapshot_id = own_snapshot_id(position.index)
        unwritten: deque[Pending[None]] = deque()
        try:
            state = self._stage_all(snapshot_id, chunks, unwritten)
            pieces, size, digest = state.pieces, state.size, state.value()
            snapshot = Snapshot(position, NO_EPOCH, self._membership, pieces, size, digest)
            stored = StoredSnapshot(snapshot_id, snapshot)
            failpoints.reach("snapshot: before it is read back")
            try:
                for _ in self.pieces(stored):
                    pass
            except Corruption:
                # What was received meanwhile stands for more: these pieces were not written.
                kept = self._kept_already(position)
                if kept is None:
                    raise
                self._drop(snapshot_id)
                return kept
            failpoints.reach("snapshot: before it is sealed")
            return self._seal(stored).result()
        except BaseException:
            # What is still on its way must not come after the drop. When the node has ended, its
            # next open drops what is not whole.
            for pending in unwritten:
                with suppress(Exception):
                    pending.result()
            with suppress(Closed, NodeStopped):
                self._drop(snapshot_id)
            raise

    def _kept_already(self, position: Position) -> Snapshot | None:
        newest = self.newest()
        if newest is None or newest.snapshot.index < position.index:
            return None
        if newest.snapshot.pieces:
            return newest.snapshot
        raise ReplogError(
            f"a snapshot without a state stands for entry {newest.snapshot.index} already: the "
            f"machine's can be kept once it has taken a later record"
        )

    def _stage_all(
        self, snapshot_id: int, chunks: Iterable[bytes], unwritten: deque[Pending[None]]
    ) -> StateDigest:
        state = StateDigest()
        for piece in cut_into_pieces(chunks, self._piece_bytes):
            while len(unwritten) >= PIECES_UNWRITTEN_MAX:
                unwritten.popleft().result()
            state.add(piece)
            failpoints.reach("snapshot: before a piece is staged")
            unwritten.append(self._stage(StoredPiece(snapshot_id, state.pieces, piece)))
        while unwritten:
            unwritten.popleft().result()
        return state
