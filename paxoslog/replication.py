"""Replication: what the leader proposes becomes chosen, and known (PMS, sections 2.2, 2.3 and 3).

Rules of this file:

1. An acceptor accepts at no lower ballot than it obeys; to accept at a higher one is to promise to
   obey it, in the same write. It accepts nothing at or below its commit index, and nothing more
   than `ACCEPTED_AHEAD_MAX` above it: so much, at most, it must report and keep in memory.
2. A commit index says which indexes are chosen, not which values: an acceptor takes its own value
   for the chosen one only if it accepted it at the ballot of the leader that says so. The others
   are fetched from whoever knows them (`catchup`).
3. An entry is chosen when an accept quorum has accepted it at the same ballot: any entry, in any
   order. The leader's own acceptance counts once it is on its disk, like any other.
4. A leader proposes one value at an index, and sends nothing before it has proposed something at
   every index it must: from then on its ballot's entries have no gap.
5. A leader that no accept quorum has answered for the longest election timeout steps down, and so
   does one that cannot get a value it needs. What counts are answers: to be heard by others is not
   to hear them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paxoslog.messages import (
    ACCEPTED_AHEAD_MAX,
    ENTRIES_PER_SEND_MAX,
    Accept,
    Accepted,
    AskAccepted,
    Committed,
    Heartbeat,
    HeartbeatReply,
    Missing,
    Nack,
)
from paxoslog.state import Handed, Leader
from replog.agreement import EntryRef
from replog.entry import Epoch, Kind
from replog.errors import PeerFault

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paxoslog.progress import Progress
    from paxoslog.state import State
    from replog.agreement import Meta, WriteEntry

# --- acceptor -------------------------------------------------------------------------------------


def answer_accept(state: State, sender: str, accept: Accept, metas: Sequence[Meta]) -> None:
    """Accept what the leader proposes, unless a higher ballot is obeyed (PMS 2.2, phase 2b)."""
    ballot, log = accept.ballot, state.log
    if any(meta.epoch != ballot for meta in metas):
        raise PeerFault(f"{sender} asks to accept entries of another ballot than {ballot}")
    if not _obeys(state, sender, ballot):
        return
    last = metas[0].index - 1
    for meta in metas:
        if meta.index > log.commit_index + ACCEPTED_AHEAD_MAX:
            break
        last = meta.index
        if last > log.commit_index and log.ballot_at(last) != ballot:
            state.accept(last, ballot, ballot)
    _learn(state, sender, accept.commit_index)
    _acknowledge(state, sender, last)
    _report_missing(state, sender, state.told_index + 1, metas[0].index - 1)


def answer_ask(state: State, sender: str, question: AskAccepted) -> None:
    """Say again what has been accepted at the leader's ballot, and what has not."""
    _, first, last = question
    if not 0 < first <= last:
        raise PeerFault(f"{sender} asks about entries {first} to {last}")
    if _obeys(state, sender, question.ballot):
        end = min(last, state.log.last_index)
        missing = state.log.missing_from(first, end, state.ballot)
        _acknowledge(state, sender, end if missing is None else missing - 1)
        _report_missing(state, sender, first, last)


def answer_heartbeat(state: State, sender: str, heartbeat: Heartbeat) -> None:
    """Follow the leader, and tell it that no higher ballot is obeyed here."""
    if _obeys(state, sender, heartbeat.ballot):
        _learn(state, sender, heartbeat.commit_index)
        reply = HeartbeatReply(state.ballot, heartbeat.round, state.commit_index)
        state.send(sender, reply)


def learn_commit(state: State, sender: str, notice: Committed) -> None:
    """More is chosen than the last accept said."""
    if _obeys(state, sender, notice.ballot):
        _learn(state, sender, notice.commit_index)


def _obeys(state: State, sender: str, ballot: Epoch) -> bool:
    """Follow the leader of `ballot`, or tell it that a higher one is obeyed here."""
    if ballot < state.ballot:
        state.promise(sender, Nack(state.ballot))
        return False
    state.obey(ballot)
    return True


def _learn(state: State, leader: str, commit_index: int) -> None:
    """The leader of this ballot knows everything up to `commit_index` to be chosen."""
    log = state.log
    state.note_commit(leader, commit_index)
    state.told_index = max(state.told_index, commit_index)
    for index in range(log.commit_index + 1, min(state.told_index, log.last_index) + 1):
        if log.ballot_at(index) == state.ballot:
            log.choose(index)


def _acknowledge(state: State, leader: str, last: int) -> None:
    first, last = state.log.run_around(last, state.ballot)
    state.promise(leader, Accepted(state.ballot, first, last, state.commit_index))


