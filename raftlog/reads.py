"""Confirmed reads: a leader makes sure that it still leads (dissertation section 6.4).

Rules of this file, beside those of `replog.rounds`:

1. A round begins only once an entry of the leader's own term is committed: only then does it know
   every committed entry (6.4, step 1).
2. What a round asks is a heartbeat. A commit quorum that answers it (step 3) shares a voter with
   every set that could have elected another leader before the round began.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raftlog.replication import send_heartbeats

if TYPE_CHECKING:
    from raftlog.state import Leader, State


def are_due(state: State, leader: Leader) -> bool:
    """Whether a round should begin now."""
    return leader.reads.due and _knows_every_commit(state, leader)


def begin_round(state: State, leader: Leader) -> None:
    """Begin a round for every read that waits; a sole voter confirms it at once."""
    leader.reads.begin(state.node, state.commit_index)
    send_heartbeats(state, leader)
    state.confirm_reads(leader.reads.confirm(state.quorums))


def _knows_every_commit(state: State, leader: Leader) -> bool:
    """Whether an entry of this term is committed, and so everything before it."""
    return 0 < leader.first_index <= state.commit_index
