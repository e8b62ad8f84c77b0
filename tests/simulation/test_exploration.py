"""Every order of events on three real cores: no rule is broken, and each planted fault is found."""

from __future__ import annotations

import re
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import pytest

from paxoslog import election as paxos_election
from paxoslog.core import PaxosCore
from paxoslog.messages import Accepted
from paxoslog.state import Journal as PaxosJournal
from raftlog import replication
from raftlog.state import Journal as RaftJournal
from raftlog.state import Leader
from replog.agreements import load_agreement
from replog.entry import Epoch, Kind
from replog.testing.exploration import __main__ as command
from replog.testing.exploration.bounds import Act, Bounds
from replog.testing.exploration.capture import Capture as Capturer
from replog.testing.exploration.cluster import Cluster
from replog.testing.exploration.member import Image, Stored, Value
from replog.testing.exploration.search import Found, Search
from replog.testing.exploration.starts import STARTS, start_state

Patch = pytest.MonkeyPatch
Capture = pytest.CaptureFixture[str]

NONE = Bounds(timeouts=0, beats=0, proposals=0, crashes=0, lapses=0, losses=0)
HUNTED_MAX = 60_000
STATES = 3000
AGREEMENTS = ("paxos", "raft")


# --- faults of Raft -------------------------------------------------------------------------------


def a_vote_is_not_written(patch: Patch) -> None:
    promise = RaftJournal.promise
    patch.setattr(RaftJournal, "promise", lambda self, vote: promise(self, Epoch(vote.number, "")))


def a_leader_counts_its_copy_before_it_is_durable(patch: Patch) -> None:
    def advance(state):
        leader = state.role
        if isinstance(leader, Leader):
            positions = {peer: progress.match_index for peer, progress in leader.progress.items()}
            positions[state.node] = state.log.last_index
            reached = state.quorums.committed(positions)
            if reached > state.commit_index and state.log.term_at(reached) == state.term:
                state.commit(reached)

    patch.setattr(replication, "advance_commit", advance)


def an_append_drops_what_follows_though_it_matches(patch: Patch) -> None:
    def take(state, metas):
        if metas and state.commit_index < metas[0].index <= state.log.last_index:
            state.truncate(metas[0].index)
        for meta in metas:
            if meta.index > state.log.last_index:
                state.append(meta.epoch)

    patch.setattr(replication, "_take_entries", take)


def an_entry_of_an_earlier_term_is_committed_by_counting(patch: Patch) -> None:
    def advance(state):
        leader = state.role
        if isinstance(leader, Leader):
            positions = {peer: progress.match_index for peer, progress in leader.progress.items()}
            positions[state.node] = state.journal.durable_index
            state.commit(state.quorums.committed(positions))

    patch.setattr(replication, "advance_commit", advance)


# --- faults of Multi-Paxos ------------------------------------------------------------------------


def the_lowest_ballot_is_adopted(patch: Patch) -> None:
    adopt = paxos_election._adopt

    def adopt_lowest(reports, base_index):
        found = adopt(reports, base_index)
        for index, adopted in found.items():
            ballots = [
                ballot for report in reports.values() for at, ballot in report if at == index
            ]
            found[index] = adopted._replace(ballot=min([adopted.ballot, *ballots]))
        return found

    def lead(reports, base_index):
        return adopt_lowest({node: list(report) for node, report in reports.items()}, base_index)

    patch.setattr(paxos_election, "_adopt", lead)


def an_acceptance_at_an_earlier_ballot_counts(patch: Patch) -> None:
    receive = PaxosCore.receive

    def take(self, now, sender, message, metas):
        if isinstance(message, Accepted):
            state = self.state
            if state.ballot.node != state.node or message.last_index > state.log.last_index:
                return
            message = message._replace(ballot=state.ballot)
        receive(self, now, sender, message, metas)

    patch.setattr(PaxosCore, "receive", take)


def a_gap_is_what_the_leader_itself_lacks(patch: Patch) -> None:
    adopt = paxos_election._adopt
    patch.setattr(
        paxos_election,
        "_adopt",
        lambda reports, base_index: adopt(dict([list(reports.items())[-1]]), base_index),
    )


def a_promise_is_not_written(patch: Patch) -> None:
    patch.setattr(PaxosJournal, "promise", lambda *_: None)


# --- where they show ------------------------------------------------------------------------------


