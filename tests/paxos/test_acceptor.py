"""An acceptor and learner, input by input. The transcripts `scenarios/accept_*` and `learn_*` show
the same rules at work."""

from __future__ import annotations

import pytest

from paxoslog.messages import (
    ACCEPTED_AHEAD_MAX,
    Accept,
    Accepted,
    AcceptedValues,
    AskAccepted,
    Chosen,
    Committed,
    FetchAccepted,
    FetchChosen,
    Heartbeat,
    HeartbeatReply,
    Missing,
    Nack,
)
from replog.agreement import EntryRef, Send
from replog.entry import NO_EPOCH, Epoch
from replog.errors import PeerFault
from tests.paxos.single import OLD, PAXOS, follow, metas, persist, receive, refs, start, written

THREE, FOUR, FIVE = Epoch(3, "n2"), Epoch(4, "n3"), Epoch(5, "n2")

# --- acceptor (PMS 2.2, phase 2b) -----------------------------------------------------------------


def test_what_is_accepted_is_written_before_it_is_acknowledged() -> None:
    core = start(promise=THREE)
    ready = receive(core, "n2", Accept(THREE, 0), metas(1, THREE, THREE))
    assert written(ready) == {1: (THREE, THREE), 2: (THREE, THREE)}
    assert ready.writes[0].promise is None
    assert ready.sends == (Send("n2", Accepted(THREE, 1, 2, 0), 1),)


def test_to_accept_at_a_higher_ballot_is_to_promise_it_in_the_same_write() -> None:
    core = start(promise=THREE)
    ready = receive(core, "n3", Accept(FOUR, 0), metas(1, FOUR))
    (write,) = ready.writes
    assert (write.promise, len(write.entries)) == (FOUR, 1)
    assert receive(core, "n2", Accept(THREE, 0), metas(2, THREE)).sends == (
        Send("n2", Nack(FOUR), 1),
    )


def test_a_higher_ballot_replaces_what_was_accepted() -> None:
    core = start(accepted={1: OLD, 2: OLD})
    ready = receive(core, "n3", Accept(FOUR, 0), metas(2, FOUR, FOUR))
    assert written(ready) == {2: (FOUR, FOUR), 3: (FOUR, FOUR)}
    assert core.state.log.accepted() == (*refs(1, OLD), *refs(2, FOUR, FOUR))


def test_a_repeated_accept_writes_nothing_and_waits_for_the_first_write() -> None:
    core = start(promise=THREE)
    first = receive(core, "n2", Accept(THREE, 0), metas(1, THREE))
    again = receive(core, "n2", Accept(THREE, 0), metas(1, THREE))
    assert again == first._replace(writes=())


def test_an_acknowledgement_covers_all_that_is_accepted_without_a_gap() -> None:
    core = start(promise=THREE)
    receive(core, "n2", Accept(THREE, 0), metas(1, THREE))
    (accepted, missing) = receive(core, "n2", Accept(THREE, 0), metas(3, THREE)).sends
    assert accepted.message == Accepted(THREE, 3, 3, 0)
    assert (missing.message, missing.after_write_id) == (Missing(THREE, 2, 0), 0)
    (accepted,) = receive(core, "n2", Accept(THREE, 0), metas(2, THREE)).sends
    assert accepted.message == Accepted(THREE, 1, 3, 0)


def test_an_acknowledgement_covers_one_ballot() -> None:
    core = start(accepted={1: OLD, 3: OLD})
    (accepted, missing) = receive(core, "n2", Accept(THREE, 0), metas(2, THREE)).sends
    assert accepted.message == Accepted(THREE, 2, 2, 0)
    assert missing.message == Missing(THREE, 1, 0)


def test_nothing_is_accepted_where_it_is_known_what_is_chosen() -> None:
    core = start(promise=THREE, commit=5)
    ready = receive(core, "n2", Accept(THREE, 3), metas(4, THREE, THREE))
    assert ready.writes == ()
    assert [send.message for send in ready.sends] == [Accepted(THREE, 6, 5, 5)]
    ready = receive(core, "n2", Accept(THREE, 3), metas(5, THREE, THREE))
    assert written(ready) == {6: (THREE, THREE)}
    assert [send.message for send in ready.sends] == [Accepted(THREE, 6, 6, 5)]


def test_nothing_is_accepted_too_far_above_the_commit_index() -> None:
    core = start(promise=THREE, commit=5)
    end = 5 + ACCEPTED_AHEAD_MAX
    ready = receive(core, "n2", Accept(THREE, 3), metas(end, THREE, THREE))
    assert list(written(ready)) == [end]
    ready = receive(core, "n2", Accept(THREE, 3), metas(end + 1, THREE))
    assert ready.writes == ()
    assert ready.sends[0].message == Accepted(THREE, end, end, 5)