def _report_missing(state: State, leader: str, first: int, last: int) -> None:
    missing = state.log.missing_from(first, last, state.ballot)
    if missing is not None:
        state.send(leader, Missing(state.ballot, missing, state.commit_index))


# --- leader: proposals and choice -----------------------------------------------------------------


def propose(state: State, kind: Kind) -> EntryRef | None:
    """Propose one entry as the leader; None when it does not lead, or not yet, or has no room.

    No window holds back what a leadership begins with: a no-op for each gap, and one above all that
    was adopted. What is left of earlier ballots becomes known as chosen with it.
    """
    leader = state.role
    if not isinstance(leader, Leader):
        return None
    if leader.first_index:
        if not has_room(state):
            return None
    elif kind is not Kind.NOOP or _waits_for_values(state, leader):
        return None
    while leader.gaps and leader.gaps[0] <= state.commit_index:
        leader.gaps.popleft()
    index = leader.gaps.popleft() if leader.gaps else 0
    if not index:
        index = state.log.last_index + 1
        if not leader.first_index:
            _begin(state, leader, index)
    propose_at(state, leader, index, leader.ballot)
    return EntryRef(index, leader.ballot)


def propose_at(state: State, leader: Leader, index: int, source: Epoch) -> None:
    """Propose the entry (`index`, `source`) at the leader's ballot, and accept it here."""
    state.accept(index, leader.ballot, source)
    if not state.log.is_chosen(index):
        leader.accepted_by[index] = set()


def has_room(state: State) -> bool:
    """Whether this node leads, has proposed its first entry, and its window takes another."""
    leader = state.role
    if not isinstance(leader, Leader) or leader.first_index == 0:
        return False
    entries_max = state.tuning.inflight_entries_max
    unchosen = state.log.last_index - state.commit_index
    return unchosen < entries_max and state.journal.entries_waiting < entries_max


def count_own_acceptance(state: State, entries: Sequence[WriteEntry]) -> None:
    """These entries are on the disk now."""
    leader = state.role
    if isinstance(leader, Leader):
        for entry in entries:
            if entry.epoch == leader.ballot:
                _count(state, leader, entry.index, state.node)


def _begin(state: State, leader: Leader, first_index: int) -> None:
    """All that was adopted is proposed: send it from here on."""
    leader.first_index = first_index
    leader.base_index = state.commit_index
    for progress in leader.progress.values():
        progress.begin(leader.base_index)


def _waits_for_values(state: State, leader: Leader) -> bool:
    return bool(leader.adopted) or state.commit_index < leader.base_index


def _count(state: State, leader: Leader, index: int, acceptor: str) -> None:
    """An acceptor has accepted one entry at this ballot (PMMC, section 2.3: a commander)."""
    accepted_by = leader.accepted_by.get(index)
    if accepted_by is None:
        return
    accepted_by.add(acceptor)
    if state.quorums.can_commit(accepted_by):
        del leader.accepted_by[index]
        state.log.choose(index)


# --- leader: answers ------------------------------------------------------------------------------


def count_accepted(state: State, sender: str, answer: Accepted) -> None:
    """An acceptor has more of what was proposed on its disk, or knows that it is chosen."""
    leader = state.role
    if not isinstance(leader, Leader):
        return
    _, first, last, _ = answer
    if not 0 < first <= last + 1 <= state.log.last_index + 1:
        raise PeerFault(f"{sender} accepts {first} to {last}, which was never proposed")
    progress = leader.progress[sender]
    for index in range(max(first, progress.match_index + 1, state.commit_index + 1), last + 1):
        _count(state, leader, index, sender)
    _hear(state, progress, sender, answer.commit_index)
    progress.accepted(state.now, first, last)
    _ask_again_if_overdue(state, sender, progress)


def send_again(state: State, sender: str, answer: Missing) -> None:
    """An acceptor lacks an entry: go back to it."""
    leader = state.role
    if not isinstance(leader, Leader):
        return
    progress = leader.progress[sender]
    _hear(state, progress, sender, answer.commit_index)
    progress.missing(answer.first_index)
    _ask_again_if_overdue(state, sender, progress)


def count_heartbeat(state: State, sender: str, answer: HeartbeatReply) -> None:
    """An acceptor is there and obeys no higher ballot."""
    leader = state.role
    if not isinstance(leader, Leader):
        return
    if not 0 <= answer.round <= leader.reads.number:
        raise PeerFault(f"{sender} answers round {answer.round} of {leader.reads.number}")
    progress = leader.progress[sender]
    _hear(state, progress, sender, answer.commit_index)
    leader.reads.acknowledge(sender, answer.round)
    state.confirm_reads(leader.reads.confirm(state.quorums))
    _ask_again_if_overdue(state, sender, progress)


