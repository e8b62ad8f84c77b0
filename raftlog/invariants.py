"""What must hold of one member at every moment, and between any two.

Facts about one state, and about two successive states of one member; the facts that relate members
(one leader per term, equal committed entries) belong to whoever watches all of them. Tests and the
simulator check after every step::

    before = observe(core)
    core.receive(...)
    check_state(core)
    check_step(before, observe(core))

Every breach raises `InvariantBroken`.
"""

from __future__ import annotations

from bisect import bisect_right
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from raftlog.state import Candidate, Leader, PreCandidate, ascends
from replog.entry import Epoch
from replog.errors import InvariantBroken

if TYPE_CHECKING:
    from collections.abc import Mapping

    from raftlog.core import RaftCore
    from raftlog.state import State


class Observed(NamedTuple):
    """A light copy of what `check_step` compares."""

    term: int
    vote: str
    leads: bool
    leader: str | None
    runs: tuple[tuple[int, Epoch], ...]
    last_index: int
    commit_index: int
    first_index: int
    matches: Mapping[str, int]
    """While leading: the match index of each follower."""
    write_ids: tuple[int, int]
    """The last issued and the last durable."""


def observe(core: RaftCore) -> Observed:
    """Copy what `check_step` compares."""
    state = core.state
    role = state.role
    leads = isinstance(role, Leader)
    progress = role.progress if isinstance(role, Leader) else {}
    return Observed(
        state.term,
        state.vote,
        leads,
        state.leader,
        state.log.runs(),
        state.log.last_index,
        state.commit_index,
        role.first_index if isinstance(role, Leader) else 0,
        {peer: follower.match_index for peer, follower in progress.items()},
        (state.journal.last_write_id, state.journal.durable_write_id),
    )


def check_state(core: RaftCore) -> None:
    """Facts about one moment."""
    state = core.state
    _check_log(state)
    _require(
        state.journal.durable_write_id <= state.journal.last_write_id,
        "a write is durable before it was issued",
    )
    role = state.role
    if isinstance(role, Leader):
        _check_leader(state, role)
    elif isinstance(role, Candidate):
        _require(state.vote == state.node, "a candidate votes for itself")
        _require(
            state.node not in role.granted or role.write_id <= state.journal.durable_write_id,
            "a candidate's own vote counts once it is durable",
        )
        _require(not state.quorums.can_elect(role.granted), "a candidate with a quorum leads")
    if isinstance(role, Candidate | PreCandidate):
        _require(state.leader is None, "who campaigns knows no leader")
    else:
        _require(
            isinstance(role, Leader) or state.leader != state.node,
            "only a leader takes itself for the leader",
        )


def check_step(before: Observed, after: Observed) -> None:
    """Facts about what one step may change."""
    _require(before.term <= after.term, "the term never falls")
    _require(before.commit_index <= after.commit_index, "the commit index never falls")
    _require(
        before.write_ids[0] <= after.write_ids[0] and before.write_ids[1] <= after.write_ids[1],
        "write ids never fall",
    )
    _require(
        _prefix(before, before.commit_index) == _prefix(after, before.commit_index),
        "a committed entry never changes (paper, figure 3: state machine safety)",
    )
    if before.term != after.term:
        return
    _require(before.vote in {"", after.vote}, "the vote of a term is given once")
    _require(
        None in {before.leader, after.leader} or before.leader == after.leader,
        "a term has one leader (figure 3: election safety)",
    )
    if before.leads and after.leads:
        _require(
            _prefix(after, before.last_index) == before.runs,
            "a leader only appends to its log (figure 3: leader append-only)",
        )
        _require(
            all(before.matches[peer] <= match for peer, match in after.matches.items()),
            "a match index only grows within a leadership",
        )
        _require(before.first_index in {0, after.first_index}, "a leadership has one first entry")


def _check_log(state: State) -> None:
    runs, last_index = state.log.runs(), state.log.last_index
    firsts = [first for first, _ in runs]
    _require(firsts[:1] == ([1] if last_index else []), "a log begins at index 1")
    _require(ascends([*firsts, last_index + 1]), "runs of epochs ascend to the end of the log")
    terms = [epoch.number for _, epoch in runs]
    _require(
        ascends([0, *terms, state.term + 1]),
        "terms ascend along the log and do not exceed the current one",
    )
    _require(0 <= state.commit_index <= last_index, "what is committed is in the log")
    _require(0 <= state.journal.durable_index <= last_index, "what is durable is in the log")


def _check_leader(state: State, leader: Leader) -> None:
    _require(leader.epoch == (state.term, state.node), "a leader leads its own epoch")
    _require(state.vote == state.node, "a leader has voted for itself")
    _require(state.leader == state.node, "a leader knows that it leads")
    for peer, progress in leader.progress.items():
        _require(
            0 <= progress.match_index < progress.next_index <= state.log.last_index + 1,
            f"match and next index of {peer} are in order and within the log",
        )
    first = leader.first_index
    if first:
        _require(
            state.log.term_at(first - 1) < state.term and state.log.epoch_at(first) == leader.epoch,
            "the first entry of a leadership is the first of its term",
        )
    else:
        _require(state.log.last_term < state.term, "a new leader's term has no entries yet")


def _prefix(observed: Observed, last_index: int) -> tuple[tuple[int, Epoch], ...]:
    """The runs of the entries up to `last_index`."""
    return observed.runs[: bisect_right(observed.runs, last_index, key=itemgetter(0))]


def _require(fact: bool, words: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not fact:
        raise InvariantBroken(f"not so: {words}")
