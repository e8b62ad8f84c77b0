"""A leader, input by input. The transcripts `scenarios/log_*` show the same rules at work."""

from __future__ import annotations

import pytest

from raftlog import Raft
from raftlog.core import RaftCore
from raftlog.invariants import observe
from raftlog.messages import (
    Appended,
    AppendEntries,
    AppendRefused,
    Committed,
    Heartbeat,
    HeartbeatReply,
    Vote,
)
from raftlog.progress import Mode
from replog.agreement import EntryRef, Message, Ready
from replog.entry import Epoch, Kind
from replog.errors import PeerFault
from tests.raft.single import (
    RAFT,
    campaign,
    established,
    lead,
    metas,
    persist,
    progress_of,
    receive,
    report,
    sends_of,
    start,
    time_out,
)

ONE = Epoch(1, "n1")
TWO = Epoch(2, "n2")
THREE = Epoch(3, "n3")
OLD = Epoch(1, "n9")


def propose(core: RaftCore, count: int = 1) -> Ready:
    for _ in range(count):
        assert core.propose(Kind.RECORDS, 10) is not None
    return core.ready()


def entry_sends(ready: Ready) -> dict[str, list[int]]:
    return {s.to: [ref.index for ref in s.entries] for s in ready.sends if s.entries}


# --- leader: proposals ----------------------------------------------------------------------------


def test_a_leadership_begins_with_a_no_op() -> None:
    core = start(log=[1])
    campaign(core)
    persist(core)
    core.receive(1, "n2", Vote(2, True), ())
    assert (core.has_room, core.propose(Kind.RECORDS, 1)) == (False, None)
    assert core.leadership.first_index == 0
    assert core.propose(Kind.NOOP, 0) == EntryRef(2, Epoch(2, "n1"))
    assert core.leadership.first_index == 2
    assert core.has_room
    assert core.propose(Kind.RECORDS, 1) == EntryRef(3, Epoch(2, "n1"))


def test_nobody_but_a_leader_takes_proposals() -> None:
    core = start()
    assert core.propose(Kind.NOOP, 0) is None
    campaign(core)
    assert core.propose(Kind.NOOP, 0) is None
    assert not core.has_room


def test_proposals_of_one_turn_are_one_write_and_one_send_to_each() -> None:
    core = established(start())
    ready = propose(core, 3)
    assert [[entry.index for entry in write.entries] for write in ready.writes] == [[2, 3, 4]]
    assert entry_sends(ready) == {"n2": [2, 3, 4], "n3": [2, 3, 4]}
    assert {s.after_write_id for s in ready.sends} == {0}
    report(core)
    assert [write.write_id for write in propose(core).writes] == [ready.writes[0].write_id + 1]


def test_the_window_counts_what_is_not_committed() -> None:
    core = established(start(raft=Raft(inflight_entries_max=3)))
    propose(core, 3)
    report(core)
    persist(core)
    assert (core.has_room, core.propose(Kind.RECORDS, 1)) == (False, None)
    receive(core, "n2", Appended(1, 2))
    assert core.has_room


def test_the_window_counts_what_is_not_on_the_leaders_own_disk() -> None:
    core = established(start(raft=Raft(inflight_entries_max=3)))
    propose(core, 3)
    report(core)
    for peer in ("n2", "n3"):
        receive(core, peer, Appended(1, 4))
    assert core.state.commit_index == 4
    assert (core.has_room, core.propose(Kind.RECORDS, 1)) == (False, None)
    persist(core)
    assert core.has_room


# --- leader: commitment (paper, sections 5.3 and 5.4.2) -------------------------------------------


def test_a_quorum_commits_with_or_without_the_leaders_disk() -> None:
    core = established(start())
    propose(core)
    assert receive(core, "n2", Appended(1, 2)).commit_index == 1
    assert persist(core).commit_index == 2
    propose(core)
    receive(core, "n2", Appended(1, 3))
    assert receive(core, "n3", Appended(1, 3)).commit_index == 3


def test_a_repeated_acknowledgement_counts_once() -> None:
    core = established(start(voters=frozenset({"n1", "n2", "n3", "n4", "n5"})))
    propose(core)
    persist(core)
    for _ in range(3):
        assert receive(core, "n2", Appended(1, 2)).commit_index == 1
    assert receive(core, "n3", Appended(1, 2)).commit_index == 2


def test_no_entry_of_an_earlier_term_is_committed_by_counting() -> None:
    core = start(log=[1, 1])
    lead(core)
    persist(core)
    assert receive(core, "n2", Appended(2, 2)).commit_index == 0
    assert receive(core, "n3", Appended(2, 2)).commit_index == 0
    assert receive(core, "n3", Appended(2, 3)).commit_index == 3


