"""Rounds of confirmed reads, which both agreements hold in the same way (dissertation section 6.4).

Rules of this file:

1. A round reads at the commit index of its beginning, and is confirmed by a commit quorum whose
   members each answered a question that was asked after its beginning.
2. A number is given to one round only, within a leadership; an answer to an earlier number confirms
   nothing.
3. One round is in flight; reads that arrive meanwhile make the next one.

When a round may begin, and why such a quorum proves anything, is each agreement's own affair.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replog.agreement import ReadState

if TYPE_CHECKING:
    from replog.quorum import Quorums


class Rounds:
    """The reads of one leadership."""

    __slots__ = ("_acknowledged", "_index", "_tokens", "_waiting", "number")

    def __init__(self) -> None:
        self.number = 0
        """Of the latest round; 0 before the first."""
        self._index = 0
        self._tokens: list[int] = []
        self._acknowledged: set[str] = set()
        self._waiting: list[int] = []

    @property
    def due(self) -> bool:
        """Whether reads wait and no round is in flight."""
        return bool(self._waiting) and not self._tokens

    def ask(self, token: int) -> None:
        """Add a read to the next round."""
        self._waiting.append(token)

    def begin(self, node: str, commit_index: int) -> None:
        """Begin a round for everything that waits; the leader itself is the first to confirm it."""
        self.number += 1
        self._index = commit_index
        self._tokens, self._waiting = self._waiting, []
        self._acknowledged = {node}

    def acknowledge(self, node: str, number: int) -> None:
        """A member has answered the question that carried this number."""
        if number == self.number:
            self._acknowledged.add(node)

    def confirm(self, quorums: Quorums) -> list[ReadState]:
        """The reads of the round in flight once a quorum has confirmed it; ends the round."""
        if not self._tokens or not quorums.can_commit(self._acknowledged):
            return []
        confirmed = [ReadState(token, self._index) for token in self._tokens]
        self._tokens = []
        return confirmed

    def abandon(self) -> list[int]:
        """The tokens of every unconfirmed read: the leadership has ended."""
        return self._tokens + self._waiting