def stored(number: int, node: str, life: int = 0) -> Stored:
    return Stored(1, Epoch(number, node), Value(Kind.NOOP, node, life, 1))


CHOSEN_ON_TWO = {
    "n1": Image(Epoch(1, "n1"), 0, (stored(1, "n1"),)),
    "n2": Image(Epoch(1, "n2"), 1, (stored(1, "n2"),)),
    "n3": Image(Epoch(1, "n2"), 0, (stored(1, "n2"),)),
}
"""n2 and n3 have chosen an entry after n1 had proposed another."""
DIVIDED = {
    "n1": Image(Epoch(2, ""), 0, (stored(1, "n1"),)),
    "n2": Image(Epoch(3, ""), 0, (stored(2, "n2"),)),
    "n3": Image(Epoch(2, "n2")),
}
"""Figure 8 (b) of the Raft paper: two leaders wrote an entry each, which nobody else has."""


class Hunt(NamedTuple):
    plant: Callable[[Patch], None]
    agreement: str
    start: str | Mapping[str, Image]
    bounds: Bounds
    says: str
    cut: tuple[str, str] = ("", "")
    """Whose messages to each other are lost."""
    only: Mapping[Act, Sequence[str]] = {}
    entries_per_packet_max: int = 64


HUNTS = (
    Hunt(
        a_vote_is_not_written,
        "raft",
        "empty",
        NONE._replace(timeouts=2, crashes=1),
        "is led by",
        ("n1", "n3"),
        {Act.CRASH: ("n2",), Act.TIME_OUT: ("n1", "n3")},
    ),
    Hunt(
        a_leader_counts_its_copy_before_it_is_durable,
        "raft",
        "led",
        NONE._replace(proposals=1),
        "have it on disk",
    ),
    Hunt(
        an_append_drops_what_follows_though_it_matches,
        "raft",
        "led",
        NONE._replace(proposals=2),
        "PeerFault: n1 commits 3 of a log that ends at 2",
        ("n1", "n3"),
    ),
    Hunt(
        an_entry_of_an_earlier_term_is_committed_by_counting,
        "raft",
        DIVIDED,
        NONE._replace(timeouts=2, lapses=1),
        "have it on disk",
        ("n1", "n2"),
        {Act.TIME_OUT: ("n1", "n2"), Act.LAPSE: ("n3",)},
        1,
    ),
    Hunt(
        the_lowest_ballot_is_adopted,
        "paxos",
        CHOSEN_ON_TWO,
        NONE._replace(timeouts=2),
        "entry 1 is committed as Value(",
    ),
    Hunt(
        an_acceptance_at_an_earlier_ballot_counts,
        "paxos",
        "led",
        NONE._replace(timeouts=1, proposals=1, crashes=1, lapses=1),
        "have it on disk",
        ("n2", "n3"),
        {Act.CRASH: ("n1",), Act.TIME_OUT: ("n1",), Act.LAPSE: ("n3",)},
    ),
    Hunt(
        a_gap_is_what_the_leader_itself_lacks,
        "paxos",
        {**CHOSEN_ON_TWO, "n1": Image(Epoch(1, "n2"))},
        NONE._replace(timeouts=2),
        "entry 1 is committed as Value(",
    ),
    Hunt(
        a_promise_is_not_written,
        "paxos",
        "empty",
        NONE._replace(timeouts=2, crashes=1),
        "PeerFault: n2 answers ballot",
    ),
)


def search(hunt: Hunt) -> Found:
    cluster = Cluster(
        load_agreement(hunt.agreement),
        entries_per_packet_max=hunt.entries_per_packet_max,
        cut=[{*hunt.cut}],
        only=hunt.only,
    )
    if isinstance(hunt.start, str):
        start = start_state(cluster, hunt.start, hunt.bounds)
    else:
        start = cluster.state(hunt.start, hunt.bounds)
    return Search(cluster, start).run(HUNTED_MAX)


@pytest.mark.parametrize("hunt", HUNTS, ids=lambda hunt: hunt.plant.__name__)
def test_a_planted_fault_is_found(hunt: Hunt, monkeypatch: Patch) -> None:
    hunt.plant(monkeypatch)
    found = search(hunt)
    assert found.breach, found.progress
    assert hunt.says in found.breach
    assert len(found.trace) == found.progress.depth + 1


@pytest.mark.parametrize("hunt", HUNTS[:3], ids=lambda hunt: hunt.plant.__name__)
def test_without_the_fault_the_same_bounds_break_no_rule(hunt: Hunt) -> None:
    found = search(hunt)
    assert found.complete
    assert found.breach == ""