def test_the_match_index_never_falls() -> None:
    core = established(start())
    propose(core, 3)
    report(core)
    receive(core, "n2", Appended(1, 4))
    receive(core, "n2", Appended(1, 2))
    assert progress_of(core, "n2").match_index == 4
    receive(core, "n2", AppendRefused(1, 3, 1, 1))  # late: its entries have arrived since
    follower = progress_of(core, "n2")
    assert (follower.match_index, follower.next_index, follower.mode) == (4, 5, Mode.REPLICATE)


def test_a_late_hint_leads_to_nothing_below_the_match_index() -> None:
    core = established(start())
    for _ in range(3):
        propose(core)
        report(core)
    receive(core, "n2", Appended(1, 2))
    (send,) = receive(core, "n2", AppendRefused(1, 3, 1, 1)).sends
    assert [ref.index for ref in send.entries] == [3, 4]


def test_a_commit_is_told_at_once_if_nothing_else_goes_there() -> None:
    core = established(start())
    propose(core)
    report(core)
    persist(core)
    ready = receive(core, "n2", Appended(1, 2))
    assert [(s.to, s.message) for s in ready.sends] == [("n2", Committed(1, 2))]
    # n3 has not acknowledged it, and would not be allowed to commit it.
    ready = receive(core, "n3", Appended(1, 2))
    assert [(s.to, s.message) for s in ready.sends] == [("n3", Committed(1, 2))]


def test_entries_carry_the_commit_index_instead() -> None:
    core = established(start())
    propose(core)
    report(core)
    persist(core)
    core.receive(1, "n2", Appended(1, 2), ())
    ready = propose(core)
    assert sends_of(ready, Committed) == []
    assert {s.message for s in ready.sends} == {AppendEntries(1, 2, 1, 2)}


# --- leader: flow to one follower (dissertation, section 10.2.1) ----------------------------------


def test_a_new_leader_probes_each_follower_once() -> None:
    core = lead(start(log=[1, 1]))
    assert {p: h[1:] for p, h in core.state.handed.items()} == {"n2": (3, 3), "n3": (3, 3)}
    report(core)
    assert entry_sends(propose(core)) == {}
    assert entry_sends(receive(core, "n2", Appended(2, 3))) == {"n2": [4]}


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
    core = established(start(raft=Raft(inflight_entries_max=100)))
    assert entry_sends(propose(core, 80))["n2"] == list(range(2, 66))
    core.sent("n2", 65, 10)
    assert entry_sends(core.ready())["n2"] == list(range(66, 82))


def test_the_window_to_a_follower_is_bounded_in_bytes() -> None:
    core = established(start(raft=Raft(inflight_bytes_max=100)))
    for index, size in ((2, 60), (3, 60)):
        assert entry_sends(propose(core))["n2"] == [index]
        core.sent("n2", index, size)
    assert "n2" not in entry_sends(propose(core))
    assert entry_sends(receive(core, "n2", Appended(1, 2))) == {"n2": [4]}


def test_the_window_to_a_follower_is_bounded_in_entries() -> None:
    core = established(start(raft=Raft(inflight_entries_max=2)))
    propose(core, 2)
    report(core)
    persist(core)
    receive(core, "n3", Appended(1, 3))
    report(core)
    assert entry_sends(propose(core)) == {"n3": [4]}
    assert entry_sends(receive(core, "n2", Appended(1, 2))) == {"n2": [4]}


def test_a_lost_send_waits_for_a_sign_of_life() -> None:
    core = established(start())
    propose(core)
    core.lost("n2")
    assert not core.has_ready()
    assert progress_of(core, "n2").mode is Mode.DOWN
    assert sends_of(time_out(core), AppendEntries) == []
    assert entry_sends(receive(core, "n2", HeartbeatReply(1, 0))) == {"n2": [2]}
    assert progress_of(core, "n2").mode is Mode.PROBE


