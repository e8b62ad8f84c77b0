"""The rule of exactly-once delivery."""

from __future__ import annotations

import pytest

from replog.entry import Run
from replog.producers import ProducerRow, Producers

ROWS = {"n1": ProducerRow(life=5, next_sequence=10)}


def run(node: str, life: int, first_sequence: int, count: int = 3) -> Run:
    return Run(node, life, first_sequence, count, size=100)


@pytest.mark.parametrize(
    ("offered", "row"),
    [
        (run("n1", 5, 10), ProducerRow(5, 13)),
        (run("n1", 6, 0), ProducerRow(6, 3)),
        (run("n2", 1, 0), ProducerRow(1, 3)),
    ],
    ids=["next of this life", "first of a higher life", "first of a new node"],
)
def test_a_run_that_follows_is_accepted_and_its_row_moves_on(offered: Run, row: ProducerRow):
    producers = Producers(ROWS)
    assert producers.accept(offered)
    assert producers.rows[offered.node] == row


@pytest.mark.parametrize(
    "offered",
    [
        run("n1", 5, 7),
        run("n1", 5, 9),
        run("n1", 5, 11),
        run("n1", 5, 0),
        run("n1", 6, 10),
        run("n1", 4, 0),
        run("n1", 4, 10),
        run("n2", 1, 1),
    ],
    ids=[
        "repeated",
        "overlapping",
        "with a gap",
        "first of this life again",
        "higher life, not its first",
        "lower life's first",
        "lower life",
        "new node, not its first",
    ],
)
def test_any_other_run_is_skipped_and_changes_nothing(offered: Run):
    producers = Producers(ROWS)
    assert not producers.accept(offered)
    assert producers.rows == ROWS


def test_copies_and_snapshots_do_not_move_with_the_table():
    producers = Producers(ROWS)
    copy, snapshot = producers.copy(), producers.snapshot()
    assert producers.accept(run("n1", 5, 10))
    assert copy.rows == snapshot == ROWS
    assert copy.accept(run("n1", 5, 10))
