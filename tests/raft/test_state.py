"""The log, the journal and what a core starts from."""

from __future__ import annotations

from bisect import bisect_right
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftlog.core import RaftCore
from raftlog.state import Journal, Log
from replog.agreement import EntryRef, Restored, Write, WriteEntry
from replog.entry import NO_EPOCH, Epoch
from replog.errors import InvariantBroken
from tests.raft.single import NOW, RAFT, VOTERS, runs_of, start

A, B = Epoch(1, "n1"), Epoch(2, "n2")
BASE = EntryRef(2, A)

# --- the log --------------------------------------------------------------------------------------

logs = st.lists(st.integers(1, 6), max_size=20).map(sorted)


@given(logs)
def test_a_log_knows_the_epoch_of_each_index(terms) -> None:
    log = Log(runs_of(terms), len(terms))
    assert [log.term_at(index) for index in range(len(terms) + 1)] == [0, *terms]
    assert log.epoch_at(0) == NO_EPOCH
    assert log.last_term == ([0, *terms])[-1]
    assert log.runs() == runs_of(terms)
    for index in (-1, len(terms) + 1):
        with pytest.raises(InvariantBroken):
            log.epoch_at(index)


@given(logs, st.integers(0, 25), logs)
def test_append_and_truncate_are_those_of_a_list(terms, cut, more) -> None:
    log = Log(runs_of(terms), len(terms))
    first = min(cut, len(terms)) + 1
    log.truncate(first)
    kept = terms[: first - 1]
    added = [term for term in more if term >= ([0, *kept])[-1]]
    for term in added:
        log.append(Epoch(term, "n9"))
    assert log.runs() == runs_of(kept + added)
    assert log.last_index == len(kept + added)
    if log.last_index:
        assert [ref.epoch.number for ref in log.refs(1, log.last_index)] == kept + added


@given(logs, st.integers(0, 20), st.integers(0, 7))
def test_the_last_entry_of_a_term_at_most(terms, index, term) -> None:
    index = min(index, len(terms))
    log = Log(runs_of(terms), len(terms))
    assert log.last_at_most(index, term) == min(index, bisect_right(terms, term))


@given(logs, st.integers(0, 20), logs, st.integers(0, 25))
def test_a_compacted_log_knows_what_is_left_and_its_base(terms, index, more, cut) -> None:
    whole, log = (Log(runs_of(terms), len(terms)) for _ in range(2))
    index = min(index, len(terms))
    log.compact(index)
    log.compact(index)
    for term in [term for term in more if term >= ([0, *terms])[-1]]:
        whole.append(Epoch(term, "n9"))
        log.append(Epoch(term, "n9"))
    for each in (whole, log):
        each.truncate(max(min(cut, whole.last_index), index) + 1)
    last = whole.last_index
    assert log.base == EntryRef(index, whole.epoch_at(index))
    assert (log.last_index, log.last_term) == (last, whole.last_term)
    kept = range(index, last + 1)
    assert [log.epoch_at(each) for each in kept] == [whole.epoch_at(each) for each in kept]
    if last > index:
        assert log.refs(index + 1, last) == whole.refs(index + 1, last)
    assert Log(log.runs(), last, log.base).runs() == log.runs()
    assert [first for first, _ in log.runs()][:1] == [index + 1][: last - index]
    for gone in (-1, index - 1, last + 1):
        with pytest.raises(InvariantBroken):
            log.epoch_at(gone)
    for term in range(8):
        for up_to in range(last + 1):
            expected = max(whole.last_at_most(up_to, term), index - 1)
            assert log.last_at_most(up_to, term) == expected


@given(logs, st.integers(21, 30), logs)
def test_a_log_may_begin_anew(terms, index, more) -> None:
    log = Log(runs_of(terms), len(terms))
    base = EntryRef(index, Epoch(7, "n9"))
    log.begin_behind(base)
    assert (log.last_index, log.last_term, log.runs(), log.epoch_at(index)) == (
        index,
        7,
        (),
        base.epoch,
    )
    for term in more:
        log.append(Epoch(7 + term, "n9"))
    indexes = range(index + 1, log.last_index + 1)
    assert [log.term_at(each) - 7 for each in indexes] == more


