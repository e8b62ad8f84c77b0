"""The judge of choices: what a quorum of disks has held cannot become anything else.

Rules of this file:

1. An entry is held by a node from when it was first written there, also if it was replaced since.
2. A value is chosen at an index once a commit quorum has held it there under one epoch. Where an
   epoch is its number, a chosen entry may still be overwritten until one of a later epoch follows
   it: there, being chosen is necessary for being committed, and not enough.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from replog.testing.violation import Violation

if TYPE_CHECKING:
    from replog.agreement import Message
    from replog.entry import Epoch
    from replog.quorum import Quorums
    from replog.store.interface import StoredEntry


class Copies(NamedTuple):
    """Those of one value under one epoch."""

    data: bytes
    nodes: set[str]
    """Who has held it."""


class Choices:
    """Chosen once, chosen for ever; and nobody calls committed what is not."""

    def __init__(self, quorums: Quorums, *, by_number: bool) -> None:
        self._final = not by_number
        self._quorums = quorums
        self._held: defaultdict[int, dict[Epoch, Copies]] = defaultdict(dict)
        self._chosen: dict[int, Epoch] = {}
        """Of each index, the lowest epoch under which a value is chosen."""
        self.index = 0
        """Up to here, every index has a chosen value."""

    def value_at(self, index: int) -> bytes | None:
        """The chosen value; None when there is none yet."""
        epoch = self._chosen.get(index)
        return None if epoch is None else self._held[index][epoch].data

    def wrote(self, node: str, entry: StoredEntry) -> None:
        """A commit has written an entry, or passed through a state that held it."""
        index, epoch, data = entry
        held = self._held[index].setdefault(epoch, Copies(data, set()))
        held.nodes.add(node)
        if self._quorums.can_commit(held.nodes):
            self._chosen[index] = min(epoch, self._chosen.get(index, epoch))
            while self.index + 1 in self._chosen:
                self.index += 1
        if self._final and index in self._chosen:
            self._check(index, self._chosen[index])

    def says(self, node: str, message: Message) -> None:
        """A message leaves, and may say how much is committed."""
        commit_index: int = getattr(message, "commit_index", 0)
        if commit_index > self.index:
            raise Violation(
                f"{node} calls entries to {commit_index} committed; chosen is what lies up to "
                f"{self.index}"
            )

    def delivered(self, node: str, index: int) -> None:
        """A node delivers an entry."""
        if index > self.index:
            raise Violation(
                f"{node} delivers entry {index}; chosen is what lies up to {self.index}"
            )

    def _check(self, index: int, chosen: Epoch) -> None:
        """From the ballot at which a value is chosen on, no other is proposed there."""
        value = self._held[index][chosen].data
        for epoch, held in self._held[index].items():
            if epoch > chosen and held.data != value:
                raise Violation(
                    f"entry {index} is chosen under {chosen}; {sorted(held.nodes)} hold another "
                    f"under {epoch}"
                )