def test_a_question_is_answered_from_memory_but_the_promise_in_it_waits() -> None:
    core = start(promise=THREE, commit=2)
    receive(core, "n2", Accept(THREE, 2), metas(3, THREE, THREE))
    receive(core, "n2", Accept(THREE, 2), metas(6, THREE))
    ready = receive(core, "n2", AskAccepted(THREE, 3, 6))
    assert ready.sends == (
        Send("n2", Accepted(THREE, 3, 4, 2), 2),
        Send("n2", Missing(THREE, 5, 2), 0),
    )
    (accepted,) = receive(core, "n2", AskAccepted(THREE, 3, 4)).sends
    assert accepted.message == Accepted(THREE, 3, 4, 2)
    (accepted, missing) = receive(core, "n2", AskAccepted(THREE, 7, 8)).sends
    assert (accepted.message, missing.message) == (Accepted(THREE, 6, 6, 2), Missing(THREE, 7, 2))
    (accepted,) = receive(core, "n2", AskAccepted(THREE, 1, 2)).sends
    assert accepted.message == Accepted(THREE, 3, 2, 2)


@pytest.mark.parametrize("message", [AskAccepted(THREE, 0, 1), AskAccepted(THREE, 3, 2)])
def test_a_question_that_no_leader_asks_is_a_fault(message) -> None:
    core = start(promise=THREE)
    with pytest.raises(PeerFault):
        core.receive(core.state.now, "n2", message, ())
    assert core.leadership.leader is None


@pytest.mark.parametrize(
    ("message", "entries"),
    [
        (Heartbeat(THREE, 0, 0), []),
        (Committed(THREE, 0), []),
        (AskAccepted(THREE, 1, 1), []),
        (FetchAccepted(THREE, 1, (OLD,)), []),
        (Accept(THREE, 0), metas(1, THREE)),
    ],
)
def test_whatever_belongs_to_a_lower_ballot_is_refused(message, entries) -> None:
    core = start(promise=FOUR)
    ready = receive(core, "n2", message, entries)
    assert (ready.writes, ready.sends) == ((), (Send("n2", Nack(FOUR), 0),))
    assert core.leadership == ("acceptor", None, FOUR, 0)


@pytest.mark.parametrize(
    ("message", "entries"),
    [
        (Heartbeat(FOUR, 0, 0), []),
        (Committed(FOUR, 0), []),
        (AskAccepted(FOUR, 1, 1), []),
        (FetchAccepted(FOUR, 1, (OLD,)), []),
        (Accept(FOUR, 0), metas(1, FOUR)),
    ],
)
def test_a_leader_of_a_higher_ballot_is_followed(message, entries) -> None:
    core = start(promise=THREE)
    ready = receive(core, "n3", message, entries)
    assert ready.writes[0].promise == FOUR
    assert core.leadership == ("acceptor", "n3", FOUR, 0)


def test_a_heartbeat_is_answered_at_once() -> None:
    core = start()
    ready = follow(core, THREE)
    assert ready.sends == (Send("n2", HeartbeatReply(THREE, 0, 0), 0),)


# --- learner (PMS, section 2.3) -------------------------------------------------------------------


@pytest.mark.parametrize("message", [Heartbeat(THREE, 2, 0), Committed(THREE, 2)])
def test_what_was_accepted_at_the_leaders_ballot_is_chosen(message) -> None:
    core = start(promise=THREE, accepted={1: THREE, 2: THREE, 3: THREE})
    assert receive(core, "n2", message).commit_index == 2


def test_what_was_accepted_at_another_ballot_is_fetched() -> None:
    core = start(promise=THREE, accepted={1: THREE, 2: OLD, 3: THREE})
    ready = receive(core, "n2", Committed(THREE, 3))
    assert ready.commit_index == 1
    assert ready.sends == (Send("n2", FetchChosen(2, 2), 0),)  # 3 is known
    ready = receive(core, "n2", Chosen(3), metas(2, THREE))
    assert written(ready) == {2: (THREE, THREE)}
    assert ready.commit_index == 3


def test_an_index_told_before_its_entry_comes_is_chosen_when_it_does() -> None:
    core = start(promise=THREE)
    receive(core, "n2", Committed(THREE, 1))
    assert receive(core, "n2", Accept(THREE, 0), metas(1, THREE)).commit_index == 1


def test_what_one_leader_said_is_not_taken_for_another_leaders_entries() -> None:
    core = start(promise=THREE)
    receive(core, "n2", Committed(THREE, 1))
    assert receive(core, "n3", Accept(FOUR, 0), metas(1, FOUR)).commit_index == 0


def test_a_chosen_value_is_stored_under_the_ballot_it_comes_with_unless_ours_is_higher() -> None:
    core = start(promise=FOUR, accepted={1: OLD, 2: FOUR, 3: THREE})
    ready = receive(core, "n2", Chosen(4), metas(1, THREE, THREE, THREE, THREE))
    # At 2, a higher ballot has proposed the same (PMS 2.2, P2b); 3 is that very proposal.
    assert written(ready) == {1: (THREE, THREE), 4: (THREE, THREE)}
    assert ready.commit_index == 4


def test_nothing_is_stored_above_the_promise() -> None:
    core = start(promise=OLD)
    (write,) = receive(core, "n3", Chosen(2), metas(1, THREE, FOUR)).writes
    assert write.promise == FOUR
    assert core.leadership == ("acceptor", None, FOUR, 0)


