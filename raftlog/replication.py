"""Replication: the leader's log becomes every log (paper, sections 5.3 and 5.4.2).

Rules of this file:

1. A follower takes entries only right after one on which it agrees with the leader by index and
   term; entries it already holds are skipped, and it drops its own only from the first that
   conflicts. So a late or repeated append takes nothing away. What is compacted is committed, so
   every leader holds it too (section 5.4.3): there nothing is compared.
2. A follower commits no more than this leader is known to agree with it on.
3. A leader commits by counting copies only an entry of its own term; earlier ones are committed
   with it (section 5.4.2, figure 8). Its own copy counts once it is on its disk, like any other.
4. A leader never drops or replaces an entry of its own log.
5. A leader that no quorum has answered for the longest election timeout steps down (dissertation,
   section 6.2). What counts are answers: to be heard by others is not to hear them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raftlog import catchup
from raftlog.messages import (
    Appended,
    AppendEntries,
    AppendRefused,
    Committed,
    Heartbeat,
    HeartbeatReply,
)
from raftlog.state import Handed, Leader
from replog.agreement import EntryRef
from replog.entry import Kind
from replog.errors import InvariantBroken, PeerFault

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raftlog.progress import Progress
    from raftlog.state import State
    from replog.agreement import Meta

ENTRIES_PER_SEND_MAX = 64

# --- follower -------------------------------------------------------------------------------------


def answer_append(state: State, sender: str, append: AppendEntries, metas: Sequence[Meta]) -> None:
    """Store what the leader sends, if the logs agree up to there (figure 2)."""
    _check_append(sender, append, metas)
    state.check_leader(sender, append.term)
    previous = append.previous_index
    if append.term < state.term:
        _tell_term(state, sender)
        return
    state.obey(sender, append.term)
    log = state.log
    base_index = log.base.index
    if previous > log.last_index or (
        previous >= base_index and log.term_at(previous) != append.previous_term
    ):
        hint = log.last_at_most(min(previous, log.last_index), append.previous_term)
        hint = max(hint, base_index)
        state.promise(sender, AppendRefused(state.term, previous, hint, log.term_at(hint)))
        return
    _take_entries(state, metas)
    verified = max(previous + len(metas), base_index)
    state.commit(min(append.commit_index, verified))
    state.promise(sender, Appended(state.term, verified))


def answer_heartbeat(state: State, sender: str, heartbeat: Heartbeat) -> None:
    """Follow the leader, and tell it that no higher term is known here."""
    _check_leader_commit(state, sender, heartbeat)
    if heartbeat.term < state.term:
        _tell_term(state, sender)
        return
    state.obey(sender, heartbeat.term)
    state.commit(heartbeat.commit_index)
    state.send(sender, HeartbeatReply(state.term, heartbeat.round))


def learn_commit(state: State, sender: str, notice: Committed) -> None:
    """More is committed than the last append said."""
    _check_leader_commit(state, sender, notice)
    if notice.term >= state.term:
        state.obey(sender, notice.term)
        state.commit(notice.commit_index)


def _tell_term(state: State, sender: str) -> None:
    """Let a leader of a past term learn of this one, else a node ahead of it could never rejoin.

    The sender may lead this term by now. So the answer repeats no round and no index: those of the
    past term would be taken for this one's.
    """
    state.send(sender, HeartbeatReply(state.term, 0))


def _take_entries(state: State, metas: Sequence[Meta]) -> None:
    log = state.log
    known = 0
    for meta in metas:
        if meta.index > log.last_index:
            break
        if meta.index <= log.base.index:
            known += 1
            continue
        epoch = log.epoch_at(meta.index)
        if meta.epoch.number != epoch.number:
            state.truncate(meta.index)
            break
        if meta.epoch.node != epoch.node:
            raise InvariantBroken(f"entry {meta.index} of {meta.epoch} is here of {epoch}")
        known += 1
    for meta in metas[known:]:
        state.append(meta.epoch)


def _check_append(sender: str, append: AppendEntries, metas: Sequence[Meta]) -> None:
    """Raise `PeerFault` for an append that no leader sends."""
    term, previous_index, previous_term, commit_index = append
    if (
        not 0 <= previous_term <= term
        or previous_index < 0
        or commit_index < 0
        or (previous_index == 0) != (previous_term == 0)
    ):
        raise PeerFault(f"{append} is no append of {sender}")
    index, epoch = previous_index, None
    for meta in metas:
        index += 1
        if meta.index != index:
            raise PeerFault(f"entry {meta.index} travels in the place of {index}")
        if meta.epoch == epoch:
            continue
        low = epoch.number + 1 if epoch else max(previous_term, 1)
        if not low <= meta.epoch.number <= term:
            raise PeerFault(f"entry {index} of {meta.epoch} is out of order in term {term}")
        if (meta.epoch.number == term) != (meta.epoch == (term, sender)):
            raise PeerFault(f"entry {index} of {meta.epoch} is not of {sender}, who leads {term}")
        epoch = meta.epoch


def _check_leader_commit(state: State, sender: str, message: Heartbeat | Committed) -> None:
    """Raise `PeerFault` for a commit index beyond what this node can have acknowledged."""
    state.check_leader(sender, message.term)
    if message.term >= state.term and not 0 <= message.commit_index <= state.log.last_index:
        raise PeerFault(
            f"{sender} commits {message.commit_index} of a log that ends at {state.log.last_index}"
        )


# --- leader: proposals and commitment -------------------------------------------------------------


def propose(state: State, kind: Kind) -> EntryRef | None:
    """Append one entry as the leader; None when this node does not lead or its window is full.

    The first entry of a term is a no-op, and no window holds it back: what is left of earlier terms
    can be committed only with it.
    """
    leader = state.role
    if not isinstance(leader, Leader):
        return None
    index = state.log.last_index + 1
    if leader.first_index == 0 and kind is Kind.NOOP:
        leader.first_index = index
    elif not has_room(state):
        return None
    state.append(leader.epoch)
    return EntryRef(index, leader.epoch)


def has_room(state: State) -> bool:
    """Whether this node leads, its term has begun, and its window takes another entry."""
    leader = state.role
    if not isinstance(leader, Leader) or leader.first_index == 0:
        return False
    settled = min(state.commit_index, state.journal.durable_index)
    return state.log.last_index - settled < state.tuning.inflight_entries_max


def advance_commit(state: State) -> None:
    """Commit what a quorum holds, if it is of this term (figure 2, last rule; section 5.4.2)."""
    leader = state.role
    if not isinstance(leader, Leader):
        return
    positions = {peer: progress.match_index for peer, progress in leader.progress.items()}
    positions[state.node] = state.journal.durable_index
    reached = state.quorums.committed(positions)
    if reached > state.commit_index and state.log.term_at(reached) == state.term:
        state.commit(reached)


# --- leader: answers ------------------------------------------------------------------------------


def count_copy(state: State, sender: str, answer: Appended) -> None:
    """A follower has more of the log on its disk."""
    leader = state.role
    if not isinstance(leader, Leader):
        return
    if not 0 <= answer.match_index <= state.log.last_index:
        raise PeerFault(f"{sender} acknowledges {answer.match_index}, which was never sent")
    progress = leader.progress[sender]
    progress.heard(state.now)
    if progress.accepted(state.now, answer.match_index):
        advance_commit(state)
    _ask_again_if_overdue(state, sender, progress)


def repair(state: State, sender: str, answer: AppendRefused) -> None:
    """A follower's log differs: go back to where the two may agree (end of section 5.3).

    The hint skips the follower's conflicting terms and the search below skips the leader's, so that
    each probe leaves at least one term behind.
    """
    leader = state.role
    if not isinstance(leader, Leader):
        return
    hint_index, previous = answer.hint_index, answer.previous_index
    if not 0 <= hint_index <= previous <= state.log.last_index:
        raise PeerFault(f"{sender} refuses {previous} and hints at {hint_index}")
    progress = leader.progress[sender]
    progress.heard(state.now)
    base_index = state.log.base.index
    if not progress.stale_refusal(previous, base_index):
        agreed = state.log.last_at_most(min(hint_index, previous - 1), answer.hint_term)
        if max(agreed, progress.match_index) < base_index:
            catchup.offer_snapshot(state, sender, progress)
        else:
            progress.refused(agreed + 1)
    _ask_again_if_overdue(state, sender, progress)


def count_heartbeat(state: State, sender: str, answer: HeartbeatReply) -> None:
    """A follower is there and knows no higher term."""
    leader = state.role
    if not isinstance(leader, Leader):
        return
    if not 0 <= answer.round <= leader.reads.number:
        raise PeerFault(f"{sender} answers round {answer.round} of {leader.reads.number}")
    progress = leader.progress[sender]
    progress.heard(state.now)
    leader.reads.acknowledge(sender, answer.round)
    state.confirm_reads(leader.reads.confirm(state.quorums))
    _ask_again_if_overdue(state, sender, progress)


def _ask_again_if_overdue(state: State, peer: str, progress: Progress) -> None:
    """Ask a follower that answers, but acknowledges nothing, how far it has come.

    The question carries no entries: they may well have arrived, and wait for a slow disk.
    """
    if progress.overdue(state.now, state.tuning.retransmit_ms):
        progress.moved_at = state.now
        state.send(peer, _append_after(state, progress.next_index - 1))


# --- leader: sending ------------------------------------------------------------------------------


def beat(state: State) -> None:
    """Send heartbeats, or step down when no quorum answers any more (dissertation 6.2)."""
    leader = state.role
    if not isinstance(leader, Leader):
        return
    heard = {peer: progress.heard_at for peer, progress in leader.progress.items()}
    heard[state.node] = state.now
    quorum_heard_at = state.quorums.committed(heard)
    if state.now - quorum_heard_at >= state.tuning.election_timeout_ms_max:
        state.step_down()
    else:
        send_heartbeats(state, leader)


def send_heartbeats(state: State, leader: Leader) -> None:
    """One heartbeat to every follower, now."""
    for peer, progress in leader.progress.items():
        commit_index = min(state.commit_index, progress.match_index)
        progress.commit_told = max(progress.commit_told, commit_index)
        state.send(peer, Heartbeat(state.term, commit_index, leader.reads.number))
    state.deadline = state.now + state.tuning.heartbeat_ms if leader.progress else None


def has_sends(state: State, leader: Leader) -> bool:
    """Whether `send_entries` or `send_commit_notices` has anything to send."""
    last_index, commit_index = state.log.last_index, state.commit_index
    for peer, progress in leader.progress.items():
        if progress.next_index <= last_index and _sendable(state, peer, progress) > 0:
            return True
        if progress.match_index > progress.commit_told < commit_index:
            return True
    return False


def send_entries(state: State, leader: Leader) -> None:
    """To each follower with room, the entries it lacks; the commit index travels along."""
    for peer, progress in leader.progress.items():
        count = _sendable(state, peer, progress)
        if count > 0:
            first = progress.next_index
            last = first + count - 1
            state.send(peer, _append_after(state, first - 1), state.log.refs(first, last))
            state.handed[peer] = Handed(state.term, first, last)
            progress.commit_told = max(progress.commit_told, min(state.commit_index, last))


def send_commit_notices(state: State, leader: Leader) -> None:
    """To each follower that holds newly committed entries and was sent nothing that says so."""
    for peer, progress in leader.progress.items():
        commit_index = min(state.commit_index, progress.match_index)
        if commit_index > progress.commit_told:
            progress.commit_told = commit_index
            state.send(peer, Committed(state.term, commit_index))


def note_sent(state: State, to: str, last_index: int, size: int) -> None:
    """The host has sent the entries it was handed for this peer, up to `last_index`."""
    handed = state.handed.pop(to, None)
    leader = state.role
    if handed is None or handed.term != state.term or not isinstance(leader, Leader):
        return
    progress = leader.progress[to]
    if progress.next_index == handed.first_index <= last_index:
        progress.sent(state.now, min(last_index, handed.last_index), size)


def note_lost(state: State, to: str) -> None:
    """The host could not send, or the transport dropped what it had sent."""
    handed = state.handed.pop(to, None)
    leader = state.role
    if isinstance(leader, Leader) and (handed is None or handed.term == state.term):
        leader.progress[to].lost()


def _append_after(state: State, previous: int) -> AppendEntries:
    return AppendEntries(state.term, previous, state.log.term_at(previous), state.commit_index)


def _sendable(state: State, peer: str, progress: Progress) -> int:
    """How many entries may be handed out for this peer now; none when not positive."""
    lacking = state.log.last_index + 1 - progress.next_index
    if lacking <= 0 or peer in state.handed:
        return 0
    tuning = state.tuning
    room = progress.room(tuning.inflight_entries_max, tuning.inflight_bytes_max)
    return min(lacking, room, ENTRIES_PER_SEND_MAX)
