"""Every invariant bites: a state or a step that breaks it is reported."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from paxoslog.core import PaxosCore
from paxoslog.invariants import check_state, check_step, observe
from paxoslog.state import Adopted, Log, PreProposer, Proposer
from replog.agreement import Ready
from replog.entry import NO_EPOCH, Epoch
from replog.errors import InvariantBroken
from tests.paxos.single import (
    OLD,
    elect,
    established,
    lead,
    leader_of,
    persist,
    prepare,
    progress_of,
    refs,
    start,
    time_out,
)


def set_to(name: str, value: object) -> Callable[[PaxosCore], None]:
    return lambda core: setattr(core.state, name, value)


def proposer() -> PaxosCore:
    core = start()
    prepare(core)
    return core


def asking() -> PaxosCore:
    core = start()
    time_out(core)
    return core


def be_promised(*nodes: str, write_id: int) -> Callable[[PaxosCore], None]:
    return lambda core: setattr(core.state, "role", Proposer(write_id, {*nodes}))


def hold_a_gap(core: PaxosCore) -> None:
    core.state.log = Log(0, refs(2, Epoch(1, "n1")))
    leader_of(core).accepted_by.clear()


def adopt(core: PaxosCore) -> None:
    leader_of(core).adopted[1] = Adopted(OLD, ("n2",))


STATES: list[tuple[str, Callable[[], PaxosCore], Callable[[PaxosCore], object]]] = [
    ("the log ends", start, lambda c: setattr(c.state.log, "last_index", 1)),
    ("is compacted", start, lambda c: setattr(c.state.log, "base_index", 1)),
    ("nothing is remembered", start, lambda c: c.state.log._accepted.update({0: OLD})),
    (
        "a higher ballot than is promised",
        lambda: start(accepted={1: OLD}),
        set_to("ballot", NO_EPOCH),
    ),
    (
        "as far as it can",
        lambda: start(accepted={1: OLD}),
        lambda c: c.state.log._chosen.add(1),
    ),
    ("a write is durable", start, lambda c: setattr(c.state.journal, "durable_write_id", 1)),
    ("obeys its own ballot", proposer, set_to("ballot", Epoch(2, "n2"))),
    ("promise to itself counts", proposer, be_promised("n1", write_id=99)),
    ("with a quorum leads", proposer, be_promised("n1", "n2", write_id=0)),
    ("one who is behind", asking, set_to("role", PreProposer({"n1", "n2"}))),
    ("who wants to propose", proposer, set_to("leader", "n2")),
    ("only a leader", start, set_to("leader", "n1")),
    ("leads its own ballot", lambda: lead(start()), set_to("ballot", Epoch(2, "n1"))),
    ("knows that it leads", lambda: lead(start()), set_to("leader", None)),
    ("at or below", lambda: lead(start()), lambda c: setattr(leader_of(c), "base_index", 1)),
    (
        "counts acceptors of its own",
        lambda: lead(start()),
        lambda c: leader_of(c).accepted_by.update({7: set()}),
    ),
    (
        "a quorum has accepted is chosen",
        lambda: lead(start()),
        lambda c: leader_of(c).accepted_by.update({1: {"n2", "n3"}}),
    ),
    ("first proposes", lambda: lead(start()), adopt),
    ("have no gap", lambda: lead(start()), hold_a_gap),
    (
        "match and next index of n2",
        lambda: established(start()),
        lambda c: setattr(progress_of(c, "n2"), "match_index", 2),
    ),
    (
        "compacted is sent to n2",
        lambda: established(start(base=3, commit=3)),
        lambda c: setattr(progress_of(c, "n2"), "match_index", 2),
    ),
]


@pytest.mark.parametrize(("words", "make", "spoil"), STATES, ids=[row[0] for row in STATES])
def test_a_broken_state_is_reported(words, make, spoil) -> None:
    core = make()
    check_state(core)
    spoil(core)
    with pytest.raises(InvariantBroken, match=words):
        check_state(core)


BEFORE = observe(established(start(accepted={1: OLD, 2: OLD})))._replace(
    accepted={5: OLD, 6: Epoch(2, "n1")}, chosen={6}
)

STEPS = [
    ("the promise never falls", BEFORE._replace(ballot=OLD)),
    ("the commit index never falls", BEFORE._replace(commit_index=2)),
    ("the base never falls", BEFORE._replace(base_index=-1)),
    ("write ids never fall", BEFORE._replace(write_ids=(0, BEFORE.write_ids[1]))),
    ("write ids never fall", BEFORE._replace(write_ids=(BEFORE.write_ids[0], 0))),
    ("at a higher ballot only", BEFORE._replace(accepted={6: Epoch(2, "n1")})),
    ("at a higher ballot only", BEFORE._replace(accepted={5: OLD, 6: OLD})),
    ("stays chosen", BEFORE._replace(chosen=set())),
    ("a ballot has one leader", BEFORE._replace(leader="n2")),
    ("a match index only grows", BEFORE._replace(matches={"n2": 2, "n3": 3})),
    ("one first entry", BEFORE._replace(first_index=2)),
]


@pytest.mark.parametrize(("words", "after"), STEPS, ids=[row[0] for row in STEPS])
def test_a_broken_step_is_reported(words, after) -> None:
    check_step(BEFORE, BEFORE)
    with pytest.raises(InvariantBroken, match=words):
        check_step(BEFORE, after)


def test_what_is_delivered_is_forgotten() -> None:
    check_step(BEFORE, BEFORE._replace(commit_index=6, accepted={}, chosen=set()))


def test_honest_steps_pass() -> None:
    core = start(accepted={1: OLD, 3: OLD})
    steps: list[Callable[[], Ready]] = [
        lambda: time_out(core),
        lambda: elect(core),
        lambda: persist(core),
    ]
    for step in steps:
        before = observe(core)
        step()
        check_state(core)
        check_step(before, observe(core))
    assert observe(core) != before
