"""A log that grows, is compacted and is replaced when a test says so: a store in memory and what
reads it, without a node."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

from replog.applier import Applier
from replog.entry import NO_EPOCH, Kind, Run, make_entry, pack_run, parse_entry
from replog.keeping import Keeping
from replog.machine import Machine, Record
from replog.pending import Pending, resolve
from replog.reading import DeliveredLog
from replog.recent import Recent
from replog.retention import SnapshotEvery
from replog.snapshot import Snapshot, StateDigest, cut_into_pieces
from replog.store.interface import (
    Batch,
    Position,
    StoredPiece,
    StoredSnapshot,
    StoredWrite,
)
from replog.store.memory import MemoryDisk, MemoryStore
from tests.store.author import MEMBERSHIP, append, deliver, noop, run_entry

SECONDS = 20.0


def settled(value: object = None) -> Pending[object]:
    pending: Pending[object] = Pending()
    resolve(pending, value)
    return pending


class StandIn:
    """Node n1 of three, as its application sees it."""

    def __init__(self) -> None:
        self.store = MemoryStore(
            MemoryDisk(bytes(16)),
            node="n1",
            cluster_id=bytes(16),
            agreement="raft",
            membership=MEMBERSHIP,
            unix_ms=1000,
        )
        self.recent = Recent(0)
        self.log = DeliveredLog(self.store, self.recent, lambda: None)
        self.dropped: list[int] = []
        self.sequences: dict[str, int] = {}
        self.keeping = Keeping(self.store, self.stage, self.seal, self.drop, MEMBERSHIP)

    # -- what the log does ---------------------------------------------------------------------

    def grow(self, records: Sequence[bytes] = (), node: str = "n2", life: int = 3) -> range:
        """One more entry is delivered and written down, without records a no-op; their offsets."""
        if not records:
            return self.grow_by(noop())
        first = self.sequences.get(node, 0)
        self.sequences[node] = first + len(records)
        return self.grow_by(run_entry(node, life, first, list(records)))

    def grow_by(self, data: bytes) -> range:
        before = self.store.position()
        self.store.commit([append(before.index + 1, [data])])
        batch, after = deliver(before, [data])
        self.store.commit([batch])
        self.recent.add([(batch.delivered[0], parse_entry(data))])
        self.recent.drop(after.index)
        return range(before.offset, after.offset)

    def compact(self, index: int) -> None:
        """Drop everything up to here; a header stands for it when there is no snapshot."""
        if self.store.snapshot() is None:
            self.seal_header()
        self.recent.begin_at(self.store.offset_behind(index))
        self.store.commit([Batch(compact_to=index)])

    def seal_header(self) -> None:
        position = self.store.position()
        digest = StateDigest().value()
        snapshot = Snapshot(position, NO_EPOCH, MEMBERSHIP, 0, 0, digest)
        self.store.commit([Batch(sealed=StoredSnapshot(position.index << 1, snapshot))])

    def install(self, position: Position, state: Iterable[bytes]) -> None:
        """A snapshot of another node takes the place of the log."""
        self.store.commit([self.received(position, state)])
        self.recent.install(position)

    def received(self, position: Position, state: Iterable[bytes]) -> Batch:
        digest = StateDigest()
        snapshot_id = position.index << 1 | 1
        for piece in cut_into_pieces(state):
            digest.add(piece)
            self.store.commit([Batch(pieces=[StoredPiece(snapshot_id, digest.pieces, piece)])])
        snapshot = Snapshot(
            position, NO_EPOCH, MEMBERSHIP, digest.pieces, digest.size, digest.value()
        )
        return Batch([StoredWrite(install=StoredSnapshot(snapshot_id, snapshot))])

    # -- what its node offers ------------------------------------------------------------------

    def stage(self, piece: StoredPiece) -> Pending[None]:
        self.store.commit([Batch(pieces=[piece])])
        return settled()  # type: ignore[return-value]

    def seal(self, stored: StoredSnapshot) -> Pending[Snapshot]:
        self.store.commit([Batch(sealed=stored)])
        return settled(stored.snapshot)  # type: ignore[return-value]

    def drop(self, snapshot_id: int) -> None:
        self.dropped.append(snapshot_id)
        self.store.commit([Batch(dropped_snapshots=[snapshot_id])])

    def feed(self, machine: Machine, every: SnapshotEvery | None = None) -> Applier:
        begun: Pending[None] = Pending()
        resolve(begun, None)
        applier = Applier("n1", machine, self.log, keeping=self.keeping, every=every, begun=begun)
        applier.start()
        return applier


def two_runs(runs: Sequence[tuple[str, int, int, Sequence[bytes]]]) -> bytes:
    """An entry of several runs: (node, life, first sequence, records)."""
    bodies = [pack_run(list(records)) for *_, records in runs]
    rows = [
        Run(node, life, first, len(records), len(body))
        for (node, life, first, records), body in zip(runs, bodies, strict=True)
    ]
    return make_entry(Kind.RECORDS, rows, bodies, timestamp_ms=6000).data


class Tape:
    """A machine that remembers its records, and can be held and broken."""

    def __init__(self) -> None:
        self.data: list[bytes] = []
        self.taken: list[Record] = []
        """Those that came by `apply`."""
        self.restored = 0
        self.may_apply = threading.Event()
        self.may_apply.set()
        self.applying = threading.Event()
        self.before_snapshot: Callable[[], object] = lambda: None
        self.before_restore: Callable[[], object] = lambda: None

    def apply(self, records: Sequence[Record]) -> Sequence[int]:
        self.applying.set()
        self.may_apply.wait(SECONDS)
        self.taken += records
        answers = []
        for record in records:
            self.data.append(record.data)
            answers.append(len(self.data))
        return answers

    def snapshot(self) -> Iterable[bytes]:
        self.before_snapshot()
        for data in list(self.data):
            yield data + b"\n"

    def restore(self, pieces: Iterable[bytes]) -> None:
        self.before_restore()
        self.data = b"".join(pieces).splitlines()
        self.restored += 1

    def digest(self) -> bytes:
        return b"\n".join(self.data)
