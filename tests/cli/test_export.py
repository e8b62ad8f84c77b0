"""`replog export` and `replog import`."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from random import Random

import msgpack
import pytest

from replog.cli.formats import FORMATS, RECORD_BYTES_MAX
from replog.log_reader import LogReader
from replog.machine import Record
from tests.cli.conftest import SECONDS, Run, make_log, make_member, served
from tests.each_agreement import make_agreement

ROOT = Path(__file__).resolve().parents[2]

AWKWARD = [
    b"",
    b"plain",
    b"line\nline\r\n\x00\x7f",
    b'"quoted" \\ \t',
    "\u00fc \u2028 \U0001f40d \ufeff".encode(),
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b'{"data":"nested"}',
    b"\xc0\x80 overlong",
    bytes(range(256)),
    b"x" * 300_000,
    b"\x00" * 5000,
]
"""Records that a format might spoil."""


def records_in(directory: Path) -> list[bytes]:
    with LogReader(directory) as reader:
        return [record.data for record in reader.records()]


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_exported_and_imported_is_the_same_log_again(
    run: Run, tmp_path: Path, agreement: str, form: str
) -> None:
    layer = make_agreement(agreement)
    first, second = make_log(tmp_path / "n1", *AWKWARD, layer=layer), tmp_path / "n2"
    options = ("--format", form)
    exported = run("export", first, *options, "-o", tmp_path / "first")
    assert exported.exit_code == 0, exported.output
    assert exported.stdout.startswith(f"exported {len(AWKWARD)} records, ")
    imported = run("import", second, tmp_path / "first", *options, "--agreement", agreement)
    assert imported.exit_code == 0, imported.output
    assert f"appended {len(AWKWARD)} records at offsets 0 to {len(AWKWARD) - 1}" in imported.stdout
    assert records_in(second) == AWKWARD
    with LogReader(second) as reader:
        assert reader.identity.agreement == agreement
    assert run("export", second, *options, "-o", tmp_path / "second").exit_code == 0
    assert untimed(tmp_path / "second", form) == untimed(tmp_path / "first", form)
    assert len(untimed(tmp_path / "first", form)) == len(AWKWARD)


def untimed(path: Path, form: str) -> list[object]:
    """What a file holds, without the timestamps: each log has its own."""
    if form == "jsonl":
        rows = [json.loads(line) for line in path.read_bytes().splitlines()]
        return [{name: row[name] for name in row if name != "timestamp_ms"} for row in rows]
    with path.open("rb") as file:
        return [(offset, data) for offset, _, data in msgpack.Unpacker(file)]


def test_the_form_of_the_two_formats(run: Run, tmp_path: Path) -> None:
    directory = make_log(tmp_path / "n1", b"a", b"\xff", "\u00fc".encode())
    with LogReader(directory) as reader:
        times = [record.timestamp_ms for record in reader.records()]
    exported = run("export", directory, "--from", 1, "--format=jsonl")
    assert exported.stdout_bytes.isascii()
    assert [json.loads(line) for line in exported.stdout.splitlines()] == [
        {"offset": 1, "timestamp_ms": times[1], "base64": base64.b64encode(b"\xff").decode()},
        {"offset": 2, "timestamp_ms": times[2], "data": "\u00fc"},
    ]
    exported = run("export", directory, "--to", 2, "--format=msgpack")
    assert exported.stdout_bytes == b"".join(
        [msgpack.packb([0, times[0], b"a"]), msgpack.packb([1, times[1], b"\xff"])]
    )
    result = run("export", directory, "--from=1", "--to=3", "-o", tmp_path / "out", "--json")
    fields = json.loads(result.stdout)
    assert (fields["records"], fields["from"], fields["to"]) == (2, 1, 3)
    assert fields["bytes"] == (tmp_path / "out").stat().st_size


@pytest.mark.parametrize("form", FORMATS)
def test_every_record_comes_back_as_it_was(tmp_path: Path, form: str) -> None:
    random = Random(7)
    data = [random.randbytes(random.choice((0, 1, 2, 3, 50, 4000))) for _ in range(2000)]
    data += [b"\x00" * RECORD_BYTES_MAX, b"\xff" * RECORD_BYTES_MAX, b"after the largest"]
    records = [Record(place, one, 1 << 41) for place, one in enumerate(data)]
    packed = FORMATS[form].pack(records)
    (tmp_path / "file").write_bytes(packed)
    with (tmp_path / "file").open("rb") as file:
        unpacked = list(FORMATS[form].unpack(file))
    assert [one for one, _ in unpacked] == data
    assert sum(size for _, size in unpacked) == len(packed)


def test_what_tail_prints_can_be_imported(run: Run, tmp_path: Path) -> None:
    printed = run("tail", make_log(tmp_path / "n1", *AWKWARD), "-n", 99, "--json").stdout_bytes
    assert run("import", tmp_path / "n2", standard_input=printed).exit_code == 0
    assert records_in(tmp_path / "n2") == AWKWARD


@pytest.mark.parametrize("form", FORMATS)
def test_records_go_through_the_running_node_and_come_out_beside_it(
    run: Run, tmp_path: Path, agreement: str, form: str
) -> None:
    data = [b"%d" % number for number in range(20_000)]
    with LogReader(make_log(tmp_path / "n0", b"before")) as reader:
        ((one,),) = reader.batches()
    packed = FORMATS[form].pack([Record(0, record, one.timestamp_ms) for record in data])
    with served(tmp_path / "n1", make_agreement(agreement)) as (log, _):
        log.append(b"before").result(SECONDS)
        options = ("--format", form, "--json")
        result = run("import", tmp_path / "n1", *options, standard_input=packed)
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["first_offset"] == 1
        assert [record.data for record in log.read()] == [b"before", *data]
        # Everything is written down within 50 ms of the last append, or with the next one.
        log.append(b"after").result(SECONDS)
        command = ["export", tmp_path / "n1", "--to=20001", f"--format={form}"]
        out = subprocess.run(
            [sys.executable, "-m", "replog", *map(str, command)],
            cwd=ROOT,
            capture_output=True,
            check=True,
            timeout=SECONDS,
        ).stdout
    (tmp_path / "file").write_bytes(out)
    with (tmp_path / "file").open("rb") as file:
        assert [one for one, _ in FORMATS[form].unpack(file)] == [b"before", *data]


@pytest.mark.parametrize(
    ("form", "content", "says"),
    [
        ("jsonl", b"nothing\n", "line 2 is no record in JSON"),
        ("jsonl", b"[1]\n", 'line 2 is no record in JSON: it is not an object with one of "data"'),
        ("jsonl", b'{"data":"a","base64":"YQ=="}\n', "line 2 is no record in JSON"),
        ("jsonl", b'{"data":7}\n', "its data is no text"),
        ("jsonl", b'{"base64":"Y*=="}\n', "line 2 is no record in JSON"),
        ("jsonl", b'{"data":"\\ud800"}\n', "line 2 is no record in JSON"),
        ("jsonl", b'{"data":"cut of', "line 2 is no record in JSON"),
        ("jsonl", b"[" * 100_000, "line 2 is no record in JSON"),
        ("msgpack", b"\x07", "record 1 of the file is not [offset, ms, data]"),
        ("msgpack", b"\x93\x01\x02\x03", "record 1 of the file is not [offset, ms, data]"),
        ("msgpack", b"\x93\x01\x02\xa1a", "record 1 of the file is no msgpack"),
        ("msgpack", b"\xc1", "record 1 of the file is no msgpack"),
        ("msgpack", b"\x93\x01\x02\xc4\x05ab", "the file ends within its record 1"),
    ],
)
def test_a_file_of_something_else_is_named_and_what_came_before_is_kept(
    run: Run, tmp_path: Path, form: str, content: bytes, says: str
) -> None:
    good = FORMATS[form].pack([Record(0, b"good", 1)])
    options = ("--format", form, "--json")
    result = run("import", tmp_path / "n1", *options, standard_input=good + content)
    assert result.exit_code == 1
    tally, error = map(json.loads, result.stdout.splitlines())
    assert (tally["records"], tally["refused"], tally["unknown"]) == (1, 0, 0)
    assert error["error"] == "NotARecord"
    assert says in result.stderr
    assert records_in(tmp_path / "n1") == [b"good"]


def test_wrong_usage(run: Run, tmp_path: Path) -> None:
    directory = make_log(tmp_path / "n1", b"a")
    member = make_member(tmp_path / "three")
    kept = tmp_path / "kept"
    kept.write_bytes(b"of somebody else")
    for arguments, says in (
        (("export", directory, "--from", 2, "-o", kept), "offset 2 is out of range"),
        (("export", directory, "--json"), "give -o FILE with --json"),
        (("export", directory, "--format=csv"), "'csv' is not one of"),
        (("export", tmp_path / "none", "-o", kept), "holds no store"),
        (("import", directory, tmp_path / "none"), "No such file"),
        (("import", directory, kept, "--agreement=paxos"), "is kept by raft"),
        (("import", member, kept), "belongs to n1, one of 3 members, and no node runs there"),
        (("import", tmp_path, kept), "but no store"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2, arguments
        assert says in result.stderr
    assert kept.read_bytes() == b"of somebody else"
    assert records_in(directory) == [b"a"]
