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
from replog.store.interface import Batch, Delivered, Peer, Store, StoredEntry, StoredWrite
from replog.store.memory import MemoryDisk, MemoryStore
from replog.store.rules import EMPTY
from replog.store.verify import VerifyReport, verify_directory
from tests.store.author import MEMBERSHIP, deliver, noop, open_store, run_entry

EPOCHS = [Epoch(1, "n1"), Epoch(2, "n1"), Epoch(2, "n2"), Epoch(300, "n3")]
SIZES = [0, 1, 10, 100, 3000, 9000]


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
        return max(self.log, default=0)

    @property
    def whole_to(self) -> int:
        return next(index for index in range(self.last + 2) if index + 1 not in self.log)

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
        self.queue.append(Batch([StoredWrite(promise, first if back else None, entries)]))

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
        self.store = self.open()
        restored = self.store.restore()
        assert restored.identity.life > self.life
        self.life = restored.identity.life
        epochs = [self.log.get(index, (NO_EPOCH,))[0] for index in range(1, self.last + 1)]
        runs = [
            (index, epoch)
            for index, (before, epoch) in enumerate(pairwise([None, *epochs]), start=1)
            if epoch is not None and epoch != before
        ]
        assert restored.epochs == tuple(runs)
        assert restored[1:4] == (MEMBERSHIP, self.introduced, self.promise)
        tail = [
            StoredEntry(index, *self.log[index])
            for index in sorted(self.log)
            if index > self.position.index
        ]
        assert restored[5:] == (1, self.last, self.position, self.peers, tail)

    @rule(bytes_max=st.sampled_from([0, 1000, 10_000, 1 << 20]))
    def read(self, bytes_max: int) -> None:
        """Compare every range of entries, every offset and every digest."""
        self.commit()
        for first in range(1, self.last + 2):
            for last in (first, first + 3, self.last):
                expected = self.expected_entries(first, last, bytes_max)
                assert self.store.entries(first, last, bytes_max) == expected
        for offset in range(self.position.offset + 2):
            expected_rows = self.expected_rows(offset, bytes_max)
            assert self.store.delivered(offset, bytes_max) == expected_rows
        for index in range(self.last + 2):
            row = self.rows.get(index)
            assert self.store.digest(index) == (row.digest if row else None)

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
        delivered = (self.position.offset, self.position.index)
        expected = VerifyReport(len(self.log), *delivered, beyond, self.position.digest, ())
        assert report == expected

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
        assert self.disk.used_bytes == sum(len(data) for _, data in self.log.values())


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
