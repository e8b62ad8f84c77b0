"""`python -m replog.testing` simulates many seeds, and repeats one event by event."""

from __future__ import annotations

import sys

import pytest

from replog.producers import Producers
from replog.testing import __main__ as command
from replog.testing.campaign import run_campaign

AGREEMENTS = ("raft", "paxos")

Patch = pytest.MonkeyPatch
Capture = pytest.CaptureFixture[str]


def run(patch: Patch, *arguments: str) -> int:
    patch.setattr(sys, "argv", ["replog.testing", *arguments])
    return command.main()


@pytest.mark.parametrize("agreement", AGREEMENTS)
def test_a_campaign_ends_with_what_happened(
    agreement: str, monkeypatch: Patch, capsys: Capture
) -> None:
    assert run(monkeypatch, "--agreement", agreement, "--seeds", "3", "--first", "7") == 0
    first, hours, *counts = capsys.readouterr().out.splitlines()
    assert first.startswith("3 of 3 seeds, ")
    assert first.endswith(" a minute, 0 failed")
    assert hours.endswith(" hours of clusters simulated")
    counted = {name.strip(): int(count.replace(",", "")) for name, count in map(halves, counts)}
    assert counted["frames"] > 100
    assert counted["acknowledged"] > 10


def halves(line: str) -> tuple[str, str]:
    name, _, count = line.rpartition(" ")
    return name, count


def test_several_processes_find_the_same() -> None:
    *_, alone = run_campaign("raft", range(12), processes=1)
    *_, together = run_campaign("raft", range(12), processes=2)
    assert alone == together
    assert alone.seeds == 12


@pytest.mark.parametrize("agreement", AGREEMENTS)
def test_a_failing_seed_is_told_and_repeated(
    agreement: str, monkeypatch: Patch, capsys: Capture
) -> None:
    monkeypatch.setattr(Producers, "accept", lambda *_: False)
    assert run(monkeypatch, "--agreement", agreement, "--seeds", "1") == 1
    failure = f"repeat: python -m replog.testing --agreement {agreement} --seed 0 --shrink"
    assert failure in capsys.readouterr().out.splitlines()
    assert run(monkeypatch, "--agreement", agreement, "--seed", "0", "--trace") == 1
    *trace, reason, repeat = capsys.readouterr().out.splitlines()
    assert len(trace) > 10
    assert reason.startswith("seed 0 at ")
    assert repeat == failure


def test_a_seed_without_failure_tells_its_digest(monkeypatch: Patch, capsys: Capture) -> None:
    assert run(monkeypatch, "--seed", "5") == 0
    assert run(monkeypatch, "--seed", "5", "--agreement", "raft") == 0
    one, other = capsys.readouterr().out.splitlines()
    assert one == other
    assert one.startswith("seed 5: no failure in ")


@pytest.mark.parametrize(
    "arguments",
    [["--seeds", "0"], ["--processes", "0"], ["--trace"], ["--shrink"], ["--agreement", "gossip"]],
)
def test_wrong_usage_is_refused(arguments: list[str], monkeypatch: Patch, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, *arguments)
    assert stopped.value.code == 2
    assert "error:" in capsys.readouterr().err