# --- without faults -------------------------------------------------------------------------------


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("agreement", AGREEMENTS)
def test_no_state_breaks_a_rule(agreement: str, start: str) -> None:
    cluster = Cluster(load_agreement(agreement))
    found = Search(cluster, start_state(cluster, start, Bounds())).run(STATES)
    assert found.breach == ""
    assert found.progress.states >= STATES
    assert not found.complete


@pytest.mark.parametrize("agreement", AGREEMENTS)
def test_small_bounds_are_searched_to_their_end(agreement: str) -> None:
    """Every state in which n1 alone may lead, and appends once, over n2 alone."""
    cluster = Cluster(
        load_agreement(agreement), cut=[{"n1", "n3"}, {"n2", "n3"}], only={Act.TIME_OUT: ("n1",)}
    )
    bounds = NONE._replace(timeouts=1, proposals=1)
    start = start_state(cluster, "empty", bounds)
    found = Search(cluster, start).run(STATES)
    assert found.complete
    assert found.breach == ""
    again = Search(cluster, start).run(STATES)
    assert (again.progress.states, again.steps) == (found.progress.states, found.steps)
    assert found.progress.states > 100
    assert cluster.committed_max == 2  # its first entry, and what it appended


# --- what the search rests on ---------------------------------------------------------------------


class One(NamedTuple):
    number: int


class Other(NamedTuple):
    number: int


class Holder:
    __slots__ = ("left", "right")

    def __init__(self, left: object, right: object) -> None:
        self.left = left
        self.right = right


def test_tuples_of_different_classes_are_told_apart() -> None:
    capture = Capturer([])
    one: object = One(1)
    assert one == Other(1)
    assert capture.freeze(one) != capture.freeze(Other(1))
    assert type(capture.thaw(capture.freeze([Other(1)]))[0]) is Other


def test_a_thawed_copy_equals_the_original_and_shares_nothing() -> None:
    capture = Capturer([])
    held = Holder({"a": [1, 2], "b": deque([One(3)])}, {4, 5})
    frozen = capture.freeze(held)
    twin = capture.thaw(frozen)
    assert (twin.left, twin.right) == (held.left, held.right)
    twin.left["a"].append(6)
    twin.right.add(7)
    assert capture.freeze(held) == frozen == capture.freeze(capture.thaw(frozen))
    assert capture.freeze(twin) != frozen


def test_what_two_paths_lead_to_cannot_be_captured() -> None:
    shared: list[int] = []
    with pytest.raises(TypeError, match="two paths"):
        Capturer([]).freeze(Holder(shared, shared))


# --- the command ----------------------------------------------------------------------------------


def run(patch: Patch, *arguments: str) -> int:
    patch.setattr(sys, "argv", ["replog.testing.exploration", *arguments])
    return command.main()


def test_the_command_tells_how_many_states_break_no_rule(
    monkeypatch: Patch, capsys: Capture
) -> None:
    assert run(monkeypatch, "--states", "500", "--start", "led", "--agreement", "paxos") == 0
    sums, within, verdict = capsys.readouterr().out.splitlines()
    assert re.match(r"5\d\d states, depth \d+, frontier [1-9]", sums)
    assert within.startswith("within: 2 timeouts, ")
    assert verdict == "no rule is broken in any of these states; there are more"


def test_the_command_prints_the_steps_that_break_a_rule(
    monkeypatch: Patch, capsys: Capture
) -> None:
    a_leader_counts_its_copy_before_it_is_durable(monkeypatch)
    assert run(monkeypatch, "--start", "led", "--timeouts", "0", "--crashes", "0") == 1
    _, _, *steps, verdict = capsys.readouterr().out.splitlines()
    assert [step.split(": ")[0].split("(")[0] for step in steps] == [
        "  1  n1",
        "  2  n2 <- n1",
        "  3  n2",
        "  4  n1 <- n2",
    ]
    assert verdict.startswith("broken: entry 2 is committed as ")


@pytest.mark.parametrize(
    "arguments",
    [["--states", "0"], ["--start", "never"], ["--timeouts", "99"], ["--agreement", "gossip"]],
)
def test_wrong_usage_is_refused(arguments: list[str], monkeypatch: Patch, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, *arguments)
    assert stopped.value.code == 2
    assert "error:" in capsys.readouterr().err
