"""Multi-Paxos in one place: the choice an application makes, and one member's core.

The first entries of a leadership belong to the host, for payloads do: while `leadership.role` is
"leader" and `leadership.first_index` is 0, the host proposes `Kind.NOOP`, again and again. Each
fills a gap among what the leader adopted, and the last one comes above all of it: from then on
`first_index` is its index, and the core takes records.

Ballots, promises and roles: `election`. The log: `replication`, with one `progress` for each
acceptor. Whatever was missed: `catchup`. Confirmed reads: `reads`. What all of them change:
`state`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from paxoslog import catchup, election, reads, replication
from paxoslog.messages import (
    ACCEPTED_AHEAD_MAX,
    CARRIERS,
    MESSAGES,
    Accept,
    Accepted,
    AcceptedValues,
    AskAccepted,
    Chosen,
    Committed,
    FetchAccepted,
    FetchChosen,
    Heartbeat,
    HeartbeatReply,
    Missing,
    Nack,
    Prepare,
    PrePrepare,
    PrePromise,
    Promise,
)
from paxoslog.state import Leader, Proposer, State
from replog.agreement import Leadership
from replog.config import HEARTBEATS_PER_ELECTION_TIMEOUT_MIN, check_positive, check_timing
from replog.entry import NO_EPOCH
from replog.errors import ConfigError, PeerFault
from replog.membership import Membership
from replog.quorum import majorities, sized

if TYPE_CHECKING:
    from collections.abc import Sequence, Set
    from random import Random

    from replog.agreement import Core, EntryRef, Message, Meta, Ready, Restored
    from replog.entry import Epoch, Kind

BALLOT_JUMP_MAX = 1 << 32
"""A higher jump is no election but a fault, and would use up the ballots."""

Question = PrePrepare | Prepare | FetchAccepted | Accept | AskAccepted | Heartbeat | Committed
"""What a proposer or leader sends at its own ballot."""
Answer = Promise | AcceptedValues | Accepted | Missing | HeartbeatReply
"""What an acceptor answers, at the ballot of the question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiPaxos:
    """Multi-Paxos as an agreement layer: `replog.open(..., agreement=MultiPaxos())`.

    Times are in milliseconds. Raises `ConfigError` for settings that cannot work.
    """

    election_timeout_ms_min: int = 150
    """No node prepares a ballot sooner after hearing a leader, or promises one against it."""
    election_timeout_ms_max: int = 300
    """Timeouts are drawn between the two, to spread proposers (PMMC, section 3); a leader that no
    quorum has answered for this long steps down."""
    heartbeat_ms: int = 30
    """How often a leader is heard by every acceptor."""
    inflight_entries_max: int = 64
    """Entries a leader has proposed and not yet seen chosen, or not yet on its own disk; also
    entries under way to one acceptor. At most `ACCEPTED_AHEAD_MAX`."""
    inflight_bytes_max: int = 16 << 20
    """Bytes under way to one acceptor; the last send may exceed it."""
    accept_quorum: int | None = None
    """How many acceptors choose a value; one fewer than these may be missing when a ballot is
    prepared (FPaxos, section 3). None: majorities for both. The same on every node."""

    def __post_init__(self) -> None:
        check_positive(self)
        check_timing(self)
        if self.inflight_entries_max > ACCEPTED_AHEAD_MAX:
            raise ConfigError(
                f"inflight_entries_max {self.inflight_entries_max} exceeds {ACCEPTED_AHEAD_MAX}, "
                f"the most that an acceptor takes above its commit index"
            )

    @property
    def retransmit_ms(self) -> int:
        """What is not answered for this long is asked for again."""
        return self.heartbeat_ms * HEARTBEATS_PER_ELECTION_TIMEOUT_MIN

    @property
    def name(self) -> str:
        """The word stored in each directory and frame."""
        return "paxos"

    @property
    def messages(self) -> tuple[type[Message], ...]:
        """Every message class, in the order that numbers them on the wire."""
        return MESSAGES

    @property
    def control_messages(self) -> Set[type[Message]]:
        """All but those that carry entries."""
        return frozenset(self.messages) - frozenset(CARRIERS)

    @property
    def epoch_is_its_number(self) -> bool:
        """A ballot is a pair (PMMC, section 2.3)."""
        return False

    def membership(self, voters: Set[str]) -> Membership:
        """These voters, deciding by majorities or by `accept_quorum`.

        Raises `ConfigError` when there are none, or fewer than `accept_quorum`.
        """
        if self.accept_quorum is None:
            return Membership(majorities(voters))
        if self.accept_quorum > len(voters):
            raise ConfigError(f"accept_quorum {self.accept_quorum} exceeds {len(voters)} voters")
        # The smallest prepare quorum that meets every accept quorum (FPaxos, section 4).
        prepare_quorum = len(voters) - self.accept_quorum + 1
        return Membership(sized(voters, elect=prepare_quorum, commit=self.accept_quorum))

    def core(self, node: str, restored: Restored, now: int, random: Random) -> Core:
        """One member's core. Raises `InvariantBroken` for a state no core has left behind."""
        return PaxosCore(State(node, restored, now, random, self))


