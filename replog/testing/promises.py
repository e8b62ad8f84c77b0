"""The judges of promises: what a disk has sworn, and what messages say about it.

=========  =============================================================================
class      of agreements where
=========  =============================================================================
`Votes`    an epoch is its number, and the promise a vote in it
`Ballots`  an epoch is a pair, and the promise the highest one that is obeyed
=========  =============================================================================

Rules that both judge:

1. A promise on a disk never falls.
2. No message leaves that promises more than the disk of its sender has held by then. Messages are
   known by the names of their classes and fields, for the trunk names no agreement.
3. What a judge knows of a disk it has seen written, in the order of the writes; the promise of this
   moment it reads from the disk itself.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from replog.entry import NO_EPOCH, Epoch
from replog.testing.violation import Violation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replog.agreement import Message
    from replog.store.interface import StoredWrite
    from replog.store.memory import MemoryDisk
    from replog.testing.choices import Choices


def falls(before: Epoch, after: Epoch, *, by_number: bool) -> bool:
    """Whether a promise that was `before` must not become `after`. By number: it is a vote, and
    given once."""
    revoked = before.node != "" and after.number == before.number and after.node != before.node
    return after < before or (by_number and revoked)


class Votes:
    """A vote is given once, and an entry is acknowledged once it is written."""

    def __init__(self, disks: Mapping[str, MemoryDisk]) -> None:
        self._disks = disks
        self._votes: dict[tuple[str, int], str] = {}
        self._entries: dict[tuple[str, int], int] = {}
        """Of each node and term, the highest entry of that term ever written."""

    def stored(self, node: str, before: Epoch, after: Epoch) -> None:
        """A commit has replaced a promise."""
        if falls(before, after, by_number=True):
            raise Violation(f"the disk of {node} promised {before}, and now {after}")

    def wrote(self, node: str, write: StoredWrite) -> None:
        """A commit has carried out a write, or passed through the state after it."""
        tops = [(entry.epoch, entry.index) for entry in write.entries]
        if write.install is not None:
            tops.append((write.install.snapshot.epoch, write.install.snapshot.index))
        for epoch, index in tops:
            key = node, epoch.number
            self._entries[key] = max(index, self._entries.get(key, 0))

    def leaves(self, node: str, to: str, message: Message) -> None:
        """A message leaves."""
        asked: Any = message
        match type(message).__name__:
            case "Vote" if asked.granted:
                self._check_vote(node, to, asked.term)
            case "RequestVote":
                self._check_vote(node, node, asked.term)
            case "Appended":
                self._check_appended(node, asked.term, asked.match_index)

    def _check_vote(self, node: str, candidate: str, term: int) -> None:
        if self._votes.setdefault((node, term), candidate) != candidate:
            raise Violation(f"{node} votes in term {term} for {candidate} and another")
        promise = self._disks[node].outline.promise
        if promise.number < term or (promise.number == term and promise.node != candidate):
            raise Violation(
                f"{node} votes in term {term} for {candidate}; its disk promised {promise}"
            )

    def _check_appended(self, node: str, term: int, index: int) -> None:
        """An entry may since have been overwritten, by a leader whom no holder of it elected."""
        held = [top for (of, number), top in self._entries.items() if of == node and number <= term]
        if index > max(held, default=0):
            raise Violation(f"{node} acknowledges entry {index} in term {term} and never wrote it")


class Sworn(NamedTuple):
    """A promise of a node, as it was written."""

    ballot: Epoch
    accepted: Mapping[int, Epoch]
    """What the node had accepted until then: the ballot at each index."""
    installed_index: int = 0
    """Up to here a snapshot stood for all that was chosen, accepted by this node or not."""


class Ballots:
    """A ballot is used once, obeyed once promised, and told everything accepted before it."""

    def __init__(self, disks: Mapping[str, MemoryDisk], choices: Choices) -> None:
        self._disks = disks
        self._choices = choices
        self._sworn: defaultdict[str, list[Sworn]] = defaultdict(list)
        self._accepted: defaultdict[str, dict[int, Epoch]] = defaultdict(dict)
        self._installed: dict[str, int] = {}
        """Up to which index each node has installed a snapshot."""
        self._written: set[tuple[str, int, Epoch]] = set()
        self._asked: dict[tuple[Epoch, str], int] = {}
        """Of each ballot and acceptor, from which index on it was prepared."""

    def stored(self, node: str, before: Epoch, after: Epoch) -> None:
        """A commit has replaced a promise."""
        if falls(before, after, by_number=False):
            raise Violation(f"the disk of {node} promised {before}, and now {after}")

    def wrote(self, node: str, write: StoredWrite) -> None:
        """A commit has carried out a write, or passed through the state after it."""
        sworn, accepted = self._sworn[node], self._accepted[node]
        if write.promise is not None:
            installed_index = self._installed.get(node, 0)
            sworn.append(Sworn(write.promise, dict(accepted), installed_index))
        if write.install is not None:
            self._installed[node] = write.install.snapshot.index
        promise = sworn[-1].ballot if sworn else NO_EPOCH
        for index, epoch, data in write.entries:
            learnt = self._choices.value_at(index) == data
            if epoch > promise or (epoch < promise and not learnt):
                raise Violation(f"{node} accepts entry {index} of {epoch} and obeys {promise}")
            if epoch < accepted.get(index, NO_EPOCH):
                raise Violation(f"{node} replaces entry {index} by one of a lower ballot, {epoch}")
            accepted[index] = epoch
            self._written.add((node, index, epoch))

    def leaves(self, node: str, to: str, message: Message) -> None:
        """A message leaves."""
        said: Any = message
        name = type(message).__name__
        if name not in {"Prepare", "Promise", "Accept", "Accepted", "Nack"}:
            return
        promise = self._disks[node].outline.promise
        if promise < said.ballot:
            raise Violation(f"{node} sends {name} of {said.ballot}; its disk promised {promise}")
        if name == "Prepare":
            if (said.ballot, to) in self._asked:
                raise Violation(f"{node} prepares {said.ballot} a second time")
            self._asked[said.ballot, to] = said.first_index
        elif name == "Promise":
            first = self._asked.get((said.ballot, node), 1)
            report = dict(zip(said.indexes, said.ballots, strict=True))
            self._check_report(node, said.ballot, max(first, said.commit_index + 1), report)
        elif name == "Accepted":
            self._check_accepted(node, said.ballot, said.first_index, said.last_index)

    def _check_report(
        self, node: str, ballot: Epoch, first: int, report: Mapping[int, Epoch]
    ) -> None:
        """Nothing is hidden, and nothing is invented. More may be accepted since the promise."""
        sworn = next(sworn for sworn in self._sworn[node] if sworn.ballot >= ballot)
        if first <= sworn.installed_index:
            raise Violation(
                f"{node} hides from {ballot} that a snapshot stands for entry {first}, and for all "
                f"to {sworn.installed_index}"
            )
        for index, epoch in sworn.accepted.items():
            if index >= first and report.get(index, NO_EPOCH) < epoch:
                raise Violation(f"{node} hides entry {index} of {epoch} from {ballot}")
        for index, epoch in report.items():
            if (node, index, epoch) not in self._written:
                raise Violation(f"{node} reports entry {index} of {epoch} and never wrote it")

    def _check_accepted(self, node: str, ballot: Epoch, first: int, last: int) -> None:
        """An entry may since have been replaced, at a higher ballot."""
        for index in range(first, last + 1):
            if (node, index, ballot) not in self._written:
                raise Violation(f"{node} accepts entry {index} of {ballot} and never wrote it")
