"""One seed is one run: event by event, in every process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from raftlog import Raft
from replog.testing import simulate

ROOT = Path(__file__).resolve().parents[2]
SEEDS = range(8)
PROGRAM = f"""
from raftlog import Raft
from replog.testing import simulate
print(*[simulate(seed, Raft()).digest for seed in {SEEDS!r}])
"""


def digests(hash_seed: str) -> list[str]:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return run.stdout.split()


def test_hash_seeds_change_nothing() -> None:
    here = [simulate(seed, Raft()).digest for seed in SEEDS]
    assert digests("1") == digests("4294967295") == here


def test_seeds_differ() -> None:
    assert len({simulate(seed, Raft()).digest for seed in SEEDS}) == len(SEEDS)


def test_printing_the_trace_changes_nothing() -> None:
    lines: list[str] = []
    outcome = simulate(3, Raft(), lines.append)
    assert outcome == simulate(3, Raft())
    assert len(lines) == outcome.tally["events"] > 100


def test_lines_of_the_trace_are_aligned() -> None:
    lines: list[str] = []
    simulate(3, Raft(), lines.append)
    for line in lines:
        assert line[:8].strip().isdigit()
        assert line[8:10] == "  "
        assert line[10:14].split() in (["*"], ["n1"], ["n2"], ["n3"], ["n4"], ["n5"])
        assert line[14:26].split()[0].isalpha()
        assert line[25] == " "