class PaxosCore:
    """One member's part in Multi-Paxos; each method is described in `replog.agreement.Core`."""

    __slots__ = ("state",)

    def __init__(self, state: State) -> None:
        self.state = state

    @property
    def deadline(self) -> int | None:
        """When an acceptor prepares, a leader sends heartbeats, or a learner asks once more."""
        state = self.state
        if state.fetching is None or state.timer is None:
            return state.timer
        return min(state.timer, state.fetching.asked_at + state.tuning.retransmit_ms)

    @property
    def leadership(self) -> Leadership:
        """Role: acceptor, pre-proposer, proposer or leader."""
        state = self.state
        role = state.role
        first_index = role.first_index if isinstance(role, Leader) else 0
        return Leadership(role.name, state.leader, state.ballot, first_index)

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
        self._check(sender, message, metas)
        state = self.state
        state.now = now
        if isinstance(message, Question):
            self._take_question(sender, message, metas)
        elif isinstance(message, Answer):
            if message.ballot == state.ballot:
                self._take_answer(sender, message, metas)
        elif isinstance(message, Chosen):
            catchup.take_chosen(state, sender, message, metas)
            election.prepare_if_granted(state)
            election.take_over(state)
        elif isinstance(message, FetchChosen):
            catchup.answer_fetch_chosen(state, sender, message)
        elif isinstance(message, PrePromise):
            election.count_pre_promise(state, sender, message)
        elif isinstance(message, Nack) and message.ballot > state.ballot:
            state.enter_ballot(message.ballot)
        catchup.fetch_missing(state)

    def _take_question(self, sender: str, question: Question, metas: Sequence[Meta]) -> None:
        """A question of a lower ballot is refused by whoever answers it (PMMC, section 2.3)."""
        state = self.state
        match question:
            case Accept():
                replication.answer_accept(state, sender, question, metas)
            case Heartbeat():
                replication.answer_heartbeat(state, sender, question)
            case Committed():
                replication.learn_commit(state, sender, question)
            case AskAccepted():
                replication.answer_ask(state, sender, question)
            case PrePrepare():
                election.answer_pre_prepare(state, sender, question)
            case Prepare():
                election.answer_prepare(state, sender, question)
            case FetchAccepted():
                election.answer_fetch_accepted(state, sender, question)

    def _take_answer(self, sender: str, answer: Answer, metas: Sequence[Meta]) -> None:
        """An answer counts for its own ballot only: one of a past ballot means nothing."""
        state = self.state
        match answer:
            case Accepted():
                replication.count_accepted(state, sender, answer)
            case HeartbeatReply():
                replication.count_heartbeat(state, sender, answer)
            case Missing():
                replication.send_again(state, sender, answer)
            case Promise():
                election.count_promise(state, sender, answer)
            case AcceptedValues():
                election.take_accepted(state, metas)

    def _check(self, sender: str, message: Message, metas: Sequence[Meta]) -> None:
        """Raise `PeerFault` for what no member sends, whatever its state."""
        state = self.state
        if sender not in state.others:
            raise PeerFault(f"{sender} is no other voter")
        if not isinstance(message, MESSAGES):
            raise PeerFault(f"{type(message).__name__} is no message of Multi-Paxos")
        if bool(metas) != isinstance(message, CARRIERS):
            raise PeerFault(f"{type(message).__name__} comes with {len(metas)} entries")
        for index, meta in enumerate(metas, start=metas[0].index if metas else 0):
            if meta.index != index or index < 1:
                raise PeerFault(f"entry {meta.index} travels in the place of {index}")
        for ballot in {meta.epoch for meta in metas}:
            self._check_ballot(sender, ballot)
        if isinstance(message, Question):
            self._check_ballot(sender, message.ballot)
            if message.ballot.node != sender:
                raise PeerFault(f"{sender} speaks for ballot {message.ballot}")
        elif isinstance(message, Answer):
            if message.ballot.node != state.node or not NO_EPOCH < message.ballot <= state.ballot:
                raise PeerFault(f"{sender} answers ballot {message.ballot}, never sent")
        elif isinstance(message, Nack) or (
            isinstance(message, PrePromise) and message.ballot != NO_EPOCH
        ):
            self._check_ballot(sender, message.ballot)

    def _check_ballot(self, sender: str, ballot: Epoch) -> None:
        """Raise `PeerFault` for a ballot that nobody can have reached."""
        known = self.state.ballot
        if not 0 < ballot.number <= known.number + BALLOT_JUMP_MAX:
            raise PeerFault(f"{sender} knows ballot {ballot}; here it is {known}")
        if ballot.node not in self.state.quorums.voters:
            raise PeerFault(f"{sender} knows ballot {ballot} of no voter")

    def tick(self, now: int) -> None:
        """Ask or prepare, or send heartbeats, if it is time; a long pause counts once."""
        state = self.state
        state.now = now
        if state.timer is not None and now >= state.timer:
            if isinstance(state.role, Leader):
                replication.beat(state)
                election.take_over(state)
            else:
                election.time_out(state)
        catchup.fetch_missing(state)

    def propose(self, kind: Kind, size: int) -> EntryRef | None:
        """Propose one entry; no-ops first."""
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
        """Count what this disk now holds: the proposer's own promise, the leader's own entries."""
        state = self.state
        state.now = now
        entries = state.journal.durable(write_id)
        if isinstance(state.role, Proposer):
            election.count_own_promise(state)
        else:
            replication.count_own_acceptance(state, entries)
        catchup.fetch_missing(state)

    def sent(self, to: str, last_index: int, size: int) -> None:
        """Entries have left for this peer."""
        replication.note_sent(self.state, to, last_index, size)

    def lost(self, to: str) -> None:
        """Entries for this peer did not leave: wait until it is heard, then send them again."""
        replication.note_lost(self.state, to)

    def compacted(self, index: int) -> None:
        """Send nothing up to this index any more."""
        catchup.compact(self.state, index)

    def install(self, now: int, base: EntryRef) -> bool:
        """Go on behind a snapshot, in whatever role."""
        state = self.state
        state.now = now
        if not catchup.install(state, base.index):
            return False
        election.prepare_if_granted(state)
        election.take_over(state)
        catchup.fetch_missing(state)
        return True

    def epoch_at(self, index: int) -> Epoch:
        """Nothing is remembered of what is committed."""
        return NO_EPOCH

    def has_ready(self) -> bool:
        """Whether `ready` would return anything new."""
        state = self.state
        role = state.role
        return (
            state.has_output
            or catchup.has_answers(state)
            or (
                isinstance(role, Leader)
                and (replication.has_sends(state, role) or reads.are_due(state, role))
            )
        )

    def ready(self) -> Ready:
        """Everything wanted since the last call.

        Reads, entries and commit notices are put together here, so that all of a turn share one
        round, one accept and one notice.
        """
        state = self.state
        role = state.role
        catchup.send_answers(state)
        if isinstance(role, Leader):
            if reads.are_due(state, role):
                reads.begin_round(state, role)
            if role.first_index:
                replication.send_entries(state, role)
                replication.send_commit_notices(state, role)
        return state.take()
