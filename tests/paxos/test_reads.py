"""Confirmed reads, input by input (as Raft's: dissertation, section 6.4; quorums: FPaxos)."""

from __future__ import annotations

from paxoslog import MultiPaxos
from paxoslog.core import PaxosCore
from paxoslog.messages import Heartbeat, HeartbeatReply, Nack
from replog.agreement import ReadState, Ready
from replog.entry import Epoch, Kind
from tests.paxos.single import (
    FIVE,
    OLD,
    accepted,
    elect,
    established,
    lead,
    persist,
    prepare,
    receive,
    report,
    sends_of,
    start,
    time_out,
)


def read(core: PaxosCore, *tokens: int) -> Ready:
    for token in tokens:
        assert core.read(core.state.now, token)
    return core.ready()


def reply(core: PaxosCore, number: int) -> HeartbeatReply:
    return HeartbeatReply(core.state.ballot, number, 0)


def rounds(ready: Ready) -> list[int]:
    return [send.message.round for send in sends_of(ready, Heartbeat)]  # type: ignore[attr-defined]


def test_a_round_leaves_at_once_and_reads_at_the_commit_index_of_its_beginning() -> None:
    core = established(start())
    ready = read(core, 7)
    assert [(s.to, s.after_write_id) for s in ready.sends] == [("n2", 0), ("n3", 0)]
    assert (rounds(ready), ready.reads) == ([1, 1], ())
    core.propose(Kind.RECORDS, 1)
    core.ready()
    report(core)
    persist(core)
    assert receive(core, "n2", accepted(core, 1, 2)).commit_index == 2
    assert receive(core, "n3", reply(core, 1)).reads == (ReadState(7, 1),)


def test_reads_of_one_turn_share_a_round() -> None:
    core = established(start())
    assert rounds(read(core, 1, 2, 3)) == [1, 1]
    ready = receive(core, "n2", reply(core, 1))
    assert ready.reads == (ReadState(1, 1), ReadState(2, 1), ReadState(3, 1))
    assert not core.has_ready()


def test_reads_that_come_during_a_round_make_the_next_one() -> None:
    core = established(start())
    read(core, 1)
    assert read(core, 2, 3).sends == ()
    ready = receive(core, "n2", reply(core, 1))
    assert (ready.reads, rounds(ready)) == ((ReadState(1, 1),), [2, 2])
    # The late second answer to round 1 says nothing about round 2.
    assert receive(core, "n3", reply(core, 1)).reads == ()
    assert [state.token for state in receive(core, "n3", reply(core, 2)).reads] == [2, 3]


def test_answers_count_by_acceptor() -> None:
    core = established(start(voters=FIVE))
    read(core, 1)
    for _ in range(3):
        assert receive(core, "n2", reply(core, 1)).reads == ()
    assert receive(core, "n4", reply(core, 1)).reads == (ReadState(1, 1),)


def test_an_accept_quorum_confirms() -> None:
    core = established(start(voters=FIVE, paxos=MultiPaxos(accept_quorum=2)))
    read(core, 1)
    assert receive(core, "n5", reply(core, 1)).reads == (ReadState(1, 1),)
    core = established(start(voters=FIVE, paxos=MultiPaxos(accept_quorum=4)))
    read(core, 1)
    for peer in ("n2", "n3"):
        assert receive(core, peer, reply(core, 1)).reads == ()
    assert receive(core, "n4", reply(core, 1)).reads == (ReadState(1, 1),)


def test_an_answer_to_an_earlier_heartbeat_confirms_nothing() -> None:
    core = established(start())
    time_out(core)
    read(core, 1)
    assert receive(core, "n2", reply(core, 0)).reads == ()
    assert receive(core, "n3", reply(core, 0)).reads == ()


def test_later_heartbeats_repeat_the_round() -> None:
    core = established(start())
    read(core, 1)
    assert rounds(time_out(core)) == [1, 1]
    assert receive(core, "n2", reply(core, 1)).reads == (ReadState(1, 1),)


def test_no_round_begins_before_everything_adopted_is_chosen() -> None:
    core = start(accepted={1: OLD, 2: OLD})
    elect(core)
    assert read(core, 1).sends == ()
    core.propose(Kind.NOOP, 0)
    core.ready()
    persist(core)
    receive(core, "n2", accepted(core, 2, 3))
    assert not core.has_ready()
    ready = receive(core, "n2", accepted(core, 1, 3))
    assert (rounds(ready), ready.commit_index) == ([1, 1], 3)
    assert receive(core, "n2", reply(core, 1)).reads == (ReadState(1, 3),)


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
    late = reply(core, 1)
    read(core, 2)
    ready = receive(core, "n2", Nack(Epoch(3, "n2")))
    assert (ready.reads, ready.reads_failed) == ((), (1, 2))
    assert receive(core, "n3", late).reads == ()
    assert not core.read(core.state.now, 3)


def test_only_a_leader_takes_reads() -> None:
    core = start()
    assert not core.read(1, 1)
    prepare(core)
    assert not core.read(1, 1)


def test_a_round_of_one_ballot_means_nothing_under_another() -> None:
    core = established(start())
    read(core, 1)
    late = reply(core, 1)
    receive(core, "n2", Nack(Epoch(5, "n2")))
    core.tick(core.state.now + 1000)
    lead(core)
    report(core)
    persist(core)
    receive(core, "n2", accepted(core, 2, core.last_index))
    assert rounds(read(core, 2)) == [1, 1]
    assert receive(core, "n3", late).reads == ()
    assert receive(core, "n3", reply(core, 1)).reads[0].token == 2
