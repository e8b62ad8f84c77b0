"""Confirmed reads, input by input (dissertation, section 6.4)."""

from __future__ import annotations

from raftlog.core import RaftCore
from raftlog.messages import Appended, AppendEntries, Heartbeat, HeartbeatReply, Vote
from replog.agreement import ReadState, Ready
from replog.entry import Epoch, Kind
from tests.raft.single import (
    campaign,
    established,
    lead,
    metas,
    persist,
    receive,
    report,
    sends_of,
    start,
    time_out,
)

FIVE = frozenset({"n1", "n2", "n3", "n4", "n5"})


def read(core: RaftCore, *tokens: int) -> Ready:
    for token in tokens:
        assert core.read(core.state.now, token)
    return core.ready()


def rounds(ready: Ready) -> list[int]:
    return [send.message.round for send in sends_of(ready, Heartbeat)]  # type: ignore[attr-defined]


def test_a_round_leaves_at_once_and_reads_at_the_commit_index_of_its_beginning() -> None:
    core = established(start(log=[1, 1]))
    ready = read(core, 7)
    assert [(s.to, s.after_write_id) for s in ready.sends] == [("n2", 0), ("n3", 0)]
    assert (rounds(ready), ready.reads) == ([1, 1], ())
    core.propose(Kind.RECORDS, 1)
    core.ready()
    report(core)
    persist(core)
    assert receive(core, "n2", Appended(2, 4)).commit_index == 4
    assert receive(core, "n3", HeartbeatReply(2, 1)).reads == (ReadState(7, 3),)


def test_reads_of_one_turn_share_a_round() -> None:
    core = established(start())
    ready = read(core, 1, 2, 3)
    assert rounds(ready) == [1, 1]
    ready = receive(core, "n2", HeartbeatReply(1, 1))
    assert ready.reads == (ReadState(1, 1), ReadState(2, 1), ReadState(3, 1))
    assert not core.has_ready()


def test_reads_that_come_during_a_round_make_the_next_one() -> None:
    core = established(start())
    read(core, 1)
    assert read(core, 2, 3).sends == ()
    ready = receive(core, "n2", HeartbeatReply(1, 1))
    assert (ready.reads, rounds(ready)) == ((ReadState(1, 1),), [2, 2])
    # The late second answer to round 1 says nothing about round 2.
    assert receive(core, "n3", HeartbeatReply(1, 1)).reads == ()
    ready = receive(core, "n3", HeartbeatReply(1, 2))
    assert [state.token for state in ready.reads] == [2, 3]


def test_answers_count_by_voter() -> None:
    core = established(start(voters=FIVE))
    read(core, 1)
    for _ in range(3):
        assert receive(core, "n2", HeartbeatReply(1, 1)).reads == ()
    assert receive(core, "n4", HeartbeatReply(1, 1)).reads == (ReadState(1, 1),)


def test_an_answer_to_an_earlier_heartbeat_confirms_nothing() -> None:
    core = established(start())
    time_out(core)
    read(core, 1)
    assert receive(core, "n2", HeartbeatReply(1, 0)).reads == ()
    assert receive(core, "n3", HeartbeatReply(1, 0)).reads == ()


def test_later_heartbeats_repeat_the_round() -> None:
    core = established(start())
    read(core, 1)
    assert rounds(time_out(core)) == [1, 1]
    assert receive(core, "n2", HeartbeatReply(1, 1)).reads == (ReadState(1, 1),)


def test_no_round_begins_before_an_entry_of_the_term_is_committed() -> None:
    core = lead(start(log=[1], commit=1))
    report(core)
    assert read(core, 1).sends == ()
    assert not core.has_ready()
    persist(core)
    ready = receive(core, "n2", Appended(2, 2))
    assert (rounds(ready), ready.reads) == ([1, 1], ())
    assert receive(core, "n2", HeartbeatReply(2, 1)).reads == (ReadState(1, 2),)


def test_a_sole_voter_confirms_at_once() -> None:
    core = start(voters=frozenset({"n1"}))
    time_out(core)
    persist(core)
    core.propose(Kind.NOOP, 0)
    assert read(core, 1).reads == ()
    assert persist(core).reads == (ReadState(1, 1),)
    ready = read(core, 2)
    assert (ready.reads, ready.sends) == ((ReadState(2, 1),), ())


def test_a_deposed_leader_fails_every_unconfirmed_read_once() -> None:
    core = established(start())
    read(core, 1)
    read(core, 2)
    ready = receive(core, "n2", AppendEntries(3, 1, 1, 0), metas(2, Epoch(3, "n2")))
    assert (ready.reads, ready.reads_failed) == ((), (1, 2))
    assert receive(core, "n3", HeartbeatReply(1, 1)).reads == ()
    assert not core.read(core.state.now, 3)


def test_only_a_leader_takes_reads() -> None:
    core = start()
    assert not core.read(1, 1)
    campaign(core)
    assert not core.read(1, 1)


def test_a_round_of_one_term_means_nothing_in_another() -> None:
    core = established(start())
    read(core, 1)
    receive(core, "n2", Vote(5, False))
    core.tick(core.state.now + 1000)
    lead(core)
    report(core)
    persist(core)
    receive(core, "n2", Appended(core.state.term, core.last_index))
    assert rounds(read(core, 2)) == [1, 1]
    assert receive(core, "n3", HeartbeatReply(1, 1)).reads == ()
    assert receive(core, "n3", HeartbeatReply(core.state.term, 1)).reads[0].token == 2
