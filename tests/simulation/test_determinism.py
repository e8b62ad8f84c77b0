"""One seed is one run: event by event, in every process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from replog.agreements import load_agreement
from replog.testing import simulate

ROOT = Path(__file__).resolve().parents[2]
AGREEMENTS = ("raft", "paxos")
SEEDS = range(8)
PROGRAM = f"""
import sys
from replog.testing import simulate
from replog.agreements import load_agreement
agreement = load_agreement(sys.argv[1])
print(*[simulate(seed, agreement).digest for seed in {SEEDS!r}])
"""


def digests(agreement: str, hash_seed: str) -> list[str]:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, agreement],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return run.stdout.split()


@pytest.mark.parametrize("agreement", AGREEMENTS)
def test_hash_seeds_change_nothing(agreement: str) -> None:
    here = [simulate(seed, load_agreement(agreement)).digest for seed in SEEDS]
    assert digests(agreement, "1") == digests(agreement, "4294967295") == here


def test_seeds_and_agreements_differ() -> None:
    layers = [load_agreement(agreement) for agreement in AGREEMENTS]
    runs = {simulate(seed, layer).digest for seed in SEEDS for layer in layers}
    assert len(runs) == len(SEEDS) * len(layers)


@pytest.mark.parametrize("agreement", AGREEMENTS)
def test_printing_the_trace_changes_nothing(agreement: str) -> None:
    lines: list[str] = []
    outcome = simulate(3, load_agreement(agreement), lines.append)
    assert outcome == simulate(3, load_agreement(agreement))
    assert len(lines) == outcome.tally["events"] > 100


@pytest.mark.parametrize("agreement", AGREEMENTS)
def test_lines_of_the_trace_are_aligned(agreement: str) -> None:
    lines: list[str] = []
    simulate(3, load_agreement(agreement), lines.append)
    for line in lines:
        assert line[:8].strip().isdigit()
        assert line[8:10] == "  "
        assert line[10:14].split() in (["*"], ["n1"], ["n2"], ["n3"], ["n4"], ["n5"])
        assert line[14:26].split()[0].isalpha()
        assert line[25] == " "
