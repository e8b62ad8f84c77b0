"""The state of one member, and the only ways to change it.

Rules of this file:

1. The term changes in `State.enter_term` alone, which only raises it; the vote is cleared there and
   nowhere else (paper, figure 2: `votedFor` belongs to `currentTerm`).
2. Whatever changes in memory and must survive a crash is given to the `Journal` in the same call.
3. A node's own copy is what disk and memory agree on, `Journal.durable_index`: the completed write
   of an entry that has been replaced since never counts for the entry that replaced it.
4. The commit index never falls, and no entry at or below it is ever dropped.
5. A role is a value: what only a candidate or only a leader knows cannot outlive its role.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from raftlog.progress import Progress
from replog.agreement import EntryRef, Message, ReadState, Ready, Restored, Send, Write, WriteEntry
from replog.entry import NO_EPOCH, Epoch
from replog.errors import InvariantBroken, PeerFault
from replog.rounds import Rounds

if TYPE_CHECKING:
    from random import Random

    from raftlog.core import Raft

NO_BASE = EntryRef(0, NO_EPOCH)
"""Of a whole log."""


class Log:
    """Which epoch each index behind the base has, in runs; no payload."""

    __slots__ = ("_epochs", "_firsts", "base", "last_index")

    def __init__(
        self, runs: tuple[tuple[int, Epoch], ...], last_index: int, base: EntryRef = NO_BASE
    ) -> None:
        self._firsts = [first for first, _ in runs]
        self._epochs = [epoch for _, epoch in runs]
        self.base = base
        """The last entry that is compacted."""
        self.last_index = last_index

    @property
    def last_term(self) -> int:
        """The term of the last entry; the base's for an empty log."""
        return self._epochs[-1].number if self._epochs else self.base.epoch.number

    def runs(self) -> tuple[tuple[int, Epoch], ...]:
        """(first index, epoch) of each run, ascending."""
        return tuple(zip(self._firsts, self._epochs, strict=True))

    def epoch_at(self, index: int) -> Epoch:
        """The epoch of an entry, or of the base."""
        base = self.base
        if not base.index <= index <= self.last_index:
            raise InvariantBroken(f"no entry at {index} behind {base} up to {self.last_index}")
        place = bisect_right(self._firsts, index)
        return self._epochs[place - 1] if place else base.epoch

    def term_at(self, index: int) -> int:
        """The term of an entry, or of the base."""
        return self.epoch_at(index).number

    def last_at_most(self, index: int, term: int) -> int:
        """The highest index up to `index` whose term is not above `term`; when that is compacted,
        the one below the base."""
        place = bisect_right(self._firsts, index)
        while place and self._epochs[place - 1].number > term:
            place -= 1
            index = self._firsts[place] - 1
        base = self.base
        if not place and (index < base.index or base.epoch.number > term):
            return base.index - 1
        return index

    def refs(self, first: int, last: int) -> tuple[EntryRef, ...]:
        """The names of the entries from `first` to `last`."""
        if first >= self._firsts[-1]:
            epoch = self._epochs[-1]
            return tuple([EntryRef(index, epoch) for index in range(first, last + 1)])
        return tuple([EntryRef(index, self.epoch_at(index)) for index in range(first, last + 1)])

    def append(self, epoch: Epoch) -> None:
        """One more entry."""
        if epoch.number < self.last_term:
            raise InvariantBroken(f"term {epoch.number} follows {self.last_term} in the log")
        self.last_index += 1
        if not self._epochs or self._epochs[-1] != epoch:
            self._firsts.append(self.last_index)
            self._epochs.append(epoch)

    def truncate(self, first: int) -> None:
        """Drop every entry from `first` on."""
        while self._firsts and self._firsts[-1] >= first:
            self._firsts.pop()
            self._epochs.pop()
        self.last_index = first - 1

    def compact(self, index: int) -> None:
        """Drop every entry up to `index`, which becomes the base."""
        self.base = EntryRef(index, self.epoch_at(index))
        place = bisect_right(self._firsts, index)
        end = self._firsts[place] if place < len(self._firsts) else self.last_index + 1
        if end > index + 1:
            place -= 1  # its run goes on
            self._firsts[place] = index + 1
        del self._firsts[:place], self._epochs[:place]

    def begin_behind(self, base: EntryRef) -> None:
        """Drop every entry; the next one follows `base`."""
        self._firsts.clear()
        self._epochs.clear()
        self.base = base
        self.last_index = base.index


