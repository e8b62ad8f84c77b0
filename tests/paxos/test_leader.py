"""A leader, input by input. The transcripts `scenarios/accept_*` show the same rules at work."""

from __future__ import annotations

import pytest

from paxoslog import MultiPaxos
from paxoslog.core import PaxosCore
from paxoslog.invariants import observe
from paxoslog.messages import (
    ACCEPTED_AHEAD_MAX,
    Accept,
    Accepted,
    AskAccepted,
    Chosen,
    Committed,
    FetchChosen,
    Heartbeat,
    HeartbeatReply,
    Missing,
    Nack,
)
from paxoslog.progress import Mode
from replog.agreement import EntryRef, Message, Ready
from replog.entry import Epoch, Kind
from replog.errors import PeerFault
from tests.paxos.single import (
    FIVE,
    OLD,
    PAXOS,
    accepted,
    elect,
    entry_sends,
    established,
    lead,
    metas,
    persist,
    prepare,
    progress_of,
    receive,
    report,
    sends_of,
    start,
    time_out,
)

ONE = Epoch(1, "n1")


def propose(core: PaxosCore, count: int = 1) -> Ready:
    for _ in range(count):
        assert core.propose(Kind.RECORDS, 10) is not None
    return core.ready()


def reply(core: PaxosCore, commit: int = 0) -> HeartbeatReply:
    return HeartbeatReply(core.state.ballot, 0, commit)


# --- proposals ------------------------------------------------------------------------------------


def test_nobody_but_a_leader_takes_proposals() -> None:
    core = start()
    assert core.propose(Kind.NOOP, 0) is None
    prepare(core)
    assert core.propose(Kind.NOOP, 0) is None
    assert not core.has_room


def test_a_leadership_begins_with_a_no_op() -> None:
    core = start(commit=1)
    elect(core)
    assert (core.has_room, core.propose(Kind.RECORDS, 1)) == (False, None)
    assert core.leadership.first_index == 0
    assert core.propose(Kind.NOOP, 0) == EntryRef(2, core.state.ballot)
    assert core.leadership.first_index == 2
    assert core.has_room
    assert core.propose(Kind.RECORDS, 1) == EntryRef(3, core.state.ballot)


def test_proposals_of_one_turn_are_one_write_and_one_send_to_each() -> None:
    core = established(start())
    ready = propose(core, 3)
    assert [[entry.index for entry in write.entries] for write in ready.writes] == [[2, 3, 4]]
    assert entry_sends(ready) == {"n2": [2, 3, 4], "n3": [2, 3, 4]}
    assert {s.after_write_id for s in ready.sends} == {0}


def test_the_window_counts_what_is_not_chosen() -> None:
    core = established(start(paxos=MultiPaxos(inflight_entries_max=3)))
    propose(core, 3)
    report(core)
    persist(core)
    assert (core.has_room, core.propose(Kind.RECORDS, 1)) == (False, None)
    receive(core, "n2", accepted(core, 2, 2))
    assert core.has_room


def test_the_window_counts_what_is_not_on_the_leaders_own_disk() -> None:
    core = established(start(paxos=MultiPaxos(inflight_entries_max=3)))
    propose(core, 3)
    report(core)
    for peer in ("n2", "n3"):
        receive(core, peer, accepted(core, 2, 4))
    assert core.state.commit_index == 4
    assert (core.has_room, core.propose(Kind.RECORDS, 1)) == (False, None)
    persist(core)
    assert core.has_room


def test_no_window_holds_back_what_a_leadership_begins_with() -> None:
    core = start(paxos=MultiPaxos(inflight_entries_max=1), accepted={1: OLD, 2: OLD, 4: OLD})
    elect(core)
    assert core.propose(Kind.NOOP, 0) == EntryRef(3, core.state.ballot)
    assert core.propose(Kind.NOOP, 0) == EntryRef(5, core.state.ballot)
    assert not core.has_room


# --- choice (PMS 2.2; FPaxos 3) -------------------------------------------------------------------


def test_a_quorum_chooses_with_or_without_the_leaders_disk() -> None:
    core = established(start())
    propose(core)
    assert receive(core, "n2", accepted(core, 2, 2)).commit_index == 1
    assert persist(core).commit_index == 2
    propose(core)
    receive(core, "n2", accepted(core, 3, 3))
    assert receive(core, "n3", accepted(core, 3, 3)).commit_index == 3


