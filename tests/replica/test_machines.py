"""Comparison of machines: who stops, who raises an alarm, what is kept, and what a digest costs."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replog.errors import PeerFault
from replog.membership import Membership
from replog.messages import MachineDigest
from replog.quorum import majorities, sized
from replog.replica.machines import DIGEST_SHARE_MAX, DigestSchedule, MachineComparison

GOOD, BAD, WORSE = b"g" * 16, b"b" * 16, b"w" * 16
THREE = Membership(majorities({"n1", "n2", "n3"}))
FIVE = Membership(majorities({"n1", "n2", "n3", "n4", "n5"}))


class Nodes:
    """What every node of a cluster knows, and messages that all arrive."""

    def __init__(self, membership: Membership) -> None:
        self.comparisons = {
            node: MachineComparison(node, membership) for node in sorted(membership.voters)
        }
        self.messages = 0

    def taken(self, offset: int, digests: Mapping[str, bytes]) -> None:
        for node, digest in digests.items():
            self.comparisons[node].taken(offset, digest)
        self.exchange()

    def exchange(self, down: Sequence[str] = ()) -> None:
        """Let everything arrive, but at nodes that are down."""
        under_way = True
        while under_way:
            under_way = False
            for sender, comparison in self.comparisons.items():
                for to, message in comparison.take_messages():
                    under_way = True
                    self.messages += 1
                    assert self.messages < 10_000, "they never stop talking"
                    if to not in down and sender not in down:
                        self.comparisons[to].heard(sender, message)

    def verdicts(self) -> dict[str, str]:
        found = {node: comparison.take_verdict() for node, comparison in self.comparisons.items()}
        return {node: verdict for node, verdict in found.items() if verdict}

    def alarms(self) -> set[str]:
        return {comparison.alarm for comparison in self.comparisons.values()}


def test_equal_machines_are_left_alone() -> None:
    nodes = Nodes(THREE)
    for offset in (100, 200, 300):
        nodes.taken(offset, {"n1": GOOD, "n2": GOOD, "n3": GOOD})
    assert (nodes.verdicts(), nodes.alarms()) == ({}, {""})
    assert nodes.messages == 3 * 3 * 2


@pytest.mark.parametrize("wrong", ["n1", "n2", "n3"])
def test_whoever_differs_from_a_majority_stops_and_nobody_else(wrong: str) -> None:
    nodes = Nodes(THREE)
    nodes.taken(100, {node: BAD if node == wrong else GOOD for node in nodes.comparisons})
    verdicts = nodes.verdicts()
    assert list(verdicts) == [wrong]
    right = ", ".join(sorted(THREE.voters - {wrong}))
    assert f"a majority ({right})" in verdicts[wrong]
    assert "below offset 100" in verdicts[wrong]
    assert nodes.comparisons[wrong].take_verdict() == ""
    assert {nodes.comparisons[node].alarm for node in THREE.voters - {wrong}} == {""}


def test_without_a_majority_there_is_an_alarm_until_there_is_one() -> None:
    nodes = Nodes(THREE)
    nodes.taken(100, {"n1": GOOD, "n2": BAD})
    assert nodes.verdicts() == {}
    alarm = "machines differ at offset 100, with no majority: n1 against n2"
    assert [nodes.comparisons[node].alarm for node in ("n1", "n2")] == [alarm, alarm]
    nodes.taken(100, {"n3": GOOD})
    assert list(nodes.verdicts()) == ["n2"]
    assert {nodes.comparisons[node].alarm for node in ("n1", "n3")} == {""}


def test_three_that_all_differ_raise_an_alarm_and_go_on() -> None:
    nodes = Nodes(THREE)
    nodes.taken(100, {"n1": GOOD, "n2": BAD, "n3": WORSE})
    assert nodes.verdicts() == {}
    assert all("n1 against n2 against n3" in alarm for alarm in nodes.alarms())


def test_two_wrong_ones_of_five_stop_even_if_they_agree() -> None:
    nodes = Nodes(FIVE)
    nodes.taken(64, {"n1": BAD, "n2": GOOD, "n3": GOOD, "n4": BAD, "n5": GOOD})
    assert list(nodes.verdicts()) == ["n1", "n4"]


def test_a_commit_quorum_that_is_no_majority_stops_nobody() -> None:
    nodes = Nodes(Membership(sized({"n1", "n2", "n3", "n4", "n5"}, 4, 2)))
    nodes.taken(64, {"n1": BAD, "n2": BAD, "n3": GOOD, "n4": GOOD, "n5": GOOD})
    assert nodes.verdicts() == {}
    nodes.taken(128, {"n1": BAD, "n2": GOOD, "n3": GOOD, "n4": GOOD, "n5": GOOD})
    assert list(nodes.verdicts()) == ["n1"]


def test_one_that_was_not_there_learns_that_it_differs_when_it_begins_again() -> None:
    nodes = Nodes(THREE)
    for node in ("n1", "n2"):
        nodes.comparisons[node].taken(100, GOOD)
    nodes.exchange(down=("n3",))
    assert nodes.messages == 4
    nodes.taken(100, {"n3": BAD})
    assert list(nodes.verdicts()) == ["n3"]
    nodes.comparisons["n3"] = MachineComparison("n3", THREE)
    nodes.taken(100, {"n3": GOOD})
    assert nodes.verdicts() == {}


@given(
    digests=st.lists(
        st.tuples(
            st.sampled_from(sorted(FIVE.voters)), st.integers(1, 8), st.sampled_from([GOOD, BAD])
        ),
        max_size=60,
    )
)
def test_however_digests_come_the_nodes_end_talking(digests: list[tuple[str, int, bytes]]) -> None:
    nodes = Nodes(FIVE)
    for node, offset, digest in digests:
        nodes.taken(offset, {node: digest})
    assert nodes.messages <= 12 * len(digests)


def test_what_is_kept_is_bounded() -> None:
    comparison = MachineComparison("n1", THREE)
    for number in range(1, 5000):
        comparison.taken(number * 3, GOOD)
        comparison.heard("n2", MachineDigest(number * 5, GOOD))
        comparison.take_messages()
    comparison.heard("n3", MachineDigest((1 << 63) - 1, GOOD))
    for digests in comparison._digests.values():
        assert sum(map(len, digests._by_power.values())) <= 2 * 16


@given(
    lag=st.integers(0, 3000),
    powers=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    records=st.integers(1, 100),
)
def test_a_machine_that_lags_is_compared_all_the_same(
    lag: int, powers: tuple[int, int], records: int
) -> None:
    """The first is `lag` digests ahead; each takes only those of its own interval."""
    ahead, behind = MachineComparison("n1", THREE), MachineComparison("n2", THREE)
    for number in range(1, 2 * lag + 200):
        if number % (1 << powers[0]) == 0:
            ahead.taken(number * records, GOOD)
        at = number - lag
        if at > 0 and at % (1 << powers[1]) == 0:
            behind.taken(at * records, BAD)
        for one, other, name in ((ahead, behind, "n1"), (behind, ahead, "n2")):
            for to, message in one.take_messages():
                if to != "n3":
                    other.heard(name, message)
    assert "no majority" in behind.alarm
    assert "no majority" in ahead.alarm


@pytest.mark.parametrize(
    "message", [MachineDigest(0, GOOD), MachineDigest(5, b""), MachineDigest(5, bytes(17))]
)
def test_what_no_machine_can_have_is_a_fault(message: MachineDigest) -> None:
    with pytest.raises(PeerFault):
        MachineComparison("n1", THREE).heard("n2", message)


# --- what a digest costs --------------------------------------------------------------------------


@pytest.mark.parametrize(("offset", "due"), [(0, 100), (1, 100), (99, 100), (100, 200), (250, 300)])
def test_digests_are_taken_at_multiples_of_the_interval(offset: int, due: int) -> None:
    assert DigestSchedule(100).next_offset(offset) == due


def test_a_cheap_digest_is_taken_at_every_agreed_offset() -> None:
    schedule = DigestSchedule(1000)
    schedule.taken(seconds=0.0009, records=1000, elapsed=0.001)
    assert schedule.interval == 1000


def test_a_dear_digest_is_taken_where_others_take_it_too() -> None:
    schedule = DigestSchedule(1000)
    schedule.taken(seconds=0.5, records=1000, elapsed=1.0)  # 25 seconds apart: 25,000 records
    assert schedule.interval == 32_000
    assert schedule.next_offset(70_000) == 96_000
    schedule.taken(seconds=0.5, records=32_000, elapsed=3200.0)  # a log where little happens
    assert schedule.interval == 1000


def test_digests_of_a_state_that_grows_with_the_log_cost_a_few_percent() -> None:
    """A microsecond for each row, about five for each record to take."""
    schedule = DigestSchedule(1 << 16)
    chance = random.Random(1)
    spent = elapsed = 0.0
    offset = 0
    for taken in range(6):
        due = schedule.next_offset(offset)
        took = (due - offset) * 5e-6 * chance.uniform(0.8, 1.2)
        elapsed += took
        assert spent <= 1.5 * DIGEST_SHARE_MAX * elapsed, f"when number {taken} is due"
        schedule.taken(due * 1e-6, due - offset, took)
        spent, offset = spent + due * 1e-6, due
