"""Confirmed reads: a leader makes sure that it still leads (dissertation section 6.4).

Rules of this file:

1. A round begins only once an entry of the leader's own term is committed: only then does it know
   every committed entry (6.4, step 1).
2. A round reads at the commit index of its beginning (step 2), and is confirmed by a commit quorum
   that answered a heartbeat sent after its beginning (step 3): such a quorum shares a voter with
   every set that could have elected another leader before.
3. A number is given to one round only, within a term; an answer to an earlier number confirms
   nothing.
4. One round is in flight; reads that arrive meanwhile make the next one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replog.agreement import ReadState

if TYPE_CHECKING:
    from replog.quorum import Quorums


class Reads:
    """The reads of one leadership."""

    __slots__ = ("_acknowledged", "_index", "_tokens", "_waiting", "round")

    def __init__(self) -> None:
        self.round = 0
        """The number of the latest round; 0 before the first."""
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
        self.round += 1
        self._index = commit_index
        self._tokens, self._waiting = self._waiting, []
        self._acknowledged = {node}

    def acknowledge(self, node: str, number: int) -> None:
        """A follower has answered a heartbeat that carried this round."""
        if number == self.round:
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
