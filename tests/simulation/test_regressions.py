"""Faults that a simulated run has found, each in its smallest form."""

from __future__ import annotations

from random import Random

import pytest

from raftlog import Raft
from raftlog.messages import Heartbeat, HeartbeatReply
from replog.agreement import Restored
from replog.config import Limits
from replog.entry import Epoch
from replog.loads import carry_out
from replog.messages import ReadAnswer, ReadRequest
from replog.replica.catchup import CompactionPolicy
from replog.replica.compaction import Compaction, Needed
from replog.replica.effects import LoadDroppable
from replog.replica.loads import Loads
from replog.replica.reads import Reads
from replog.replica.replica import Replica
from replog.retention import Droppable, Retention, droppable
from replog.snapshot import NO_BASE, Position
from replog.store.interface import Batch, Delivered, StoredEntry, StoredWrite
from replog.store.memory import MemoryDisk, MemoryStore

AGREEMENT = Raft()
RESTORED = Restored(Epoch(3, ""), (), 0, 0, AGREEMENT.membership({"n1", "n2", "n3"}))


def log_of_ten() -> MemoryStore:
    """Ten delivered entries of one record each."""
    store = MemoryStore(
        MemoryDisk(b"store id"),
        node="n1",
        cluster_id=b"cluster",
        agreement="raft",
        membership=AGREEMENT.membership({"n1"}),
        unix_ms=0,
    )
    entries = [StoredEntry(index, Epoch(1, "n1"), b"entry") for index in range(1, 11)]
    rows = [Delivered(index, index - 1, 1, (0,), 0, b"digest") for index in range(1, 11)]
    writes = [StoredWrite(entries=entries)]
    store.commit([Batch(writes, rows, Position(10, 10, b"digest", 0, {}))])
    return store


def test_a_barrier_does_not_take_the_answer_to_an_earlier_life() -> None:
    """Both lives count their reads from 1; the answer to the first was under way for a second."""
    reads = Reads("n2", 8, AGREEMENT.core("n2", RESTORED, 0, Random(1)), retry_ms=200)
    reads.barrier("ticket")
    assert reads.requests(0, "n1") == [("n1", ReadRequest(8, 1))]
    reads.answered(ReadAnswer(7, 1, 5))
    assert reads.passed(5) == []
    reads.answered(ReadAnswer(8, 1, 6))
    assert reads.passed(6) == ["ticket"]


def test_a_late_heartbeat_of_a_past_term_confirms_no_read_of_this_one() -> None:
    """Rounds of reads are numbered anew in each term, and one node may lead both."""
    core = AGREEMENT.core("n2", RESTORED, 0, Random(1))
    core.receive(0, "n1", Heartbeat(2, 0, 5), ())
    assert [send.message for send in core.ready().sends] == [HeartbeatReply(3, 0)]
    core.receive(0, "n1", Heartbeat(3, 0, 5), ())
    assert [send.message for send in core.ready().sends] == [HeartbeatReply(3, 5)]


def test_a_named_reader_that_begins_while_the_log_is_looked_at_keeps_what_it_needs() -> None:
    """The look had not seen it, and what it found was dropped under the reader's feet."""
    loads = Loads()
    compaction = Compaction(Retention(records_max=1), NO_BASE, loads)
    compaction.delivered(0, 10, 1000)
    compaction.look(0, 0, lambda: Needed(10, None))
    ((load_id, _),) = loads.take()
    compaction.needs_more()
    loads.answer(0, load_id, Droppable(9, 9))
    assert not compaction.has_step
    assert compaction.first_offset == 0
    compaction.look(0, 0, lambda: Needed(10, 0))
    ((load_id, again),) = loads.take()
    assert again == LoadDroppable(Retention(records_max=1), 0, 10, 0)
    loads.answer(0, load_id, Droppable(0, 0))
    assert not compaction.has_step


def test_a_named_reader_that_is_not_stored_yet_counts() -> None:
    """Its row was on its way to the disk when the log was looked at."""
    retention = Retention(records_max=1)
    store = log_of_ten()
    assert droppable(store, retention, 0, 10) == Droppable(9, 9)
    assert droppable(store, retention, 0, 10, 4) == Droppable(4, 4)


@pytest.mark.parametrize("answered", [False, True])
def test_a_machine_that_is_attached_while_the_log_is_looked_at_keeps_all_of_it(
    answered: bool,
) -> None:
    """No header may stand for what was found, and no machine's snapshot did: the store refused the
    step, and the node stopped."""
    policy = CompactionPolicy(Retention(records_max=10))
    store = MemoryStore(
        MemoryDisk(bytes(16)),
        node="n1",
        cluster_id=bytes(16),
        agreement="raft",
        membership=AGREEMENT.membership({"n1"}),
        unix_ms=0,
    )
    replica = Replica(AGREEMENT, store.restore(), Limits(), 0, Random(0), policy=policy)
    attached = False
    for now in range(0, 6000, 20):
        replica.submit_records([b"x"], [now], 1)
        replica.tick(now)
        effects = replica.step(now, now)
        if effects.batch is not None:
            store.commit([effects.batch[1]])
            replica.durable(now, effects.batch[0])
        for load_id, load in effects.loads:
            found = carry_out(store, load)
            attaches = not attached and found.index > 0
            attached |= attaches
            if attaches and not answered:
                replica.catchup.attach_machine()
            replica.loaded(now, load_id, found)
            if attaches and answered:
                replica.catchup.attach_machine()
    assert attached
    assert store.base() == NO_BASE
    assert replica.catchup.first_offset == 0
