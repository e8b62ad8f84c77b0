"""Elections: who may propose, and what it must propose first (PMS, section 2.2; PMMC, section 2.3).

Rules of this file:

1. A promise goes to the highest ballot only, and is on disk before anyone hears of it. That
   includes a proposer's promise to itself: its ballot is on its disk before the first prepare, so
   that no ballot is ever used twice.
2. Promises are sets of acceptor ids, for exactly this ballot (or this pre-prepare round): a
   repeated, late or foreign one counts nothing.
3. Of each index above all that its prepare quorum knows to be chosen, a new leader proposes the
   value of the highest ballot that the quorum reports (PMS 2.2, P2c), and a no-op only where the
   whole quorum reports nothing. It proposes nothing at or below a commit index that was reported.
4. Whoever has heard a leader within the shortest election timeout neither promises anything to
   another nor learns of its ballot: a node that was cut off cannot depose a working leader.
5. A pre-promise changes nothing at the node that gives it. A prepare follows those of a prepare
   quorum and of an accept quorum: who could choose nothing deposes nobody.
6. The timer restarts when a leader is heard, a promise is given or a prepare begins, and at no
   other message. A ballot that was refused is followed by the next only after a whole timeout.
7. Who knows less to be chosen than others lets one timeout pass for them, or until it has caught
   up; then it goes on, for the others may be out of reach.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from paxoslog.catchup import Fetching, choose_source
from paxoslog.messages import (
    ENTRIES_PER_SEND_MAX,
    REPORTED_AHEAD_MAX,
    FetchAccepted,
    Nack,
    Prepare,
    PrePrepare,
    PrePromise,
    Promise,
)
from paxoslog.progress import Progress
from paxoslog.replication import propose_at, send_heartbeats
from paxoslog.state import Adopted, Leader, PreProposer, Proposer
from replog.entry import NO_EPOCH, Epoch
from replog.errors import PeerFault

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from paxoslog.state import State
    from replog.agreement import Meta

# --- proposer: asking -----------------------------------------------------------------------------


def time_out(state: State) -> None:
    """No leader has been heard, or no ballot was promised, for a whole timeout."""
    role = state.role
    if isinstance(role, Proposer) and role.write_id > state.journal.durable_write_id:
        # Its requests still wait for this node's disk: another ballot would wait just as long.
        state.restart_election_timer()
        return
    if isinstance(role, PreProposer) and is_granted(state, role):
        state.yielded = True
    state.step_down()
    state.leader = None
    state.restart_election_timer()
    state.pre_prepare_round += 1
    state.role = PreProposer({state.node})
    request = PrePrepare(_next_ballot(state), state.pre_prepare_round)
    for peer in state.others:
        state.send(peer, request)
    prepare_if_granted(state)


def count_pre_promise(state: State, sender: str, answer: PrePromise) -> None:
    """Prepare once a quorum would promise to obey."""
    state.note_commit(sender, answer.commit_index)
    role = state.role
    if not answer.granted and answer.ballot > state.ballot:
        state.enter_ballot(answer.ballot)
    elif (
        isinstance(role, PreProposer) and answer.granted and answer.round == state.pre_prepare_round
    ):
        role.granted.add(sender)
        prepare_if_granted(state)


def is_granted(state: State, role: PreProposer) -> bool:
    """Whether enough members would obey: to promise, and then to choose anything. A leader without
    an accept quorum is of no use, and would depose one that has it."""
    quorums = state.quorums
    return quorums.can_elect(role.granted) and quorums.can_commit(role.granted)


def prepare_if_granted(state: State) -> None:
    """Ask for the promises to a new ballot (PMS 2.2, phase 1a), for all indexes at once."""
    role = state.role
    if (
        not isinstance(role, PreProposer)
        or not is_granted(state, role)
        or (state.is_behind and not state.yielded)
    ):
        return
    state.enter_ballot(_next_ballot(state))
    state.restart_election_timer()
    state.role = Proposer(state.journal.last_write_id)
    request = Prepare(state.ballot, state.commit_index + 1)
    for peer in state.others:
        state.promise(peer, request)


def count_promise(state: State, sender: str, promise: Promise) -> None:
    """Lead once a quorum has promised to obey this ballot."""
    _check_promise(sender, promise)
    state.note_commit(sender, promise.commit_index)
    role = state.role
    if isinstance(role, Proposer):
        role.promised.add(sender)
        role.promises[sender] = promise
        _lead_if_promised(state, role)


def count_own_promise(state: State) -> None:
    """A proposer's promise to itself counts once it is on disk."""
    role = state.role
    if isinstance(role, Proposer) and role.write_id <= state.journal.durable_write_id:
        role.promised.add(state.node)
        _lead_if_promised(state, role)


def _next_ballot(state: State) -> Epoch:
    """The lowest of this node's ballots that is higher than all it knows of."""
    return Epoch(state.ballot.number + 1, state.node)


def _check_promise(sender: str, promise: Promise) -> None:
    """Raise `PeerFault` for a report that no acceptor makes."""
    low = promise.commit_index
    for index in promise.indexes:
        if not low < index <= promise.commit_index + REPORTED_AHEAD_MAX:
            raise PeerFault(f"{sender} reports entry {index} above {low}")
        low = index
    if len(promise.indexes) != len(promise.ballots) or not all(
        NO_EPOCH < ballot <= promise.ballot for ballot in promise.ballots
    ):
        raise PeerFault(f"{sender} reports {promise.ballots} to {promise.ballot}")


# --- acceptor: answering --------------------------------------------------------------------------


