"""Both stores against a model of dictionaries, under any sequence of operations and reopenings."""

from __future__ import annotations

import shutil
import tempfile
from itertools import pairwise
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from replog.entry import NO_EPOCH, Epoch
from replog.membership import cluster_id
from replog.producers import ProducerRow
from replog.snapshot import NO_BASE, Base, Position
from replog.store.interface import (
    Batch,
    Delivered,
    Peer,
    Store,
    StoredEntry,
    StoredSnapshot,
    StoredWrite,
)
from replog.store.memory import MemoryDisk, MemoryStore
from replog.store.rules import EMPTY
from replog.store.verify import VerifyReport, verify_directory
from tests.store.author import MEMBERSHIP, deliver, noop, open_store, run_entry, snapshot_at, stage

EPOCHS = [Epoch(1, "n1"), Epoch(2, "n1"), Epoch(2, "n2"), Epoch(300, "n3")]
SIZES = [0, 1, 10, 100, 3000, 9000]
STATES = [(), (b"",), (b"state",), (bytes(9000), b"and more")]
"""Pieces of snapshots."""


class StoreMachine(RuleBasedStateMachine):
    """What the store must hold, kept in the plainest form; subclasses say which store."""

    def open(self) -> Store:
        raise NotImplementedError

    def check_closed(self) -> None:
        """Whatever else can be said of what a closed store leaves behind."""
        raise NotImplementedError

    @initialize()
    def begin(self) -> None:
        self.life = 0
        self.sequence = 0
        self.promise = NO_EPOCH
        self.log: dict[int, tuple[Epoch, bytes]] = {}
        self.rows: dict[int, Delivered] = {}
        self.position = EMPTY.position
        self.peers: dict[str, Peer] = {}
        self.introduced = False
        self.base = NO_BASE
        self.newest: StoredSnapshot | None = None
        self.pieces: dict[int, tuple[bytes, ...]] = {}
        """By the ids of all snapshots that are here, whole or not."""
        self.readers: dict[str, int] = {}
        self.queue: list[Batch] = []
        self.store = self.open()

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()

    def new_entry(self, index: int, epoch: Epoch, size: int) -> StoredEntry:
        """An entry of records; without any for size 0, one that delivery skips for size 1."""
        data = noop()
        if size:
            count = 1 + size % 3
            first = self.sequence if size > 1 else self.sequence + 7
            self.sequence += count if size > 1 else 0
            data = run_entry("n1", 5, first, [bytes(size)] * count)
        self.log[index] = (epoch, data)
        return StoredEntry(index, epoch, data)

    @property
    def last(self) -> int:
        return max(self.log, default=self.base.index)

    @property
    def whole_to(self) -> int:
        behind = range(self.base.index, self.last + 2)
        return next(index for index in behind if index + 1 not in self.log)

    @rule(
        back=st.sampled_from([0, 0, 1, 2, 5]),
        sizes=st.lists(st.sampled_from(SIZES), min_size=1, max_size=5),
        epoch=st.sampled_from(EPOCHS),
        promised=st.booleans(),
    )
    def append(self, back: int, sizes: list[int], epoch: Epoch, promised: bool) -> None:
        """Queue a batch that drops up to `back` undelivered indexes and appends entries."""
        first = max(self.position.index, self.last - back) + 1
        if back:
            self.log = {index: entry for index, entry in self.log.items() if index < first}
        entries = [self.new_entry(index, epoch, size) for index, size in enumerate(sizes, first)]
        promise = epoch if promised and epoch.number >= self.promise.number else None
        self.promise = promise or self.promise
        truncate_from = first if back else None
        self.queue.append(Batch([StoredWrite(promise, truncate_from, entries=entries)]))

    @rule(
        places=st.lists(
            st.tuples(st.integers(1, 12), st.sampled_from(EPOCHS), st.sampled_from(SIZES)),
            min_size=1,
            max_size=5,
        )
    )
    def scatter(self, places: list[tuple[int, Epoch, int]]) -> None:
        """Queue a batch that writes anywhere above the position."""
        start = self.position.index
        entries = [self.new_entry(start + place, epoch, size) for place, epoch, size in places]
        self.queue.append(Batch([StoredWrite(entries=entries)]))

    @rule(place=st.integers(1, 12))
    def truncate(self, place: int) -> None:
        """Queue a batch that truncates anywhere above the position, and does nothing else."""
        first = self.position.index + place
        self.log = {index: entry for index, entry in self.log.items() if index < first}
        self.queue.append(Batch([StoredWrite(truncate_from=first)]))

    @rule(
        count=st.integers(0, 4),
        sizes=st.lists(st.sampled_from(SIZES), min_size=1, max_size=3),
        epoch=st.sampled_from(EPOCHS),
    )
    def deliver(self, count: int, sizes: list[int], epoch: Epoch) -> None:
        """Queue a batch that delivers some entries, behind one that fills the lowest gaps."""
        for size in sizes:
            self.queue.append(
                Batch([StoredWrite(entries=[self.new_entry(self.whole_to + 1, epoch, size)])])
            )
        first = self.position.index + 1
        last = min(self.whole_to, self.position.index + count)
        data = [self.log[index][1] for index in range(first, last + 1)]
        batch, self.position = deliver(self.position, data)
        self.rows |= {row.index: row for row in batch.delivered}
        self.queue.append(batch)

    @rule(node=st.sampled_from(["n2", "n3"]), life=st.integers(1, 1 << 40))
    def meet(self, node: str, life: int) -> None:
        self.peers[node] = Peer(node.encode() * 8, life)
        self.introduced |= life % 3 == 0
        self.queue.append(Batch(peers={node: self.peers[node]}, introduced=life % 3 == 0))

    @rule(state=st.sampled_from(STATES), at_once=st.booleans())
    def take(self, state: tuple[bytes, ...], at_once: bool) -> None:
        """Queue batches that keep a snapshot of what is delivered; once, for each position."""
        index = self.position.index
        if not index or (self.newest is not None and self.newest.snapshot.index == index):
            return
        epoch = self.log.get(index, (self.base.epoch,))[0]
        self.newest = StoredSnapshot(index << 1, snapshot_at(self.position, epoch, state))
        self.pieces[index << 1] = state
        staged = stage(index << 1, state)
        if at_once:
            self.queue.append(staged._replace(sealed=self.newest))
        else:
            self.queue += [staged, Batch(sealed=self.newest)]

    @rule(count=st.integers(0, 6))
    def compact(self, count: int) -> None:
        """Queue a batch that compacts some entries, as far as the newest snapshot."""
        limit = self.newest.snapshot.index if self.newest else 0
        index = min(limit, self.base.index + count)
        self.queue.append(Batch(compact_to=index))
        if index > self.base.index:
            row = self.rows[index]
            epoch, offset = self.log[index][0], row.base_offset + row.count
            self.begin_behind(Base(index, epoch, offset, row.digest, row.timestamp_ms))

    def begin_behind(self, base: Base) -> None:
        self.base = base
        self.log = {index: entry for index, entry in self.log.items() if index > base.index}
        self.rows = {index: row for index, row in self.rows.items() if index > base.index}

    @rule(
        ahead=st.integers(1, 8),
        records=st.integers(0, 5),
        state=st.sampled_from(STATES),
        truncates=st.booleans(),
        sizes=st.lists(st.sampled_from(SIZES), max_size=2),
    )
    def install(
        self,
        ahead: int,
        records: int,
        state: tuple[bytes, ...],
        truncates: bool,
        sizes: list[int],
    ) -> None:
        """Queue batches that receive and install a snapshot, with entries written behind it."""
        index, offset, _, timestamp_ms, _ = self.position
        first = index + 1
        producers = {"n1": ProducerRow(5, self.sequence)}
        self.position = Position(
            index + ahead, offset + records, bytes([ahead]) * 16, timestamp_ms + 1, producers
        )
        snapshot = snapshot_at(self.position, [NO_EPOCH, *EPOCHS][ahead % 5], state)
        self.newest = StoredSnapshot(self.position.index << 1 | 1, snapshot)
        self.pieces[self.newest.snapshot_id] = state
        if truncates:
            self.log = {at: entry for at, entry in self.log.items() if at < first}
        self.begin_behind(snapshot.base)
        entries = [
            self.new_entry(at, EPOCHS[0], size)
            for at, size in enumerate(sizes, self.position.index + 1)
        ]
        truncate_from = first if truncates else None
        install = StoredWrite(truncate_from=truncate_from, install=self.newest, entries=entries)
        self.queue += [stage(self.newest.snapshot_id, state), Batch([install])]

    @rule(place=st.integers(0, 2), state=st.sampled_from(STATES))
    def begin_to_stage(self, place: int, state: tuple[bytes, ...]) -> None:
        """Queue a batch with pieces of a snapshot that never becomes whole."""
        snapshot_id = 1 << 40 | place
        held = self.pieces.get(snapshot_id, ())
        if state:
            self.pieces[snapshot_id] = (*state, *held[len(state) :])
        self.queue.append(stage(snapshot_id, state))

    @rule(place=st.integers(0, 9))
    def drop(self, place: int) -> None:
        """Queue a batch that drops a snapshot, whole or not, but not the newest whole one."""
        newest = self.newest.snapshot_id if self.newest else None
        others = [one for one in self.pieces if one != newest]
        dropped = [*others[place : place + 2], 77]
        self.pieces = {one: held for one, held in self.pieces.items() if one not in dropped}
        self.queue.append(Batch(dropped_snapshots=dropped))

    @rule(name=st.sampled_from(["a", "billing"]), back=st.integers(0, 9), forget=st.booleans())
    def acknowledge(self, name: str, back: int, forget: bool) -> None:
        offset = None if forget else max(0, self.position.offset - back)
        self.readers.pop(name, None)
        if offset is not None:
            self.readers[name] = offset
        self.queue.append(Batch(readers={name: offset}))

    @precondition(lambda self: self.queue)
    @rule()
    def commit(self) -> None:
        self.store.commit(self.queue)
        self.queue = []

    @rule()
    def reopen(self) -> None:
        self.commit()
        self.store.close()
        self.check_closed()
        newest = self.newest.snapshot_id if self.newest else None
        self.pieces = {one: held for one, held in self.pieces.items() if one == newest}
        self.store = self.open()
        restored = self.store.restore()
        assert restored.identity.life > self.life
        self.life = restored.identity.life
        first = self.base.index + 1
        epochs = [self.log.get(index, (NO_EPOCH,))[0] for index in range(first, self.last + 1)]
        runs = [
            (index, epoch)
            for index, (before, epoch) in enumerate(pairwise([None, *epochs]), start=first)
            if epoch is not None and epoch != before
        ]
        assert restored.epochs == tuple(runs)
        assert restored[1:4] == (MEMBERSHIP, self.introduced, self.promise)
        tail = [
            StoredEntry(index, *self.log[index])
            for index in sorted(self.log)
            if index > self.position.index
        ]
        expected = (
            self.base,
            self.last,
            self.position,
            self.newest,
            self.peers,
            tail,
            self.readers,
        )
        assert restored[5:] == expected
        self.compare_kept()

    @rule(bytes_max=st.sampled_from([0, 1000, 10_000, 1 << 20]))
    def read(self, bytes_max: int) -> None:
        """Compare every range of entries, every offset and every digest."""
        self.commit()
        self.compare_kept()
        self.compare_places()
        for first in range(max(1, self.base.index - 1), self.last + 2):
            for last in (first, first + 3, self.last):
                expected = self.expected_entries(first, last, bytes_max)
                assert self.store.entries(first, last, bytes_max) == expected
        for offset in range(self.position.offset + 2):
            expected_rows = self.expected_rows(offset, bytes_max)
            assert self.store.delivered(offset, bytes_max) == expected_rows
        for index in range(self.last + 2):
            row = self.rows.get(index)
            assert self.store.digest(index) == (row.digest if row else None)

    def compare_kept(self) -> None:
        """The base, the newest snapshot, every piece of each, and the readers."""
        assert self.store.base() == self.base
        assert self.store.snapshot() == self.newest
        assert self.store.readers() == self.readers
        for snapshot_id, held in self.pieces.items():
            found = [self.store.piece(snapshot_id, number) for number in range(len(held) + 2)]
            assert found == [None, *held, None]
        newest = self.newest.snapshot_id if self.newest else 0
        for snapshot_id in {-2, 2, newest - 2, newest + 2, 1 << 40, 1 << 90} - {*self.pieces}:
            assert self.store.piece(snapshot_id, 1) is None

    def compare_places(self) -> None:
        """What offsets, indexes and times have to do with one another."""
        assert self.store.log_extent()[1] == len(self.log)
        assert (self.store.log_extent()[0] > 0) == bool(self.log)
        rows = [*self.rows.values()]
        for offset in range(-1, self.position.offset + 2):
            below = [row.index for row in rows if row.base_offset + row.count <= offset]
            assert self.store.index_below(offset) == max(below, default=self.base.index)
        assert self.store.offset_behind(self.base.index) == self.base.offset
        for row in rows:
            assert self.store.offset_behind(row.index) == row.base_offset + row.count
        times = {0, self.position.timestamp_ms, *(row.timestamp_ms for row in rows)}
        for moment in {time + near for time in times for near in (-1, 0, 1)}:
            starts = [row.base_offset for row in rows if row.count and row.timestamp_ms >= moment]
            assert self.store.offset_at(moment) == min(starts, default=self.position.offset)

    def expected_entries(self, first: int, last: int, bytes_max: int) -> list[StoredEntry]:
        expected: list[StoredEntry] = []
        size = 0
        for index in range(first, last + 1):
            if index not in self.log:
                break
            size += len(self.log[index][1])
            if expected and size > bytes_max:
                break
            expected.append(StoredEntry(index, *self.log[index]))
        return expected

    def expected_rows(self, offset: int, bytes_max: int) -> list[tuple[Delivered, StoredEntry]]:
        expected: list[tuple[Delivered, StoredEntry]] = []
        size = 0
        if offset < self.base.offset:
            return expected
        for index, row in self.rows.items():
            if not row.count or row.base_offset + row.count <= offset:
                continue
            size += len(self.log[index][1])
            if expected and size > bytes_max:
                break
            expected.append((row, StoredEntry(index, *self.log[index])))
        return expected

    @invariant()
    def position_is_the_one_last_delivered(self) -> None:
        if hasattr(self, "store") and not self.queue:
            assert self.store.position() == self.position