def test_terms_never_fall_along_a_log() -> None:
    log = Log(((1, B),), 1)
    with pytest.raises(InvariantBroken):
        log.append(A)


# --- the journal ----------------------------------------------------------------------------------


def test_changes_share_a_write_while_their_order_is_promise_truncation_install_entries() -> None:
    journal = Journal(5)
    journal.promise(A)
    journal.promise(B)
    journal.truncate(4)
    journal.install(5)
    journal.append(6, B)
    journal.append(7, B)
    assert journal.take() == (Write(1, B, 4, (WriteEntry(6, B, B), WriteEntry(7, B, B)), 5),)
    assert (journal.empty, journal.take()) == (True, ())


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("truncate", "truncate"),
        ("truncate", "promise"),
        ("install", "truncate"),
        ("install", "promise"),
        ("install", "install"),
        ("append", "truncate"),
        ("append", "promise"),
        ("append", "install"),
    ],
)
def test_a_change_that_would_overtake_another_begins_a_write(first: str, second: str) -> None:
    journal = Journal(1)
    steps = {
        "truncate": lambda: journal.truncate(1),
        "install": lambda: journal.install(1),
        "append": lambda: journal.append(2, A),
        "promise": lambda: journal.promise(A),
    }
    steps[first]()
    steps[second]()
    assert [write.write_id for write in journal.take()] == [1, 2]


def test_a_gap_is_never_written() -> None:
    with pytest.raises(InvariantBroken):
        Journal(5).append(7, A)


def test_only_writes_that_were_taken_can_be_durable() -> None:
    journal = Journal(0)
    journal.append(1, A)
    with pytest.raises(InvariantBroken):
        journal.durable(1)
    journal.take()
    journal.durable(1)
    journal.durable(1)
    assert (journal.durable_write_id, journal.durable_index) == (1, 1)
    with pytest.raises(InvariantBroken):
        journal.durable(2)


def test_the_write_of_a_replaced_entry_does_not_count_for_its_successor() -> None:
    journal = Journal(0)
    journal.append(1, A)
    journal.append(2, A)
    journal.take()
    journal.truncate(2)
    journal.append(2, B)
    journal.take()
    journal.durable(1)
    assert journal.durable_index == 1
    journal.durable(2)
    assert journal.durable_index == 2


@given(
    st.lists(
        st.tuples(
            st.sampled_from("promise append truncate keep install take durable".split()),
            st.integers(0, 9),
        ),
        max_size=60,
    )
)
def test_the_durable_index_is_what_disk_and_memory_agree_on(steps) -> None:
    journal = Journal(0)
    memory: list[Epoch] = []
    disk: list[Epoch] = []
    base = 0
    taken: list[Write] = []
    installs: dict[int, list[Epoch]] = {}
    """By write id: what the log was, up to the base that the write installs."""
    for number, (step, size) in enumerate(steps, start=1):
        if step == "promise":
            journal.promise(Epoch(number, ""))
        elif step == "append":
            memory.append(Epoch(number, ""))
            journal.append(len(memory), memory[-1])
        elif step == "truncate":
            del memory[max(size, base) :]
            journal.truncate(len(memory) + 1)
        elif step == "keep" and len(memory) > base:  # what follows the snapshot
            base = min(base + 1 + size, len(memory))
            journal.install(base)
            installs[journal.last_write_id] = memory[:base]
        elif step == "install":
            del memory[base:]
            journal.truncate(base + 1)
            base += 1 + size
            memory += [Epoch(number, "")] * (base - len(memory))
            journal.install(base)
            installs[journal.last_write_id] = list(memory)
        elif step == "take":
            taken += journal.take()
        elif taken:
            done, taken = taken[: size + 1], taken[size + 1 :]
            for write in done:
                if write.truncate_from is not None:
                    del disk[write.truncate_from - 1 :]
                if write.install is not None:
                    disk[: write.install] = installs[write.write_id]
                disk += [entry.epoch for entry in write.entries]
            journal.durable(done[-1].write_id)
        agreed = 0
        while agreed < min(len(disk), len(memory)) and disk[agreed] == memory[agreed]:
            agreed += 1
        assert journal.durable_index == agreed


