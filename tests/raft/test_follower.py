"""A follower, input by input. The transcripts `scenarios/log_*` show the same rules at work."""

from __future__ import annotations

import pytest

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
from replog.agreement import Write, WriteEntry
from replog.entry import Epoch
from replog.errors import InvariantBroken, PeerFault
from tests.raft.single import (
    lead,
    metas,
    receive,
    start,
)

ONE = Epoch(1, "n1")
TWO = Epoch(2, "n2")
THREE = Epoch(3, "n3")
OLD = Epoch(1, "n9")


# --- follower: the consistency check (paper, section 5.3) -----------------------------------------


def test_a_new_term_and_its_first_entries_are_one_write() -> None:
    ready = receive(start(), "n2", AppendEntries(2, 0, 0, 0), metas(1, OLD, TWO))
    entries = (WriteEntry(1, OLD, OLD), WriteEntry(2, TWO, TWO))
    assert ready.writes == (Write(1, Epoch(2, ""), None, entries),)
    assert [(s.message, s.after_write_id) for s in ready.sends] == [(Appended(2, 2), 1)]


@pytest.mark.parametrize(
    ("log", "previous_index", "previous_term", "hint"),
    [
        ([], 1, 1, (0, 0)),  # nothing there at all
        ([1], 3, 1, (1, 1)),  # a gap
        ([1, 1], 2, 2, (2, 1)),  # another term: one below the leader's is worth a look
        ([1, 2, 2, 2], 4, 1, (1, 1)),  # terms above the leader's are skipped as a whole
        ([2, 2], 1, 1, (0, 0)),
        ([1, 1, 3, 3], 9, 2, (2, 1)),  # beyond the end, and a conflict before it
    ],
)
def test_a_refusal_hints_where_the_logs_may_agree(log, previous_index, previous_term, hint) -> None:
    core = start(term=4, log=log)
    ready = receive(core, "n2", AppendEntries(4, previous_index, previous_term, 0))
    assert [s.message for s in ready.sends] == [AppendRefused(4, previous_index, *hint)]
    assert core.last_index == len(log)


@pytest.mark.parametrize(
    ("log", "previous", "terms", "truncate_from", "written"),
    [
        ([1, 1], 2, [1], None, [3]),
        ([1, 1, 1], 1, [1], None, []),  # late: what follows stays
        ([1, 1, 1], 0, [1, 1], None, []),
        ([1, 1, 1], 1, [1, 1, 2], None, [4]),
        ([1, 1, 1], 1, [2], 2, [2]),
        ([1, 1, 2, 2], 1, [1, 3], 3, [3]),
        ([1, 2], 0, [3], 1, [1]),
    ],
)
def test_only_a_conflict_truncates(log, previous, terms, truncate_from, written) -> None:
    core = start(term=5, log=log)
    entries = metas(previous + 1, *[Epoch(term, "n9") for term in terms])
    previous_term = log[previous - 1] if previous else 0
    ready = receive(core, "n2", AppendEntries(5, previous, previous_term, 0), entries)
    assert ready.sends[0].message == Appended(5, previous + len(terms))
    if not written:
        assert ready.writes == ()
    else:
        (write,) = ready.writes
        assert write.truncate_from == truncate_from
        assert [entry.index for entry in write.entries] == written


def test_two_steps_are_two_writes_where_one_would_change_their_order() -> None:
    core = start()
    core.receive(1, "n2", AppendEntries(2, 0, 0, 0), metas(1, OLD, TWO))
    core.receive(2, "n3", AppendEntries(3, 1, 1, 0), metas(2, THREE, THREE))
    ready = core.ready()
    assert [write._replace(entries=()) for write in ready.writes] == [
        Write(1, Epoch(2, ""), None, ()),
        Write(2, Epoch(3, ""), 2, ()),
    ]
    assert [s.after_write_id for s in ready.sends] == [1, 2]


def test_steps_that_only_append_share_a_write() -> None:
    core = start(term=2)
    core.receive(1, "n2", AppendEntries(2, 0, 0, 0), metas(1, TWO))
    core.receive(2, "n2", AppendEntries(2, 1, 2, 0), metas(2, TWO, TWO))
    (write,) = core.ready().writes
    assert [entry.index for entry in write.entries] == [1, 2, 3]


def test_a_repeated_append_waits_for_the_first_ones_write() -> None:
    core = start(term=2)
    append = AppendEntries(2, 0, 0, 0)
    receive(core, "n2", append, metas(1, TWO))
    ready = receive(core, "n2", append, metas(1, TWO))
    assert ready.writes == ()
    assert [(s.message, s.after_write_id) for s in ready.sends] == [(Appended(2, 1), 1)]


def test_an_append_of_a_past_leader_learns_the_present_term() -> None:
    core = start(term=7)
    ready = receive(core, "n2", AppendEntries(6, 4, 6, 3))
    assert [s.message for s in ready.sends] == [HeartbeatReply(7, 0)]
    assert core.leadership.leader is None


# --- follower: commitment (paper, figure 2) -------------------------------------------------------


@pytest.mark.parametrize(
    ("leader_commit", "previous", "count", "committed"),
    [
        (9, 1, 1, 2),  # what this append has verified, though entry 3 is there
        (9, 1, 0, 1),
        (1, 1, 2, 1),
        (0, 3, 1, 0),
    ],
)
def test_a_follower_commits_what_it_has_verified(leader_commit, previous, count, committed) -> None:
    core = start(term=1, log=[1, 1, 1])
    entries = metas(previous + 1, *[OLD] * count)
    ready = receive(core, "n2", AppendEntries(2, previous, 1, leader_commit), entries)
    assert ready.commit_index == committed


