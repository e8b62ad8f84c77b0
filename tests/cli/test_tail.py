"""`replog tail`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run, make_log
from tests.each_agreement import make_agreement


@pytest.fixture
def directory(tmp_path: Path, agreement: str) -> Path:
    records = [b"record %d" % number for number in range(20)]
    return make_log(tmp_path / "n1", *records, layer=make_agreement(agreement))


def offsets(run: Run, *arguments: object) -> list[int]:
    result = run("tail", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return [json.loads(line)["offset"] for line in result.stdout.splitlines()]


def test_the_range_that_is_shown(run: Run, directory: Path) -> None:
    assert offsets(run, directory) == list(range(10, 20))
    assert offsets(run, directory, "-n", 3) == [17, 18, 19]
    assert offsets(run, directory, "-n", 0) == []
    assert offsets(run, directory, "-n", 99) == list(range(20))
    assert offsets(run, directory, "--from", 15) == list(range(15, 20))
    assert offsets(run, directory, "--from", 20) == []
    assert offsets(run, directory, "--from", 3, "--to", 6) == [3, 4, 5]
    assert offsets(run, directory, "--to", 6, "-n", 2) == [4, 5]
    assert offsets(run, directory, "--to", 0) == []
    assert offsets(run, directory, "--from", 18, "--to", 20, "--follow") == [18, 19]


def test_an_offset_beyond_the_end_is_named(run: Run, directory: Path) -> None:
    for option in ("--from", "--to"):
        result = run("tail", directory, option, 21)
        assert result.exit_code == 2
        assert "OffsetOutOfRange: offset 21 is out of range: this log holds offsets 0 to 19" in (
            result.stderr
        )


def test_an_empty_log_shows_nothing(run: Run, tmp_path: Path) -> None:
    assert offsets(run, make_log(tmp_path / "empty")) == []


def test_forms(run: Run, tmp_path: Path) -> None:
    directory = make_log(
        tmp_path / "n1", b"plain", "\u00fc".encode(), b"\xff\x00", b"\x1b[31mred\n"
    )
    text = run("tail", directory).stdout
    assert text == "0\tplain\n1\t\u00fc\n2\t\\xff\\x00\n3\t\\x1b[31mred\\x0a\n"
    raw = run("tail", directory, "--raw").stdout_bytes
    assert raw == b"plain\n\xc3\xbc\n\xff\x00\n\x1b[31mred\n\n"
    rows = [json.loads(line) for line in run("tail", directory, "--json").stdout.splitlines()]
    assert [row.get("data") for row in rows] == ["plain", "\u00fc", None, "\x1b[31mred\n"]
    assert rows[2]["base64"] == "/wA="
    assert all(row["timestamp_ms"] > 1_600_000_000_000 for row in rows)


def test_wrong_usage(run: Run, directory: Path, tmp_path: Path) -> None:
    for arguments, says in (
        ((directory, "-n", 1, "--from", 1), "give -n or --from, not both"),
        ((directory, "--raw", "--json"), "give --raw or --json, not both"),
        ((directory, "-n", -1), "-1 is not in the range"),
        ((tmp_path / "none",), "holds no store"),
        ((), "Missing argument 'DIR'"),
    ):
        result = run("tail", *arguments)
        assert result.exit_code == 2
        assert says in result.stderr
