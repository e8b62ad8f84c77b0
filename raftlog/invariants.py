"""What must hold of one member at every moment, and between any two.

Facts about what a member starts from, about one state, and about two successive states; the facts
that relate members (one leader per term, equal committed entries) belong to whoever watches all of
them. `check_restored` runs at every start; tests and the simulator check after every step::

    before = observe(core)
    core.receive(...)
    check_state(core)
    check_step(before, observe(core))

Every breach raises `InvariantBroken`.
"""

from __future__ import annotations

from operator import lt
from typing import TYPE_CHECKING, NamedTuple

from raftlog.state import Candidate, Leader, Log, PreCandidate
from replog.entry import Epoch
from replog.errors import InvariantBroken

if TYPE_CHECKING:
    from collections.abc import Mapping

    from raftlog.core import RaftCore
    from raftlog.state import State
    from replog.agreement import EntryRef, Restored


class Observed(NamedTuple):
    """A light copy of what `check_step` compares."""

    term: int
    vote: str
    leads: bool
    leader: str | None
    base: EntryRef
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
        state.log.base,
        state.log.runs(),
        state.log.last_index,
        state.commit_index,
        role.first_index if isinstance(role, Leader) else 0,
        {peer: follower.match_index for peer, follower in progress.items()},
        (state.journal.last_write_id, state.journal.durable_write_id),
    )


def check_restored(node: str, restored: Restored) -> None:
    """Raise `InvariantBroken` for a durable state that no run of this program leaves behind."""
    voters, last_index, base = restored.membership.voters, restored.last_index, restored.base
    if node not in voters:
        raise InvariantBroken(f"{node} is not among the voters {sorted(voters)}")
    if not _fits(restored.epochs, last_index, base):
        raise InvariantBroken(
            f"epochs {restored.epochs} cannot be those of the entries behind {base} up to "
            f"{last_index}"
        )
    last_term = Log(restored.epochs, last_index, base).last_term
    if last_term > restored.promise.number:
        raise InvariantBroken(
            f"an entry of term {last_term} in a log whose node knows only term "
            f"{restored.promise.number}"
        )
    if not base.index <= restored.commit_index <= last_index:
        raise InvariantBroken(
            f"everything up to {restored.commit_index} was delivered from a log behind "
            f"{base.index} up to {last_index}"
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
    _require(before.base.index <= after.base.index, "what is compacted never comes back")
    _require(
        _between(before, after.base.index, before.commit_index)
        == _between(after, after.base.index, before.commit_index),
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
            _between(after, after.base.index, before.last_index)
            == _between(before, after.base.index, before.last_index),
            "a leader only appends to its log (figure 3: leader append-only)",
        )
        _require(
            all(before.matches[peer] <= match for peer, match in after.matches.items()),
            "a match index only grows within a leadership",
        )
        _require(before.first_index in {0, after.first_index}, "a leadership has one first entry")


def _check_log(state: State) -> None:
    log, last_index = state.log, state.log.last_index
    _require(
        _fits(log.runs(), last_index, log.base),
        "runs of epochs lead from the base of a log to its end, and terms ascend along it",
    )
    _require(log.last_term <= state.term, "no entry is of a term beyond the current one")
    _require(
        log.base.index <= state.commit_index <= last_index,
        "what is compacted is committed, and what is committed is in the log",
    )
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
        _require(
            state.log.base.index < progress.next_index,
            f"what {peer} is sent next is not compacted",
        )
    first = leader.first_index
    if first > state.log.base.index:
        _require(
            state.log.term_at(first - 1) < state.term and state.log.epoch_at(first) == leader.epoch,
            "the first entry of a leadership is the first of its term",
        )
    elif not first:
        _require(state.log.last_term < state.term, "a new leader's term has no entries yet")


def _between(observed: Observed, first: int, last: int) -> list[tuple[int, Epoch]]:
    """The runs of the entries from `first` to `last`, the base being one of them."""
    runs: list[tuple[int, Epoch]] = []
    for begin, epoch in (observed.base, *observed.runs):
        if not begin <= last >= first:
            break
        if begin <= first:
            runs = [(first, epoch)]
        elif epoch != runs[-1][1]:
            runs.append((begin, epoch))
    return runs


def _fits(runs: tuple[tuple[int, Epoch], ...], last_index: int, base: EntryRef) -> bool:
    """Whether these runs lead from the base to the end of a log, their terms ascending."""
    firsts = [first for first, _ in runs]
    epochs = [base.epoch, *[epoch for _, epoch in runs]]
    if base.index and epochs[1:2] == epochs[:1]:
        del epochs[0]  # the base has cut this run
    return (
        base.index >= 0
        and (base.index == 0) == (base.epoch.number == 0)
        and firsts[:1] == ([base.index + 1] if base.index < last_index else [])
        and _ascends([base.index, *firsts, last_index + 1])
        and _ascends([epoch.number for epoch in epochs])
    )


def _ascends(numbers: list[int]) -> bool:
    """Whether each number is higher than the one before it."""
    return all(map(lt, numbers, numbers[1:]))


def _require(fact: bool, words: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not fact:
        raise InvariantBroken(f"not so: {words}")