def answer_pre_prepare(state: State, sender: str, request: PrePrepare) -> None:
    """Say whether this node would promise to obey, without doing so."""
    granted = request.ballot > state.ballot and not _hears_a_leader(state)
    answer = PrePromise(state.ballot, request.round, granted, state.commit_index)
    state.send(sender, answer)


def answer_prepare(state: State, sender: str, request: Prepare) -> None:
    """Promise to obey, unless a higher ballot is obeyed (PMS 2.2, phase 1b).

    The report is complete: whatever was accepted and is not known to be chosen may be chosen.
    """
    if request.first_index < 1:
        raise PeerFault(f"{sender} prepares from {request.first_index} on")
    if request.ballot < state.ballot:
        state.promise(sender, Nack(state.ballot))
        return
    if _hears_a_leader(state):
        return  # not even the ballot is learnt
    if request.ballot > state.ballot:
        state.enter_ballot(request.ballot)
        state.restart_election_timer()
    report = [ref for ref in state.log.accepted() if ref.index >= request.first_index]
    promise = Promise(
        state.ballot,
        state.commit_index,
        tuple([ref.index for ref in report]),
        tuple([ref.epoch for ref in report]),
    )
    state.promise(sender, promise)


def answer_fetch_accepted(state: State, sender: str, request: FetchAccepted) -> None:
    """Send a leader the values that it lacks, as soon as the host takes entries for it."""
    if not 0 < len(request.ballots) <= ENTRIES_PER_SEND_MAX or request.first_index < 1:
        raise PeerFault(f"{sender} fetches {len(request.ballots)} from {request.first_index} on")
    if request.ballot < state.ballot:
        state.promise(sender, Nack(state.ballot))
        return
    state.obey(request.ballot)
    state.asked[sender] = request


def _hears_a_leader(state: State) -> bool:
    """Whether this node leads, or has heard a leader within the shortest timeout."""
    if isinstance(state.role, Leader):
        return True
    heard_at = state.leader_heard_at
    return heard_at is not None and state.now - heard_at < state.tuning.election_timeout_ms_min


# --- leader: adopting -----------------------------------------------------------------------------


def take_over(state: State) -> None:
    """Propose what was adopted, as far as its values are at hand; ask for the others.

    Nothing is proposed before everything that was reported as chosen is known here.
    """
    leader = state.role
    if not isinstance(leader, Leader) or state.commit_index < leader.base_index:
        return
    for index, adopted in list(leader.adopted.items()):
        held = state.log.ballot_at(index)
        if held >= adopted.ballot:
            propose_at(state, leader, index, held)
        if held >= adopted.ballot or index <= state.commit_index:
            del leader.adopted[index]
    _fetch_accepted(state, leader)


def take_accepted(state: State, metas: Sequence[Meta]) -> None:
    """Propose adopted values that have arrived. A value counts only under the ballot adopted."""
    leader = state.role
    if not isinstance(leader, Leader) or state.commit_index < leader.base_index:
        return
    for meta in metas:
        adopted = leader.adopted.get(meta.index)
        if adopted is not None and adopted.ballot == meta.epoch and meta.index > state.commit_index:
            del leader.adopted[meta.index]
            propose_at(state, leader, meta.index, meta.epoch)
            leader.moved_at = state.now
    take_over(state)


def _lead_if_promised(state: State, proposer: Proposer) -> None:
    if not state.quorums.can_elect(proposer.promised):
        return
    promises = proposer.promises
    base_index = max([state.commit_index, *[p.commit_index for p in promises.values()]])
    reports: dict[str, Iterable[tuple[int, Epoch]]] = {
        peer: zip(promise.indexes, promise.ballots, strict=True)
        for peer, promise in promises.items()
    }
    reports[state.node] = state.log.accepted()
    adopted = _adopt(reports, base_index)
    end = max(adopted, default=base_index)
    state.leader = state.node
    state.role = leader = Leader(
        state.ballot,
        base_index,
        adopted,
        deque([index for index in range(base_index + 1, end) if index not in adopted]),
        {
            peer: Progress(promises[peer].commit_index if peer in promises else 0, state.now)
            for peer in state.others
        },
        state.now,
    )
    send_heartbeats(state, leader)
    take_over(state)


def _adopt(
    reports: Mapping[str, Iterable[tuple[int, Epoch]]], base_index: int
) -> dict[int, Adopted]:
    """Of each index above `base_index`, the highest ballot reported, and by whom; ascending.

    Equal ballots mean equal values: a ballot has one leader, which proposes one value at an index.
    """
    found: dict[int, Adopted] = {}
    for node, report in reports.items():
        for index, ballot in report:
            known = found.get(index)
            if index <= base_index or (known is not None and ballot < known.ballot):
                continue
            others = known.reporters if known is not None and ballot == known.ballot else ()
            found[index] = Adopted(ballot, (*others, node))
    return {index: found[index] for index in sorted(found)}


def _fetch_accepted(state: State, leader: Leader) -> None:
    """Ask a reporter for the next adopted values; another one when an answer is overdue."""
    if not leader.adopted:
        return
    first = next(iter(leader.adopted))
    peers = [node for node in leader.adopted[first].reporters if node != state.node]
    peer = choose_source(state, peers, leader.fetching, first)
    if peer is None:
        return
    ballots: list[Epoch] = []
    while len(ballots) < ENTRIES_PER_SEND_MAX:
        adopted = leader.adopted.get(first + len(ballots))
        if adopted is None or peer not in adopted.reporters:
            break
        ballots.append(adopted.ballot)
    leader.fetching = Fetching(peer, first, state.now)
    state.send(peer, FetchAccepted(leader.ballot, first, tuple(ballots)))
