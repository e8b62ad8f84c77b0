"""What must hold of one member at every moment, and between any two.

Facts about one state, and about two successive states of one member; the facts that relate members
(one value for each index and ballot, one chosen value) belong to whoever watches all of them. Tests
and the simulator check after every step::

    before = observe(core)
    core.receive(...)
    check_state(core)
    check_step(before, observe(core))

Every breach raises `InvariantBroken`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from paxoslog.election import is_granted
from paxoslog.state import Leader, PreProposer, Proposer
from replog.entry import NO_EPOCH, Epoch
from replog.errors import InvariantBroken

if TYPE_CHECKING:
    from collections.abc import Mapping, Set

    from paxoslog.core import PaxosCore
    from paxoslog.state import State


class Observed(NamedTuple):
    """A light copy of what `check_step` compares."""

    ballot: Epoch
    leads: bool
    leader: str | None
    accepted: Mapping[int, Epoch]
    """Of each index above the commit index, the ballot accepted there."""
    chosen: Set[int]
    """Those of them that are known to be chosen."""
    base_index: int
    commit_index: int
    first_index: int
    matches: Mapping[str, int]
    """While leading: the match index of each acceptor."""
    write_ids: tuple[int, int]
    """The last issued and the last durable."""


def observe(core: PaxosCore) -> Observed:
    """Copy what `check_step` compares."""
    state = core.state
    role = state.role
    accepted = dict(state.log.accepted())
    progress = role.progress if isinstance(role, Leader) else {}
    return Observed(
        state.ballot,
        isinstance(role, Leader),
        state.leader,
        accepted,
        {index for index in accepted if state.log.is_chosen(index)},
        state.log.base_index,
        state.log.commit_index,
        role.first_index if isinstance(role, Leader) else 0,
        {peer: acceptor.match_index for peer, acceptor in progress.items()},
        (state.journal.last_write_id, state.journal.durable_write_id),
    )


def check_state(core: PaxosCore) -> None:
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
    elif isinstance(role, Proposer):
        _require(state.ballot.node == state.node, "a proposer obeys its own ballot")
        _require(
            state.node not in role.promised or role.write_id <= state.journal.durable_write_id,
            "a proposer's promise to itself counts once it is durable",
        )
        _require(not state.quorums.can_elect(role.promised), "a proposer with a quorum leads")
    elif isinstance(role, PreProposer):
        _require(
            not is_granted(state, role) or (state.is_behind and not state.yielded),
            "only one who is behind waits with enough pre-promises",
        )
    if isinstance(role, Proposer | PreProposer):
        _require(state.leader is None, "who wants to propose knows no leader")
    else:
        _require(
            isinstance(role, Leader) or state.leader != state.node,
            "only a leader takes itself for the leader",
        )


def check_step(before: Observed, after: Observed) -> None:
    """Facts about what one step may change."""
    _require(before.ballot <= after.ballot, "the promise never falls")
    _require(before.base_index <= after.base_index, "the base never falls")
    _require(before.commit_index <= after.commit_index, "the commit index never falls")
    _require(
        before.write_ids[0] <= after.write_ids[0] and before.write_ids[1] <= after.write_ids[1],
        "write ids never fall",
    )
    for index, ballot in before.accepted.items():
        if index > after.commit_index:
            _require(
                ballot <= after.accepted.get(index, NO_EPOCH),
                "what is accepted is replaced at a higher ballot only (PMS 2.2, P2b)",
            )
    _require(
        all(index <= after.commit_index or index in after.chosen for index in before.chosen),
        "what is chosen stays chosen",
    )
    if before.ballot != after.ballot:
        return
    _require(
        None in {before.leader, after.leader} or before.leader == after.leader,
        "a ballot has one leader",
    )
    if before.leads and after.leads:
        _require(
            all(before.matches[peer] <= match for peer, match in after.matches.items()),
            "a match index only grows within a leadership",
        )
        _require(before.first_index in {0, after.first_index}, "a leadership has one first entry")


def _check_log(state: State) -> None:
    log = state.log
    accepted = dict(log.accepted())
    _require(
        log.last_index == max(accepted, default=log.commit_index),
        "the log ends with what was accepted last",
    )
    _require(
        0 <= log.base_index <= log.commit_index,
        "only what is chosen is compacted",
    )
    _require(
        all(index > log.commit_index for index in accepted),
        "nothing is remembered of what lies at or below the commit index",
    )
    _require(
        all(NO_EPOCH < ballot <= state.ballot for ballot in accepted.values()),
        "nothing is accepted at a higher ballot than is promised (PMMC 2.3)",
    )
    _require(
        log.commit_index + 1 not in accepted or not log.is_chosen(log.commit_index + 1),
        "the commit index goes as far as it can",
    )


def _check_leader(state: State, leader: Leader) -> None:
    ballot, log = leader.ballot, state.log
    _require(ballot == state.ballot and ballot.node == state.node, "a leader leads its own ballot")
    _require(state.leader == state.node, "a leader knows that it leads")
    own = [ref.index for ref in log.accepted() if ref.epoch == ballot]
    _require(
        all(index > leader.base_index for index in own),
        "a leader proposes nothing at or below what was reported as chosen",
    )
    _require(
        all(index > log.commit_index and index in own for index in leader.accepted_by),
        "a leader counts acceptors of its own proposals only",
    )
    _require(
        not any(state.quorums.can_commit(nodes) for nodes in leader.accepted_by.values()),
        "what a quorum has accepted is chosen",
    )
    if not leader.first_index:
        return
    _require(not leader.adopted and not leader.gaps, "a leader first proposes what it adopted")
    _require(
        own == list(range(log.commit_index + 1, log.last_index + 1)),
        "a leader's proposals have no gap",
    )
    for peer, progress in leader.progress.items():
        _require(
            0 <= progress.match_index < progress.next_index <= log.last_index + 1,
            f"match and next index of {peer} are in order and within the log",
        )
        _require(
            log.base_index <= progress.match_index,
            f"nothing compacted is sent to {peer}",
        )


def _require(fact: bool, words: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not fact:
        raise InvariantBroken(f"not so: {words}")