def test_a_repeated_acknowledgement_counts_once() -> None:
    core = established(start(voters=FIVE))
    propose(core)
    persist(core)
    for _ in range(3):
        assert receive(core, "n2", accepted(core, 2, 2)).commit_index == 1
    assert receive(core, "n3", accepted(core, 2, 2)).commit_index == 2


def test_an_acknowledgement_of_another_ballot_counts_nothing() -> None:
    core = established(start())
    propose(core)
    persist(core)
    late = accepted(core, 2, 2)
    receive(core, "n3", Nack(Epoch(3, "n3")))
    lead(core)
    persist(core)
    assert receive(core, "n2", late).commit_index == 1
    assert receive(core, "n2", accepted(core, 2, 3)).commit_index == 3


def test_entries_are_chosen_in_any_order_and_delivered_in_index_order() -> None:
    core = established(start())
    propose(core, 3)
    persist(core)
    assert receive(core, "n2", accepted(core, 4, 4)).commit_index == 1
    assert receive(core, "n3", accepted(core, 2, 2)).commit_index == 2
    assert receive(core, "n3", accepted(core, 2, 3)).commit_index == 4


def test_the_own_write_of_an_earlier_ballot_is_no_acceptance_of_this_one() -> None:
    core = established(start())
    propose(core)
    write_id = core.state.journal.last_write_id
    receive(core, "n3", Nack(Epoch(3, "n3")))
    lead(core)  # its promise is durable, and so is the entry at ballot 1
    assert core.state.journal.durable_write_id > write_id
    assert receive(core, "n2", accepted(core, 2, 3)).commit_index == 1
    assert persist(core).commit_index == 3


@pytest.mark.parametrize(("accept_quorum", "needed"), [(1, 0), (2, 1), (4, 3)])
def test_flexible_quorums_choose_with_as_many_as_they_need(accept_quorum, needed) -> None:
    core = established(start(voters=FIVE, paxos=MultiPaxos(accept_quorum=accept_quorum)))
    propose(core)
    persist(core)
    for peer in ("n2", "n3", "n4")[:needed]:
        assert core.state.commit_index == 1
        receive(core, peer, accepted(core, 2, 2))
    assert core.state.commit_index == 2


def test_an_acceptor_that_knows_what_is_chosen_teaches_the_leader() -> None:
    core = lead(start(promise=OLD))
    report(core)
    persist(core)
    ready = receive(core, "n3", accepted(core, 2, 1, commit=1))
    assert ready.commit_index == 0
    assert [s.message for s in sends_of(ready, FetchChosen)] == [FetchChosen(1, 1)]
    ready = receive(core, "n3", Chosen(1), metas(1, core.state.ballot))
    assert (ready.writes, ready.commit_index) == ((), 1)
    assert core.leadership.role == "leader"


# --- what acceptors are told ----------------------------------------------------------------------


def test_a_choice_is_told_at_once_if_nothing_else_goes_there() -> None:
    core = established(start())
    propose(core)
    report(core)
    persist(core)
    ready = receive(core, "n2", accepted(core, 2, 2))
    assert [(s.to, s.message) for s in ready.sends] == [("n2", Committed(ONE, 2))]
    # n3 has not accepted it yet, and would fetch what is on its way.
    ready = receive(core, "n3", accepted(core, 2, 2))
    assert [(s.to, s.message) for s in ready.sends] == [("n3", Committed(ONE, 2))]


def test_entries_carry_the_commit_index_instead_as_far_as_they_follow_it() -> None:
    core = established(start())
    propose(core)
    report(core)
    persist(core)
    core.receive(core.state.now, "n2", accepted(core, 2, 2), ())
    ready = propose(core)
    assert sends_of(ready, Committed) == []
    assert {s.message for s in ready.sends} == {Accept(ONE, 2)}


def test_a_heartbeat_tells_no_more_than_the_acceptor_has() -> None:
    core = established(start())
    propose(core, 2)
    report(core)
    persist(core)
    receive(core, "n2", accepted(core, 2, 3))
    commits = {s.to: s.message for s in sends_of(time_out(core), Heartbeat)}
    assert commits == {"n2": Heartbeat(ONE, 3, 0), "n3": Heartbeat(ONE, 1, 0)}


