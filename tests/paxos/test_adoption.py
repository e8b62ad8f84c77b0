"""What a new leader must propose first, input by input (PMS, section 2.2, P2c). The transcripts
`scenarios/adopt_*` show the same rules at work."""

from __future__ import annotations

import pytest

from paxoslog import MultiPaxos
from paxoslog.messages import (
    ACCEPTED_AHEAD_MAX,
    REPORTED_AHEAD_MAX,
    Accept,
    AcceptedValues,
    Chosen,
    FetchAccepted,
    FetchChosen,
    HeartbeatReply,
    Prepare,
    Promise,
)
from paxoslog.state import Leader, Proposer
from replog.agreement import EntryRef
from replog.entry import NO_EPOCH, Epoch, Kind
from replog.errors import PeerFault
from tests.paxos.single import (
    FIVE,
    OLD,
    PAXOS,
    elect,
    lead,
    leader_of,
    metas,
    persist,
    prepare,
    receive,
    refs,
    report,
    sends_of,
    start,
    time_out,
    written,
)

THREE, FOUR = Epoch(3, "n2"), Epoch(4, "n3")


# --- leader: adopting (PMS, section 2.2, P2c) -----------------------------------------------------


def test_the_highest_ballot_of_each_index_is_adopted() -> None:
    core = start(
        voters=FIVE,
        paxos=MultiPaxos(accept_quorum=2),
        promise=FOUR,
        accepted={1: OLD, 2: THREE},
    )
    elect(core, {"n2": {1: THREE, 3: OLD}, "n3": {2: OLD, 3: THREE}, "n4": {3: THREE}})
    assert leader_of(core).adopted == {1: (THREE, ("n2",)), 3: (THREE, ("n3", "n4"))}
    assert [ref.index for ref in core.state.log.accepted() if ref.epoch.node == "n1"] == [2]


def test_own_values_are_proposed_anew_at_once_others_when_they_come() -> None:
    core = start(accepted={1: OLD, 3: OLD})
    ready = elect(core, {"n2": {2: OLD, 3: OLD}})
    ballot = core.state.ballot
    assert written(ready) == {1: (ballot, OLD), 3: (ballot, OLD)}
    assert [s.message for s in sends_of(ready, FetchAccepted)] == [FetchAccepted(ballot, 2, (OLD,))]
    assert core.propose(Kind.NOOP, 0) is None
    ready = receive(core, "n2", AcceptedValues(ballot), metas(2, OLD))
    assert written(ready) == {2: (ballot, OLD)}
    assert core.propose(Kind.NOOP, 0) == EntryRef(4, ballot)
    assert core.leadership.first_index == 4


def test_a_value_of_another_ballot_is_no_answer() -> None:
    core = start(promise=THREE)
    elect(core, {"n2": {1: THREE}})
    ready = receive(core, "n3", AcceptedValues(core.state.ballot), metas(1, OLD))
    assert ready.writes == ()
    assert core.propose(Kind.NOOP, 0) is None


def test_no_ops_fill_the_gaps_in_order_and_one_comes_above() -> None:
    core = start(promise=OLD)
    elect(core, {"n2": {2: OLD, 5: OLD}})
    ballot = core.state.ballot
    receive(core, "n2", AcceptedValues(ballot), metas(2, OLD))
    receive(core, "n2", AcceptedValues(ballot), metas(5, OLD))
    assert core.propose(Kind.RECORDS, 1) is None
    offered = [core.propose(Kind.NOOP, 0) for _ in range(4)]
    assert offered == [EntryRef(index, ballot) for index in (1, 3, 4, 6)]
    assert core.leadership.first_index == 6
    assert core.propose(Kind.RECORDS, 1) == EntryRef(7, ballot)


def test_nothing_is_sent_before_everything_adopted_is_proposed() -> None:
    core = start(accepted={1: OLD, 3: OLD})
    elect(core)
    assert not sends_of(core.ready(), Accept)
    assert core.propose(Kind.NOOP, 0) == EntryRef(2, core.state.ballot)
    assert not sends_of(core.ready(), Accept)
    assert core.propose(Kind.NOOP, 0) == EntryRef(4, core.state.ballot)
    sends = sends_of(core.ready(), Accept)
    assert {s.to: [ref.index for ref in s.entries] for s in sends} == {
        "n2": [1, 2, 3, 4],
        "n3": [1, 2, 3, 4],
    }


def test_values_are_fetched_in_pieces_from_whoever_reports_them() -> None:
    core = start(voters=FIVE, promise=OLD)
    n2 = dict.fromkeys(range(1, 81), OLD)
    n3 = {81: OLD}
    ready = elect(core, {"n2": n2, "n3": n3})
    ballot = core.state.ballot
    (send,) = sends_of(ready, FetchAccepted)
    assert (send.to, send.message) == ("n2", FetchAccepted(ballot, 1, (OLD,) * 64))
    # The host has cut them: the rest is asked for at once.
    ready = receive(core, "n2", AcceptedValues(ballot), metas(1, *[OLD] * 50))
    (send,) = sends_of(ready, FetchAccepted)
    assert (send.to, send.message) == ("n2", FetchAccepted(ballot, 51, (OLD,) * 30))
    ready = receive(core, "n2", AcceptedValues(ballot), metas(51, *[OLD] * 30))
    (send,) = sends_of(ready, FetchAccepted)
    assert (send.to, send.message) == ("n3", FetchAccepted(ballot, 81, (OLD,)))


