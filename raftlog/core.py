"""Raft in one place: the choice an application makes, and one member's core.

The first entry of a term belongs to the host, for payloads do: when `leadership.role` becomes
"leader" while `leadership.first_index` is 0, the host proposes `Kind.NOOP`. Until then the core
takes no records; from then on `first_index` is the no-op's index.

Terms, votes and roles: `election`. The log: `replication`, with one `progress` for each follower.
Snapshots instead of what is compacted: `catchup`. Confirmed reads: `reads`. What all of them
change: `state`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from raftlog import catchup, election, reads, replication
from raftlog.invariants import check_restored
from raftlog.messages import (
    MESSAGES,
    Appended,
    AppendEntries,
    AppendRefused,
    Committed,
    Heartbeat,
    HeartbeatReply,
    PreVote,
    RequestPreVote,
    RequestVote,
    Vote,
)
from raftlog.state import Leader, State
from replog.agreement import Leadership
from replog.config import HEARTBEATS_PER_ELECTION_TIMEOUT_MIN, check_positive, check_timing
from replog.entry import NO_EPOCH, Epoch
from replog.errors import PeerFault
from replog.membership import Membership
from replog.quorum import majorities

if TYPE_CHECKING:
    from collections.abc import Sequence, Set
    from random import Random

    from replog.agreement import Core, EntryRef, Message, Meta, Ready, Restored
    from replog.entry import Kind

TERM_JUMP_MAX = 1 << 32
"""A higher jump is no election but a fault, and would use up the terms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Raft:
    """Raft as an agreement layer: `replog.open(..., agreement=Raft())`.

    Times are in milliseconds. Raises `ConfigError` for settings that cannot work.
    """

    election_timeout_ms_min: int = 150
    """No node campaigns sooner after hearing a leader, or votes against that leader."""
    election_timeout_ms_max: int = 300
    """Timeouts are drawn between the two, to spread campaigns (section 9.3); a leader that no
    quorum has answered for this long steps down."""
    heartbeat_ms: int = 30
    """How often a leader is heard by every follower."""
    inflight_entries_max: int = 64
    """Entries a leader has proposed and not yet seen committed, or not yet on its own disk; also
    entries under way to one follower."""
    inflight_bytes_max: int = 16 << 20
    """Bytes under way to one follower; the last send may exceed it."""

    def __post_init__(self) -> None:
        check_positive(self)
        check_timing(self)

    @property
    def retransmit_ms(self) -> int:
        """A follower that answers but acknowledges nothing for this long is asked again."""
        return self.heartbeat_ms * HEARTBEATS_PER_ELECTION_TIMEOUT_MIN

    @property
    def name(self) -> str:
        """The word stored in each directory and frame."""
        return "raft"

    @property
    def messages(self) -> tuple[type[Message], ...]:
        """Every message class, in the order that numbers them on the wire."""
        return MESSAGES

    @property
    def control_messages(self) -> Set[type[Message]]:
        """All but the one that carries entries."""
        return frozenset(self.messages) - {AppendEntries}

    @property
    def epoch_is_its_number(self) -> bool:
        """A term has one leader at most (section 5.2)."""
        return True

    def membership(self, voters: Set[str]) -> Membership:
        """These voters, deciding by majorities. Raises `ConfigError` when there are none."""
        return Membership(majorities(voters))

    def core(self, node: str, restored: Restored, now: int, random: Random) -> Core:
        """One member's core. Raises `InvariantBroken` for a state no core has left behind."""
        check_restored(node, restored)
        return RaftCore(State(node, restored, now, random, self))


