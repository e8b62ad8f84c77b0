"""Catching up: chosen entries that a member has missed, and snapshots where the values are gone.

Rules of this file:

1. A fetched value replaces what was accepted at a lower ballot only: at the ballot it comes with or
   a higher one, the same was proposed (PMS 2.2, P2c).
2. One bounded piece is fetched at a time, in the order of the indexes. What has brought nothing for
   `retransmit_ms` is asked for again, of the next who is known to know it, or of anybody if that is
   one alone. So whoever waits for a snapshot asks no more often, and not the same one for ever.
3. Whoever fetches at or below the base is offered a snapshot instead (PMMC, section 4.2).
4. An installed snapshot says, as a commit index does, that everything up to its own index is
   chosen. What is accepted there goes, for nothing is reported at or below a commit index; what is
   accepted above stays, for it is this acceptor's word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from paxoslog.messages import (
    ACCEPTED_AHEAD_MAX,
    ENTRIES_PER_SEND_MAX,
    AcceptedValues,
    Chosen,
    FetchAccepted,
    FetchChosen,
)
from paxoslog.state import Handed, Leader
from replog.agreement import EntryRef
from replog.entry import NO_EPOCH
from replog.errors import PeerFault

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paxoslog.state import State
    from replog.agreement import Message, Meta


class Fetching(NamedTuple):
    """Entries asked for at a peer."""

    peer: str
    first_index: int
    asked_at: int


# --- learner --------------------------------------------------------------------------------------


def take_chosen(state: State, sender: str, message: Chosen, metas: Sequence[Meta]) -> None:
    """Learn what is chosen, with its values (PMS, section 2.3)."""
    if metas[-1].index > message.commit_index:
        raise PeerFault(f"{sender} calls entries beyond {message.commit_index} chosen")
    log = state.log
    state.note_commit(sender, message.commit_index)
    end = log.commit_index + ACCEPTED_AHEAD_MAX
    news = [meta for meta in metas if meta.index <= end and not log.is_chosen(meta.index)]
    if not news:
        return
    ballot = max([meta.epoch for meta in news])
    if ballot > state.ballot:
        # Nothing is stored above the promise. A leader of a lower ballot is one no longer.
        state.enter_ballot(ballot)
    for meta in news:
        if log.ballot_at(meta.index) < meta.epoch:
            state.accept(meta.index, meta.epoch, meta.epoch)
        log.choose(meta.index)
    if isinstance(state.role, Leader):
        state.role.moved_at = state.now
        _forget_chosen(state, state.role)


def install(state: State, base_index: int) -> bool:
    """A snapshot that stands for everything up to `base_index` takes the place of the log up to
    there. False: this node knows as much already."""
    if base_index <= state.commit_index:
        return False
    state.install(base_index)
    if isinstance(state.role, Leader):
        state.role.moved_at = state.now
        _forget_chosen(state, state.role)
        _send_from_base(state, state.role)
    return True


def fetch_missing(state: State) -> None:
    """Ask for the next chosen entries that this node lacks; another peer when overdue."""
    log = state.log
    if not state.is_behind or state.journal.entries_waiting >= ACCEPTED_AHEAD_MAX:
        state.fetching = None  # what waits for the disk is held in memory: go on once it is durable
        return
    first = log.commit_index + 1
    peers = [peer for peer, known in state.commit_known.items() if known >= first]
    if state.fetching is None:
        peers = [state.leader] if state.leader in peers else peers
    elif len(peers) == 1 and state.fetching.first_index == first:
        peers = list(state.others)  # it may be unable to answer: others know too, or soon will
    peer = choose_source(state, peers, state.fetching, first)
    if peer is None:
        return
    end = min(state.known_index, log.commit_index + ENTRIES_PER_SEND_MAX)
    last = first
    while last < end and not log.is_chosen(last + 1):
        last += 1
    state.fetching = Fetching(peer, first, state.now)
    state.send(peer, FetchChosen(first, last))


def choose_source(
    state: State, peers: Sequence[str], before: Fetching | None, first_index: int
) -> str | None:
    """Whom to ask for entries from `first_index` on: the same as before while its answers bring
    something, the next when one is overdue; None while it is not."""
    if before is None:
        return peers[0]
    if before.first_index != first_index:
        return before.peer if before.peer in peers else peers[0]
    if state.now - before.asked_at < state.tuning.retransmit_ms:
        return None
    return next((peer for peer in sorted(peers) if peer > before.peer), min(peers))


# --- whoever is asked -----------------------------------------------------------------------------


def compact(state: State, base_index: int) -> None:
    """The host keeps nothing up to `base_index` any more. A leader tells the acceptors behind it
    that all this is chosen, and each of them fetches, here or elsewhere."""
    if base_index <= state.log.base_index:
        return
    state.log.compact(base_index)
    if isinstance(state.role, Leader):
        _send_from_base(state, state.role)


def answer_fetch_chosen(state: State, sender: str, request: FetchChosen) -> None:
    """Send a learner what is chosen, as soon as the host takes entries for it."""
    if not 0 < request.first_index <= request.last_index:
        raise PeerFault(f"{sender} fetches {request.first_index} to {request.last_index}")
    state.asked[sender] = request


def has_answers(state: State) -> bool:
    """Whether `send_answers` has anything to send."""
    return any(peer not in state.handed for peer in state.asked)


def send_answers(state: State) -> None:
    """To each peer that has fetched entries, what this node has of them; or a snapshot."""
    for peer in [peer for peer in state.asked if peer not in state.handed]:
        request = state.asked.pop(peer)
        if request.first_index <= state.log.base_index:
            state.offer_snapshot(peer)
            continue
        message, refs = _fetched(state, request)
        if refs:
            state.send(peer, message, refs)
            state.handed[peer] = Handed(NO_EPOCH, refs[0].index, refs[-1].index)


def _fetched(
    state: State, request: FetchChosen | FetchAccepted
) -> tuple[Message, tuple[EntryRef, ...]]:
    """The answer to a fetch, and the entries beside it; none when there is nothing to send.

    What is chosen by now is sent as such, whatever was asked for.
    """
    first = request.first_index
    if isinstance(request, FetchAccepted) and first > state.commit_index:
        refs: list[EntryRef] = []
        for index, ballot in enumerate(request.ballots, start=first):
            if state.log.ballot_at(index) != ballot:
                break
            refs.append(EntryRef(index, ballot))
        return AcceptedValues(request.ballot), tuple(refs)
    if isinstance(request, FetchAccepted):
        last = first + len(request.ballots) - 1
    else:
        last = min(request.last_index, first + ENTRIES_PER_SEND_MAX - 1)
    last = min(last, state.commit_index)
    chosen = [EntryRef(index, NO_EPOCH) for index in range(first, last + 1)]
    return Chosen(state.commit_index), tuple(chosen)


# --- what a leader remembers ----------------------------------------------------------------------


def _forget_chosen(state: State, leader: Leader) -> None:
    for index in [index for index in leader.accepted_by if state.log.is_chosen(index)]:
        del leader.accepted_by[index]


def _send_from_base(state: State, leader: Leader) -> None:
    for progress in leader.progress.values():
        progress.begin(state.log.base_index)
