"""`replog append`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from replog.cli.append import LINE_BYTES_MAX
from replog.log_reader import LogReader
from tests.cli.conftest import SECONDS, Run, make_log, make_member, served
from tests.each_agreement import make_agreement

ROOT = Path(__file__).resolve().parents[2]


def records_in(directory: Path) -> list[bytes]:
    with LogReader(directory) as reader:
        return [record.data for record in reader.records()]


def test_lines_go_through_the_running_node(run: Run, tmp_path: Path, agreement: str) -> None:
    lines = tmp_path / "lines"
    lines.write_bytes(b"one\n\ntwo\r\nlast without newline")
    with served(tmp_path / "n1", make_agreement(agreement)) as (log, _):
        assert log.append(b"before").result(SECONDS) == 0
        result = run("append", tmp_path / "n1", lines, "--json")
        found = [record.data for record in log.read()]
    assert result.exit_code == 0, result.output
    assert found == [b"before", b"one", b"", b"two\r", b"last without newline"]
    tally = json.loads(result.stdout)
    assert tally.pop("seconds") >= 0
    assert tally == {
        "records": 4,
        "first_offset": 1,
        "last_offset": 4,
        "refused": 0,
        "unplaced": 0,
        "unknown": 0,
    }


def test_standard_input_is_the_default(run: Run, tmp_path: Path) -> None:
    with served(tmp_path / "n1") as (log, _):
        result = run("append", tmp_path / "n1", standard_input=b"a\nb\n")
        assert [record.data for record in log.read()] == [b"a", b"b"]
    assert "appended 2 records at offsets 0 to 1" in result.stdout


def test_many_lines_keep_their_order(run: Run, tmp_path: Path) -> None:
    lines = [b"line %d" % number for number in range(50_000)]
    with served(tmp_path / "n1"):
        result = run("append", tmp_path / "n1", standard_input=b"\n".join(lines))
    assert result.exit_code == 0, result.output
    assert records_in(tmp_path / "n1") == lines


def test_a_batch_is_one_run(run: Run, tmp_path: Path) -> None:
    with served(tmp_path / "n1"):
        result = run("append", tmp_path / "n1", "--batch=3", standard_input=b"a\nb\nc\nd\ne\nf\ng")
    assert result.exit_code == 0, result.output
    with LogReader(tmp_path / "n1") as reader:
        entries = [entry for _, entry in reader.entries(0, 7)]
    assert [run.count for entry in entries for run in entry.runs] == [3, 3, 1]


def test_where_no_node_runs_a_log_of_one_node_is_opened(
    run: Run, tmp_path: Path, agreement: str
) -> None:
    make_log(tmp_path / "n1", b"before", layer=make_agreement(agreement))
    result = run("append", tmp_path / "n1", "--json", standard_input=b"a\nb\n")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["first_offset"] == 1
    assert records_in(tmp_path / "n1") == [b"before", b"a", b"b"]


def test_a_member_of_a_cluster_is_not_opened(run: Run, tmp_path: Path) -> None:
    result = run("append", make_member(tmp_path / "n1"), standard_input=b"a\n")
    assert result.exit_code == 2
    assert "belongs to n1, one of 3 members, and no node runs there" in result.stderr


def test_a_place_without_a_store_is_named_and_left_alone(run: Run, tmp_path: Path) -> None:
    result = run("append", tmp_path / "none", standard_input=b"a\n")
    assert result.exit_code == 2
    assert (
        f"WrongStore: {tmp_path / 'none'} holds no store, and no node runs there" in result.stderr
    )
    assert not (tmp_path / "none").exists()


def test_a_line_that_no_record_can_hold(run: Run, tmp_path: Path) -> None:
    lines = b"short\n" + b"x" * (LINE_BYTES_MAX + 1) + b"\nafter\n"
    with served(tmp_path / "n1") as (log, _):
        result = run("append", tmp_path / "n1", "--json", standard_input=lines)
        found = [record.data for record in log.read()]
    assert result.exit_code == 1
    tally, error = map(json.loads, result.stdout.splitlines())
    assert (tally["records"], found) == (1, [b"short"])
    assert error["error"] == "TooLarge"
    assert f"a line of more than {LINE_BYTES_MAX} bytes" in result.stderr


def test_a_line_from_a_pipe_is_appended_before_the_next_one_comes(tmp_path: Path) -> None:
    directory = make_log(tmp_path / "n1")
    command = [sys.executable, "-m", "replog", "append", str(directory)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin
        for line in ("first", "second"):
            child.stdin.write(f"{line}\n")
            child.stdin.flush()
            give_up = time.monotonic() + SECONDS
            while records_in(directory)[-1:] != [line.encode()]:
                assert time.monotonic() < give_up, f"{line} was not appended"
                time.sleep(0.01)
        output, _ = child.communicate(timeout=SECONDS)
    assert child.returncode == 0
    assert output.startswith("appended 2 records at offsets 0 to 1 in ")
