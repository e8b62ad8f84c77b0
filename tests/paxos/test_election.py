"""Elections, input by input. The transcripts `scenarios/prepare_*` and `adopt_*` show the same
rules at work."""

from __future__ import annotations

import pytest

from paxoslog import MultiPaxos
from paxoslog.messages import (
    Accept,
    Chosen,
    FetchChosen,
    Heartbeat,
    Nack,
    Prepare,
    PrePrepare,
    PrePromise,
    Promise,
)
from paxoslog.state import Acceptor, Leader, PreProposer, Proposer
from replog.agreement import Write
from replog.entry import NO_EPOCH, Epoch
from tests.paxos.single import (
    FIVE,
    NOW,
    OLD,
    PAXOS,
    deadline,
    follow,
    lead,
    metas,
    persist,
    prepare,
    promise,
    receive,
    start,
    time_out,
)

THREE, FOUR = Epoch(3, "n2"), Epoch(4, "n3")


# --- timeouts -------------------------------------------------------------------------------------


def test_timeouts_are_drawn_between_the_limits_and_spread() -> None:
    timeouts = [deadline(start(seed=seed)) for seed in range(300)]
    low, high = PAXOS.election_timeout_ms_min, PAXOS.election_timeout_ms_max
    assert NOW + low <= min(timeouts) < NOW + low + 10
    assert NOW + high - 10 < max(timeouts) <= NOW + high
    assert len(set(timeouts)) > 100


def test_each_timeout_is_drawn_anew() -> None:
    core = start()
    deadlines = []
    for _ in range(20):
        before = deadline(core)
        time_out(core)
        deadlines.append(deadline(core) - before)
    assert len(set(deadlines)) > 10


def test_a_tick_before_the_deadline_does_nothing() -> None:
    core = start()
    core.tick(deadline(core) - 1)
    assert not core.has_ready()
    assert isinstance(core.state.role, Acceptor)


def test_a_long_pause_counts_as_one_timeout() -> None:
    core = start()
    core.tick(NOW + 1_000_000)
    assert len(core.ready().sends) == 2
    assert deadline(core) > NOW + 1_000_000


@pytest.mark.parametrize(
    ("message", "entries"),
    [
        (Heartbeat(THREE, 0, 0), []),
        (Accept(THREE, 0), metas(1, THREE)),
        (Prepare(FOUR, 1), []),
    ],
)
def test_the_timer_restarts_when_a_leader_is_heard_or_a_promise_is_given(message, entries) -> None:
    core = start(promise=THREE)
    before = deadline(core)
    receive(core, message.ballot.node, message, entries, after=140)
    assert deadline(core) > before


@pytest.mark.parametrize(
    "message",
    [
        PrePrepare(FOUR, 1),
        PrePromise(THREE, 1, True, 0),
        Prepare(Epoch(2, "n3"), 1),
        Heartbeat(Epoch(2, "n3"), 0, 0),
        Nack(FOUR),
        FetchChosen(1, 1),
    ],
)
def test_no_other_message_restarts_the_timer(message) -> None:
    core = start(promise=THREE)
    before = deadline(core)
    receive(core, "n3", message, after=140)
    assert deadline(core) == before


# --- proposer (PMS, section 2.2; PMMC, section 2.3) -----------------------------------------------


def test_a_proposer_asks_before_it_prepares_and_writes_nothing() -> None:
    core = start(promise=THREE)
    ready = time_out(core)
    assert ready.writes == ()
    assert [(s.to, s.message, s.after_write_id) for s in ready.sends] == [
        ("n2", PrePrepare(Epoch(4, "n1"), 1), 0),
        ("n3", PrePrepare(Epoch(4, "n1"), 1), 0),
    ]


def test_a_prepare_waits_for_the_proposers_own_promise() -> None:
    core = start(promise=THREE, accepted={3: OLD}, commit=2)
    ready = prepare(core)
    assert ready.writes == (Write(1, Epoch(4, "n1"), None, ()),)
    assert [(s.message, s.after_write_id) for s in ready.sends] == [
        (Prepare(Epoch(4, "n1"), 3), 1),
        (Prepare(Epoch(4, "n1"), 3), 1),
    ]


