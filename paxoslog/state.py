"""The state of one member, and the only ways to change it.

Rules of this file:

1. The ballot that this node obeys, its promise, changes in `State.enter_ballot` alone, which only
   raises it; nothing is stored under a higher one (PMMC, section 2.3).
2. Whatever changes in memory and must survive a crash is given to the `Journal` in the same call.
3. What was accepted at an index is replaced only at a higher ballot, and never at or below the
   commit index.
4. The commit index never falls, and passes only over indexes that are chosen.
5. Of what lies at or below the base not even the values are here: they are compacted, or a snapshot
   took their place. The base never falls, and never passes the commit index.
6. A role is a value: what only a proposer or only a leader knows cannot outlive its role.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from paxoslog.messages import FetchAccepted, FetchChosen, Promise
from replog.agreement import EntryRef, Message, ReadState, Ready, Restored, Send, Write, WriteEntry
from replog.entry import NO_EPOCH, Epoch
from replog.errors import InvariantBroken
from replog.rounds import Rounds

if TYPE_CHECKING:
    from random import Random

    from paxoslog.catchup import Fetching
    from paxoslog.core import MultiPaxos
    from paxoslog.progress import Progress


class Log:
    """What is accepted above the commit index, and which of it is chosen; no payload.

    Of what lies at or below the commit index nothing is remembered: it will never change.
    """

    __slots__ = ("_accepted", "_chosen", "base_index", "commit_index", "last_index")

    def __init__(
        self, commit_index: int, accepted: tuple[EntryRef, ...], base_index: int = 0
    ) -> None:
        self._accepted = dict(accepted)
        self._chosen: set[int] = set()
        self.base_index = base_index
        """The values of all entries up to here are gone."""
        self.commit_index = commit_index
        self.last_index = max(self._accepted, default=commit_index)

    def ballot_at(self, index: int) -> Epoch:
        """The ballot accepted at `index`; `NO_EPOCH` for none, and up to the commit index."""
        return self._accepted.get(index, NO_EPOCH)

    def is_chosen(self, index: int) -> bool:
        """Whether this node knows that the entry at `index` is chosen."""
        return index <= self.commit_index or index in self._chosen

    def accepted(self) -> tuple[EntryRef, ...]:
        """Everything accepted above the commit index, ascending."""
        return tuple([EntryRef(index, self._accepted[index]) for index in sorted(self._accepted)])

    def run_around(self, index: int, ballot: Epoch) -> tuple[int, int]:
        """The ends of what is accepted at `ballot` without a gap, `index` within; (`index` + 1,
        `index`) when it is not."""
        first, last = index + 1, index
        while self._accepted.get(first - 1) == ballot:
            first -= 1
        while first <= last and self._accepted.get(last + 1) == ballot:
            last += 1
        return first, last

    def missing_from(self, first: int, last: int, ballot: Epoch) -> int | None:
        """The first of these indexes that is not accepted at `ballot`, nor known to be chosen."""
        for index in range(max(first, self.commit_index + 1), last + 1):
            if self._accepted.get(index) != ballot and index not in self._chosen:
                return index
        return None

    def accept(self, index: int, ballot: Epoch) -> None:
        """Accept a proposal."""
        if index <= self.commit_index or ballot < self.ballot_at(index):
            raise InvariantBroken(
                f"{ballot} at {index} replaces {self.ballot_at(index)}; everything up to "
                f"{self.commit_index} is chosen"
            )
        self._accepted[index] = ballot
        self.last_index = max(self.last_index, index)

    def choose(self, index: int) -> None:
        """What is accepted at `index` is chosen; the commit index follows as far as it can."""
        if index <= self.commit_index:
            return
        if index not in self._accepted:
            raise InvariantBroken(f"{index} chosen, but nothing is accepted there")
        self._chosen.add(index)
        while self.commit_index + 1 in self._chosen:
            self.commit_index += 1
            self._chosen.remove(self.commit_index)
            del self._accepted[self.commit_index]

    def compact(self, base_index: int) -> None:
        """The values of all entries up to `base_index` are gone."""
        if base_index > self.commit_index:
            raise InvariantBroken(f"base {base_index} above commit index {self.commit_index}")
        self.base_index = base_index

    def install(self, base_index: int) -> None:
        """Everything up to `base_index` is chosen, and its values are not here. What is accepted
        above stays: it is this acceptor's word."""
        if base_index <= self.commit_index:
            raise InvariantBroken(f"the commit index falls from {self.commit_index}: {base_index}")
        for index in [index for index in self._accepted if index <= base_index]:
            del self._accepted[index]
            self._chosen.discard(index)
        self.base_index = self.commit_index = base_index
        self.last_index = max(self.last_index, base_index)
        if base_index + 1 in self._chosen:
            self.choose(base_index + 1)  # the commit index follows


