"""Quorums against brute force: every electing set meets every committing one."""

from __future__ import annotations

from itertools import chain, combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replog.errors import ConfigError, PeerFault
from replog.membership import Membership, cluster_id, decode_membership
from replog.quorum import majorities, majority, sized

NODES = ["a", "b", "c", "d", "e", "f"]


def subsets(voters: set[str]) -> list[set[str]]:
    sizes = range(len(voters) + 1)
    return [set(some) for some in chain(*[combinations(sorted(voters), n) for n in sizes])]


@pytest.mark.parametrize("count", range(1, 7))
@pytest.mark.parametrize("elect", range(-1, 8))
@pytest.mark.parametrize("commit", range(-1, 8))
def test_quorums_are_allowed_exactly_when_they_meet(count: int, elect: int, commit: int) -> None:
    """Flexible Paxos, section 3: only election and commit quorums must intersect."""
    voters = set(NODES[:count])
    in_range = 0 < elect <= count and 0 < commit <= count
    sets = subsets(voters)
    meet = in_range and all(
        one & other for one in sets if len(one) >= elect for other in sets if len(other) >= commit
    )
    if meet:
        quorums = sized(voters, elect, commit)
        assert all(quorums.can_elect(some) == (len(some) >= elect) for some in sets)
        assert all(quorums.can_commit(some) == (len(some) >= commit) for some in sets)
    else:
        with pytest.raises(ConfigError):
            sized(voters, elect, commit)


@given(st.dictionaries(st.sampled_from([*NODES, "stranger"]), st.integers(0, 20)))
def test_the_committed_position_is_the_highest_that_a_quorum_reached(
    positions: dict[str, int],
) -> None:
    for count in range(1, 7):
        quorums = majorities(set(NODES[:count]))
        expected = max(
            at
            for at in range(21)
            if quorums.can_commit({node for node in positions if positions[node] >= at}) or at == 0
        )
        assert quorums.committed(positions) == expected


def test_strangers_count_nothing() -> None:
    quorums = majorities({"a", "b", "c"})
    assert not quorums.can_elect({"a", "x", "y", "z"})
    assert quorums.can_elect({"a", "x", "b"})


def test_a_majority_is_more_than_half() -> None:
    assert [majority(count) for count in range(1, 8)] == [1, 2, 2, 3, 3, 4, 4]


def test_a_membership_is_the_same_bytes_for_the_same_value() -> None:
    membership = Membership(majorities({"b", "a", "c"}))
    assert membership.encode() == Membership(majorities({"c", "b", "a"})).encode()
    assert decode_membership(membership.encode()) == membership
    for data in (b"", b"\xc0", membership.encode()[:-1], membership.encode() + b"\x00"):
        with pytest.raises(PeerFault):
            decode_membership(data)


def test_clusters_differ_by_agreement_quorums_members_and_name() -> None:
    five = set("abcde")
    ids = {
        cluster_id(agreement, membership, name)
        for agreement in ("raft", "paxos")
        for membership in (
            Membership(majorities(five)),
            Membership(sized(five, 4, 2)),
            Membership(majorities(set("abc"))),
        )
        for name in ("", "other")
    }
    assert len(ids) == 12