def test_the_commit_index_never_falls() -> None:
    core = start(term=2, log=[1, 1, 2], commit=2)
    receive(core, "n2", AppendEntries(2, 1, 1, 1))
    receive(core, "n2", Heartbeat(2, 0, 0))
    receive(core, "n2", Committed(2, 1))
    assert core.ready().commit_index == 2


def test_a_notice_commits_and_answers_nothing() -> None:
    core = start(term=2, log=[1, 1, 2])
    ready = receive(core, "n2", Committed(2, 3))
    assert (ready.commit_index, ready.sends) == (3, ())
    assert receive(start(term=2, log=[1]), "n2", Committed(1, 1)).commit_index == 0


def test_a_committed_entry_is_not_dropped() -> None:
    core = start(term=2, log=[1, 1, 2], commit=2)
    receive(core, "n2", AppendEntries(3, 2, 1, 0), metas(3, THREE._replace(node="n2")))
    with pytest.raises(InvariantBroken, match="everything up to 2 is committed"):
        core.receive(1, "n2", AppendEntries(3, 1, 1, 0), metas(2, Epoch(3, "n2")))


def test_two_leaders_of_one_term_in_two_logs_stop_the_node() -> None:
    core = start(log=[1])
    with pytest.raises(InvariantBroken, match="entry 1"):
        core.receive(1, "n2", AppendEntries(2, 0, 0, 0), metas(1, Epoch(1, "n3")))


def test_a_heartbeat_is_answered_at_once() -> None:
    core = start()
    receive(core, "n2", AppendEntries(2, 0, 0, 0), metas(1, TWO))
    ready = receive(core, "n2", Heartbeat(2, 1, 8))
    assert [(s.message, s.after_write_id) for s in ready.sends] == [(HeartbeatReply(2, 8), 0)]
    assert ready.commit_index == 1


def test_a_past_leaders_heartbeat_learns_the_term_and_no_round() -> None:
    # Rounds begin anew in each term: in this one, the sender may lead and have such a round.
    ready = receive(start(term=7), "n2", Heartbeat(6, 0, 3))
    assert [s.message for s in ready.sends] == [HeartbeatReply(7, 0)]


# --- what no correct member sends -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("append", "entries"),
    [
        (AppendEntries(3, -1, 0, 0), []),
        (AppendEntries(3, 0, 1, 0), []),
        (AppendEntries(3, 1, 0, 0), []),
        (AppendEntries(3, 1, 4, 0), []),
        (AppendEntries(3, 1, 1, -1), []),
        (AppendEntries(3, 1, 1, 0), metas(3, OLD)),  # a gap after the previous entry
        (AppendEntries(3, 1, 1, 0), [*metas(2, OLD), *metas(2, OLD)]),
        (AppendEntries(3, 1, 2, 0), metas(2, OLD)),  # terms fall
        (AppendEntries(3, 1, 1, 0), metas(2, TWO, OLD)),
        (AppendEntries(3, 1, 1, 0), metas(2, TWO, Epoch(2, "n3"))),  # two leaders of a term
        (AppendEntries(3, 1, 1, 0), metas(2, Epoch(4, "n2"))),  # of the future
        (AppendEntries(3, 1, 1, 0), metas(2, Epoch(3, "n3"))),  # of another leader of its term
        (AppendEntries(3, 0, 0, 0), metas(1, Epoch(0, "n2"))),
        (Heartbeat(3, 2, 0), []),  # commits what this log does not hold
        (Heartbeat(3, -1, 0), []),
        (Committed(3, 2), []),
        (Heartbeat(3, 0, 0), metas(1, OLD)),  # entries beside a message that takes none
        (Heartbeat(0, 0, 0), []),
        (Heartbeat((1 << 32) + 3, 0, 0), []),  # a jump that no elections make
        (Vote((1 << 32) + 3, True), []),
        (("AppendEntries", 3), []),
    ],
)
def test_a_peers_fault_changes_nothing(append, entries) -> None:
    core = start(term=2, log=[1])
    before, deadline = observe(core), core.deadline
    with pytest.raises(PeerFault):
        core.receive(core.state.now, "n2", append, entries)
    assert (observe(core), core.deadline) == (before, deadline)
    assert not core.has_ready()


@pytest.mark.parametrize("sender", ["n1", "n4", ""])
def test_only_other_voters_are_heard(sender: str) -> None:
    core = start()
    with pytest.raises(PeerFault):
        core.receive(1, sender, Heartbeat(1, 0, 0), ())


@pytest.mark.parametrize(
    "message", [Heartbeat(1, 0, 0), AppendEntries(1, 0, 0, 0), Committed(1, 0)]
)
def test_a_second_leader_of_a_term_is_a_fault(message) -> None:
    follower = start()
    receive(follower, "n2", Heartbeat(1, 0, 0))
    with pytest.raises(PeerFault, match="n3 claims term 1, which n2 leads"):
        follower.receive(1, "n3", message, ())
    leader = lead(start())
    with pytest.raises(PeerFault, match="n3 claims term 1, which n1 leads"):
        leader.receive(1, "n3", message, ())