class Journal:
    """What the disk has been asked to hold, and how much of it is there."""

    __slots__ = (
        "_closed",
        "_entries",
        "_install",
        "_issued",
        "_promise",
        "durable_write_id",
        "entries_waiting",
        "last_write_id",
    )

    def __init__(self) -> None:
        self.last_write_id = 0
        """The write that holds the latest change, whether or not it has been taken yet."""
        self.durable_write_id = 0
        self.entries_waiting = 0
        """Entries that are not on the disk yet."""
        self._issued: deque[Write] = deque()
        self._closed: list[Write] = []
        self._promise: Epoch | None = None
        self._install: int | None = None
        self._entries: list[WriteEntry] = []

    @property
    def empty(self) -> bool:
        """Whether `take` would return nothing."""
        return not self._closed and not self._open

    def promise(self, promise: Epoch) -> None:
        """Replace the promise."""
        if self._entries:
            self._close()
        self._begin()
        self._promise = promise

    def install(self, base_index: int) -> None:
        """Begin the log anew behind `base_index`."""
        if self._entries or self._install is not None:
            self._close()
        self._begin()
        self._install = base_index

    def accept(self, index: int, ballot: Epoch, source: Epoch) -> None:
        """Store an entry, whose bytes are those of (`index`, `source`), at `index`."""
        if self._entries and self._entries[-1].index >= index:
            self._close()
        self._begin()
        self._entries.append(WriteEntry(index, ballot, source))
        self.entries_waiting += 1

    def take(self) -> tuple[Write, ...]:
        """The writes since the last call, in order."""
        if self._open:
            self._close()
        writes = tuple(self._closed)
        self._closed.clear()
        return writes

    def durable(self, write_id: int) -> list[WriteEntry]:
        """Every write up to this one is on disk; the entries that are so now."""
        issued_up_to = self._issued[-1].write_id if self._issued else self.durable_write_id
        if write_id > issued_up_to:
            raise InvariantBroken(f"write {write_id} is durable, but only {issued_up_to} exist")
        entries: list[WriteEntry] = []
        while self._issued and self._issued[0].write_id <= write_id:
            write = self._issued.popleft()
            self.durable_write_id = write.write_id
            entries += write.entries
        self.entries_waiting -= len(entries)
        return entries

    @property
    def _open(self) -> bool:
        return bool(self._entries) or self._promise is not None or self._install is not None

    def _begin(self) -> None:
        if not self._open:
            self.last_write_id += 1

    def _close(self) -> None:
        entries = tuple(self._entries)
        write = Write(self.last_write_id, self._promise, None, entries, self._install)
        self._closed.append(write)
        self._issued.append(write)
        self._promise = self._install = None
        self._entries.clear()


class Adopted(NamedTuple):
    """What a new leader must propose anew at one index (PMS, section 2.2, phase 2a)."""

    ballot: Epoch
    """The highest at which an acceptor of its prepare quorum has accepted something there."""
    reporters: tuple[str, ...]
    """The acceptors that have reported it."""


@dataclass(slots=True)
class Acceptor:
    """Obeys whoever leads."""

    name: ClassVar[str] = "acceptor"


@dataclass(slots=True)
class PreProposer:
    """Asks whether a prepare would succeed."""

    name: ClassVar[str] = "pre-proposer"
    granted: set[str]
    """Who has answered yes in the current round."""


@dataclass(slots=True)
class Proposer:
    """Prepares its own ballot (PMMC: a scout)."""

    name: ClassVar[str] = "proposer"
    write_id: int
    """The write that holds its own promise: that promise counts once it is durable."""
    promised: set[str] = field(default_factory=set)
    """Who obeys this ballot."""
    promises: dict[str, Promise] = field(default_factory=dict)
    """What the others among them have accepted."""


