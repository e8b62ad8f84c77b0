"""Catching up by snapshot: entries that are compacted cannot be sent (paper, section 7).

Rules of this file:

1. A follower is offered a snapshot only after it has refused, in the present term, what it would
   have to follow. That refusal waited for its disk: so whoever it obeys from then on leads this
   term or a later one, and holds every entry that the snapshot stands for (section 5.4.3).
2. An old snapshot changes nothing: what it stands for is committed here.
3. What follows the snapshot's last entry is kept if that very entry is in the log, and else
   dropped (section 7).
4. Who installs one campaigns no more: it asked for votes with another log.
5. A leader's next index for each follower lies above its base. A follower that needs more is
   offered a snapshot at most once a retransmission, and sent nothing but the question whether its
   log holds the base by now (`Progress.lacks`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raftlog.messages import Appended
from raftlog.state import Follower, Leader
from replog.errors import InvariantBroken

if TYPE_CHECKING:
    from raftlog.progress import Progress
    from raftlog.state import State
    from replog.agreement import EntryRef

# --- any member -----------------------------------------------------------------------------------


def compact(state: State, index: int) -> None:
    """The host keeps no entry up to `index` any more."""
    if index > state.commit_index:
        raise InvariantBroken(f"compacted to {index}, committed to {state.commit_index}")
    if index <= state.log.base.index:
        return
    state.log.compact(index)
    if isinstance(state.role, Leader):
        for progress in state.role.progress.values():
            progress.skip_to(index + 1)


# --- follower -------------------------------------------------------------------------------------


def install(state: State, base: EntryRef) -> bool:
    """Begin the log behind a snapshot, and tell the leader so, which rule 1 allows.

    False: this node knows as much, it leads, or the snapshot is of a term that it does not know,
    in which nobody can have offered it.
    """
    if (
        base.index <= state.commit_index
        or isinstance(state.role, Leader)
        or not 0 < base.epoch.number <= state.term
    ):
        return False
    if not isinstance(state.role, Follower):
        state.step_down()
    state.install(base)
    if state.leader is not None:
        state.promise(state.leader, Appended(state.term, base.index))
    return True


# --- leader ---------------------------------------------------------------------------------------


def offer_snapshot(state: State, peer: str, progress: Progress) -> None:
    """A follower has refused what it would have to follow."""
    if progress.lacks(state.log.base.index + 1, state.now, state.tuning.retransmit_ms):
        state.offer_snapshot(peer)
