"""The list of planted bugs fits the tree; `python -m tests.planted` looks for each of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.planted.__main__ import BUGS, HEADINGS, ROOT, plant
from tests.planted.bug import Bug

BUGS_MIN = 75


def test_there_are_enough_bugs_and_no_two_are_the_same() -> None:
    assert len(BUGS) >= BUGS_MIN
    assert len({(bug.agreement, bug.name) for bug in BUGS}) == len(BUGS)
    assert len({(bug.agreement, bug.edits) for bug in BUGS}) == len(BUGS)


def test_the_page_has_a_line_for_each_bug() -> None:
    _, _, rows = (ROOT / "docs" / "planted-bugs.md").read_text().partition(HEADINGS)
    listed = [tuple(row.split(" | ")[:3]) for row in rows.splitlines()[2:]]
    assert listed == [(f"| {bug.name}", bug.hazard, bug.agreement) for bug in BUGS]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: f"{bug.agreement}: {bug.name}")
def test_each_bug_fits_the_tree_and_compiles(bug: Bug, tmp_path: Path) -> None:
    for edit in bug.edits:
        (tmp_path / edit.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / edit.path, tmp_path / edit.path)
    plant(bug, tmp_path)
    for path in {edit.path for edit in bug.edits}:
        compile((tmp_path / path).read_text(), path, "exec")
