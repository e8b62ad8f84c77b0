"""A node's own records: runs are fixed once, offered again as they were, and never hang."""

from __future__ import annotations

from random import Random

import pytest

from replog.config import Limits
from replog.entry import Run, pack_run
from replog.errors import InvariantBroken
from replog.producers import Producers
from replog.replica.intake import Intake
from replog.replica.origin import Origin

LIMITS = Limits(forward_runs_max=4, entry_bytes_max=1000, forward_bytes_max=3000)


def origin_of(records: int, leader: str | None = "n2") -> Origin:
    origin = Origin("n1", 9, LIMITS)
    origin.follow(leader)
    for number in range(records):
        body = pack_run([b"%d" % number])
        origin.submit_run(body, 1, number)
    return origin


def sequences(origin: Origin, now: int) -> list[tuple[int, ...]]:
    return [
        tuple(range(message.first_sequence, message.first_sequence + sum(message.counts)))
        for _, message, _ in origin.forwards(now)
    ]


def test_at_most_a_window_of_runs_is_under_way() -> None:
    origin = origin_of(10)
    assert sequences(origin, 0) == [(0, 1, 2, 3)]
    assert sequences(origin, 1) == []
    origin.delivered(2, Run("n1", 9, 0, 1, 4), 50)
    assert sequences(origin, 3) == [(4,)]


def test_without_progress_one_message_leaves_again_and_then_nothing_until_a_sign() -> None:
    origin = origin_of(10)
    origin.forwards(0)
    due = origin.deadline
    assert due is not None
    assert sequences(origin, due) == [(0, 1, 2, 3)]
    assert sequences(origin, due + 1) == []
    assert origin.deadline is not None
    assert origin.deadline > due


def test_expected_makes_the_missing_runs_leave_again_once() -> None:
    origin = origin_of(4)
    origin.forwards(0)
    origin.expected(2)
    assert sequences(origin, 1) == [(2, 3)]
    origin.expected(2)
    assert sequences(origin, 2) == []


def test_a_new_leader_gets_everything_that_is_not_delivered() -> None:
    origin = origin_of(4)
    origin.forwards(0)
    origin.delivered(1, Run("n1", 9, 0, 1, 4), 0)
    origin.follow("n3")
    assert [(to, message.first_sequence) for to, message, _ in origin.forwards(2)] == [("n3", 1)]


def test_without_a_leader_nothing_leaves_and_no_timer_runs() -> None:
    origin = origin_of(4, leader=None)
    assert sequences(origin, 0) == []
    assert origin.deadline is None


def test_a_redirection_is_followed_at_most_once_a_period() -> None:
    origin = origin_of(1)
    origin.forwards(0)
    for _ in range(3):
        origin.redirect(1, "n2", ["n3"])
    assert [to for to, _, _ in origin.forwards(1)] == ["n3"]
    origin.redirect(2, "n3", ["n2"])
    assert sequences(origin, 2) == []


def test_who_was_sent_astray_finds_the_way_back() -> None:
    """The one that an old answer named does not lead either (simulated: Raft 207837)."""
    origin = origin_of(1)
    origin.redirect(1, "n2", ["n3", "n2"])
    later = 1 + LIMITS.retry_ms
    origin.redirect(later, "n3", ["n2", "n2"])
    assert [to for to, _, _ in origin.forwards(later)] == ["n2"]


@pytest.mark.parametrize("named", [None, "n1", "n3"])
def test_whoever_knows_no_better_sends_a_node_to_whom_its_own_core_follows(
    named: str | None,
) -> None:
    origin = origin_of(1)
    origin.redirect(1, "n2", ["n3", "n2"])
    later = 1 + LIMITS.retry_ms
    origin.redirect(later, "n3", [named, "n2"])
    assert [to for to, _, _ in origin.forwards(later)] == ["n2"]


def test_only_whom_a_node_forwards_to_can_redirect_it() -> None:
    origin = origin_of(1)
    origin.redirect(1, "n3", ["n4", "n2"])
    assert [to for to, _, _ in origin.forwards(1)] == ["n2"]


def test_a_run_larger_than_the_window_leaves_alone() -> None:
    origin = Origin("n1", 9, LIMITS)
    origin.follow("n2")
    for ticket in range(2):
        origin.submit_run(pack_run([bytes(5000)]), 1, ticket)
    assert sequences(origin, 0) == [(0,)]


def test_single_records_are_gathered_into_runs_no_larger_than_an_entry() -> None:
    origin = Origin("n1", 9, LIMITS)
    origin.follow("n2")
    records = [bytes(100) for _ in range(25)]
    origin.submit_records(records, list(range(25)), 2500)
    taken = []
    while (own := origin.next_run(LIMITS.run_bytes_max)) is not None:
        taken.append(own)
    assert [own.run.count for own in taken] == [9, 9, 7]
    assert [ticket for own in taken for ticket in own.tickets] == list(range(25))
    assert origin.waiting_bytes == 0


def test_delivery_out_of_turn_is_a_fault_of_this_program() -> None:
    origin = origin_of(2)
    origin.forwards(0)
    with pytest.raises(InvariantBroken):
        origin.delivered(1, Run("n1", 9, 1, 1, 4), 0)


@pytest.mark.parametrize("seed", range(50))
def test_whatever_is_lost_or_doubled_the_leader_takes_each_record_once_in_order(
    seed: int,
) -> None:
    """Go-back-N against the intake: the same rule judges at delivery."""
    random = Random(seed)
    sizes = [random.randrange(400) for _ in range(random.randrange(1, 60))]
    origin = Origin("n1", 9, LIMITS)
    origin.follow("n2")
    for ticket, size in enumerate(sizes):
        origin.submit_records([bytes([ticket]) * size], [ticket], size)
    intake = Intake(LIMITS)
    intake.open(Producers({}))
    silent = Origin("n2", 9, LIMITS)
    completed: list[int] = []
    now = 0
    while len(completed) < len(sizes):
        now = origin.deadline if origin.deadline is not None else now + 1
        for _, message, bodies in origin.forwards(now):
            if random.random() < 0.5:
                continue
            sequence = message.first_sequence
            for count, body in zip(message.counts, bodies, strict=True):
                intake.take(Run("n1", 9, sequence, count, len(body)), body)
                sequence += count
            origin.expected(intake.expected("n1", 9))
        assert now < 1_000_000, "an append hangs"
        for taken in intake.fill(silent):
            completed += origin.delivered(now, taken.run, len(completed)).tickets
    assert completed == list(range(len(sizes)))
