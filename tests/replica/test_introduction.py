"""Identity: a node id is bound to the store it first showed, and a wiped disk never votes."""

from __future__ import annotations

import pytest

from replog.errors import IdentityRefused
from replog.messages import Met, Refused
from replog.replica.introduction import Introduction
from replog.store.interface import Identity, Peer

OWN = Identity(b"c" * 16, "n1", "raft", b"own store id 123", 100)


def fresh(others: int) -> Introduction:
    return Introduction(OWN, [f"n{2 + n}" for n in range(others)], {}, done=False)


@pytest.mark.parametrize(("others", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (6, 4)])
def test_a_fresh_store_needs_a_majority_of_the_other_members(others: int, needed: int) -> None:
    introduction = fresh(others)
    for number in range(needed):
        assert not introduction.done
        introduction.met(f"n{2 + number}", Met(OWN.store_id))
        introduction.met(f"n{2 + number}", Met(OWN.store_id))
    assert introduction.done
    assert introduction.take_newly_done()
    assert not introduction.take_newly_done()


def test_a_node_alone_needs_nobody() -> None:
    assert fresh(0).done


def test_an_answer_to_another_store_id_counts_nothing() -> None:
    introduction = fresh(1)
    introduction.met("n2", Met(b"the one before.."))
    assert not introduction.done


def test_introductions_go_on_until_they_are_answered() -> None:
    introduction = fresh(3)
    assert [to for to, _ in introduction.meetings(0)] == ["n2", "n3", "n4"]
    assert introduction.meetings(1) == []
    introduction.met("n3", Met(OWN.store_id))
    assert introduction.deadline is not None
    assert [to for to, _ in introduction.meetings(introduction.deadline)] == ["n2", "n4"]


def test_the_first_store_id_is_bound_and_another_refused() -> None:
    introduction = fresh(2)
    assert introduction.admit("n2", b"a" * 16, 5) is None
    assert introduction.take_changes() == {"n2": Peer(b"a" * 16, 5)}
    refusal = introduction.admit("n2", b"b" * 16, 6)
    assert refusal is not None
    assert "lost its data" in refusal.reason
    assert introduction.take_changes() is None


def test_a_later_life_is_remembered_and_an_earlier_one_refused() -> None:
    introduction = Introduction(OWN, ["n2"], {"n2": Peer(b"a" * 16, 5)}, done=True)
    assert introduction.admit("n2", b"a" * 16, 7) is None
    assert introduction.take_changes() == {"n2": Peer(b"a" * 16, 7)}
    refusal = introduction.admit("n2", b"a" * 16, 6)
    assert refusal is not None
    assert "copy" in refusal.reason


def test_a_node_stops_only_when_its_own_life_is_refused() -> None:
    introduction = fresh(1)
    introduction.refused("n2", Refused(OWN.store_id, OWN.life - 1, "an earlier life"))
    introduction.refused("n2", Refused(b"x" * 16, OWN.life, "another store"))
    with pytest.raises(IdentityRefused, match="n2 refuses this node: because"):
        introduction.refused("n2", Refused(OWN.store_id, OWN.life, "because"))
