"""Comparison of machines: one that comes to another state than a majority's is seen, and stops.

Rules of this file:

1. Digests are compared at agreed offsets: the multiples of `machine_digest_records`. A node whose
   digests are dear takes them at the multiples of twice that, four times, and so on. So whoever
   takes fewer takes them where the others do too.
2. Every node sends each digest to every other one, and its own to whoever says another: so one that
   was not there hears it.
3. Every node judges itself, and nobody else: its machine stops when members that can both elect and
   commit, of which there are no two sets apart, all have one other digest.
4. Without such a majority on either side nobody stops; an alarm is raised.
5. Of each node the last two digests are kept for each highest power of two that divides an offset.
   So however far two machines are apart, there are offsets that both come to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replog.errors import PeerFault
from replog.messages import MachineDigest

if TYPE_CHECKING:
    from collections.abc import Sequence, Set

    from replog.membership import Membership

DIGEST_BYTES = 16
KEPT_PER_POWER = 2
DIGEST_SHARE_MAX = 0.02
"""Of the time of a machine's thread."""
DIGEST_SECONDS_CHEAP = 0.001
"""A digest that takes less is taken at every agreed offset."""


class DigestSchedule:
    """At which offsets a node asks its machine for a digest: every `interval` records. See rule 1.

    What a digest costs, in time of the machine's thread, is at most about 2 % of the time until the
    next one: so the interval is as many times doubled as that needs, judged by the time that
    records took of late.
    """

    def __init__(self, records: int) -> None:
        self._records = records
        self.interval = records

    def next_offset(self, offset: int) -> int:
        """The first one beyond this offset."""
        return offset - offset % self.interval + self.interval

    def taken(self, seconds: float, records: int, elapsed: float) -> None:
        """A digest took `seconds`; since the one before, `records` came in `elapsed` seconds."""
        self.interval = self._records
        if seconds < DIGEST_SECONDS_CHEAP:
            return
        wanted = seconds / DIGEST_SHARE_MAX * max(records, 1) / max(elapsed, seconds)
        while self.interval < wanted:
            self.interval *= 2


class MachineComparison:
    """What one node knows of all machines. It decides nothing about the log."""

    def __init__(self, node: str, membership: Membership) -> None:
        self._node = node
        self._membership = membership
        self._digests = {member: _Digests() for member in membership.voters}
        self._unsent: list[tuple[str, MachineDigest]] = []
        self._compared_offset = 0
        self._verdict = ""
        self.alarm = ""
        """Empty, or who differs from whom where no majority says who is right."""

    def taken(self, offset: int, digest: bytes) -> None:
        """The digest of this node's machine when it has taken every record below `offset`."""
        self._digests[self._node].put(offset, digest)
        told = MachineDigest(offset, digest)
        self._unsent += [(other, told) for other in self._membership.others(self._node)]
        self._judge(offset)

    def heard(self, sender: str, message: MachineDigest) -> None:
        """The digest of another node's machine. Raises `PeerFault` for one that none can have."""
        offset, digest = message
        if not offset or len(digest) != DIGEST_BYTES:
            raise PeerFault(f"a machine's digest of {len(digest)} bytes at offset {offset}")
        if self._digests[sender].get(offset) == digest:
            return
        self._digests[sender].put(offset, digest)
        own = self._digests[self._node].get(offset)
        if own is not None and own != digest:
            self._unsent.append((sender, MachineDigest(offset, own)))
        self._judge(offset)

    def take_messages(self) -> Sequence[tuple[str, MachineDigest]]:
        """What to send."""
        unsent, self._unsent = self._unsent, []
        return unsent

    def take_verdict(self) -> str:
        """Why this node's machine must stop, once; else empty."""
        verdict, self._verdict = self._verdict, ""
        return verdict

    def _judge(self, offset: int) -> None:
        at_offset = {node: digests.get(offset) for node, digests in self._digests.items()}
        known = {node: digest for node, digest in at_offset.items() if digest is not None}
        own = known.get(self._node)
        if own is None or len(known) == 1:
            return
        holders: dict[bytes, set[str]] = {}
        for node, digest in known.items():
            holders.setdefault(digest, set()).add(node)
        right = [digest for digest, nodes in holders.items() if self._is_majority(nodes)]
        if right and right[0] != own:
            others = ", ".join(sorted(holders[right[0]]))
            self._verdict = (
                f"it differs from the machines of a majority ({others}) in what came of the "
                f"records below offset {offset}"
            )
        if offset >= self._compared_offset:
            self._compared_offset = offset
            self.alarm = ""
            if len(holders) > 1 and not right:
                sides = " against ".join(
                    sorted([" ".join(sorted(side)) for side in holders.values()])
                )
                self.alarm = f"machines differ at offset {offset}, with no majority: {sides}"

    def _is_majority(self, nodes: Set[str]) -> bool:
        quorums = self._membership.quorums
        return quorums.can_elect(nodes) and quorums.can_commit(nodes)


class _Digests:
    """The latest digests of one node. See rule 5."""

    def __init__(self) -> None:
        self._by_power: dict[int, dict[int, bytes]] = {}

    def put(self, offset: int, digest: bytes) -> None:
        """The latest, be it of a lower offset: of a machine that began again."""
        kept = self._by_power.setdefault(offset & -offset, {})
        kept.pop(offset, None)
        kept[offset] = digest
        if len(kept) > KEPT_PER_POWER:
            del kept[next(iter(kept))]

    def get(self, offset: int) -> bytes | None:
        """None when it is not kept."""
        return self._by_power.get(offset & -offset, {}).get(offset)