def test_each_prepare_has_a_higher_ballot_than_all_before() -> None:
    core = start()
    ballots = []
    for _ in range(5):
        prepare(core)
        persist(core)
        ballots.append(core.state.ballot)
        core = start(promise=core.state.ballot)  # it comes back from its disk
    assert ballots == [Epoch(number, "n1") for number in (1, 2, 3, 4, 5)]


def test_the_own_promise_counts_once_it_is_durable() -> None:
    core = start()
    prepare(core)
    receive(core, "n2", promise(core))
    assert isinstance(core.state.role, Proposer)
    persist(core)
    assert isinstance(core.state.role, Leader)


def test_promises_count_by_acceptor_and_ballot() -> None:
    core = start(voters=FIVE)
    prepare(core)
    persist(core)
    late = promise(core)
    for _ in range(3):
        receive(core, "n2", late)
    assert isinstance(core.state.role, Proposer)
    receive(core, "n3", Nack(Epoch(5, "n3")))
    prepare(core)
    persist(core)
    receive(core, "n3", promise(core))
    receive(core, "n2", late)  # to an earlier ballot
    assert isinstance(core.state.role, Proposer)
    receive(core, "n4", promise(core))
    assert isinstance(core.state.role, Leader)


def test_pre_promises_count_for_their_round_and_never_as_promises() -> None:
    core = start(voters=FIVE)
    time_out(core)
    receive(core, "n2", PrePromise(NO_EPOCH, 1, True, 0))
    time_out(core)
    receive(core, "n3", PrePromise(NO_EPOCH, 1, True, 0))
    receive(core, "n3", PrePromise(NO_EPOCH, 2, True, 0))
    receive(core, "n3", PrePromise(NO_EPOCH, 2, True, 0))
    receive(core, "n4", PrePromise(NO_EPOCH, 2, False, 0))
    assert isinstance(core.state.role, PreProposer)
    receive(core, "n4", PrePromise(NO_EPOCH, 2, True, 0))
    persist(core)
    receive(core, "n5", PrePromise(NO_EPOCH, 2, True, 0))
    assert isinstance(core.state.role, Proposer)
    assert core.state.role.promised == {"n1"}


def test_a_refusal_is_followed_by_nothing_before_the_timeout() -> None:
    core = start()
    prepare(core)
    persist(core)
    before = deadline(core)
    ready = receive(core, "n2", Nack(THREE))
    assert ready.sends == ()
    assert (core.leadership.role, core.state.ballot, deadline(core)) == ("acceptor", THREE, before)
    (first, _) = time_out(core).sends
    assert first.message == PrePrepare(Epoch(4, "n1"), 2)


def test_a_refusal_of_a_lower_ballot_means_nothing() -> None:
    core = lead(start(promise=THREE))
    receive(core, "n2", Nack(THREE))
    assert isinstance(core.state.role, Leader)


def test_a_refused_question_teaches_the_ballot() -> None:
    core = start()
    time_out(core)
    receive(core, "n2", PrePromise(THREE, 1, False, 0))
    assert (core.leadership.role, core.state.ballot) == ("acceptor", THREE)


def test_flexible_quorums_ask_as_many_as_they_need() -> None:
    core = start(voters=FIVE, paxos=MultiPaxos(accept_quorum=2))
    prepare(core)
    persist(core)
    for peer in ("n2", "n3"):
        receive(core, peer, promise(core))
    assert isinstance(core.state.role, Proposer)
    receive(core, "n4", promise(core))
    assert isinstance(core.state.role, Leader)


# --- a laggard ------------------------------------------------------------------------------------


def test_who_is_behind_yields_once() -> None:
    core = start()
    time_out(core)
    receive(core, "n2", PrePromise(NO_EPOCH, 1, True, 7))
    assert isinstance(core.state.role, PreProposer)
    core.tick(core.state.timer or 0)
    receive(core, "n2", PrePromise(NO_EPOCH, 2, True, 7))
    assert isinstance(core.state.role, Proposer)


def test_to_hear_a_leader_ends_that() -> None:
    core = start()
    time_out(core)
    receive(core, "n2", PrePromise(NO_EPOCH, 1, True, 7))
    core.tick(core.state.timer or 0)
    follow(core, OLD)
    core.tick(core.state.timer or 0)
    receive(core, "n2", PrePromise(OLD, 3, True, 7))
    assert isinstance(core.state.role, PreProposer)


