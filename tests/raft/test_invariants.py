"""Every invariant bites: a state or a step that breaks it is reported."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from raftlog.core import RaftCore
from raftlog.invariants import check_state, check_step, observe
from raftlog.progress import Progress
from raftlog.state import Candidate, Log
from replog.agreement import EntryRef, Ready
from replog.entry import NO_EPOCH, Epoch, Kind
from replog.errors import InvariantBroken
from tests.raft.single import (
    campaign,
    established,
    lead,
    leader_of,
    persist,
    progress_of,
    start,
    time_out,
)


def set_to(name: str, value: object) -> Callable[[RaftCore], None]:
    return lambda core: setattr(core.state, name, value)


def grant_own_vote(core: RaftCore) -> None:
    core.state.role = Candidate(99, {"n1"})


def grant_quorum(core: RaftCore) -> None:
    core.state.role = Candidate(0, {"n1", "n2"})


def candidate() -> RaftCore:
    core = start()
    campaign(core)
    return core


def drop_runs(core: RaftCore) -> None:
    core.state.log = Log((), 1)


def repeat_run(core: RaftCore) -> None:
    core.state.log = Log(((1, Epoch(1, "n9")), (1, Epoch(2, "n9"))), 1)


def compacted() -> RaftCore:
    return start(log=[1, 1, 2], commit=3, base=2)


STATES: list[tuple[str, Callable[[], RaftCore], Callable[[RaftCore], object]]] = [
    ("runs of epochs", lambda: start(log=[1]), drop_runs),
    ("runs of epochs", lambda: start(log=[1]), repeat_run),
    ("no entry is of a term beyond", lambda: start(log=[1]), set_to("term", 0)),
    ("what is compacted is committed", start, set_to("commit_index", 1)),
    ("what is compacted is committed", compacted, set_to("commit_index", 1)),
    ("what is durable is", start, lambda c: setattr(c.state.journal, "durable_index", 1)),
    ("a write is durable", start, lambda c: setattr(c.state.journal, "durable_write_id", 1)),
    ("a candidate votes", candidate, set_to("vote", "n2")),
    ("a candidate's own", candidate, grant_own_vote),
    ("with a quorum leads", candidate, grant_quorum),
    ("who campaigns", candidate, set_to("leader", "n2")),
    ("only a leader", start, set_to("leader", "n1")),
    ("leads its own epoch", lambda: lead(start()), set_to("term", 2)),
    ("has voted for itself", lambda: lead(start()), set_to("vote", "n2")),
    ("knows that it leads", lambda: lead(start()), set_to("leader", None)),
    (
        "match and next index of n2",
        lambda: established(start()),
        lambda c: setattr(progress_of(c, "n2"), "match_index", 2),
    ),
    (
        "what n2 is sent next is not compacted",
        lambda: established(start(log=[1], base=1)),
        lambda c: leader_of(c).progress.update(n2=Progress(1, 0)),
    ),
    (
        "first of its term",
        lambda: established(start(log=[1])),
        lambda c: setattr(leader_of(c), "first_index", 1),
    ),
    (
        "has no entries yet",
        lambda: lead(start()),
        lambda c: setattr(leader_of(c), "first_index", 0),
    ),
]


@pytest.mark.parametrize(("words", "make", "spoil"), STATES, ids=[row[0] for row in STATES])
def test_a_broken_state_is_reported(words, make, spoil) -> None:
    core = make()
    check_state(core)
    spoil(core)
    with pytest.raises(InvariantBroken, match=words):
        check_state(core)


OWN = Epoch(2, "n1")
BEFORE = observe(established(start(log=[1, 1])))

STEPS = [
    ("the term never falls", BEFORE._replace(term=1)),
    ("the commit index never falls", BEFORE._replace(commit_index=2)),
    ("write ids never fall", BEFORE._replace(write_ids=(0, BEFORE.write_ids[1]))),
    ("write ids never fall", BEFORE._replace(write_ids=(BEFORE.write_ids[0], 0))),
    ("a committed entry", BEFORE._replace(runs=((1, Epoch(1, "n9")), (2, Epoch(2, "n1"))))),
    ("what is compacted never", BEFORE._replace(base=EntryRef(-1, NO_EPOCH))),
    ("a committed entry", BEFORE._replace(base=EntryRef(2, Epoch(2, "n1")), runs=((3, OWN),))),
    ("the vote of a term", BEFORE._replace(vote="n2")),
    ("the vote of a term", BEFORE._replace(vote="")),
    ("a term has one leader", BEFORE._replace(leader="n2")),
    ("a match index only grows", BEFORE._replace(matches={"n2": 2, "n3": 3})),
    ("one first entry", BEFORE._replace(first_index=2)),
]


@pytest.mark.parametrize(("words", "after"), STEPS, ids=[row[0] for row in STEPS])
def test_a_broken_step_is_reported(words, after) -> None:
    check_step(BEFORE, BEFORE)
    with pytest.raises(InvariantBroken, match=words):
        check_step(BEFORE, after)


def test_a_leader_that_drops_entries_is_reported() -> None:
    core = established(start())
    core.propose(Kind.RECORDS, 1)
    core.ready()
    before = observe(core)
    core.state.log.truncate(2)
    core.state.log.append(Epoch(2, "n2"))
    with pytest.raises(InvariantBroken, match="only appends"):
        check_step(before, observe(core))


def test_honest_steps_pass() -> None:
    core = start(log=[1])
    steps: list[Callable[[], Ready]] = [
        lambda: time_out(core),
        lambda: campaign(core),
        lambda: persist(core),
    ]
    for step in steps:
        before = observe(core)
        step()
        check_state(core)
        check_step(before, observe(core))
    assert observe(core) != before
