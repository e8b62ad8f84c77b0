"""Snapshots in the place of compacted entries, input by input (paper, section 7).

The transcripts `scenarios/catchup_*` show the same rules at work.
"""

from __future__ import annotations

import pytest

from raftlog.core import RaftCore
from raftlog.invariants import check_state, observe
from raftlog.messages import (
    Appended,
    AppendEntries,
    AppendRefused,
    Heartbeat,
    HeartbeatReply,
    PreVote,
    RequestVote,
    Vote,
)
from raftlog.progress import Mode
from replog.agreement import EntryRef, Ready, Write, WriteEntry
from replog.entry import NO_EPOCH, Epoch, Kind
from replog.errors import InvariantBroken
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

OLD = Epoch(1, "n9")
SECOND = Epoch(2, "n9")
TWO = Epoch(2, "n2")
THREE = Epoch(3, "n3")


def install(core: RaftCore, index: int, epoch: Epoch) -> bool:
    taken = core.install(core.state.now, EntryRef(index, epoch))
    check_state(core)
    return taken


def compacted_leader(*, last: int = 6, base: int = 5) -> RaftCore:
    """Leads term 2 with entries up to `last`, which everybody but n2 holds, down to `base`."""
    core = lead(start(log=[1] * (last - 1)))
    report(core)
    persist(core)
    receive(core, "n3", Appended(2, last))
    assert core.state.commit_index == last
    core.compacted(base)
    check_state(core)
    core.ready()
    report(core)
    return core


# --- install: what becomes of the log -------------------------------------------------------------


@pytest.mark.parametrize(
    ("log", "commit", "index", "truncate_from", "kept"),
    [
        ([], 0, 4, None, []),
        ([1, 1], 1, 4, 2, []),  # too short
        ([1, 1], 2, 4, None, []),  # nothing is there to be dropped
        ([1, 1, 2], 1, 3, None, []),  # ends at the snapshot's last entry
        ([1, 1, 2, 2, 3], 1, 3, None, [2, 3]),  # follows that very entry
        ([1, 1, 1, 1, 3], 1, 3, 2, []),  # follows another
        ([1, 1, 3, 3], 2, 3, 3, []),
    ],
)
def test_what_follows_is_kept_behind_the_very_entry(
    log, commit, index, truncate_from, kept
) -> None:
    core = start(term=3, log=log, commit=commit)
    assert install(core, index, SECOND)
    ready = core.ready()
    assert ready.writes == (Write(1, None, truncate_from, (), index),)
    assert ready.commit_index == index
    assert core.state.log.base == (index, SECOND)
    indexes = range(index + 1, core.last_index + 1)
    assert [core.state.log.term_at(each) for each in indexes] == kept
    assert core.epoch_at(index) == SECOND


def test_an_entry_of_another_leader_of_that_term_is_another_entry() -> None:
    core = start(term=3, log=[1, 1, 2, 2], commit=1)
    assert install(core, 3, TWO)
    assert core.last_index == 3


@pytest.mark.parametrize("index", [1, 2])
def test_an_old_snapshot_changes_nothing(index: int) -> None:
    core = start(log=[1, 1, 1], commit=2)
    before = observe(core)
    assert not install(core, index, OLD)
    assert observe(core) == before
    assert not core.has_ready()


def test_a_snapshot_is_installed_once() -> None:
    core = start(term=1, log=[1])
    assert install(core, 4, OLD)
    assert not install(core, 4, OLD)
    assert not install(core, 3, OLD)
    assert [write.install for write in core.ready().writes] == [4]


def test_a_leader_installs_nothing() -> None:
    core = established(start())
    assert not install(core, 5, Epoch(1, "n1"))
    assert not core.has_ready()


@pytest.mark.parametrize("term", [0, 4])
def test_a_snapshot_of_an_unknown_term_was_offered_to_somebody_else(term: int) -> None:
    core = start(term=3, log=[1])
    assert not install(core, 5, Epoch(term, "n9"))
    assert not core.has_ready()


def test_who_installs_campaigns_no_more() -> None:
    # The votes were asked for with entry 2 of term 2, which the snapshot shows to be void.
    core = start(log=[1, 2])
    campaign(core)
    persist(core)
    assert install(core, 2, OLD)
    assert core.leadership.role == "follower"
    for peer in core.state.others:
        receive(core, peer, Vote(3, True))
    assert core.leadership.role == "follower"
    core = start(log=[1, 2])
    time_out(core)
    assert install(core, 2, OLD)
    for peer in core.state.others:
        receive(core, peer, PreVote(2, 1, True))
    assert (core.state.term, core.leadership.role) == (2, "follower")


