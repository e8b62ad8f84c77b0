"""Both stores against a model of dictionaries, under any sequence of operations and reopenings."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from replog.entry import NO_EPOCH, Epoch
from replog.membership import cluster_id
from replog.store.interface import Batch, Delivered, Peer, Store, StoredEntry, StoredWrite
from replog.store.memory import MemoryDisk, MemoryStore
from replog.store.rules import EMPTY
from tests.store.author import MEMBERSHIP, deliver, noop, open_store, run_entry

EPOCHS = [Epoch(1, "n1"), Epoch(2, "n1"), Epoch(2, "n2"), Epoch(300, "n3")]
SIZES = [0, 1, 10, 100, 3000, 9000]


class StoreMachine(RuleBasedStateMachine):
    """What the store must hold, kept in the plainest form; subclasses say which store."""

    def open(self) -> Store:
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

    def new_entry(self, size: int) -> bytes:
        """An entry of records; without any for size 0, one that delivery skips for size 1."""
        if size == 0:
            return noop()
        count = 1 + size % 3
        first = self.sequence if size > 1 else self.sequence + 7
        self.sequence += count if size > 1 else 0
        return run_entry("n1", 5, first, [bytes(size)] * count)

    @rule(
        back=st.sampled_from([0, 0, 1, 2, 5]),
        sizes=st.lists(st.sampled_from(SIZES), min_size=1, max_size=5),
        epoch=st.sampled_from(EPOCHS),
        promised=st.booleans(),
    )
    def write(self, back: int, sizes: list[int], epoch: Epoch, promised: bool) -> None:
        """Queue a batch that drops up to `back` undelivered entries and appends others."""
        first = max(self.position.index, len(self.log) - back) + 1
        truncate_from = first if back else None
        if not back:
            first = len(self.log) + 1
        for index in range(first, len(self.log) + 1):
            del self.log[index]
        entries = []
        for index, size in enumerate(sizes, start=first):
            data = self.new_entry(size)
            self.log[index] = (epoch, data)
            entries.append(StoredEntry(index, epoch, data))
        promise = epoch if promised and epoch.number >= self.promise.number else None
        self.promise = promise or self.promise
        self.queue.append(Batch([StoredWrite(promise, truncate_from, entries)]))

    @rule(count=st.integers(0, 4), sizes=st.lists(st.sampled_from(SIZES), min_size=1, max_size=3))
    def deliver(self, count: int, sizes: list[int]) -> None:
        """Queue a batch that delivers some entries, behind one that appends some."""
        self.write(back=0, sizes=sizes, epoch=EPOCHS[0], promised=False)
        first = self.position.index + 1
        last = min(len(self.log), self.position.index + count)
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
        self.store = self.open()
        restored = self.store.restore()
        assert restored.identity.life > self.life
        self.life = restored.identity.life
        runs = [
            (index, epoch)
            for index, (epoch, _) in self.log.items()
            if index == 1 or self.log[index - 1][0] != epoch
        ]
        assert restored.epochs == tuple(runs)
        assert restored[1:4] == (MEMBERSHIP, self.introduced, self.promise)
        assert restored[5:] == (1, len(self.log), self.position, self.peers)

    @rule(bytes_max=st.sampled_from([0, 1000, 10_000, 1 << 20]))
    def read(self, bytes_max: int) -> None:
        """Compare every range of entries, every offset and every digest."""
        self.commit()
        for first in range(1, len(self.log) + 2):
            for last in (first, first + 3, len(self.log)):
                expected = self.expected_entries(first, last, bytes_max)
                assert self.store.entries(first, last, bytes_max) == expected
        for offset in range(self.position.offset + 2):
            expected_rows = self.expected_rows(offset, bytes_max)
            assert self.store.delivered(offset, bytes_max) == expected_rows
        for index in range(len(self.log) + 2):
            row = self.rows.get(index)
            assert self.store.digest(index) == (row.digest if row else None)

    def expected_entries(self, first: int, last: int, bytes_max: int) -> list[StoredEntry]:
        expected: list[StoredEntry] = []
        size = 0
        for index in range(first, min(last, len(self.log)) + 1):
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


SETTINGS = settings(
    max_examples=100,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestOnDisk = OnDisk.TestCase
TestOnDisk.settings = settings(SETTINGS, max_examples=30)
TestInMemory = InMemory.TestCase
TestInMemory.settings = SETTINGS
