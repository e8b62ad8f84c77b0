"""Compaction and snapshots, input by input: what is chosen is learnt, with its values or without.

PMS, section 2.3: a learner that does not know what was chosen asks. PMMC, section 4.2: what is gone
is fetched as a snapshot of another replica. The transcripts `scenarios/*_by_snapshot` show the same
rules at work.
"""

from __future__ import annotations

import pytest

from paxoslog.messages import (
    ACCEPTED_AHEAD_MAX,
    Accept,
    Accepted,
    AskAccepted,
    Chosen,
    FetchAccepted,
    FetchChosen,
    Heartbeat,
    Prepare,
    PrePrepare,
    Promise,
)
from replog.agreement import EntryRef, Ready, Send, Write, WriteEntry
from replog.entry import NO_EPOCH, Epoch
from replog.errors import InvariantBroken
from tests.paxos.single import (
    FIVE,
    OLD,
    PAXOS,
    deadline,
    entry_sends,
    fetches,
    follow,
    install,
    metas,
    receive,
    refs,
    sends_of,
    start,
    written,
)

THREE, FOUR = Epoch(3, "n2"), Epoch(4, "n3")


# --- a log behind its base ------------------------------------------------------------------------


def test_a_core_starts_behind_its_base() -> None:
    core = start(base=7, commit=7)
    assert (core.last_index, core.state.log.base_index, core.has_ready()) == (7, 7, False)
    core = start(base=7, commit=9, accepted={11: OLD})
    assert (core.last_index, core.ready().commit_index) == (11, 9)


def test_committed_entries_are_not_told_apart() -> None:
    core = start(base=3, commit=5)
    assert [core.epoch_at(index) for index in (3, 4, 5)] == [NO_EPOCH] * 3


def test_compaction_moves_the_base_and_wants_nothing() -> None:
    core = start(commit=9, accepted={10: OLD})
    for index, base in ((4, 4), (4, 4), (2, 4), (9, 9)):
        core.compacted(index)
        assert core.state.log.base_index == base
        assert not core.has_ready()
    assert core.state.log.accepted() == refs(10, OLD)
    with pytest.raises(InvariantBroken):
        core.compacted(10)


# --- fetches at or below the base -----------------------------------------------------------------


@pytest.mark.parametrize("first", [1, 6, 7])
def test_who_fetches_what_is_gone_is_offered_a_snapshot(first) -> None:
    core = start(base=7, commit=20)
    ready = receive(core, "n3", FetchChosen(first, 20))
    assert ready == Ready((), (), 20, (), (), ("n3",))
    assert not core.has_ready()
    assert core.ready().snapshots_for == ()


def test_the_first_entry_behind_the_base_is_sent() -> None:
    core = start(base=7, commit=20)
    ready = receive(core, "n3", FetchChosen(8, 9))
    assert (entry_sends(ready), ready.snapshots_for) == ({"n3": [8, 9]}, ())


def test_a_leader_that_fetches_a_value_that_is_gone_is_offered_a_snapshot() -> None:
    core = start(promise=THREE, base=7, commit=20)
    ready = receive(core, "n3", FetchAccepted(FOUR, 7, (OLD, OLD)))
    assert (ready.sends, ready.snapshots_for) == ((), ("n3",))
    ready = receive(core, "n3", FetchAccepted(FOUR, 8, (OLD, OLD)))
    assert ready.sends == (Send("n3", Chosen(20), 0, refs(8, NO_EPOCH, NO_EPOCH)),)


def test_a_peer_is_named_once_however_often_it_has_asked() -> None:
    core = start(base=7, commit=20)
    for first in (1, 1, 5):
        core.receive(core.state.now, "n3", FetchChosen(first, 20), ())
    core.receive(core.state.now, "n2", FetchChosen(1, 20), ())
    assert core.ready().snapshots_for == ("n3", "n2")
    assert receive(core, "n3", FetchChosen(1, 20)).snapshots_for == ("n3",)


def test_what_was_asked_for_last_counts() -> None:
    core = start(base=7, commit=20)
    core.receive(core.state.now, "n3", FetchChosen(5, 20), ())
    ready = receive(core, "n3", FetchChosen(19, 20))
    assert (entry_sends(ready), ready.snapshots_for) == ({"n3": [19, 20]}, ())


# --- compaction while entries are handed out (H28) ------------------------------------------------