class Journal:
    """What the disk has been asked to hold, and how much of it is there."""

    __slots__ = (
        "_closed",
        "_entries",
        "_install",
        "_issued",
        "_last_index",
        "_promise",
        "_truncate_from",
        "durable_index",
        "durable_write_id",
        "last_write_id",
    )

    def __init__(self, last_index: int) -> None:
        self.last_write_id = 0
        """The write that holds the latest change, whether or not it has been taken yet."""
        self.durable_write_id = 0
        self.durable_index = last_index
        """The disk's log equals the memory's up to here."""
        self._last_index = last_index
        self._issued: deque[list[int]] = deque()  # [write id, last index it shares with memory]
        self._closed: list[Write] = []
        self._promise: Epoch | None = None
        self._truncate_from: int | None = None
        self._install: int | None = None
        self._entries: list[WriteEntry] = []

    @property
    def empty(self) -> bool:
        """Whether `take` would return nothing."""
        return not self._closed and not self._open

    def promise(self, promise: Epoch) -> None:
        """Replace the promise."""
        if self._changes_log:
            self._close()
        self._begin()
        self._promise = promise

    def truncate(self, first: int) -> None:
        """Drop every entry from `first` on."""
        if self._changes_log:
            self._close()
        self._begin()
        self._truncate_from = first
        self._last_index = first - 1
        self.durable_index = min(self.durable_index, first - 1)
        for issued in self._issued:
            issued[1] = min(issued[1], first - 1)

    def install(self, index: int) -> None:
        """Drop every entry up to `index`, which a snapshot stands for from then on."""
        if self._install is not None or self._entries:
            self._close()
        self._begin()
        self._install = index
        self._last_index = max(self._last_index, index)

    def append(self, index: int, epoch: Epoch) -> None:
        """Add the entry that follows the last."""
        if index != self._last_index + 1:
            raise InvariantBroken(f"entry {index} written after {self._last_index}")
        self._begin()
        self._entries.append(WriteEntry(index, epoch, epoch))
        self._last_index = index

    def take(self) -> tuple[Write, ...]:
        """The writes since the last call, in order."""
        if self._open:
            self._close()
        writes = tuple(self._closed)
        self._closed.clear()
        return writes

    def durable(self, write_id: int) -> None:
        """Every write up to this one is on disk."""
        issued_up_to = self._issued[-1][0] if self._issued else self.durable_write_id
        if write_id > issued_up_to:
            raise InvariantBroken(f"write {write_id} is durable, but only {issued_up_to} exist")
        while self._issued and self._issued[0][0] <= write_id:
            self.durable_write_id, self.durable_index = self._issued.popleft()

    @property
    def _open(self) -> bool:
        return self._changes_log or self._promise is not None

    @property
    def _changes_log(self) -> bool:
        return bool(self._entries) or self._truncate_from is not None or self._install is not None

    def _begin(self) -> None:
        if not self._open:
            self.last_write_id += 1

    def _close(self) -> None:
        self._closed.append(
            Write(
                self.last_write_id,
                self._promise,
                self._truncate_from,
                tuple(self._entries),
                self._install,
            )
        )
        self._issued.append([self.last_write_id, self._last_index])
        self._promise = None
        self._truncate_from = None
        self._install = None
        self._entries.clear()


@dataclass(slots=True)
class Follower:
    """Obeys whoever leads."""

    name: ClassVar[str] = "follower"


@dataclass(slots=True)
class PreCandidate:
    """Asks whether a campaign would win (dissertation section 9.6)."""

    name: ClassVar[str] = "pre-candidate"
    granted: set[str]
    """Who has answered yes in the current round."""


@dataclass(slots=True)
class Candidate:
    """Campaigns in the current term."""

    name: ClassVar[str] = "candidate"
    write_id: int
    """The write that holds its vote for itself: that vote counts once it is durable."""
    granted: set[str] = field(default_factory=set)
    """Who has voted for it in this term."""


@dataclass(slots=True)
class Leader:
    """Leads the current term."""

    name: ClassVar[str] = "leader"
    epoch: Epoch
    progress: dict[str, Progress]
    """By follower, in order of their ids."""
    reads: Rounds = field(default_factory=Rounds)
    first_index: int = 0
    """Index of the first entry of this term; 0 until the host has proposed it."""


