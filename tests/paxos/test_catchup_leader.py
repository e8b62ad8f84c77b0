"""Compaction and snapshots under a leader or a proposer, input by input; see `test_catchup`."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from paxoslog.core import PaxosCore
from paxoslog.invariants import check_state
from paxoslog.messages import (
    Accept,
    AcceptedValues,
    AskAccepted,
    Committed,
    FetchAccepted,
    FetchChosen,
    HeartbeatReply,
    Missing,
    Prepare,
    PrePromise,
    Promise,
)
from paxoslog.progress import Mode
from paxoslog.state import Leader, Proposer
from replog.agreement import EntryRef, Send
from replog.entry import Epoch, Kind
from tests.paxos.single import (
    OLD,
    PAXOS,
    accepted,
    elect,
    entry_sends,
    established,
    fetches,
    install,
    leader_of,
    metas,
    persist,
    prepare,
    progress_of,
    receive,
    report,
    sends_of,
    start,
    time_out,
    written,
)

THREE, FOUR = Epoch(3, "n2"), Epoch(4, "n3")


def ahead(count: int, reported: Sequence[str] = ("n2", "n3")) -> PaxosCore:
    """A leader that has proposed so many entries behind its first, all of them chosen with n2; n3
    has accepted the first alone. The entries have left for those whose host has `reported` it."""
    core = established(start())
    for _ in range(count):
        assert core.propose(Kind.RECORDS, 10) is not None
    assert set(entry_sends(core.ready())) == {"n2", "n3"}
    for peer in reported:
        core.sent(peer, count + 1, 10 * count)
    persist(core)
    core.receive(core.state.now, "n2", accepted(core, 1, count + 1, count + 1), ())
    core.ready()
    assert core.state.commit_index == count + 1
    return core


# --- leader and base ------------------------------------------------------------------------


def test_a_new_leader_sends_nothing_up_to_its_base() -> None:
    core = start(base=7, commit=9, accepted={10: OLD})
    elect(core, {"n2": {}, "n3": {}})
    assert core.propose(Kind.NOOP, 0) == EntryRef(11, core.state.ballot)
    ready = core.ready()
    assert entry_sends(ready) == {"n2": [10, 11], "n3": [10, 11]}
    assert {s.message for s in sends_of(ready, Accept)} == {Accept(core.state.ballot, 9)}


@pytest.mark.parametrize("mode", [Mode.REPLICATE, Mode.PROBE, Mode.ASKED, Mode.DOWN])
def test_compaction_moves_every_acceptor_behind_the_base(mode) -> None:
    core = ahead(3)
    progress = progress_of(core, "n3")
    ballot = core.state.ballot
    if mode is Mode.DOWN:
        core.lost("n3")
    elif mode is not Mode.REPLICATE:
        core.receive(core.state.now, "n3", Missing(ballot, 2, 1), ())
        core.ready()
        if mode is Mode.ASKED:
            report(core)
    assert progress.mode is mode
    core.compacted(4)
    check_state(core)
    assert (progress.match_index, progress.next_index) == (4, 5)
    assert sends_of(core.ready(), Committed) == [Send("n3", Committed(ballot, 4), 0)]
    report(core)
    # What was in the air is answered, or is not: what comes next arrives.
    receive(core, "n3", Missing(ballot, 2, 1))
    receive(core, "n3", HeartbeatReply(ballot, 0, 1))
    assert core.propose(Kind.RECORDS, 10) is not None
    assert entry_sends(core.ready())["n3"] == [5]
    report(core)
    receive(core, "n3", accepted(core, 5, 5, commit=1))
    assert (progress.match_index, progress.mode) == (5, Mode.REPLICATE)


def test_what_is_in_the_air_above_the_base_stays_there() -> None:
    core = ahead(3)
    progress = progress_of(core, "n3")
    core.compacted(3)
    assert (progress.match_index, progress.next_index, progress.mode) == (3, 5, Mode.REPLICATE)
    assert entry_sends(core.ready()) == {}
    ready = receive(core, "n3", HeartbeatReply(core.state.ballot, 0, 1), after=PAXOS.retransmit_ms)
    asked = [send.message for send in sends_of(ready, AskAccepted)]
    assert asked == [AskAccepted(core.state.ballot, 4, 4)]


def test_what_is_compacted_takes_no_room_in_the_air() -> None:
    core = ahead(3)
    progress = progress_of(core, "n3")
    assert progress.room(entries_max=64, bytes_max=1) == 0
    core.compacted(4)
    assert progress.room(entries_max=64, bytes_max=1) == 64


def test_an_acceptor_far_below_the_base_is_sent_nothing_before_it_has_caught_up() -> None:
    core = start(base=5000, commit=5000)
    elect(core, {"n2": {}, "n3": {}}, {"n2": 5000})
    assert core.propose(Kind.NOOP, 0) is not None
    assert entry_sends(core.ready()) == {"n2": [5001]}
    ready = receive(core, "n3", HeartbeatReply(core.state.ballot, 0, 0))
    assert (ready.sends, ready.snapshots_for) == ((), ())
    assert receive(core, "n3", FetchChosen(1, 64)).snapshots_for == ("n3",)
    ready = receive(core, "n3", HeartbeatReply(core.state.ballot, 0, 5000))
    assert entry_sends(ready) == {"n3": [5001]}


# --- compaction while entries are handed out (H28) ------------------------------------------------


def test_entries_handed_out_and_compacted_meanwhile_are_lost_and_not_sent_again() -> None:
    core = ahead(3, reported=["n2"])
    core.compacted(3)
    ready = core.ready()
    # n3 learns that all this is chosen, and fetches it where it can.
    assert ready.sends == (Send("n3", Committed(core.state.ballot, 3), 0),)
    core.lost("n3")
    assert not core.has_ready()
    ready = receive(core, "n3", HeartbeatReply(core.state.ballot, 0, 1))
    assert entry_sends(ready) == {"n3": [4]}
    report(core)
    receive(core, "n3", accepted(core, 4, 4, commit=1))
    assert progress_of(core, "n3").mode is Mode.REPLICATE
    assert core.propose(Kind.RECORDS, 10) is not None
    assert entry_sends(core.ready()) == {"n2": [5], "n3": [5]}


def test_entries_that_left_before_they_were_compacted_may_be_sent_again_above_the_base() -> None:
    core = ahead(3, reported=["n2"])
    core.compacted(3)
    core.ready()
    report(core)
    assert entry_sends(core.ready()) == {"n3": [4]}


# --- proposer and leader --------------------------------------------------------------------------


def test_who_lets_others_go_first_prepares_once_it_has_installed() -> None:
    core = start(promise=OLD)
    time_out(core)
    ready = receive(core, "n2", PrePromise(OLD, core.state.pre_prepare_round, True, 50))
    assert fetches(ready) == [("n2", FetchChosen(1, 50))]
    ready = install(core, 50)
    assert isinstance(core.state.role, Proposer)
    (prepare_n2, _) = sends_of(ready, Prepare)
    assert prepare_n2.message == Prepare(Epoch(2, "n1"), 51)
    (write,) = ready.writes
    assert (write.promise, write.install, prepare_n2.after_write_id) == (Epoch(2, "n1"), 50, 1)


def test_a_snapshot_during_a_prepare_counts_when_the_promises_come() -> None:
    core = start(promise=OLD, accepted={3: OLD, 60: OLD})
    prepare(core)
    persist(core)
    install(core, 50)
    ballot = core.state.ballot
    core.receive(core.state.now, "n2", Promise(ballot, 2, (3, 55), (OLD, OLD)), ())
    leader = leader_of(core)
    assert (leader.base_index, list(leader.adopted), list(leader.gaps)[:2]) == (50, [55], [51, 52])
    assert [ref.index for ref in core.state.log.accepted() if ref.epoch == ballot] == [60]


def test_a_proposer_below_the_others_base_takes_over_by_a_snapshot() -> None:
    core = start(promise=OLD, accepted={3: OLD, 502: OLD})
    ready = elect(core, {"n2": {501: OLD, 503: OLD}}, {"n2": 500})
    ballot = core.state.ballot
    assert fetches(ready) == [("n2", FetchChosen(1, 64))]
    assert core.propose(Kind.NOOP, 0) is None
    # n2 has compacted as far as 400; the rest comes as entries.
    assert fetches(install(core, 400)) == [("n2", FetchChosen(401, 464))]
    assert core.propose(Kind.NOOP, 0) is None
    ready = install(core, 500)
    assert written(ready) == {502: (ballot, OLD)}
    asked = [send.message for send in sends_of(ready, FetchAccepted)]
    assert asked == [FetchAccepted(ballot, 501, (OLD,))]
    for index in (501, 503):
        core.receive(core.state.now, "n2", AcceptedValues(ballot), metas(index, OLD))
    assert core.propose(Kind.NOOP, 0) == EntryRef(504, ballot)
    assert entry_sends(core.ready())["n2"] == [501, 502, 503, 504]


def test_a_snapshot_stands_for_adopted_values_and_gaps() -> None:
    core = start(promise=OLD)
    elect(core, {"n2": {2: OLD, 5: OLD, 7: OLD}})
    ballot = core.state.ballot
    # n2 knows more to be chosen by now, and has compacted it.
    ready = install(core, 5)
    asked = [send.message for send in sends_of(ready, FetchAccepted)]
    assert asked == [FetchAccepted(ballot, 7, (OLD,))]
    receive(core, "n2", AcceptedValues(ballot), metas(7, OLD))
    offered = [core.propose(Kind.NOOP, 0) for _ in range(2)]
    assert offered == [EntryRef(6, ballot), EntryRef(8, ballot)]
    assert entry_sends(core.ready())["n2"] == [6, 7, 8]


def test_a_proposer_that_waits_too_long_for_a_snapshot_lets_others_lead() -> None:
    core = start(promise=OLD)
    elect(core, {"n2": {}}, {"n2": 500})
    began = core.state.now
    while isinstance(core.state.role, Leader):
        receive(core, "n2", HeartbeatReply(core.state.ballot, 0, 500))
        time_out(core)
        assert core.state.now <= began + PAXOS.election_timeout_ms_max
    assert core.leadership.role == "acceptor"
    assert install(core, 500).commit_index == 500
    assert core.leadership.role == "acceptor"
    elect(core, {"n2": {}}, {"n2": 500})
    assert core.propose(Kind.NOOP, 0) == EntryRef(501, core.state.ballot)


def test_a_snapshot_brings_a_proposer_closer_to_its_first_entry() -> None:
    core = start(promise=OLD)
    elect(core, {"n2": {}}, {"n2": 500})
    began = core.state.now
    installed = False
    while isinstance(core.state.role, Leader):
        receive(core, "n2", HeartbeatReply(core.state.ballot, 0, 500))
        time_out(core)
        if not installed and core.state.now >= began + 200:
            install(core, 400)
            installed = True
            installed_at = core.state.now
    assert core.state.now >= installed_at + PAXOS.election_timeout_ms_max


def test_a_leader_whose_prepare_quorum_knew_less_survives_a_snapshot_and_leads_on() -> None:
    # An earlier leader, n3, knows 1 to 4 to be chosen, and has compacted them: n2 did not know.
    core = start(accepted={1: OLD, 2: OLD})
    elect(core, {"n2": {1: OLD, 2: OLD, 3: OLD, 4: OLD}})
    ballot = core.state.ballot
    receive(core, "n2", AcceptedValues(ballot), metas(3, OLD, OLD))
    for index in (5, 6, 7):
        assert core.propose(Kind.NOOP, 0) == EntryRef(index, ballot)
        if index == 5:
            assert entry_sends(core.ready())["n2"] == [1, 2, 3, 4, 5]
    report(core)
    ready = receive(core, "n3", HeartbeatReply(ballot, 0, 4))
    assert fetches(ready) == [("n3", FetchChosen(1, 4))]
    install(core, 4)
    assert (core.leadership.role, core.leadership.first_index) == ("leader", 5)
    assert set(leader_of(core).accepted_by) == {5, 6, 7}
    assert {p.match_index for p in leader_of(core).progress.values()} == {4}
    # The answers to what it had sent before count for what is left of it.
    persist(core)
    ready = receive(core, "n2", accepted(core, 1, 5))
    assert ready.commit_index == 5


def test_a_deposed_leader_that_does_not_know_it_survives_a_snapshot_of_others() -> None:
    core = established(start())
    for _ in range(3):
        core.propose(Kind.RECORDS, 10)
    core.ready()
    report(core)
    receive(core, "n2", PrePromise(FOUR, 0, True, 50))  # late
    ready = install(core, 50)
    assert (core.last_index, leader_of(core).accepted_by, ready.commit_index) == (50, {}, 50)
    persist(core)
    receive(core, "n2", accepted(core, 2, 4, commit=1))
    time_out(core)
    assert core.propose(Kind.RECORDS, 10) == EntryRef(51, core.state.ballot)
    check_state(core)


def test_a_sole_voter_compacts() -> None:
    core = start(voters=frozenset({"n1"}), commit=9)
    core.compacted(9)
    time_out(core)
    persist(core)
    assert core.propose(Kind.NOOP, 0) == EntryRef(10, core.state.ballot)