# --- install: what is told, and when --------------------------------------------------------------


def test_the_leader_is_told_once_the_install_is_durable() -> None:
    core = start(term=3, log=[1])
    receive(core, "n2", Heartbeat(3, 0, 0))
    assert install(core, 4, OLD)
    (send,) = core.ready().sends
    assert (send.to, send.message, send.after_write_id) == ("n2", Appended(3, 4), 1)


def test_no_leader_no_word() -> None:
    core = start(term=3, log=[1])
    assert install(core, 4, OLD)
    assert core.ready().sends == ()


# --- install: the order of writes -----------------------------------------------------------------


def test_entries_that_follow_share_the_write() -> None:
    core = start(term=2, log=[1, 1], commit=1)
    assert install(core, 4, OLD)
    core.receive(core.state.now, "n2", AppendEntries(2, 4, 1, 4), metas(5, TWO))
    assert core.ready().writes == (Write(1, None, 2, (WriteEntry(5, TWO, TWO),), 4),)


def test_entries_before_an_install_and_another_term_after_it_are_writes_of_their_own() -> None:
    core = start(term=2, log=[1])
    core.receive(core.state.now, "n2", AppendEntries(2, 1, 1, 0), metas(2, TWO, TWO))
    assert install(core, 2, TWO)
    core.receive(core.state.now, "n3", Heartbeat(3, 0, 0), ())
    assert core.ready().writes == (
        Write(1, None, None, (WriteEntry(2, TWO, TWO), WriteEntry(3, TWO, TWO)), None),
        Write(2, None, None, (), 2),
        Write(3, Epoch(3, ""), None, (), None),
    )
    assert core.last_index == 3


def test_entries_under_way_to_the_disk_count_when_they_are_kept() -> None:
    core = start(term=2)
    receive(core, "n2", AppendEntries(2, 0, 0, 0), metas(1, TWO, TWO, TWO))
    assert install(core, 2, TWO)
    core.ready()
    core.durable(core.state.now, 1)
    assert core.state.journal.durable_index == 3
    core.durable(core.state.now, 2)
    assert core.state.journal.durable_index == 3


def test_entries_under_way_to_the_disk_never_count_when_they_are_dropped() -> None:
    core = start(term=2)
    receive(core, "n2", AppendEntries(2, 0, 0, 0), metas(1, OLD, TWO, TWO, TWO))
    assert install(core, 2, OLD)
    core.ready()
    receive(core, "n2", AppendEntries(2, 2, 1, 2), metas(3, TWO, TWO))
    core.durable(core.state.now, 1)
    assert core.state.journal.durable_index == 0
    core.durable(core.state.now, 2)
    assert core.state.journal.durable_index == 2
    core.durable(core.state.now, 3)
    assert core.state.journal.durable_index == 4


# --- a follower behind its base -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("previous", "terms", "match", "written"),
    [
        (0, [], 3, []),
        (0, [1, 1], 3, []),  # ends below the base
        (0, [1, 1, 1], 3, []),  # at it
        (1, [1, 1, 2], 4, []),  # above it, and known
        (1, [1, 1, 2, 2, 2], 6, [6]),  # beyond the end
        (2, [1], 3, []),
        (3, [2], 4, []),  # right behind it
        (3, [2, 2, 3], 6, [6]),
        (3, [], 3, []),
    ],
)
def test_late_appends_take_nothing_away(previous, terms, match, written) -> None:
    core = start(term=4, log=[1, 1, 1, 2, 2], base=3)
    entries = metas(previous + 1, *[Epoch(term, "n9") for term in terms])
    ready = receive(core, "n2", AppendEntries(4, previous, int(previous > 0), 9), entries)
    check_state(core)
    assert [send.message for send in ready.sends] == [Appended(4, match)]
    assert [entry.index for write in ready.writes for entry in write.entries] == written
    assert {write.truncate_from for write in ready.writes} <= {None}
    assert ready.commit_index == match
    assert core.last_index == max(5, match)


def test_a_conflict_behind_the_base_is_repaired_as_any_other() -> None:
    core = start(term=4, log=[1, 1, 1, 2, 2], base=3)
    entries = metas(2, OLD, OLD, THREE._replace(node="n9"))
    ready = receive(core, "n2", AppendEntries(4, 1, 1, 0), entries)
    assert [send.message for send in ready.sends] == [Appended(4, 4)]
    assert [write.truncate_from for write in ready.writes] == [4]