def test_an_unanswered_question_is_no_yielding() -> None:
    core = start()
    time_out(core)
    core.tick(core.state.timer or 0)
    receive(core, "n2", PrePromise(NO_EPOCH, 2, True, 7))
    assert isinstance(core.state.role, PreProposer)


def test_who_has_caught_up_goes_on() -> None:
    core = start()
    time_out(core)
    receive(core, "n2", PrePromise(NO_EPOCH, 1, True, 2))
    receive(core, "n2", Chosen(2), metas(1, OLD))
    # Below a ballot that it has just learnt of, it must ask anew.
    assert isinstance(core.state.role, Acceptor)
    core = start(promise=OLD)
    time_out(core)
    receive(core, "n2", PrePromise(OLD, 1, True, 2))
    receive(core, "n2", Chosen(2), metas(1, OLD))
    assert isinstance(core.state.role, PreProposer)
    receive(core, "n2", Chosen(2), metas(2, OLD))
    assert isinstance(core.state.role, Proposer)


# --- acceptor -------------------------------------------------------------------------------------


def test_a_promise_reports_everything_accepted_and_waits_for_the_disk() -> None:
    core = start(promise=THREE, accepted={5: OLD, 6: THREE, 9: OLD}, commit=4)
    ready = receive(core, "n3", Prepare(FOUR, 2))
    assert ready.writes == (Write(1, FOUR, None, ()),)
    assert [(s.to, s.message, s.after_write_id) for s in ready.sends] == [
        ("n3", Promise(FOUR, 4, (5, 6, 9), (OLD, THREE, OLD)), 1)
    ]


def test_a_report_begins_where_the_proposer_wants_it() -> None:
    core = start(accepted={1: OLD, 2: OLD, 3: OLD})
    (send,) = receive(core, "n3", Prepare(FOUR, 3)).sends
    assert send.message == Promise(FOUR, 0, (3,), (OLD,))


def test_a_repeated_prepare_is_answered_again_and_waits_for_the_same_write() -> None:
    core = start()
    first = receive(core, "n3", Prepare(FOUR, 1))
    again = receive(core, "n3", Prepare(FOUR, 1))
    assert again == first._replace(writes=())


@pytest.mark.parametrize("ballot", [Epoch(2, "n3"), Epoch(3, "n2")])
def test_a_lower_prepare_is_refused(ballot) -> None:
    core = start(promise=Epoch(3, "n3"))
    ready = receive(core, ballot.node, Prepare(ballot, 1))
    assert [send.message for send in ready.sends] == [Nack(Epoch(3, "n3"))]
    assert ready.writes == ()


def test_a_refusal_names_no_promise_that_is_not_durable() -> None:
    core = start()
    receive(core, "n3", Prepare(FOUR, 1))
    (send,) = receive(core, "n2", Prepare(THREE, 1)).sends
    assert (send.message, send.after_write_id) == (Nack(FOUR), 1)


def test_whoever_hears_a_leader_leaves_a_prepare_unanswered() -> None:
    core = start()
    follow(core, THREE)
    assert receive(core, "n3", Prepare(FOUR, 1), after=149).sends == ()
    assert core.state.ballot == THREE
    assert len(receive(core, "n3", Prepare(FOUR, 1), after=1).sends) == 1
    assert core.state.ballot == FOUR


def test_a_pre_promise_changes_nothing() -> None:
    core = start(promise=THREE, commit=0)
    ready = receive(core, "n3", PrePrepare(FOUR, 6))
    assert [send.message for send in ready.sends] == [PrePromise(THREE, 6, True, 0)]
    assert (core.state.ballot, ready.writes) == (THREE, ())
    (send,) = receive(core, "n3", PrePrepare(Epoch(3, "n3"), 7)).sends
    assert send.message == PrePromise(THREE, 7, True, 0)
    (send,) = receive(core, "n3", PrePrepare(Epoch(2, "n3"), 8)).sends
    assert send.message == PrePromise(THREE, 8, False, 0)
