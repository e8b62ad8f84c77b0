"""Elections, input by input. The transcripts `scenarios/election_*` show the same rules at work."""

from __future__ import annotations

import pytest

from raftlog.messages import (
    AppendEntries,
    Heartbeat,
    HeartbeatReply,
    PreVote,
    RequestPreVote,
    RequestVote,
    Vote,
)
from raftlog.state import Candidate, Follower, Leader, PreCandidate
from replog.agreement import Ready, Write
from replog.entry import Epoch
from replog.errors import PeerFault
from tests.raft.single import (
    NOW,
    RAFT,
    campaign,
    deadline,
    established,
    lead,
    metas,
    persist,
    receive,
    sends_of,
    start,
    time_out,
)

FIVE = frozenset({"n1", "n2", "n3", "n4", "n5"})

# --- timeouts (paper, section 5.2; dissertation, section 9.3) -------------------------------------


def test_timeouts_are_drawn_between_the_limits_and_spread() -> None:
    timeouts = [deadline(start(seed=seed)) for seed in range(300)]
    low, high = RAFT.election_timeout_ms_min, RAFT.election_timeout_ms_max
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
    assert isinstance(core.state.role, Follower)


def test_a_long_pause_counts_as_one_timeout() -> None:
    core = start()
    core.tick(NOW + 1_000_000)
    assert len(core.ready().sends) == 2
    assert deadline(core) > NOW + 1_000_000


@pytest.mark.parametrize(
    ("message", "entries"),
    [
        (Heartbeat(3, 0, 0), []),
        (AppendEntries(3, 0, 0, 0), metas(1, Epoch(3, "n2"))),
        (AppendEntries(3, 7, 2, 0), []),  # refused, yet from the leader of the term
        (RequestVote(3, 9, 2), []),
    ],
)
def test_the_timer_restarts_when_a_leader_is_heard_or_a_vote_is_given(message, entries) -> None:
    core = start(term=3, log=[1])
    before = deadline(core)
    receive(core, "n2", message, entries, after=before - NOW - 1)
    assert deadline(core) >= core.state.now + RAFT.election_timeout_ms_min > before


@pytest.mark.parametrize(
    "message",
    [
        Heartbeat(2, 0, 0),  # of a past leader
        AppendEntries(2, 0, 0, 0),
        RequestVote(3, 0, 0),  # refused: its log lacks entries
        RequestVote(4, 0, 0),  # refused, though its term is news
        RequestPreVote(4, 1, 9, 3),  # granted
        Vote(3, True),
        PreVote(3, 0, True),
    ],
)
def test_nothing_else_restarts_the_timer(message) -> None:
    core = start(term=3, log=[1])
    before = core.deadline
    receive(core, "n2", message, after=100)
    assert core.deadline == before


# --- votes (paper, figure 2 and section 5.4.1) ----------------------------------------------------


@pytest.mark.parametrize(
    ("log", "last_index", "last_term", "granted"),
    [
        ([], 0, 0, True),
        ([], 1, 1, True),
        ([1], 0, 0, False),
        ([1, 1], 1, 1, False),
        ([1, 1], 2, 1, True),
        ([1, 1], 3, 1, True),
        ([1, 2], 9, 1, False),
        ([1, 1, 1], 1, 2, True),
    ],
)
def test_a_vote_goes_to_a_log_that_lacks_nothing(log, last_index, last_term, granted) -> None:
    ready = receive(start(term=2, log=log), "n2", RequestVote(3, last_index, last_term))
    assert [send.message for send in ready.sends] == [Vote(3, granted)]
    ready = receive(start(term=2, log=log), "n2", RequestPreVote(3, 7, last_index, last_term))
    assert [send.message for send in ready.sends] == [PreVote(2, 7, granted)]


def test_a_term_has_one_vote_and_repeats_its_answer() -> None:
    core = start()
    assert receive(core, "n2", RequestVote(1, 0, 0)).sends[0].message == Vote(1, True)
    assert receive(core, "n3", RequestVote(1, 0, 0)).sends[0].message == Vote(1, False)
    assert receive(core, "n2", RequestVote(1, 0, 0)).sends[0].message == Vote(1, True)
    assert receive(core, "n3", RequestVote(2, 0, 0)).sends[0].message == Vote(2, True)


def test_a_new_term_and_its_vote_are_one_write() -> None:
    ready = receive(start(term=3), "n2", RequestVote(9, 0, 0))
    assert ready.writes == (Write(1, Epoch(9, "n2"), None, ()),)
    assert ready.sends[0].after_write_id == 1