def _hear(state: State, progress: Progress, sender: str, commit_index: int) -> None:
    """An acceptor that answers tells what it knows to be chosen, which it need not be sent."""
    state.note_commit(sender, commit_index)
    progress.heard(state.now)
    progress.commit_index = commit_index
    if commit_index > progress.match_index:
        progress.accepted(state.now, 1, min(commit_index, state.log.last_index))


def _ask_again_if_overdue(state: State, peer: str, progress: Progress) -> None:
    """Ask an acceptor that answers, but accepts nothing, how far it has come.

    The question carries no entries: they may well have arrived, and wait for a slow disk.
    """
    if progress.overdue(state.now, state.tuning.retransmit_ms):
        state.send(peer, AskAccepted(state.ballot, *progress.ask(state.now)))


# --- leader: sending ------------------------------------------------------------------------------


def beat(state: State) -> None:
    """Send heartbeats, or step down when no quorum answers any more or a value is out of reach."""
    leader = state.role
    if not isinstance(leader, Leader):
        return
    heard = {peer: progress.heard_at for peer, progress in leader.progress.items()}
    heard[state.node] = state.now
    patience_ms = state.tuning.election_timeout_ms_max
    is_alone = state.now - state.quorums.committed(heard) >= patience_ms
    is_stuck = _waits_for_values(state, leader) and state.now - leader.moved_at >= patience_ms
    if is_alone or is_stuck:
        state.step_down()
    else:
        send_heartbeats(state, leader)


def send_heartbeats(state: State, leader: Leader) -> None:
    """One heartbeat to every acceptor, now."""
    for peer, progress in leader.progress.items():
        commit_index = _tellable(state, leader, progress)
        progress.commit_told = max(progress.commit_told, commit_index)
        state.send(peer, Heartbeat(leader.ballot, commit_index, leader.reads.number))
    state.timer = state.now + state.tuning.heartbeat_ms if leader.progress else None


def has_sends(state: State, leader: Leader) -> bool:
    """Whether `send_entries` or `send_commit_notices` has anything to send."""
    return leader.first_index > 0 and any(
        _sendable(state, peer, progress) > 0
        or _tellable(state, leader, progress) > progress.commit_told
        for peer, progress in leader.progress.items()
    )


def send_entries(state: State, leader: Leader) -> None:
    """To each acceptor with room, the entries it lacks; the commit index travels along."""
    for peer, progress in leader.progress.items():
        count = _sendable(state, peer, progress)
        if count > 0:
            first = progress.next_index
            last = first + count - 1
            refs = tuple([EntryRef(index, leader.ballot) for index in range(first, last + 1)])
            commit_index = min(state.commit_index, first - 1)
            state.send(peer, Accept(leader.ballot, commit_index), refs)
            state.handed[peer] = Handed(leader.ballot, first, last)
            progress.commit_told = max(progress.commit_told, commit_index)


def send_commit_notices(state: State, leader: Leader) -> None:
    """To each acceptor that has newly chosen entries and was sent nothing that says so."""
    for peer, progress in leader.progress.items():
        commit_index = _tellable(state, leader, progress)
        if commit_index > progress.commit_told:
            progress.commit_told = commit_index
            state.send(peer, Committed(leader.ballot, commit_index))


def note_sent(state: State, to: str, last_index: int, size: int) -> None:
    """The host has sent the entries it was handed for this peer, up to `last_index`."""
    handed = state.handed.pop(to, None)
    leader = state.role
    if handed is None or not isinstance(leader, Leader) or handed.ballot != leader.ballot:
        return
    progress = leader.progress[to]
    if progress.next_index == handed.first_index <= last_index:
        progress.sent(state.now, min(last_index, handed.last_index), size)


def note_lost(state: State, to: str) -> None:
    """The host could not send, or the transport dropped what it had sent."""
    handed = state.handed.pop(to, None)
    leader = state.role
    if isinstance(leader, Leader) and (handed is None or handed.ballot == leader.ballot):
        leader.progress[to].lost()


def _tellable(state: State, leader: Leader, progress: Progress) -> int:
    """The commit index, as far as the acceptor has what this leader proposes: the rest of it is on
    its way, and must not be fetched. What is compacted is not."""
    if not leader.first_index:
        return state.commit_index
    return min(state.commit_index, progress.match_index)


def _sendable(state: State, peer: str, progress: Progress) -> int:
    """How many entries may be handed out for this peer now; none when not positive."""
    if peer in state.handed:
        return 0
    tuning = state.tuning
    room = progress.room(tuning.inflight_entries_max, tuning.inflight_bytes_max)
    return min(room, state.log.last_index + 1 - progress.next_index, ENTRIES_PER_SEND_MAX)