def test_what_was_chosen_before_is_told_to_everybody() -> None:
    core = start(promise=OLD, commit=70)
    ready = elect(core, {"n2": {}}, {"n2": 60})
    assert {s.message for s in sends_of(ready, Heartbeat)} == {Heartbeat(core.state.ballot, 70, 0)}
    assert core.propose(Kind.NOOP, 0) == EntryRef(71, core.state.ballot)
    assert {s.message for s in sends_of(core.ready(), Accept)} == {Accept(core.state.ballot, 70)}


# --- flow to one acceptor -------------------------------------------------------------------------


def test_the_host_reports_before_it_gets_more_for_a_peer() -> None:
    core = established(start())
    assert entry_sends(propose(core)) == {"n2": [2], "n3": [2]}
    assert entry_sends(propose(core)) == {}
    core.sent("n2", 2, 10)
    assert core.has_ready()
    assert entry_sends(core.ready()) == {"n2": [3]}


def test_what_the_host_cut_off_goes_next() -> None:
    core = established(start())
    propose(core, 3)
    core.sent("n2", 2, 10)
    assert entry_sends(core.ready()) == {"n2": [3, 4]}


def test_a_send_has_at_most_64_entries() -> None:
    core = established(start(paxos=MultiPaxos(inflight_entries_max=100)))
    assert entry_sends(propose(core, 80))["n2"] == list(range(2, 66))


def test_entries_leave_ahead_of_their_acknowledgements_within_the_window() -> None:
    core = established(start(voters=FIVE, paxos=MultiPaxos(inflight_entries_max=2)))
    propose(core, 2)
    report(core)
    persist(core)
    for peer in ("n2", "n3"):
        receive(core, peer, accepted(core, 2, 3))
    assert set(entry_sends(propose(core))) == {"n2", "n3"}  # n4 has two in the air
    assert entry_sends(receive(core, "n4", accepted(core, 2, 2))) == {"n4": [4]}


def test_bytes_under_way_are_bounded() -> None:
    core = established(start(paxos=MultiPaxos(inflight_bytes_max=100)))
    propose(core)
    report(core, size=60)
    propose(core)
    report(core, size=60)
    assert entry_sends(propose(core)) == {}
    assert entry_sends(receive(core, "n2", accepted(core, 2, 2))) == {"n2": [4]}


def test_a_missing_entry_is_sent_again_with_all_behind_it() -> None:
    core = established(start())
    for _ in range(3):
        propose(core)
        report(core)
    ready = receive(core, "n2", Missing(ONE, 3, 1))
    assert entry_sends(ready) == {"n2": [3, 4]}
    report(core)
    # Whatever follows the lost entry says the same: once is enough.
    assert entry_sends(receive(core, "n2", Missing(ONE, 3, 1))) == {}
    assert entry_sends(receive(core, "n2", Missing(ONE, 2, 1))) == {}
    receive(core, "n2", accepted(core, 2, 4))
    assert progress_of(core, "n2").mode is Mode.REPLICATE
    assert entry_sends(propose(core)) == {"n2": [5], "n3": [5]}


def test_what_an_acceptor_has_is_never_sent_again() -> None:
    core = established(start())
    propose(core, 3)
    report(core)
    receive(core, "n2", accepted(core, 2, 3))
    assert entry_sends(receive(core, "n2", Missing(ONE, 3, 1))) == {}
    assert progress_of(core, "n2").match_index == 3


def test_acknowledgements_beyond_a_gap_count_once_it_is_closed() -> None:
    core = established(start())
    for _ in range(3):
        propose(core)
        report(core)
    receive(core, "n2", accepted(core, 3, 4))
    assert progress_of(core, "n2").match_index == 1
    receive(core, "n2", accepted(core, 2, 2))
    assert progress_of(core, "n2").match_index == 4


def test_a_peer_whose_send_was_lost_waits_until_it_is_heard() -> None:
    core = established(start())
    propose(core)
    core.lost("n2")
    assert entry_sends(propose(core)) == {}
    assert progress_of(core, "n2").mode is Mode.DOWN
    assert entry_sends(receive(core, "n2", reply(core))) == {"n2": [2, 3]}


