"""Commands that read a log which its node compacts at that moment."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import replog
from replog.log_reader import LogReader
from replog.machine import Record
from tests.cli.conftest import RAFT, SECONDS, Run, make_compacted, state_at

ROOT = Path(__file__).resolve().parents[2]
COMPACT = """
from pathlib import Path
from tests.cli.conftest import compact
compact(Path({directory!r}), {offset})
"""
KEEP_AND_COMPACT = (
    """
import replog
from tests.cli.conftest import RAFT, SECONDS, KeyValue
with replog.open({directory!r}, agreement=RAFT) as log:
    log.attach(KeyValue())
    log.applied().result(SECONDS)
    log.snapshot().result(SECONDS)
"""
    + COMPACT
)
Interrupt = Callable[[Path, str, int, int], list[int]]


@pytest.fixture
def before_batch(monkeypatch: pytest.MonkeyPatch) -> Interrupt:
    """Has another process change a log and compact it to an offset right before so many batches of
    it were read, once; the exit codes of that process."""
    read = LogReader._batches

    def interrupt(directory: Path, program: str, offset: int, batches: int) -> list[int]:
        exits: list[int] = []
        lines = program.format(directory=str(directory), offset=offset)

        def batches_of(reader: LogReader, start: int, stop: int) -> Iterator[list[Record]]:
            for number, batch in enumerate(read(reader, start, stop)):
                yield batch
                if number + 1 == batches:
                    compact_now()

        def compact_now() -> None:
            if not exits:
                command = [sys.executable, "-c", lines]
                exits.append(subprocess.run(command, cwd=ROOT, check=False).returncode)

        def compact_first(reader: LogReader, start: int, stop: int) -> Iterator[list[Record]]:
            compact_now()
            return read(reader, start, stop)

        monkeypatch.setattr(LogReader, "_batches", batches_of if batches else compact_first)
        return exits

    return interrupt


@pytest.mark.parametrize(
    "command", [("export",), ("tail", "-n", "100", "--json"), ("replay", "--json")]
)
def test_without_a_start_a_command_begins_with_what_is_left(
    run: Run, tmp_path: Path, before_batch: Interrupt, command: tuple[str, ...]
) -> None:
    directory = make_compacted(tmp_path / "n1")
    name, *options = command
    exits = before_batch(directory, COMPACT, 20, 0)
    result = run(name, directory, *options)
    assert result.exit_code == 0, result.output
    assert [json.loads(line)["offset"] for line in result.stdout.splitlines()] == [*range(20, 30)]
    assert exits == [0]


def test_an_export_tells_where_it_began(run: Run, tmp_path: Path, before_batch: Interrupt) -> None:
    directory = make_compacted(tmp_path / "n1")
    exits = before_batch(directory, COMPACT, 20, 0)
    fields = json.loads(run("export", directory, "-o", tmp_path / "file", "--json").stdout)
    assert (fields["records"], fields["from"], fields["to"]) == (10, 20, 30)
    assert exits == [0]


def test_a_machine_begins_with_a_newer_snapshot(
    run: Run, tmp_path: Path, before_batch: Interrupt
) -> None:
    directory = make_compacted(tmp_path / "n1")
    exits = before_batch(directory, KEEP_AND_COMPACT, 25, 0)
    result = run("replay", directory, "--machine", "replog.machines:KeyValue", "--json")
    assert result.exit_code == 0, result.output
    fields = json.loads(result.stdout)
    assert (fields["from"], fields["records"], fields["digest"]) == (30, 0, state_at(30))
    assert exits == [0]


@pytest.mark.parametrize(
    "command", [("export", "--from", "15"), ("tail", "--from", "15"), ("replay", "--from", "15")]
)
def test_a_start_that_was_stated_and_is_gone_is_told(
    run: Run, tmp_path: Path, before_batch: Interrupt, command: tuple[str, ...]
) -> None:
    directory = make_compacted(tmp_path / "n1")
    exits = before_batch(directory, COMPACT, 20, 0)
    name, *options = command
    result = run(name, directory, *options)
    assert result.exit_code == 2
    assert result.stderr == (
        f"replog {name}: OffsetOutOfRange: offset 15 is out of range: this log holds offsets 20 to "
        "29; what lies below is compacted\n"
    )
    assert exits == [0]


@pytest.mark.parametrize("name", ["export", "tail", "replay"])
def test_what_goes_while_it_is_read_is_told_with_what_is_left(
    run: Run, tmp_path: Path, before_batch: Interrupt, name: str
) -> None:
    directory = tmp_path / "n1"
    with replog.open(directory, agreement=RAFT) as log:
        for _ in range(12):
            log.append(bytes(400_000)).result(SECONDS)
        log.snapshot().result(SECONDS)
    exits = before_batch(directory, COMPACT, 10, 1)
    result = run(name, directory, *(["-n", "100"] if name == "tail" else []))
    assert exits == [0]
    assert result.exit_code == 2
    assert f"replog {name}: OffsetOutOfRange: offset" in result.stderr
    assert "this log holds offsets 10 to 11; what lies below is compacted\n" in result.stderr
