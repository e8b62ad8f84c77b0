"""Quorums: the only place that counts voters.

Rules of this file:

1. Every set that can elect shares a voter with every set that can commit (Flexible Paxos,
   section 3; for majorities, the Raft dissertation's section 3.4). Checked when built.
2. Acknowledgements are sets of voter ids, never numbers: a repeated or foreign one counts nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from replog.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Set


def majority(members: int) -> int:
    """The smallest number that is more than half of `members`."""
    return members // 2 + 1


class Quorums(NamedTuple):
    """Which sets of voters may decide. Build it with `majorities` or `sized`."""

    voters: frozenset[str]
    elect: int
    """How many voters make an election (Paxos: prepare) quorum."""
    commit: int
    """How many voters make a commit (Paxos: accept) quorum."""

    def can_elect(self, acknowledged: Set[str]) -> bool:
        """Whether these nodes hold an election quorum."""
        return len(self.voters & acknowledged) >= self.elect

    def can_commit(self, acknowledged: Set[str]) -> bool:
        """Whether these nodes hold a commit quorum."""
        return len(self.voters & acknowledged) >= self.commit

    def committed(self, positions: Mapping[str, int]) -> int:
        """The highest position that a commit quorum has reached; a voter not named is at 0."""
        reached = sorted([positions.get(voter, 0) for voter in self.voters], reverse=True)
        return reached[self.commit - 1]


def sized(voters: Set[str], elect: int, commit: int) -> Quorums:
    """Quorums of these sizes. Raises `ConfigError` when two of them might not share a voter."""
    count = len(voters)
    if not count:
        raise ConfigError("a cluster needs at least one voter")
    if not (0 < elect <= count and 0 < commit <= count and elect + commit > count):
        raise ConfigError(
            f"quorums of {elect} to elect and {commit} to commit among {count} voters need not "
            f"share a voter: their sum must exceed {count}"
        )
    return Quorums(frozenset(voters), elect, commit)


def majorities(voters: Set[str]) -> Quorums:
    """Majorities of the voters, for both purposes."""
    size = majority(len(voters))
    return sized(voters, size, size)