def test_a_vote_waits_for_the_last_write_even_of_other_steps() -> None:
    core = start()
    receive(core, "n2", AppendEntries(1, 0, 0, 0), metas(1, Epoch(1, "n2")))
    ready = receive(core, "n3", RequestVote(2, 5, 1), after=1000)
    assert ready.sends[0].after_write_id == 2
    ready = receive(core, "n3", RequestVote(2, 5, 1))
    assert ready.writes == ()
    assert ready.sends[0].after_write_id == 2


def test_a_refusal_waits_for_the_disk_too() -> None:
    ready = receive(start(log=[1]), "n2", RequestVote(5, 0, 0))
    assert (ready.sends[0].message, ready.sends[0].after_write_id) == (Vote(5, False), 1)


def test_a_request_of_a_past_term_learns_the_present_one() -> None:
    core = start(term=7, vote="n3")
    ready = receive(core, "n2", RequestVote(6, 9, 5))
    assert (ready.writes, ready.sends[0].message) == ((), Vote(7, False))


def test_no_vote_is_given_in_a_term_whose_leader_is_known() -> None:
    core = start()
    receive(core, "n2", Heartbeat(1, 0, 0))
    ready = receive(core, "n3", RequestVote(1, 0, 0), after=149)
    assert ready.sends == ()
    ready = receive(core, "n3", RequestVote(1, 0, 0), after=1)
    assert ready.sends[0].message == Vote(1, False)


def test_whoever_gives_a_vote_gives_up_its_own_attempt() -> None:
    core = start(term=3)
    time_out(core)
    assert isinstance(core.state.role, PreCandidate)
    receive(core, "n2", RequestVote(3, 0, 0))
    assert isinstance(core.state.role, Follower)
    assert core.state.vote == "n2"


# --- campaigns ------------------------------------------------------------------------------------


def test_a_campaign_begins_with_a_pre_vote_that_writes_nothing() -> None:
    core = start(term=4, log=[1, 3])
    ready = time_out(core)
    assert ready.writes == ()
    assert [(s.to, s.message, s.after_write_id) for s in ready.sends] == [
        ("n2", RequestPreVote(5, 1, 2, 3), 0),
        ("n3", RequestPreVote(5, 1, 2, 3), 0),
    ]
    assert core.leadership.role == "pre-candidate"


def test_requests_for_votes_wait_for_the_candidates_own() -> None:
    core = start(term=4, log=[1, 3])
    ready = campaign(core)
    assert ready.writes == (Write(1, Epoch(5, "n1"), None, ()),)
    assert [(s.to, s.message, s.after_write_id) for s in ready.sends] == [
        ("n2", RequestVote(5, 2, 3), 1),
        ("n3", RequestVote(5, 2, 3), 1),
    ]


def test_a_candidate_needs_its_own_vote_on_disk_to_count_it() -> None:
    core = start()
    campaign(core)
    receive(core, "n2", Vote(1, True))
    assert isinstance(core.state.role, Candidate)
    persist(core)
    assert isinstance(core.state.role, Leader)


def test_the_write_of_another_step_does_not_count_for_the_vote() -> None:
    core = start()
    receive(core, "n2", AppendEntries(1, 0, 0, 0), metas(1, Epoch(1, "n2")))
    core.state.now = deadline(core)
    campaign(core)
    receive(core, "n3", Vote(2, True))
    core.durable(core.state.now, 1)
    assert isinstance(core.state.role, Candidate)
    core.durable(core.state.now, 2)
    assert isinstance(core.state.role, Leader)


def test_votes_count_by_voter_and_for_their_term_only() -> None:
    core = start(term=5, voters=FIVE)
    campaign(core)
    persist(core)
    for message in (Vote(6, True), Vote(6, True), Vote(5, True)):
        receive(core, "n2", message)
    receive(core, "n3", Vote(5, True))
    receive(core, "n4", PreVote(5, core.state.pre_vote_round, True))
    receive(core, "n5", Vote(6, False))
    assert core.state.role == Candidate(1, {"n1", "n2"})
    receive(core, "n3", Vote(6, True))
    assert core.leadership == ("leader", "n1", Epoch(6, "n1"), 0)


def test_a_late_vote_changes_nothing_for_a_leader() -> None:
    core = lead(start())
    before = core.state.role
    assert receive(core, "n3", Vote(1, True)).sends == ()
    assert core.state.role is before


def test_an_answer_of_a_higher_term_ends_a_campaign() -> None:
    core = start()
    campaign(core)
    ready = receive(core, "n2", Vote(8, False))
    assert core.leadership == ("follower", None, Epoch(8, ""), 0)
    assert ready.writes == (Write(2, Epoch(8, ""), None, ()),)


def test_a_refused_pre_vote_of_a_higher_term_is_learnt() -> None:
    core = start()
    time_out(core)
    receive(core, "n2", PreVote(8, core.state.pre_vote_round, False))
    assert core.leadership == ("follower", None, Epoch(8, ""), 0)


