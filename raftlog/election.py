"""Elections: who may lead a term (paper, sections 5.2 and 5.4.1; dissertation, 4.2.3 and 9.6).

Rules of this file:

1. A vote goes to one candidate per term, whose log is at least as up to date as the voter's, and is
   on disk before anyone hears of it. That includes a candidate's vote for itself.
2. Votes are sets of voter ids, for exactly this term (or this pre-vote round): a repeated, late or
   foreign answer counts nothing. Pre-votes and votes have their own messages and their own sets.
3. Whoever has heard a leader within the shortest election timeout neither votes nor learns of a
   higher term from a candidate: a node that was cut off cannot depose a working leader.
4. A pre-vote changes nothing at the node that gives it.
5. The timer restarts when a leader is heard, a vote is given or a campaign begins, and at no other
   message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raftlog.messages import PreVote, RequestPreVote, RequestVote, Vote
from raftlog.progress import Progress
from raftlog.replication import send_heartbeats
from raftlog.state import Candidate, Leader, PreCandidate
from replog.entry import Epoch
from replog.errors import PeerFault

if TYPE_CHECKING:
    from raftlog.state import State

# --- asking ---------------------------------------------------------------------------------------


def time_out(state: State) -> None:
    """No leader has been heard, or no election was won, for a whole timeout."""
    role = state.role
    if isinstance(role, Candidate) and role.write_id > state.journal.durable_write_id:
        # Its requests still wait for this node's disk: another term would wait there just as long.
        state.restart_election_timer()
        return
    state.step_down()
    state.leader = None
    state.restart_election_timer()
    state.pre_vote_round += 1
    state.role = role = PreCandidate({state.node})
    if state.quorums.can_elect(role.granted):
        _campaign(state)
        return
    request = RequestPreVote(
        state.term + 1, state.pre_vote_round, state.log.last_index, state.log.last_term
    )
    for peer in state.others:
        state.send(peer, request)


def count_pre_vote(state: State, sender: str, answer: PreVote) -> None:
    """Campaign once a quorum would vote for this node (section 9.6)."""
    if answer.term > state.term:
        state.enter_term(answer.term)
        return
    role = state.role
    if isinstance(role, PreCandidate) and answer.granted and answer.round == state.pre_vote_round:
        role.granted.add(sender)
        if state.quorums.can_elect(role.granted):
            _campaign(state)


def count_vote(state: State, sender: str, answer: Vote) -> None:
    """Lead once a quorum has voted for this node in this term."""
    role = state.role
    if isinstance(role, Candidate) and answer.granted:
        role.granted.add(sender)
        _lead_if_elected(state, role)


def count_own_vote(state: State) -> None:
    """A candidate's vote for itself counts once it is on disk."""
    role = state.role
    if isinstance(role, Candidate) and role.write_id <= state.journal.durable_write_id:
        role.granted.add(state.node)
        _lead_if_elected(state, role)


def _campaign(state: State) -> None:
    """Ask for the votes of the next term (section 5.2)."""
    state.enter_term(state.term + 1)
    state.vote_for(state.node)
    state.restart_election_timer()
    state.role = Candidate(state.journal.last_write_id)
    request = RequestVote(state.term, state.log.last_index, state.log.last_term)
    for peer in state.others:
        state.promise(peer, request)


def _lead_if_elected(state: State, candidate: Candidate) -> None:
    if not state.quorums.can_elect(candidate.granted):
        return
    next_index = state.log.last_index + 1
    state.leader = state.node
    state.role = role = Leader(
        Epoch(state.term, state.node),
        {peer: Progress(next_index, state.now) for peer in state.others},
    )
    send_heartbeats(state, role)


# --- answering ------------------------------------------------------------------------------------


def answer_request_pre_vote(state: State, sender: str, request: RequestPreVote) -> None:
    """Say whether this node would vote for the sender, without doing so (section 9.6)."""
    _check_log_position(request.term, request.last_index, request.last_term)
    granted = (
        request.term > state.term
        and not _hears_a_leader(state)
        and _is_up_to_date(state, request.last_index, request.last_term)
    )
    state.send(sender, PreVote(state.term, request.round, granted))


def answer_request_vote(state: State, sender: str, request: RequestVote) -> None:
    """Vote, at most once in a term and only for a log that lacks nothing (figure 2)."""
    _check_log_position(request.term, request.last_index, request.last_term)
    if request.term >= state.term and _hears_a_leader(state):
        return  # dissertation section 4.2.3: not even the term is learnt
    if request.term > state.term:
        state.enter_term(request.term)
    granted = (
        request.term == state.term
        and (state.vote == sender or (state.vote == "" and state.leader is None))
        and _is_up_to_date(state, request.last_index, request.last_term)
    )
    if granted:
        state.step_down()  # a pre-candidate gives up its own attempt
        state.vote_for(sender)
        state.restart_election_timer()
    state.promise(sender, Vote(state.term, granted))


def _is_up_to_date(state: State, last_index: int, last_term: int) -> bool:
    """Whether a log that ends like this lacks nothing that this one may have committed (5.4.1)."""
    return (last_term, last_index) >= (state.log.last_term, state.log.last_index)


def _hears_a_leader(state: State) -> bool:
    """Whether this node leads, or has heard a leader within the shortest timeout (4.2.3)."""
    if isinstance(state.role, Leader):
        return True
    heard_at = state.leader_heard_at
    return heard_at is not None and state.now - heard_at < state.tuning.election_timeout_ms_min


def _check_log_position(term: int, last_index: int, last_term: int) -> None:
    """Raise `PeerFault` for a log that no candidate of this term can have."""
    if not 0 <= last_term < term or last_index < 0 or (last_index == 0) != (last_term == 0):
        raise PeerFault(f"a log ending at {last_index} in term {last_term} cannot want term {term}")
