"""The judge of all members together: what has ever been shown, and what must then hold.

The past is part of a state: two states with one future but different pasts are two, else a rule
about all of time could not be checked where their paths meet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from replog.entry import Epoch
from replog.testing.violation import Violation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replog.quorum import Quorums
    from replog.testing.exploration.member import Facts, Image, Value


class Past(NamedTuple):
    """What members have shown so far."""

    leaders: frozenset[tuple[Epoch, str, int]] = frozenset()
    """Which node has led which epoch, in which of its lives."""
    committed: tuple[Value, ...] = ()
    """What was committed anywhere, from index 1 on."""

    def then(self, facts: Facts, *, by_number: bool) -> Past:
        """The past once a member has shown this. Raises `Violation` when they cannot both be."""
        return Past(self._leaders(facts, by_number=by_number), self._committed(facts))

    def _leaders(self, facts: Facts, *, by_number: bool) -> frozenset[tuple[Epoch, str, int]]:
        leads = facts.leads
        if leads is None or leads in self.leaders:
            return self.leaders
        epoch, node, life = leads
        if epoch.node != node:
            raise Violation(f"{node} leads {epoch}")
        for led, other, its_life in self.leaders:
            if led == epoch or (by_number and led.number == epoch.number):
                raise Violation(
                    f"{epoch} is led by {node} (life {life}), {led} by {other} (life {its_life})"
                )
        return self.leaders | {leads}

    def _committed(self, facts: Facts) -> tuple[Value, ...]:
        shorter, longer = sorted([self.committed, facts.committed], key=len)
        for index, (one, other) in enumerate(zip(shorter, longer, strict=False), start=1):
            if one != other:
                raise Violation(f"entry {index} is committed as {one} and as {other}")
        return longer

    def check_disks(self, disks: Mapping[str, Image], quorums: Quorums) -> None:
        """What is committed lies on the disks of a commit quorum, from then on. Raises `Violation`
        when it does not."""
        for index, value in enumerate(self.committed, start=1):
            holders = {
                node
                for node, disk in disks.items()
                if any(entry.index == index and entry.value == value for entry in disk.entries)
            }
            if not quorums.can_commit(holders):
                raise Violation(
                    f"entry {index} is committed as {value}, but only {sorted(holders)} have it "
                    f"on disk"
                )