def test_a_report_of_an_earlier_leadership_is_not_mistaken() -> None:
    core = established(start())
    propose(core)  # entry 2 of term 1 is handed out, and not reported while n3 leads
    receive(core, "n3", AppendEntries(3, 1, 1, 1), metas(2, THREE))
    persist(core)
    core.tick(core.state.now + 1000)
    lead(core)
    for _ in range(3):
        time_out(core)
        receive(core, "n3", HeartbeatReply(4, 0))
    ready = receive(core, "n2", HeartbeatReply(4, 0))
    assert [s.message for s in ready.sends] == [AppendEntries(4, 2, 3, 1)]
    receive(core, "n2", AppendRefused(4, 2, 1, 1))
    core.sent("n2", 2, 20)  # of term 1, though for the same place
    assert progress_of(core, "n2").mode is Mode.PROBE
    assert entry_sends(core.ready()) == {"n2": [2, 3]}
    core.lost("n3")
    assert progress_of(core, "n3").mode is Mode.PROBE
    assert entry_sends(core.ready()) == {"n3": [3]}


def test_a_report_for_a_place_that_was_given_up_moves_nothing() -> None:
    core = established(start())
    propose(core)
    core.sent("n2", 2, 10)
    propose(core)  # entry 3 is handed out, and entry 2 was lost on the way
    core.sent("n2", 3, 10)
    propose(core)
    receive(core, "n2", AppendRefused(1, 2, 1, 1))
    assert progress_of(core, "n2").next_index == 2
    core.sent("n2", 4, 10)
    assert progress_of(core, "n2").mode is Mode.PROBE
    assert entry_sends(core.ready()) == {"n2": [2, 3, 4]}


def test_a_late_refusal_of_a_probe_is_ignored() -> None:
    core = lead(start(log=[1, 1, 1]))
    report(core)
    assert entry_sends(receive(core, "n2", AppendRefused(2, 3, 1, 1))) == {"n2": [2, 3, 4]}
    report(core)
    assert receive(core, "n2", AppendRefused(2, 3, 0, 0)).sends == ()
    assert progress_of(core, "n2").next_index == 2


def test_an_overdue_acknowledgement_is_asked_for_without_entries() -> None:
    core = established(start())
    propose(core)
    report(core)
    started = core.state.now
    asked: dict[int, tuple[Message, ...]] = {}
    while core.state.now < started + 4 * RAFT.retransmit_ms:
        time_out(core)
        sends = receive(core, "n2", HeartbeatReply(1, 0)).sends
        if sends:
            asked[core.state.now - started] = tuple(send.message for send in sends)
        receive(core, "n3", HeartbeatReply(1, 0))
    assert set(asked.values()) == {(AppendEntries(1, 2, 1, 1),)}
    assert list(asked) == [RAFT.retransmit_ms * times for times in (1, 2, 3, 4)]


def test_a_silent_follower_gets_heartbeats_only() -> None:
    core = established(start())
    propose(core)
    report(core)
    for _ in range(30):
        ready = time_out(core)
        assert {type(s.message) for s in ready.sends} == {Heartbeat}
        receive(core, "n3", HeartbeatReply(1, 0))


# --- leader: heartbeats ---------------------------------------------------------------------------


def test_heartbeats_are_sent_at_the_beginning_and_every_interval() -> None:
    core = start()
    campaign(core)
    persist(core)
    ready = receive(core, "n2", Vote(1, True))
    assert [(s.to, s.message) for s in ready.sends] == [
        ("n2", Heartbeat(1, 0, 0)),
        ("n3", Heartbeat(1, 0, 0)),
    ]
    assert core.deadline == core.state.now + RAFT.heartbeat_ms
    core.tick(core.state.now + 100)  # late: once, not three times
    assert len(core.ready().sends) == 2


def test_a_heartbeat_tells_no_more_than_the_follower_holds() -> None:
    core = established(start())
    propose(core, 2)
    report(core)
    persist(core)
    receive(core, "n2", Appended(1, 3))
    commits = {s.to: s.message for s in sends_of(time_out(core), Heartbeat)}
    assert commits == {"n2": Heartbeat(1, 3, 0), "n3": Heartbeat(1, 1, 0)}


def test_a_sole_leader_has_no_timer() -> None:
    core = start(voters=frozenset({"n1"}))
    time_out(core)
    persist(core)
    assert core.leadership.role == "leader"
    assert core.deadline is None


# --- what no correct member answers ---------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        Appended(1, 2),  # more than the log holds
        Appended(1, -1),
        AppendRefused(1, 2, 0, 0),
        AppendRefused(1, 0, 1, 1),
        AppendRefused(1, 1, -1, 0),
        HeartbeatReply(1, 1),  # a round that never was
        HeartbeatReply(1, -1),
    ],
)
def test_an_answer_to_what_was_never_sent_is_a_fault(answer) -> None:
    core = lead(start())
    before = observe(core)
    with pytest.raises(PeerFault):
        core.receive(core.state.now, "n2", answer, ())
    assert observe(core) == before
    assert not core.has_ready()