class RaftCore:
    """One member's part in Raft; a `replog.agreement.Core`, where each method is described."""

    __slots__ = ("_leadership", "state")

    def __init__(self, state: State) -> None:
        self.state = state
        self._leadership = Leadership(state.role.name, None, NO_EPOCH, -1)
        """As last asked for: asked for often, and seldom another."""

    @property
    def deadline(self) -> int | None:
        """When a follower campaigns or a leader sends heartbeats; None for a sole leader."""
        return self.state.deadline

    @property
    def leadership(self) -> Leadership:
        """Role: follower, pre-candidate, candidate or leader."""
        state = self.state
        role = state.role
        first_index = role.first_index if isinstance(role, Leader) else 0
        known = self._leadership
        if (role.name, state.leader, state.term, first_index) != (
            known.role,
            known.leader,
            known.epoch.number,
            known.first_index,
        ):
            epoch = Epoch(state.term, state.leader or "")
            self._leadership = Leadership(role.name, state.leader, epoch, first_index)
        return self._leadership

    @property
    def last_index(self) -> int:
        """Index of the last entry in memory."""
        return self.state.log.last_index

    @property
    def has_room(self) -> bool:
        """Whether `propose` would take an entry of records now."""
        return replication.has_room(self.state)

    def receive(self, now: int, sender: str, message: Message, metas: Sequence[Meta]) -> None:
        """A message from another voter."""
        state = self.state
        if sender not in state.others:
            raise PeerFault(f"{sender} is no other voter")
        if not isinstance(message, MESSAGES):
            raise PeerFault(f"{type(message).__name__} is no message of Raft")
        if metas and not isinstance(message, AppendEntries):
            raise PeerFault(f"{type(message).__name__} comes with {len(metas)} entries")
        term_min = 0 if isinstance(message, PreVote) else 1
        if not term_min <= message.term <= state.term + TERM_JUMP_MAX:
            raise PeerFault(f"term {message.term} is out of range in term {state.term}")
        state.now = now
        match message:
            case AppendEntries():
                replication.answer_append(state, sender, message, metas)
            case Heartbeat():
                replication.answer_heartbeat(state, sender, message)
            case Committed():
                replication.learn_commit(state, sender, message)
            case RequestPreVote():
                election.answer_request_pre_vote(state, sender, message)
            case PreVote():
                election.count_pre_vote(state, sender, message)
            case RequestVote():
                election.answer_request_vote(state, sender, message)
            case Vote() | Appended() | AppendRefused() | HeartbeatReply():
                self._take_answer(sender, message)

    def _take_answer(
        self, sender: str, answer: Vote | Appended | AppendRefused | HeartbeatReply
    ) -> None:
        """An answer of a higher term deposes, one of a lower term means nothing (section 5.1)."""
        state = self.state
        if answer.term > state.term:
            state.enter_term(answer.term)
        elif answer.term == state.term:
            match answer:
                case Appended():
                    replication.count_copy(state, sender, answer)
                case HeartbeatReply():
                    replication.count_heartbeat(state, sender, answer)
                case AppendRefused():
                    replication.repair(state, sender, answer)
                case Vote():
                    election.count_vote(state, sender, answer)

    def tick(self, now: int) -> None:
        """Campaign, or send heartbeats, if it is time; a long pause counts once."""
        state = self.state
        state.now = now
        if state.deadline is None or now < state.deadline:
            return
        if isinstance(state.role, Leader):
            replication.beat(state)
        else:
            election.time_out(state)

    def propose(self, kind: Kind, size: int) -> EntryRef | None:
        """Append one entry; the first of a term must be a no-op."""
        return replication.propose(self.state, kind)

    def read(self, now: int, token: int) -> bool:
        """Put a read into the next round."""
        state = self.state
        state.now = now
        if not isinstance(state.role, Leader):
            return False
        state.role.reads.ask(token)
        return True

    def durable(self, now: int, write_id: int) -> None:
        """Count what this disk now holds: the candidate's own vote, the leader's own copy."""
        state = self.state
        state.now = now
        state.journal.durable(write_id)
        election.count_own_vote(state)
        replication.advance_commit(state)

    def sent(self, to: str, last_index: int, size: int) -> None:
        """Entries have left for this peer."""
        replication.note_sent(self.state, to, last_index, size)

    def lost(self, to: str) -> None:
        """Entries for this peer did not leave: wait until it is heard, then probe."""
        replication.note_lost(self.state, to)

    def compacted(self, index: int) -> None:
        """Entries up to here are gone."""
        catchup.compact(self.state, index)

    def install(self, now: int, base: EntryRef) -> bool:
        """A snapshot stands for every entry up to `base`."""
        state = self.state
        state.now = now
        return catchup.install(state, base)

    def epoch_at(self, index: int) -> Epoch:
        """The epoch of an entry that is not compacted, or of the base."""
        return self.state.log.epoch_at(index)

    def has_ready(self) -> bool:
        """Whether `ready` would return anything new."""
        state = self.state
        role = state.role
        return state.has_output or (
            isinstance(role, Leader)
            and (replication.has_sends(state, role) or reads.are_due(state, role))
        )

    def ready(self) -> Ready:
        """Everything wanted since the last call.

        Reads, entries and commit notices are put together here, so that all of a turn share one
        round, one append and one notice.
        """
        state = self.state
        role = state.role
        if isinstance(role, Leader):
            if reads.are_due(state, role):
                reads.begin_round(state, role)
            replication.send_entries(state, role)
            replication.send_commit_notices(state, role)
        return state.take()