def test_a_pre_vote_leaves_no_trace_at_its_giver() -> None:
    core = start(term=2)
    ready = receive(core, "n2", RequestPreVote(3, 4, 0, 0))
    assert ready.writes == ()
    assert [(s.message, s.after_write_id) for s in ready.sends] == [(PreVote(2, 4, True), 0)]
    # So it can give it to others as well.
    assert receive(core, "n3", RequestPreVote(3, 9, 0, 0)).sends[0].message == PreVote(2, 9, True)


def test_a_pre_vote_is_for_a_term_above_the_present_one() -> None:
    core = start(term=3)
    answers = [
        receive(core, "n2", RequestPreVote(term, 1, 9, 2)).sends[0].message for term in (3, 4)
    ]
    assert answers == [PreVote(3, 1, False), PreVote(3, 1, True)]


def test_a_slow_disk_does_not_raise_the_term() -> None:
    core = start()
    campaign(core)
    for _ in range(10):
        assert time_out(core) == Ready((), (), 0, (), ())
    assert core.state.term == 1
    persist(core)
    time_out(core)
    assert isinstance(core.state.role, PreCandidate)


# --- stickiness (dissertation, section 4.2.3) -----------------------------------------------------


@pytest.mark.parametrize(("after", "heard"), [(149, True), (150, False)])
def test_a_follower_that_hears_its_leader_gives_no_vote(after: int, heard: bool) -> None:
    core = start()
    receive(core, "n2", Heartbeat(1, 0, 0))
    ready = receive(core, "n3", RequestPreVote(2, 1, 0, 0), after=after)
    assert ready.sends[0].message == PreVote(1, 1, not heard)
    ready = receive(core, "n3", RequestVote(2, 0, 0))
    assert [send.message for send in ready.sends] == ([] if heard else [Vote(2, True)])
    assert core.state.term == (1 if heard else 2)


def test_a_leader_gives_neither_vote_nor_leadership_up_for_a_request() -> None:
    core = established(start())
    assert receive(core, "n2", RequestVote(9, 9, 8)).sends == ()
    assert receive(core, "n2", RequestPreVote(9, 1, 9, 8)).sends[0].message == PreVote(1, 1, False)
    assert core.leadership.role == "leader"


def test_a_leader_of_a_past_term_binds_nobody() -> None:
    core = start()
    receive(core, "n2", Heartbeat(1, 0, 0))
    receive(core, "n2", Vote(4, False))
    ready = receive(core, "n3", RequestVote(5, 0, 0), after=1)
    assert ready.sends[0].message == Vote(5, True)


def test_after_a_restart_no_leader_has_been_heard() -> None:
    ready = receive(start(term=4), "n3", RequestVote(5, 0, 0))
    assert ready.sends[0].message == Vote(5, True)


# --- roles ----------------------------------------------------------------------------------------


def test_a_candidate_obeys_the_leader_of_its_term_and_keeps_its_vote() -> None:
    core = start()
    campaign(core)
    ready = receive(core, "n2", Heartbeat(1, 0, 0))
    assert core.leadership == ("follower", "n2", Epoch(1, "n2"), 0)
    assert (core.state.vote, ready.writes) == ("n1", ())


def test_who_campaigns_knows_no_leader() -> None:
    core = start()
    receive(core, "n2", Heartbeat(1, 0, 0))
    time_out(core)
    assert core.leadership == ("pre-candidate", None, Epoch(1, ""), 0)


def test_a_leader_without_answers_steps_down_in_its_term() -> None:
    core = established(start())
    elected = core.state.now
    while isinstance(core.state.role, Leader):
        time_out(core)
    assert core.state.now - elected == RAFT.election_timeout_ms_max
    assert (core.state.term, core.state.vote, core.leadership.leader) == (1, "n1", None)
    assert deadline(core) >= core.state.now + RAFT.election_timeout_ms_min


def test_one_answer_in_three_keeps_the_leader() -> None:
    core = established(start())
    for _ in range(40):
        assert len(sends_of(time_out(core), Heartbeat)) == 2
        receive(core, "n3", HeartbeatReply(1, 0))
    assert core.leadership.role == "leader"


def test_a_log_that_no_candidate_can_have_is_a_fault() -> None:
    core = start(term=2)
    for last_index, last_term in [(1, 3), (0, 1), (1, 0), (-1, 1), (1, -1)]:
        for request in (
            RequestVote(3, last_index, last_term),
            RequestPreVote(3, 1, last_index, last_term),
        ):
            with pytest.raises(PeerFault):
                core.receive(NOW, "n2", request, ())
    assert core.state.term == 2