# --- what a core starts from ----------------------------------------------------------------------


def restore(**changes):
    good = Restored(Epoch(3, "n2"), runs_of([1, 1, 3]), 3, 2, RAFT.membership(VOTERS))
    core = RAFT.core("n1", good._replace(**changes), NOW, Random(0))
    assert isinstance(core, RaftCore)
    return core.state


def test_a_core_starts_behind_its_base() -> None:
    base = EntryRef(2, Epoch(1, "n9"))
    for epochs in (((3, Epoch(1, "n9")),), ((3, Epoch(3, "n9")),)):  # of the base's own run, or not
        state = restore(base=base, epochs=epochs)
        assert (state.log.base, state.log.last_index, state.commit_index) == (base, 3, 2)
    state = restore(base=base, epochs=(), last_index=2)
    assert (state.log.last_term, state.journal.durable_index) == (1, 2)


def test_a_core_starts_as_a_follower_of_nobody_with_what_is_durable() -> None:
    state = restore()
    assert (state.term, state.vote, state.leader, state.commit_index) == (3, "n2", None, 2)
    assert (state.log.last_index, state.log.last_term, state.journal.durable_index) == (3, 3, 3)
    assert state.role.name == "follower"
    assert not state.has_output
    assert state.deadline is not None
    assert state.deadline >= NOW + RAFT.election_timeout_ms_min


def test_a_sole_voter_starts_with_a_campaign() -> None:
    assert start(voters=frozenset({"n1"})).deadline == NOW


@pytest.mark.parametrize(
    "changes",
    [
        {"promise": Epoch(2, "")},  # lower than an entry's term
        {"epochs": runs_of([1, 1, 3])[1:]},  # does not begin at 1
        {"epochs": ()},
        {"epochs": ((1, B), (3, A))},  # terms fall
        {"epochs": ((1, A), (1, B))},
        {"epochs": ((1, A), (4, B))},  # beyond the end
        {"epochs": ((1, NO_EPOCH),)},
        {"last_index": 0},
        {"commit_index": 4},
        {"commit_index": -1},
        {"membership": RAFT.membership({"n2", "n3"})},
        {"base": BASE},  # runs of what is compacted
        {"base": BASE, "epochs": ((4, B),), "last_index": 4},  # does not begin behind it
        {"base": BASE, "epochs": ((3, A),), "commit_index": 1},
        {"base": BASE, "epochs": ((3, Epoch(1, "n3")),)},  # two leaders of a term
        {"base": BASE, "epochs": (), "last_index": 1, "commit_index": 1},
        {"base": EntryRef(2, Epoch(2, "n2")), "epochs": ((3, A),)},  # terms fall
        {"base": EntryRef(3, Epoch(4, "n2")), "epochs": (), "commit_index": 3},  # above the promise
        {"base": EntryRef(2, NO_EPOCH), "epochs": ((3, A),)},
        {"base": EntryRef(0, A)},
        {"base": EntryRef(-1, NO_EPOCH)},
    ],
)
def test_a_state_that_no_core_leaves_behind_is_refused(changes) -> None:
    with pytest.raises(InvariantBroken):
        restore(**changes)


def test_an_empty_store_is_a_fine_start() -> None:
    state = restore(promise=NO_EPOCH, epochs=(), last_index=0, commit_index=0)
    assert (state.term, state.log.last_index) == (0, 0)


# --- the guards of rules 1 and 4 ------------------------------------------------------------------


def test_a_term_only_grows() -> None:
    state = restore()
    for term in (2, 3):
        with pytest.raises(InvariantBroken):
            state.enter_term(term)


def test_a_vote_is_not_given_twice() -> None:
    state = restore()
    state.vote_for("n2")
    assert state.journal.empty
    with pytest.raises(InvariantBroken):
        state.vote_for("n3")


def test_nothing_beyond_the_log_is_committed() -> None:
    with pytest.raises(InvariantBroken):
        restore().commit(4)