def test_chosen_entries_that_arrive_out_of_order_wait_for_those_before() -> None:
    core = start(promise=THREE)
    assert receive(core, "n2", Chosen(4), metas(3, THREE, THREE)).commit_index == 0
    assert receive(core, "n2", Chosen(4), metas(1, THREE, THREE)).commit_index == 4
    ready = receive(core, "n2", Chosen(4), metas(1, THREE, THREE))
    assert (ready.writes, ready.commit_index) == ((), 4)


def test_chosen_entries_too_far_ahead_are_not_kept() -> None:
    core = start(promise=THREE)
    far = metas(ACCEPTED_AHEAD_MAX, THREE, THREE)
    assert list(written(receive(core, "n2", Chosen(1000), far))) == [ACCEPTED_AHEAD_MAX]


def test_an_unanswered_fetch_is_repeated_at_another_who_knows() -> None:
    core = start(promise=THREE)
    asked = [(s.to, s.message) for s in receive(core, "n3", Chosen(9), metas(9, THREE)).sends]
    core.state.note_commit("n2", 9)
    for _ in range(3):
        core.tick(core.state.now + PAXOS.retransmit_ms - 1)
        assert not core.has_ready()
        core.tick(core.state.now + 1)
        asked += [(s.to, s.message) for s in core.ready().sends]
        follow(core, THREE)
    assert asked == [(peer, FetchChosen(1, 8)) for peer in ("n3", "n2", "n3", "n2")]


def test_the_deadline_covers_a_fetch() -> None:
    core = start(promise=THREE)
    receive(core, "n2", Committed(THREE, 1))
    assert core.deadline == core.state.now + PAXOS.retransmit_ms
    receive(core, "n2", Chosen(1), metas(1, THREE))
    assert core.deadline == core.state.timer


# --- answering fetches ----------------------------------------------------------------------------


def test_chosen_entries_are_sent_whatever_their_ballot_and_as_far_as_known() -> None:
    core = start(promise=THREE, commit=100, accepted={101: THREE})
    ready = receive(core, "n3", FetchChosen(98, 120))
    assert ready.sends == (Send("n3", Chosen(100), 0, refs(98, NO_EPOCH, NO_EPOCH, NO_EPOCH)),)
    assert core.leadership.leader is None  # whoever asks
    report = core.state.handed["n3"]
    core.sent("n3", report.last_index, 10)
    assert receive(core, "n3", FetchChosen(101, 101)).sends == ()
    (send,) = receive(core, "n3", FetchChosen(1, 1000)).sends
    assert len(send.entries) == 64


def test_accepted_values_are_sent_under_the_ballots_asked_for() -> None:
    core = start(promise=THREE, accepted={1: OLD, 2: THREE, 4: OLD})
    ready = receive(core, "n3", FetchAccepted(FOUR, 1, (OLD, THREE, OLD)))
    assert ready.sends == (Send("n3", AcceptedValues(FOUR), 0, refs(1, OLD, THREE)),)
    core.sent("n3", 2, 10)
    assert receive(core, "n3", FetchAccepted(FOUR, 2, (OLD,))).sends == ()


def test_what_was_reported_as_accepted_and_is_chosen_by_now_is_sent_as_such() -> None:
    core = start(promise=FOUR, commit=7)
    ready = receive(core, "n3", FetchAccepted(FOUR, 6, (OLD, OLD, OLD)))
    assert ready.sends == (Send("n3", Chosen(7), 0, refs(6, NO_EPOCH, NO_EPOCH)),)


def test_a_peer_gets_one_answer_with_entries_at_a_time_to_its_latest_fetch() -> None:
    core = start(promise=THREE, commit=9)
    receive(core, "n3", FetchChosen(1, 2))
    assert receive(core, "n3", FetchChosen(3, 4)).sends == ()
    assert receive(core, "n3", FetchChosen(5, 6)).sends == ()
    (send,) = receive(core, "n2", FetchChosen(1, 1)).sends
    assert send.to == "n2"
    core.sent("n3", 2, 10)
    assert core.has_ready()
    (send,) = core.ready().sends
    assert [ref.index for ref in send.entries] == [5, 6]
    core.lost("n3")
    assert not core.has_ready()
    assert receive(core, "n3", FetchChosen(7, 7)).sends[0].entries == (EntryRef(7, NO_EPOCH),)


@pytest.mark.parametrize("message", [FetchChosen(0, 1), FetchChosen(2, 1)])
def test_a_fetch_of_nothing_is_a_fault(message) -> None:
    core = start(commit=3)
    with pytest.raises(PeerFault):
        core.receive(core.state.now, "n3", message, ())
    assert not core.has_ready()


# --- restarts -------------------------------------------------------------------------------------


def test_after_a_restart_no_lower_ballot_is_obeyed() -> None:
    core = start(promise=FIVE, accepted={4: THREE}, commit=3)
    (refusal,) = receive(core, "n3", Accept(FOUR, 3), metas(4, FOUR)).sends
    assert refusal == Send("n3", Nack(FIVE), 0)
    receive(core, "n2", Accept(FIVE, 3), metas(4, FIVE))
    persist(core)
    assert core.state.log.accepted() == refs(4, FIVE)