def test_an_unanswered_fetch_goes_to_the_next_reporter() -> None:
    core = start(voters=FIVE, promise=OLD)
    elect(core, {"n2": {1: OLD}, "n4": {1: OLD}})
    asked = []
    for _ in range(7):
        ready = time_out(core)
        asked += [send.to for send in sends_of(ready, FetchAccepted)]
        for peer in ("n2", "n3", "n4"):
            core.receive(core.state.now, peer, HeartbeatReply(core.state.ballot, 0, 0), ())
    assert asked == ["n4", "n2"]


def test_a_leader_that_cannot_get_a_value_steps_down() -> None:
    core = start(promise=OLD)
    elect(core, {"n2": {1: OLD}})
    since = core.state.now
    while isinstance(core.state.role, Leader):
        receive(core, "n2", HeartbeatReply(core.state.ballot, 0, 0))
        time_out(core)
        assert core.state.now <= since + PAXOS.election_timeout_ms_max
    assert core.state.now == since + PAXOS.election_timeout_ms_max


def test_nothing_is_proposed_at_or_below_a_reported_commit_index() -> None:
    core = start(promise=THREE, accepted={1: OLD, 2: OLD, 5: OLD})
    ready = elect(core, {"n2": {}}, {"n2": 4})
    ballot = core.state.ballot
    assert (written(ready), core.propose(Kind.NOOP, 0)) == ({}, None)
    assert [s.message for s in sends_of(ready, FetchChosen)] == [FetchChosen(1, 4)]
    ready = receive(core, "n2", Chosen(4), metas(1, OLD, THREE, OLD))
    assert written(ready) == {2: (THREE, THREE), 3: (OLD, OLD)}
    assert ready.commit_index == 3
    ready = receive(core, "n2", Chosen(4), metas(4, OLD))
    assert written(ready) == {4: (OLD, OLD), 5: (ballot, OLD)}
    assert core.propose(Kind.NOOP, 0) == EntryRef(6, ballot)


def test_what_turns_out_to_be_chosen_is_adopted_no_more() -> None:
    core = start(promise=OLD)
    elect(core, {"n2": {1: OLD, 2: OLD}})
    ballot = core.state.ballot
    ready = receive(core, "n2", Chosen(1), metas(1, OLD))
    assert (written(ready), ready.commit_index) == ({1: (OLD, OLD)}, 1)
    receive(core, "n2", AcceptedValues(ballot), metas(1, OLD, OLD))
    assert core.propose(Kind.NOOP, 0) == EntryRef(3, ballot)
    sends = sends_of(core.ready(), Accept)
    assert {s.to: s.entries for s in sends}["n2"] == refs(2, ballot, ballot)


def test_a_leader_that_learns_of_a_choice_at_a_higher_ballot_leads_no_more() -> None:
    core = lead(start(promise=OLD))
    receive(core, "n2", Chosen(1), metas(1, Epoch(9, "n2")))
    assert (core.leadership.role, core.state.ballot) == ("acceptor", Epoch(9, "n2"))
    assert core.state.commit_index == 1


# --- a million entries behind ---------------------------------------------------------------------


def test_a_proposer_far_behind_gets_small_answers() -> None:
    core = start(promise=OLD, commit=1_000_000, accepted={1_000_002: OLD})
    (send,) = receive(core, "n3", Prepare(FOUR, 1)).sends
    assert send.message == Promise(FOUR, 1_000_000, (1_000_002,), (OLD,))
    (send,) = receive(core, "n3", FetchChosen(1, 1_000_000)).sends
    assert (send.message, len(send.entries)) == (Chosen(1_000_000), 64)


def test_a_leader_far_behind_asks_for_64_entries_at_a_time() -> None:
    core = start(promise=OLD)
    ready = elect(core, {"n2": {1_000_001: OLD}}, {"n2": 1_000_000})
    assert [s.message for s in sends_of(ready, FetchChosen)] == [FetchChosen(1, 64)]
    ready = receive(core, "n2", Chosen(1_000_000), metas(1, *[OLD] * 64))
    assert [s.message for s in ready.sends] == [FetchChosen(65, 128)]
    assert core.propose(Kind.NOOP, 0) is None


@pytest.mark.parametrize(
    ("indexes", "ballots"),
    [
        ((0,), (OLD,)),
        ((3,), (OLD,)),  # at the commit index
        ((5, 5), (OLD, OLD)),
        ((6, 5), (OLD, OLD)),
        ((4 + REPORTED_AHEAD_MAX,), (OLD,)),
        ((5,), ()),
        ((5,), (NO_EPOCH,)),
        ((5,), (Epoch(9, "n3"),)),  # above the ballot it promises
    ],
)
def test_a_report_that_no_acceptor_makes_is_a_fault(indexes, ballots) -> None:
    core = start()
    prepare(core)
    persist(core)
    with pytest.raises(PeerFault):
        core.receive(core.state.now, "n2", Promise(core.state.ballot, 3, indexes, ballots), ())
    assert isinstance(core.state.role, Proposer)
    assert core.state.role.promised == {"n1"}


def test_a_report_is_bounded_by_what_an_acceptor_takes() -> None:
    core = start()
    last = 0
    while not last or core.last_index == last:
        last += 1
        receive(core, "n2", Accept(OLD, 0), metas(last, OLD))
    assert core.last_index == ACCEPTED_AHEAD_MAX
    report(core)
    (send,) = receive(core, "n3", Prepare(FOUR, 1), after=200).sends
    assert isinstance(send.message, Promise)
    assert len(send.message.indexes) == ACCEPTED_AHEAD_MAX