class OnDisk(StoreMachine):
    def __init__(self) -> None:
        super().__init__()
        self.path = Path(tempfile.mkdtemp(prefix="replog-machine-"))

    def open(self) -> Store:
        return open_store(self.path / "n1")

    def check_closed(self) -> None:
        report = verify_directory(self.path / "n1")
        beyond = len([index for index in self.log if index > self.position.index])
        assert report == VerifyReport(
            entries=len(self.log),
            records=self.position.offset - self.base.offset,
            delivered=self.position.index - self.base.index,
            beyond=beyond,
            digest=self.position.digest,
            faults=(),
            pieces=sum(map(len, self.pieces.values())),
        )

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(self.path)


class InMemory(StoreMachine):
    def __init__(self) -> None:
        super().__init__()
        self.disk = MemoryDisk(b"s" * 16)

    def open(self) -> Store:
        return MemoryStore(
            self.disk,
            node="n1",
            cluster_id=cluster_id("raft", MEMBERSHIP),
            agreement="raft",
            membership=MEMBERSHIP,
            unix_ms=1000,
        )

    def check_closed(self) -> None:
        pieces = [piece for held in self.pieces.values() for piece in held]
        entries = [data for _, data in self.log.values()]
        assert self.disk.used_bytes == sum(map(len, [*entries, *pieces]))
        for index in range(self.last + 2):
            stored = StoredEntry(index, *self.log[index]) if index in self.log else None
            assert self.disk.entry(index) == stored
            assert self.disk.row(index) == self.rows.get(index)


SETTINGS = settings(
    max_examples=300,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestOnDisk = OnDisk.TestCase
TestOnDisk.settings = settings(SETTINGS, max_examples=60)
TestInMemory = InMemory.TestCase
TestInMemory.settings = SETTINGS