def test_a_refusal_hints_no_lower_than_the_base() -> None:
    core = start(term=4, log=[1, 2, 3, 3], base=2)
    for previous in (2, 3, 4, 9):  # the first contradicts what is committed: no leader sends it
        ready = receive(core, "n2", AppendEntries(4, previous, 1, 0))
        assert [send.message for send in ready.sends] == [AppendRefused(4, previous, 2, 2)]


def test_a_log_of_nothing_but_its_base_ends_there() -> None:
    core = start(log=[1, 2, 2], base=3)
    assert (core.last_index, core.state.log.last_term) == (3, 2)
    assert [send.message for send in campaign(core).sends] == [RequestVote(3, 3, 2)] * 2
    voter = start(log=[1, 2, 2], base=3)
    for request, granted in [(RequestVote(3, 2, 2), False), (RequestVote(4, 3, 2), True)]:
        ready = receive(voter, "n2", request)
        assert [send.message for send in ready.sends] == [Vote(request.term, granted)]


# --- compaction -----------------------------------------------------------------------------------


def test_compaction_is_harmless_at_or_below_an_earlier_one() -> None:
    core = start(log=[1, 1, 2, 2], commit=3)
    core.compacted(2)
    for index in (0, 1, 2):
        core.compacted(index)
    assert core.state.log.base == (2, OLD)
    core.compacted(3)
    assert core.state.log.base == (3, (2, "n9"))
    assert not core.has_ready()


def test_nothing_is_compacted_that_is_not_committed() -> None:
    with pytest.raises(InvariantBroken, match="compacted to 3, committed to 2"):
        start(log=[1, 1, 1], commit=2).compacted(3)


def test_the_epoch_below_the_base_is_gone() -> None:
    core = start(log=[1, 1, 2, 2], base=2)
    assert [core.epoch_at(index).number for index in (2, 3, 4)] == [1, 2, 2]
    for index in (1, 5):
        with pytest.raises(InvariantBroken):
            core.epoch_at(index)
    assert start().epoch_at(0) == NO_EPOCH


# --- a leader: what it cannot send any more -------------------------------------------------------


def refuse(core: RaftCore, previous: int, hint: int = 0, *, after: int = 0) -> Ready:
    """n2 refuses; what the leader wants then."""
    ready = receive(core, "n2", AppendRefused(2, previous, hint, int(hint > 0)), after=after)
    check_state(core)
    return ready


@pytest.mark.parametrize(("previous", "hint"), [(5, 0), (5, 4), (5, 5)])
def test_a_follower_that_refuses_the_base_is_offered_a_snapshot(previous, hint) -> None:
    core = compacted_leader(base=5)
    ready = refuse(core, previous, hint)
    assert ready.snapshots_for == ("n2",)
    assert sends_of(ready, AppendEntries) == []
    assert progress_of(core, "n2").next_index == 6


def test_a_follower_that_agrees_at_the_base_needs_none() -> None:
    core = compacted_leader(last=8, base=5)
    ready = refuse(core, 7, 5)
    assert ready.snapshots_for == ()
    assert [(s.message, [ref.index for ref in s.entries]) for s in ready.sends] == [
        (AppendEntries(2, 5, 1, 8), [6, 7, 8])
    ]


def test_a_base_of_a_higher_term_than_the_hint_is_not_agreed_on() -> None:
    core = lead(start(log=[1, 2, 2, 2]))
    report(core)
    persist(core)
    receive(core, "n3", Appended(3, 5))
    core.compacted(3)
    assert receive(core, "n2", AppendRefused(3, 4, 3, 1)).snapshots_for == ("n2",)


def test_a_probe_in_flight_may_be_overtaken_by_compaction() -> None:
    core = lead(start(log=[1] * 5))
    report(core)
    persist(core)
    receive(core, "n3", Appended(2, 6))
    refuse(core, 5, 2)  # asked from 3 on
    report(core)
    core.compacted(4)
    check_state(core)
    follower = progress_of(core, "n2")
    assert (follower.mode, follower.next_index) == (Mode.ASKED, 5)
    assert refuse(core, 2, 0).snapshots_for == ("n2",)
    # The same probe, accepted: the follower lacks 3 and 4, and shows it when it is asked next.
    core = lead(start(log=[1] * 5))
    report(core)
    persist(core)
    receive(core, "n3", Appended(2, 6))
    refuse(core, 5, 2)
    report(core)
    core.compacted(4)
    assert receive(core, "n2", Appended(2, 2)).snapshots_for == ()
    check_state(core)
    ready = receive(core, "n2", HeartbeatReply(2, 0), after=RAFT.retransmit_ms)
    assert [s.message for s in ready.sends] == [AppendEntries(2, 4, 1, 6)]
    assert refuse(core, 4, 2).snapshots_for == ("n2",)