def test_an_answer_that_is_compacted_before_it_leaves_becomes_a_snapshot() -> None:
    core = start(commit=20)
    assert entry_sends(receive(core, "n3", FetchChosen(5, 6))) == {"n3": [5, 6]}
    core.compacted(7)
    core.lost("n3")
    assert not core.has_ready()
    ready = receive(core, "n3", FetchChosen(5, 6))
    assert (ready.sends, ready.snapshots_for) == ((), ("n3",))


def test_a_fetch_that_waits_for_its_turn_may_find_its_entries_gone() -> None:
    core = start(commit=20)
    receive(core, "n3", FetchChosen(5, 6))
    assert receive(core, "n3", FetchChosen(7, 8)).snapshots_for == ()
    core.compacted(7)
    assert not core.has_ready()
    core.sent("n3", 6, 10)
    assert core.ready().snapshots_for == ("n3",)


# --- acceptor -------------------------------------------------------------------------------------


def test_an_acceptor_takes_nothing_at_or_below_its_base() -> None:
    core = start(promise=THREE, base=5, commit=5)
    ready = receive(core, "n2", Accept(THREE, 3), metas(4, THREE, THREE))
    assert ready.writes == ()
    assert [send.message for send in ready.sends] == [Accepted(THREE, 6, 5, 5)]
    (answer,) = receive(core, "n2", AskAccepted(THREE, 1, 5)).sends
    assert answer.message == Accepted(THREE, 6, 5, 5)
    ready = receive(core, "n2", Accept(THREE, 3), metas(5, THREE, THREE))
    assert written(ready) == {6: (THREE, THREE)}


def test_what_is_accepted_above_an_installed_base_stays_and_is_promised() -> None:
    core = start(promise=THREE, accepted={3: OLD, 5: THREE, 6: OLD, 9: THREE})
    assert install(core, 5).writes == (Write(1, None, None, (), 5),)
    assert (core.state.commit_index, core.last_index) == (5, 9)
    assert core.state.log.accepted() == (*refs(6, OLD), *refs(9, THREE))
    (send,) = receive(core, "n3", Prepare(FOUR, 1)).sends
    assert send.message == Promise(FOUR, 5, (6, 9), (OLD, THREE))
    assert send.after_write_id == 2
    assert core.state.log.accepted() == (*refs(6, OLD), *refs(9, THREE))


def test_what_is_known_to_be_chosen_above_an_installed_base_is_delivered() -> None:
    core = start(promise=THREE)
    receive(core, "n2", Chosen(8), metas(4, THREE, THREE))
    receive(core, "n2", Chosen(8), metas(7, THREE))
    assert install(core, 3).commit_index == 5
    ready = install(core, 6)
    assert (ready.commit_index, core.state.log.accepted()) == (7, ())


@pytest.mark.parametrize("index", [1, 7, 9])
def test_an_old_snapshot_changes_nothing(index) -> None:
    core = start(promise=THREE, base=7, commit=9, accepted={10: OLD})
    assert not core.install(core.state.now, EntryRef(index, THREE))
    assert not core.has_ready()
    assert core.state.log.accepted() == refs(10, OLD)
    assert (core.state.log.base_index, core.state.commit_index) == (7, 9)


def test_two_snapshots_in_a_row_are_two_writes() -> None:
    core = start()
    for index in (5, 9):
        assert core.install(core.state.now, EntryRef(index, OLD))
    assert not core.install(core.state.now, EntryRef(9, OLD))
    ready = core.ready()
    assert [(write.write_id, write.install) for write in ready.writes] == [(1, 5), (2, 9)]
    assert ready.commit_index == 9


def test_to_accept_behind_a_base_in_the_step_that_installs_it_is_one_write() -> None:
    core = start(promise=OLD)
    core.install(core.state.now, EntryRef(5, OLD))
    ready = receive(core, "n2", Accept(THREE, 5), metas(6, THREE))
    # A promise after the install, and yet in one write: before the entries, all or nothing.
    assert ready.writes == (Write(1, THREE, None, (WriteEntry(6, THREE, THREE),), 5),)
    assert ready.sends == (Send("n2", Accepted(THREE, 6, 6, 5), 1),)


