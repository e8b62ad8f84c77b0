"""The log, the journal and what a core starts from."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paxoslog.state import Journal, Log, State
from replog.agreement import EntryRef, Restored, Write, WriteEntry
from replog.entry import NO_EPOCH, Epoch
from replog.errors import InvariantBroken
from tests.paxos.single import NOW, PAXOS, VOTERS, refs, start

A, B, C = Epoch(1, "n1"), Epoch(1, "n2"), Epoch(2, "n1")

# --- the log --------------------------------------------------------------------------------------

steps_of_a_log = st.lists(
    st.tuples(
        st.sampled_from(["accept", "choose", "compact", "install"]),
        st.integers(1, 8),
        st.integers(1, 4),
    ),
    max_size=40,
)


@given(steps_of_a_log)
def test_a_log_is_a_dictionary_above_its_commit_index(steps) -> None:
    log = Log(0, ())
    held: dict[int, Epoch] = {}
    chosen: set[int] = set()
    base = commit = last = 0
    for step, index, number in steps:
        ballot = Epoch(number, "n1")
        if step == "accept" and index > commit and ballot >= held.get(index, NO_EPOCH):
            log.accept(index, ballot)
            held[index] = ballot
            last = max(last, index)
        elif step == "choose" and index in held:
            log.choose(index)
            chosen.add(index)
        elif step == "compact" and base < index <= commit:
            log.compact(index)
            base = index
        elif step == "install" and index > commit:
            log.install(index)
            base = commit = index
            last = max(last, index)
        while commit + 1 in chosen:
            commit += 1
    left = {index: ballot for index, ballot in held.items() if index > commit}
    assert dict(log.accepted()) == left
    assert [ref.index for ref in log.accepted()] == sorted(left)
    assert (log.base_index, log.commit_index, log.last_index) == (base, commit, last)
    assert log._chosen == {index for index in chosen if index > commit}
    for index in range(1, 10):
        assert log.is_chosen(index) == (index <= commit or index in chosen)
        assert log.ballot_at(index) == left.get(index, NO_EPOCH)


def test_nothing_is_replaced_at_a_lower_ballot_or_once_delivered() -> None:
    log = Log(0, refs(1, B))
    log.accept(1, B)
    with pytest.raises(InvariantBroken):
        log.accept(1, A)
    log.choose(1)
    with pytest.raises(InvariantBroken):
        log.accept(1, C)


def test_only_what_is_chosen_is_compacted_and_only_more_of_it_is_installed() -> None:
    log = Log(4, refs(5, B), 2)
    with pytest.raises(InvariantBroken):
        log.compact(5)
    with pytest.raises(InvariantBroken):
        log.install(4)
    assert (log.base_index, log.commit_index, log.accepted()) == (2, 4, refs(5, B))


def test_nothing_is_chosen_before_it_is_accepted() -> None:
    with pytest.raises(InvariantBroken):
        Log(0, ()).choose(1)


def test_a_run_is_what_is_accepted_at_one_ballot_without_a_gap() -> None:
    log = Log(2, (*refs(3, A, B, B, B), EntryRef(8, B)))
    assert [log.run_around(index, B) for index in (4, 5, 6)] == [(4, 6)] * 3
    assert log.run_around(8, B) == (8, 8)
    assert [log.run_around(index, B) for index in (2, 3, 7)] == [(3, 2), (4, 3), (8, 7)]


def test_the_first_missing_index() -> None:
    log = Log(2, (*refs(3, B, A), EntryRef(6, B)))
    assert log.missing_from(1, 6, B) == 4
    assert log.missing_from(5, 6, B) == 5
    assert log.missing_from(1, 3, B) is None
    log.choose(4)
    assert log.missing_from(1, 6, B) == 5  # nobody needs to send what is chosen


# --- the journal ----------------------------------------------------------------------------------


def test_changes_share_a_write_while_their_order_is_promise_entries() -> None:
    journal = Journal()
    journal.promise(A)
    journal.promise(B)
    journal.accept(4, B, A)
    journal.accept(7, B, B)
    entries = (WriteEntry(4, B, A), WriteEntry(7, B, B))
    assert journal.take() == (Write(1, B, None, entries),)
    assert (journal.empty, journal.take()) == (True, ())


def test_an_install_follows_a_promise_and_comes_before_the_entries() -> None:
    journal = Journal()
    journal.promise(A)
    journal.install(9)
    journal.promise(B)
    journal.accept(10, B, B)
    assert journal.take() == (Write(1, B, None, (WriteEntry(10, B, B),), 9),)
    journal.install(20)
    assert not journal.empty
    assert (journal.last_write_id, journal.take()) == (2, (Write(2, None, None, (), 20),))
    assert journal.durable(1) == [WriteEntry(10, B, B)]
    assert journal.durable(2) == []


def test_an_install_never_overtakes_an_entry_or_another_install() -> None:
    journal = Journal()
    journal.accept(4, A, A)
    for index in (9, 12):
        journal.install(index)
    assert [(write.write_id, write.install) for write in journal.take()] == [
        (1, None),
        (2, 9),
        (3, 12),
    ]


@pytest.mark.parametrize("index", [3, 4])
def test_a_write_holds_each_index_once_ascending(index) -> None:
    journal = Journal()
    journal.accept(4, A, A)
    journal.accept(index, B, B)
    assert [write.write_id for write in journal.take()] == [1, 2]


def test_a_promise_never_overtakes_an_entry() -> None:
    journal = Journal()
    journal.accept(4, A, A)
    journal.promise(B)
    assert [(write.promise, len(write.entries)) for write in journal.take()] == [(None, 1), (B, 0)]


def test_what_is_durable_is_told_once() -> None:
    journal = Journal()
    for index in (5, 6, 7):
        journal.accept(index, A, A)
        journal.take()
    assert journal.entries_waiting == 3
    assert [entry.index for entry in journal.durable(2)] == [5, 6]
    assert journal.durable(2) == []
    assert (journal.durable_write_id, journal.entries_waiting) == (2, 1)
    with pytest.raises(InvariantBroken):
        journal.durable(4)


def test_only_writes_that_were_taken_can_be_durable() -> None:
    journal = Journal()
    journal.promise(A)
    with pytest.raises(InvariantBroken):
        journal.durable(1)


# --- what a core starts from ----------------------------------------------------------------------


def restore(**changes):
    accepted = (*refs(3, A, C), EntryRef(6, B))
    good = Restored(C, (), 6, 2, PAXOS.membership(VOTERS), EntryRef(1, A), accepted)
    return State("n1", good._replace(**changes), NOW, Random(0), PAXOS)


def test_a_core_starts_as_an_acceptor_of_nobody_with_what_is_durable() -> None:
    state = restore()
    assert (state.ballot, state.leader, state.commit_index) == (C, None, 2)
    assert (state.log.last_index, state.log.ballot_at(4), state.log.ballot_at(5)) == (
        6,
        C,
        NO_EPOCH,
    )
    assert state.log.base_index == 1
    assert state.role.name == "acceptor"
    assert not state.has_output
    assert state.timer is not None
    assert state.timer >= NOW + PAXOS.election_timeout_ms_min


def test_a_sole_voter_starts_with_a_prepare() -> None:
    assert start(voters=frozenset({"n1"})).deadline == NOW


@pytest.mark.parametrize(
    "changes",
    [
        {"promise": B},  # lower than an entry's ballot
        {"accepted": refs(2, A), "last_index": 2},  # delivered
        {"accepted": (*refs(6, B), *refs(3, A))},  # out of order
        {"accepted": (*refs(6, A), *refs(6, B))},
        {"accepted": refs(6, NO_EPOCH)},
        {"accepted": ()},
        {"last_index": 7},
        {"commit_index": 0},  # below the base
        {"base": EntryRef(3, A)},  # above the commit index
        {"base": EntryRef(-1, A)},
        {"commit_index": 3},
        {"membership": PAXOS.membership({"n2", "n3"})},
    ],
)
def test_a_state_that_no_core_leaves_behind_is_refused(changes) -> None:
    with pytest.raises(InvariantBroken):
        restore(**changes)


def test_an_empty_store_is_a_fine_start() -> None:
    base = EntryRef(0, NO_EPOCH)
    state = restore(promise=NO_EPOCH, accepted=(), last_index=0, commit_index=0, base=base)
    assert (state.ballot, state.log.last_index) == (NO_EPOCH, 0)


# --- the guards of rule 1 -------------------------------------------------------------------------


def test_a_promise_only_grows() -> None:
    state = restore()
    for ballot in (A, B, C):
        with pytest.raises(InvariantBroken):
            state.enter_ballot(ballot)


def test_nothing_is_accepted_above_the_promise() -> None:
    with pytest.raises(InvariantBroken):
        restore().accept(5, Epoch(2, "n2"), Epoch(2, "n2"))
