"""Confirmed reads: a leader makes sure that it still leads.

Rules of this file, beside those of `replog.rounds` (quorums as in FPaxos, section 3):

1. A round begins only once the first entry above all that the leader adopted is chosen, with
   everything before it: only then does it know every chosen entry.
2. What a round asks is a heartbeat. An accept quorum that answers it shares an acceptor with every
   prepare quorum of a higher ballot, and that one had not promised to obey it before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paxoslog.replication import send_heartbeats

if TYPE_CHECKING:
    from paxoslog.state import Leader, State


def are_due(state: State, leader: Leader) -> bool:
    """Whether a round should begin now."""
    return leader.reads.due and _knows_every_choice(state, leader)


def begin_round(state: State, leader: Leader) -> None:
    """Begin a round for every read that waits; a sole voter confirms it at once."""
    leader.reads.begin(state.node, state.commit_index)
    send_heartbeats(state, leader)
    state.confirm_reads(leader.reads.confirm(state.quorums))


def _knows_every_choice(state: State, leader: Leader) -> bool:
    """Whether everything that was chosen before this leadership is known to be."""
    return 0 < leader.first_index <= state.commit_index