def test_no_entry_leaves_that_the_acceptor_would_not_take() -> None:
    core = start(promise=OLD, commit=1000)
    elect(core, {"n2": {}}, {"n2": 1001 - ACCEPTED_AHEAD_MAX})
    core.propose(Kind.NOOP, 0)
    assert entry_sends(core.ready()) == {"n2": [1001]}  # n3 has said nothing yet
    core.propose(Kind.RECORDS, 1)
    report(core)
    assert entry_sends(core.ready()) == {}
    assert entry_sends(receive(core, "n2", reply(core, 1000))) == {"n2": [1002]}
    assert entry_sends(receive(core, "n3", reply(core, 900))) == {"n3": [1001, 1002]}


def test_an_answer_that_is_overdue_is_asked_for_without_entries() -> None:
    core = established(start())
    propose(core, 2)
    report(core)
    started = core.state.now
    asked: dict[int, tuple[Message, ...]] = {}
    while core.state.now < started + 4 * PAXOS.retransmit_ms:
        time_out(core)
        sends = receive(core, "n2", reply(core)).sends
        if sends:
            asked[core.state.now - started] = tuple(send.message for send in sends)
        receive(core, "n3", reply(core))
    assert set(asked.values()) == {(AskAccepted(ONE, 2, 3),)}
    assert list(asked) == [PAXOS.retransmit_ms * times for times in (1, 2, 3, 4)]


def test_a_lost_probe_is_found_by_asking() -> None:
    core = established(start())
    propose(core, 2)
    report(core)
    receive(core, "n2", Missing(ONE, 2, 1))
    report(core)
    assert progress_of(core, "n2").mode is Mode.ASKED
    ready = receive(core, "n2", reply(core), after=PAXOS.retransmit_ms)
    assert [s.message for s in ready.sends] == [AskAccepted(ONE, 2, 2)]
    assert entry_sends(receive(core, "n2", Missing(ONE, 2, 1))) == {"n2": [2, 3]}


def test_a_silent_acceptor_gets_heartbeats_only() -> None:
    core = established(start())
    propose(core)
    report(core)
    for _ in range(30):
        ready = time_out(core)
        assert {type(s.message) for s in ready.sends} == {Heartbeat}
        receive(core, "n3", reply(core))


# --- heartbeats and check-quorum ------------------------------------------------------------------


def test_heartbeats_are_sent_at_the_beginning_and_every_interval() -> None:
    core = start()
    ready = elect(core)
    assert [(s.to, s.message) for s in ready.sends] == [
        ("n2", Heartbeat(ONE, 0, 0)),
        ("n3", Heartbeat(ONE, 0, 0)),
    ]
    assert core.deadline == core.state.now + PAXOS.heartbeat_ms
    core.tick(core.state.now + 100)  # late: once, not three times
    assert len(sends_of(core.ready(), Heartbeat)) == 2


def test_a_sole_leader_has_no_timer() -> None:
    core = start(voters=frozenset({"n1"}))
    time_out(core)
    persist(core)
    assert core.leadership.role == "leader"
    assert core.deadline is None


@pytest.mark.parametrize(("accept_quorum", "answering"), [(None, 2), (2, 1), (4, 3)])
def test_a_leader_needs_the_answers_of_an_accept_quorum(accept_quorum, answering) -> None:
    core = established(start(voters=FIVE, paxos=MultiPaxos(accept_quorum=accept_quorum)))
    peers = ("n2", "n3", "n4", "n5")
    for _ in range(20):
        time_out(core)
        for peer in peers[:answering]:
            receive(core, peer, reply(core))
    assert core.leadership.role == "leader"
    for _ in range(20):
        time_out(core)
        for peer in peers[: answering - 1]:
            if core.leadership.role == "leader":
                receive(core, peer, reply(core))
    assert core.leadership.role != "leader"


# --- what no correct member answers ---------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        Accepted(ONE, 1, 2, 0),  # more than was proposed
        Accepted(ONE, 0, 1, 0),
        Accepted(ONE, 3, 1, 0),
        HeartbeatReply(ONE, 1, 0),  # a round that never was
        HeartbeatReply(ONE, -1, 0),
        Accepted(Epoch(2, "n1"), 1, 1, 0),  # a ballot that never was
        Missing(Epoch(1, "n3"), 1, 0),
    ],
)
def test_an_answer_to_what_was_never_sent_is_a_fault(answer) -> None:
    core = lead(start())
    before = observe(core)
    with pytest.raises(PeerFault):
        core.receive(core.state.now, "n2", answer, ())
    assert observe(core) == before
    assert not core.has_ready()
