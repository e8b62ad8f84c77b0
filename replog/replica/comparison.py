"""Comparison of digests: divergence is seen within a second, and whoever is wrong stops.

Rules of this file:

1. The leader asks for the others' digest at an index it has delivered, after each change.
2. The leader judges: whoever differs from a majority stops, itself included.
3. Without a majority of equal digests nobody stops; an alarm is raised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replog.errors import InvariantBroken
from replog.messages import CompareDigest, DigestAnswer, Diverged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replog.membership import Membership
    from replog.replica.delivery import Delivery

COMPARE_INTERVAL_MS = 1000


class Comparison:
    """The leader's view of the others' digests at one index."""

    def __init__(self, node: str, membership: Membership) -> None:
        self._node = node
        self._membership = membership
        self._index = 0
        self._digests: dict[str, bytes] = {}
        self.deadline: int | None = None
        self.alarm = ""

    def schedule(self, now: int, delivery: Delivery, *, leads: bool) -> None:
        """Something was delivered, or the leadership changed."""
        if not leads:
            self.deadline = None
        elif self.deadline is None and delivery.index > self._index:
            self.deadline = now + COMPARE_INTERVAL_MS

    def questions(self, now: int, delivery: Delivery) -> Sequence[tuple[str, CompareDigest]]:
        """What to ask the others now."""
        if self.deadline is None or now < self.deadline:
            return ()
        self.deadline = None
        self._index = delivery.index
        self._digests = {self._node: delivery.digest}
        question = CompareDigest(delivery.index)
        return [(other, question) for other in self._membership.others(self._node)]

    def answered(self, sender: str, message: DigestAnswer) -> Sequence[tuple[str, Diverged]]:
        """Judge with this answer; the verdicts to send. Raises `InvariantBroken` when this node
        itself differs from a majority."""
        if message.index != self._index or not message.digest:
            return ()
        self._digests[sender] = message.digest
        for digest in set(self._digests.values()):
            holders = {node for node, held in self._digests.items() if held == digest}
            if self._membership.quorums.can_commit(holders):
                return self._verdicts(digest, set(self._digests) - holders)
        if len(set(self._digests.values())) > 1:
            self.alarm = f"digests differ at entry {self._index} and no majority agrees"
        return ()

    def _verdicts(self, digest: bytes, wrong: set[str]) -> Sequence[tuple[str, Diverged]]:
        if self._node in wrong:
            raise diverged(Diverged(self._index, digest))
        return [(node, Diverged(self._index, digest)) for node in sorted(wrong)]


def diverged(verdict: Diverged) -> InvariantBroken:
    """The error that stops a node which differs from a majority."""
    return InvariantBroken(
        f"this node's log differs from a majority's at or before entry {verdict.index}: its "
        f"directory must not be used; run `replog verify` on it and report what it finds"
    )