@dataclass(slots=True)
class Leader:
    """Leads its own ballot (PMMC: a leader in active mode, with its commanders)."""

    name: ClassVar[str] = "leader"
    ballot: Epoch
    base_index: int
    """It proposes nothing up to here: chosen, as its prepare quorum says or as it has learnt."""
    adopted: dict[int, Adopted]
    """What it has not proposed anew yet, ascending."""
    gaps: deque[int]
    """Indexes below the highest adopted one of which a whole prepare quorum reports nothing."""
    progress: dict[str, Progress]
    """By acceptor, in order of their ids."""
    moved_at: int
    """When it last came closer to its first entry."""
    reads: Rounds = field(default_factory=Rounds)
    first_index: int = 0
    """Index of its first entry above all it has adopted; 0 until the host has proposed it."""
    accepted_by: dict[int, set[str]] = field(default_factory=dict)
    """Of each of its proposals above the commit index, who has accepted it durably."""
    fetching: Fetching | None = None
    """Adopted values asked for."""


class Handed(NamedTuple):
    """Entries given to the host for one peer, on whose sending it has not reported yet."""

    ballot: Epoch
    """Of the accept they travel with; `NO_EPOCH` with an answer to a fetch."""
    first_index: int
    last_index: int


class State:
    """All of one member's state."""

    __slots__ = (
        "_commit_given",
        "_reads",
        "_reads_failed",
        "_sends",
        "_snapshots_for",
        "asked",
        "ballot",
        "commit_known",
        "fetching",
        "handed",
        "journal",
        "known_index",
        "leader",
        "leader_heard_at",
        "log",
        "node",
        "now",
        "others",
        "pre_prepare_round",
        "quorums",
        "random",
        "role",
        "timer",
        "told_index",
        "tuning",
        "yielded",
    )

    def __init__(
        self, node: str, restored: Restored, now: int, random: Random, tuning: MultiPaxos
    ) -> None:
        check_restored(node, restored)
        self.node = node
        self.quorums = restored.membership.quorums
        self.others = restored.membership.others(node)
        self.tuning = tuning
        self.random = random
        self.now = now
        self.ballot = restored.promise
        """The highest ballot that this node obeys: its promise."""
        self.log = Log(restored.commit_index, restored.accepted, restored.base.index)
        self.journal = Journal()
        self.role: Acceptor | PreProposer | Proposer | Leader = Acceptor()
        self.leader: str | None = None
        self.leader_heard_at: int | None = None
        self.told_index = 0
        """What the leader of this ballot has said to be chosen."""
        self.pre_prepare_round = 0
        self.yielded = False
        """Whether this node has let one timeout pass, since it last heard a leader, because others
        know more to be chosen."""
        self.commit_known = dict.fromkeys(self.others, 0)
        """The highest commit index that each peer has told of itself."""
        self.known_index = 0
        """The highest of all."""
        self.fetching: Fetching | None = None
        """Chosen entries asked for."""
        self.asked: dict[str, FetchChosen | FetchAccepted] = {}
        """The latest fetch of each peer that waits for its answer."""
        self.handed: dict[str, Handed] = {}
        """By peer. It outlives a leadership, for the host's report does."""
        self.timer: int | None = None
        """When to prepare; for a leader, when to send heartbeats."""
        self._sends: list[Send] = []
        self._reads: list[ReadState] = []
        self._reads_failed: list[int] = []
        self._snapshots_for: list[str] = []
        self._commit_given = restored.commit_index
        self.restart_election_timer()
        if not self.others:
            self.timer = now  # a sole voter has nobody to wait for

    # --- ballot and role --------------------------------------------------------------------------

    def enter_ballot(self, ballot: Epoch) -> None:
        """Promise to obey a higher ballot, whose leader is not known yet (PMS 2.2, phase 1b)."""
        if ballot <= self.ballot:
            raise InvariantBroken(f"ballot {self.ballot} cannot become {ballot}")
        self.step_down()
        self.ballot = ballot
        self.leader = None
        self.leader_heard_at = None
        self.told_index = 0
        self.journal.promise(ballot)

    def step_down(self) -> None:
        """Be an acceptor under the same ballot."""
        if isinstance(self.role, Leader):
            self._reads_failed += self.role.reads.abandon()
            self.leader = None
            self.restart_election_timer()
        self.role = Acceptor()

    def obey(self, ballot: Epoch) -> None:
        """The leader of `ballot`, no lower than ours, has been heard: follow it."""
        if ballot > self.ballot:
            self.enter_ballot(ballot)
        elif not isinstance(self.role, Acceptor):
            self.step_down()
        self.leader = ballot.node
        self.leader_heard_at = self.now
        self.yielded = False
        self.restart_election_timer()

    def restart_election_timer(self) -> None:
        """Draw a new timeout, anew each time: proposers that collide once must not do so again."""
        tuning = self.tuning
        self.timer = self.now + self.random.randint(
            tuning.election_timeout_ms_min, tuning.election_timeout_ms_max
        )

    # --- log --------------------------------------------------------------------------------------

    @property
    def commit_index(self) -> int:
        """Everything up to here is chosen."""
        return self.log.commit_index

    def accept(self, index: int, ballot: Epoch, source: Epoch) -> None:
        """Accept the entry (`index`, `source`) at `ballot`, here and on its way to the disk."""
        if ballot > self.ballot:
            raise InvariantBroken(f"{ballot} at {index}, but only {self.ballot} is promised")
        self.log.accept(index, ballot)
        self.journal.accept(index, ballot, source)

    def install(self, base_index: int) -> None:
        """Begin the log behind `base_index`, here and on its way to the disk."""
        self.log.install(base_index)
        self.journal.install(base_index)

    def note_commit(self, peer: str, commit_index: int) -> None:
        """A peer knows everything up to `commit_index` to be chosen."""
        if commit_index > self.commit_known[peer]:
            self.commit_known[peer] = commit_index
            self.known_index = max(self.known_index, commit_index)

    @property
    def is_behind(self) -> bool:
        """Whether a peer knows more to be chosen than this node."""
        return self.known_index > self.log.commit_index

    # --- output -----------------------------------------------------------------------------------

    def send(self, to: str, message: Message, entries: tuple[EntryRef, ...] = ()) -> None:
        """A message that promises nothing: it leaves at once."""
        self._sends.append(Send(to, message, 0, entries))

    def promise(self, to: str, message: Message) -> None:
        """A message that promises something: it leaves once every write so far is durable."""
        self._sends.append(Send(to, message, self.journal.last_write_id))

    def offer_snapshot(self, to: str) -> None:
        """Name a peer that lacks entries which are compacted here."""
        self._snapshots_for.append(to)

    def confirm_reads(self, confirmed: list[ReadState]) -> None:
        """Hand out confirmed reads."""
        self._reads += confirmed

    @property
    def has_output(self) -> bool:
        """Whether `take` would return anything new."""
        return bool(
            self._sends
            or self._reads
            or self._reads_failed
            or self.log.commit_index > self._commit_given
            or not self.journal.empty
        )

    def take(self) -> Ready:
        """Everything wanted since the last call."""
        ready = Ready(
            self.journal.take(),
            tuple(self._sends),
            self.log.commit_index,
            tuple(self._reads),
            tuple(self._reads_failed),
            tuple(self._snapshots_for),
        )
        self._sends.clear()
        self._reads.clear()
        self._reads_failed.clear()
        self._snapshots_for.clear()
        self._commit_given = self.log.commit_index
        return ready


def check_restored(node: str, restored: Restored) -> None:
    """Raise `InvariantBroken` for a durable state that no run of this program leaves behind."""
    voters, commit_index = restored.membership.voters, restored.commit_index
    if node not in voters:
        raise InvariantBroken(f"{node} is not among the voters {sorted(voters)}")
    if not 0 <= restored.base.index <= commit_index:
        raise InvariantBroken(f"base {restored.base.index} and commit index {commit_index}")
    indexes = [commit_index, *[ref.index for ref in restored.accepted]]
    if any(low >= high for low, high in pairwise(indexes)):
        raise InvariantBroken(f"entries at {indexes[1:]} do not follow commit index {commit_index}")
    if indexes[-1] != restored.last_index:
        raise InvariantBroken(f"a log that ends at {restored.last_index} ends at {indexes[-1]}")
    for index, ballot in restored.accepted:
        if not NO_EPOCH < ballot <= restored.promise:
            raise InvariantBroken(
                f"entry {index} of {ballot} in a log whose node obeys {restored.promise}"
            )