class Handed(NamedTuple):
    """Entries given to the host for one peer, on whose sending it has not reported yet."""

    term: int
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
        "commit_index",
        "deadline",
        "handed",
        "journal",
        "leader",
        "leader_heard_at",
        "log",
        "node",
        "now",
        "others",
        "pre_vote_round",
        "quorums",
        "random",
        "role",
        "term",
        "tuning",
        "vote",
    )

    def __init__(
        self, node: str, restored: Restored, now: int, random: Random, tuning: Raft
    ) -> None:
        self.node = node
        self.quorums = restored.membership.quorums
        self.others = restored.membership.others(node)
        self.tuning = tuning
        self.random = random
        self.now = now
        self.term, self.vote = restored.promise
        self.log = Log(restored.epochs, restored.last_index, restored.base)
        self.journal = Journal(restored.last_index)
        self.commit_index = restored.commit_index
        self.role: Follower | PreCandidate | Candidate | Leader = Follower()
        self.leader: str | None = None
        self.leader_heard_at: int | None = None
        self.pre_vote_round = 0
        self.handed: dict[str, Handed] = {}
        """By peer. It outlives a leadership, for the host's report does."""
        self.deadline: int | None = None
        """When to campaign; for a leader, when to send heartbeats."""
        self._sends: list[Send] = []
        self._reads: list[ReadState] = []
        self._reads_failed: list[int] = []
        self._snapshots_for: list[str] = []
        self._commit_given = restored.commit_index
        self.restart_election_timer()
        if not self.others:
            self.deadline = now  # a sole voter has nobody to wait for

    # --- term, vote and role ----------------------------------------------------------------------

    def enter_term(self, term: int) -> None:
        """Move to a higher term, as a follower without a vote (paper, section 5.1)."""
        if term <= self.term:
            raise InvariantBroken(f"term {self.term} cannot become {term}")
        self.step_down()
        self.term = term
        self.vote = ""
        self.leader = None
        self.leader_heard_at = None
        self.journal.promise(Epoch(term, ""))

    def vote_for(self, node: str) -> None:
        """Give the vote of this term."""
        if self.vote not in {"", node}:
            raise InvariantBroken(f"the vote of term {self.term} is {self.vote}'s, not {node}'s")
        if not self.vote:
            self.vote = node
            self.journal.promise(Epoch(self.term, node))

    def step_down(self) -> None:
        """Be a follower in the same term; the vote stays."""
        if isinstance(self.role, Leader):
            self._reads_failed += self.role.reads.abandon()
            self._snapshots_for.clear()
            self.leader = None
            self.restart_election_timer()
        self.role = Follower()

    def obey(self, leader: str, term: int) -> None:
        """A leader has been heard: follow it (section 5.2)."""
        if term > self.term:
            self.enter_term(term)
        elif not isinstance(self.role, Follower):
            self.step_down()
        self.leader = leader
        self.leader_heard_at = self.now
        self.restart_election_timer()

    def check_leader(self, sender: str, term: int) -> None:
        """Raise `PeerFault` when the term is known to have another leader."""
        if term == self.term and self.leader not in {None, sender}:
            raise PeerFault(f"{sender} claims term {term}, which {self.leader} leads")

    def restart_election_timer(self) -> None:
        """Draw a new timeout (section 5.2: anew each time, or split votes repeat)."""
        tuning = self.tuning
        self.deadline = self.now + self.random.randint(
            tuning.election_timeout_ms_min, tuning.election_timeout_ms_max
        )

    # --- log --------------------------------------------------------------------------------------

    def append(self, epoch: Epoch) -> None:
        """One more entry, in memory and on its way to the disk."""
        self.log.append(epoch)
        self.journal.append(self.log.last_index, epoch)

    def truncate(self, first: int) -> None:
        """Drop every entry from `first` on: a leader's log differs there (section 5.3)."""
        if first <= self.commit_index:
            raise InvariantBroken(
                f"the leader of term {self.term} wants entry {first} replaced, but everything up "
                f"to {self.commit_index} is committed"
            )
        self.journal.truncate(first)
        self.log.truncate(first)

    def commit(self, index: int) -> None:
        """Everything up to `index` is committed; a lower index than before is no news."""
        if index > self.log.last_index:
            raise InvariantBroken(f"{index} committed, but the log ends at {self.log.last_index}")
        self.commit_index = max(self.commit_index, index)

    def install(self, base: EntryRef) -> None:
        """A snapshot stands for every entry up to `base`, and all of them are committed. What
        follows is kept behind that very entry, and else dropped (section 7)."""
        log = self.log
        if base.index <= log.last_index and log.epoch_at(base.index) == base.epoch:
            log.compact(base.index)
        else:
            if self.commit_index < log.last_index:
                self.truncate(self.commit_index + 1)
            log.begin_behind(base)
        self.journal.install(base.index)
        self.commit(base.index)

    # --- output -----------------------------------------------------------------------------------

    def send(self, to: str, message: Message, entries: tuple[EntryRef, ...] = ()) -> None:
        """A message that promises nothing: it leaves at once."""
        self._sends.append(Send(to, message, 0, entries))

    def promise(self, to: str, message: Message) -> None:
        """A message that promises something: it leaves once every write so far is durable."""
        self._sends.append(Send(to, message, self.journal.last_write_id))

    def offer_snapshot(self, to: str) -> None:
        """A peer needs what is compacted here."""
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
            or self._snapshots_for
            or self.commit_index > self._commit_given
            or not self.journal.empty
        )

    def take(self) -> Ready:
        """Everything wanted since the last call."""
        ready = Ready(
            self.journal.take(),
            tuple(self._sends),
            self.commit_index,
            tuple(self._reads),
            tuple(self._reads_failed),
            tuple(self._snapshots_for),
        )
        self._sends.clear()
        self._reads.clear()
        self._reads_failed.clear()
        self._snapshots_for.clear()
        self._commit_given = self.commit_index
        return ready