def test_compaction_below_what_is_in_the_air_disturbs_nobody() -> None:
    core = established(start())
    for _ in range(3):
        core.propose(Kind.RECORDS, 1)
    core.ready()
    report(core)
    persist(core)
    receive(core, "n3", Appended(1, 4))
    core.compacted(3)
    follower = progress_of(core, "n2")
    assert (follower.mode, follower.match_index, follower.next_index) == (Mode.REPLICATE, 1, 5)
    receive(core, "n2", Appended(1, 2))
    check_state(core)
    assert receive(core, "n2", Appended(1, 4)).snapshots_for == ()


def test_entries_handed_out_may_be_compacted_before_they_leave() -> None:
    core = established(start())
    core.propose(Kind.RECORDS, 1)
    core.ready()
    core.sent("n3", 2, 1)
    persist(core)
    receive(core, "n3", Appended(1, 2))
    core.propose(Kind.RECORDS, 1)
    core.ready()
    core.compacted(2)
    check_state(core)
    core.sent("n2", 2, 1)  # the host had them still
    check_state(core)
    follower = progress_of(core, "n2")
    assert (follower.mode, follower.next_index) == (Mode.PROBE, 3)
    (send,) = [send for send in core.ready().sends if send.to == "n2"]
    assert (send.message, send.entries) == (
        AppendEntries(1, 2, 1, 2),
        (EntryRef(3, Epoch(1, "n1")),),
    )
    core.lost("n2")
    assert follower.mode is Mode.DOWN


def test_a_late_hint_below_the_base_is_no_cry_for_a_snapshot() -> None:
    core = established(start())
    for _ in range(4):
        core.propose(Kind.RECORDS, 1)
        core.ready()
        report(core)
    persist(core)
    receive(core, "n2", Appended(1, 3))
    core.compacted(2)
    ready = receive(core, "n2", AppendRefused(1, 4, 1, 1))
    check_state(core)
    assert ready.snapshots_for == ()
    assert progress_of(core, "n2").next_index == 4


def test_offers_are_repeated_at_most_once_a_retransmission_until_one_is_taken() -> None:
    core = compacted_leader(last=9, base=8)
    started = core.state.now
    offers, asked = [], []
    ready = refuse(core, 8)
    heartbeats = 0
    while True:
        if ready.snapshots_for:
            offers.append(core.state.now - started)
        if core.state.now - started >= 6 * RAFT.retransmit_ms:
            break
        heartbeats += len(sends_of(time_out(core), Heartbeat))
        receive(core, "n3", HeartbeatReply(2, 0))
        ready = receive(core, "n2", HeartbeatReply(2, 0))
        if ready.sends:
            asked += [send.message for send in ready.sends]
            assert [send.entries for send in ready.sends] == [()]
            for _ in range(3):  # the answer comes more than once
                assert refuse(core, 8).snapshots_for == ("n2",) * (_ == 0)
            offers.append(core.state.now - started)
            ready = core.ready()
    assert offers == [RAFT.retransmit_ms * times for times in range(7)]
    assert set(asked) == {AppendEntries(2, 8, 1, 9)}
    assert heartbeats == 2 * 6 * RAFT.retransmit_ms // RAFT.heartbeat_ms
    # It is installed, and replication goes on.
    ready = receive(core, "n2", Appended(2, 8))
    assert [[ref.index for ref in send.entries] for send in ready.sends if send.entries] == [[9]]
    assert progress_of(core, "n2").mode is Mode.REPLICATE


def test_each_step_of_a_compaction_does_not_ask_a_follower_that_waits_for_a_snapshot() -> None:
    core = compacted_leader(last=9, base=3)
    assert refuse(core, 8).snapshots_for == ("n2",)
    for index in range(4, 9):
        core.compacted(index)
        check_state(core)
        assert not core.has_ready()
    # Its refusal of a base that has moved since still is one.
    ready = refuse(core, 7, after=RAFT.retransmit_ms)
    assert (ready.snapshots_for, ready.sends) == (("n2",), ())


def test_peers_are_named_once_a_turn_and_not_by_who_was_deposed() -> None:
    core = compacted_leader()
    for peer in ("n2", "n2"):
        core.receive(core.state.now, peer, AppendRefused(2, 5, 0, 0), ())
    assert core.ready().snapshots_for == ("n2",)
    assert core.ready().snapshots_for == ()
    core.receive(core.state.now + RAFT.retransmit_ms, "n2", AppendRefused(2, 5, 0, 0), ())
    core.receive(core.state.now, "n3", HeartbeatReply(7, 0), ())
    assert core.leadership.role == "follower"
    assert core.ready().snapshots_for == ()