def test_what_was_accepted_before_an_install_is_written_before_it() -> None:
    core = start(promise=THREE)
    core.receive(core.state.now, "n2", Accept(THREE, 0), metas(4, THREE, THREE, THREE))
    core.install(core.state.now, EntryRef(5, THREE))
    core.receive(core.state.now, "n2", Accept(THREE, 5), metas(7, THREE))
    ready = core.ready()
    assert [
        (write.write_id, write.install, [entry.index for entry in write.entries])
        for write in ready.writes
    ] == [(1, None, [4, 5, 6]), (2, 5, [7])]
    acks = [(send.message, send.after_write_id) for send in sends_of(ready, Accepted)]
    assert acks == [(Accepted(THREE, 4, 6, 0), 1), (Accepted(THREE, 6, 7, 5), 2)]


def test_every_promise_after_an_install_waits_for_its_write() -> None:
    core = start(promise=THREE)
    install(core, 5)
    (answer,) = receive(core, "n2", AskAccepted(THREE, 4, 5)).sends
    assert answer == Send("n2", Accepted(THREE, 6, 5, 5), 1)
    (promise,) = receive(core, "n3", Prepare(FOUR, 1), after=200).sends
    assert promise == Send("n3", Promise(FOUR, 5, (), ()), 2)


# --- learner --------------------------------------------------------------------------------------


def test_a_learner_below_everybodys_base_asks_them_in_turn_and_no_faster_than_it_repeats() -> None:
    core = start(promise=THREE)
    ready = follow(core, THREE, commit=500)
    core.state.note_commit("n3", 400)
    asked = [(core.state.now, to) for to, _ in fetches(ready)]
    began = core.state.now
    while core.state.now < began + 10 * PAXOS.retransmit_ms:
        for _ in range(3):  # whatever happens meanwhile
            assert fetches(receive(core, "n2", Heartbeat(THREE, 500, 0))) == []
        due = deadline(core)
        assert due == asked[-1][0] + PAXOS.retransmit_ms
        core.tick(due)
        ready = core.ready()
        assert sends_of(ready, PrePrepare) == []
        asked += [(core.state.now, to) for to, _ in fetches(ready)]
    steps = [PAXOS.retransmit_ms * number for number in range(11)]
    assert [now - began for now, _ in asked] == steps
    assert [to for _, to in asked] == ["n2", "n3"] * 5 + ["n2"]


def test_if_the_only_one_known_to_know_is_silent_everybody_is_asked() -> None:
    core = start(promise=THREE, voters=FIVE)
    asked = fetches(follow(core, THREE, commit=500))
    for _ in range(5):
        follow(core, THREE, commit=500)
        assert core.deadline is not None
        core.tick(core.deadline)
        asked += fetches(core.ready())
    assert [to for to, _ in asked] == ["n2", "n3", "n4", "n5", "n2", "n3"]
    assert {request for _, request in asked} == {FetchChosen(1, 64)}


def test_a_learner_goes_on_behind_what_it_installs() -> None:
    core = start(promise=THREE)
    assert fetches(follow(core, THREE, commit=500)) == [("n2", FetchChosen(1, 64))]
    ready = install(core, 400)
    assert ready.commit_index == 400
    assert fetches(ready) == [("n2", FetchChosen(401, 464))]
    assert core.deadline == core.state.now + PAXOS.retransmit_ms
    ready = install(core, 500)
    assert (ready.sends, core.state.fetching) == ((), None)


def test_what_comes_from_another_while_a_snapshot_is_on_its_way_is_learnt() -> None:
    core = start(promise=THREE)
    follow(core, THREE, commit=100)
    ready = receive(core, "n3", Chosen(100), metas(1, *[OLD] * 64))
    assert fetches(ready) == [("n2", FetchChosen(65, 100))]
    assert not core.install(core.state.now, EntryRef(64, OLD))
    assert install(core, 70).commit_index == 70


def test_a_learner_that_waits_for_a_snapshot_takes_what_its_leader_proposes_up_to_a_bound() -> None:
    core = start(promise=THREE)
    for index in range(1001, 1001 + 2 * ACCEPTED_AHEAD_MAX):
        ready = receive(core, "n2", Accept(THREE, 1000), metas(index, THREE))
        assert ready.writes == ()  # it is too far above its commit index
    assert core.state.log.accepted() == ()
    install(core, 900)
    ready = receive(core, "n2", Accept(THREE, 1000), metas(1001, THREE))
    assert list(written(ready)) == [1001]
