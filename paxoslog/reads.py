"""Confirmed reads: a leader makes sure that it still leads.

Rules of this file (as Raft's, dissertation section 6.4; quorums as in FPaxos, section 3):

1. A round begins only once the first entry above all that the leader adopted is chosen, with
   everything before it: only then does it know every chosen entry.
2. A round reads at the commit index of its beginning, and is confirmed by an accept quorum that
   answered a heartbeat sent after its beginning: such a quorum shares an acceptor with every
   prepare quorum of a higher ballot, and that one had not promised to obey it before.
3. A number is given to one round only, within a ballot; an answer to an earlier number confirms
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
        """An acceptor has answered a heartbeat that carried this round."""
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
