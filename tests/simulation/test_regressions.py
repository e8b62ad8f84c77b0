"""Faults that a simulated run has found, each in its smallest form."""

from __future__ import annotations

from random import Random

from raftlog import Raft
from raftlog.messages import Heartbeat, HeartbeatReply
from replog.agreement import Restored
from replog.entry import Epoch
from replog.messages import ReadAnswer, ReadRequest
from replog.replica.reads import Reads

AGREEMENT = Raft()
RESTORED = Restored(Epoch(3, ""), (), 0, 0, AGREEMENT.membership({"n1", "n2", "n3"}))


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
