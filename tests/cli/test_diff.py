"""`replog diff`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest

from replog.cli.diff import first_difference
from replog.log_reader import LogReader
from replog.store.interface import Batch, StoredSnapshot
from tests.api.conftest import MEMBERS, Cluster
from tests.cli.conftest import SECONDS, Run, make_log
from tests.each_agreement import make_agreement
from tests.store.author import (
    TERM_1,
    append,
    deliver,
    noop,
    open_store,
    run_entry,
    snapshot_at,
)
from transport.loopback import LoopbackNetwork

ROOT = Path(__file__).parents[2]


def store(directory: Path, data: list[bytes], beyond: int = 0, **changes: object) -> Path:
    """A closed store of these entries; the last ones are not delivered."""
    opened = open_store(directory, **changes)
    batch, _ = deliver(opened.position(), data[: len(data) - beyond])
    opened.commit([append(1, data), batch])
    opened.close()
    return directory


def entries(count: int) -> list[bytes]:
    return [noop(), *(run_entry("n1", 5, place, [b"%d" % place]) for place in range(count - 1))]


def differing(run: Run, *arguments: object) -> dict[str, Any]:
    result = run("diff", *arguments, "--json")
    assert result.exit_code == 1, result.output
    fields: dict[str, Any] = json.loads(result.stdout)
    return fields


@pytest.mark.parametrize("last", [1, 2, 3, 64, 1000])
def test_the_first_difference_is_found_in_few_steps(last: int) -> None:
    asked: list[int] = []
    for index in range(1, last + 1):
        asked.clear()

        def other(place: int, index: int = index) -> bytes:
            asked.append(place)
            return b"same" if place < index else b"other"

        assert first_difference(lambda _: b"same", other, 0, last) == index
        assert len(asked) <= 2 + last.bit_length()
    assert first_difference(lambda _: b"same", lambda _: b"same", 0, last) is None


def test_the_nodes_of_a_cluster_hold_the_same_log(run: Run, tmp_path: Path, agreement: str) -> None:
    cluster = Cluster(tmp_path, LoopbackNetwork(), make_agreement(agreement))
    try:
        for node in MEMBERS:
            cluster.open(node)
        for log in cluster.logs.values():
            log.append_many([b"x"] * 10).result(SECONDS)
        for log in cluster.logs.values():
            log.barrier().result(SECONDS)
    finally:
        cluster.close()
    for pair in (("n1", "n2"), ("n2", "n3")):
        result = run("diff", *(tmp_path / node for node in pair), "--json")
        assert result.exit_code == 0, result.output
        fields = json.loads(result.stdout)
        assert fields["difference"] is None
        assert fields["nodes"] == [*pair]
        assert fields["records"] == [30, 30]
        assert fields["common_entries"] == min(fields["entries"])


def test_equal_logs_are_equal(run: Run, tmp_path: Path) -> None:
    first, second = (store(tmp_path / name, entries(9)) for name in ("n1", "n2"))
    result = run("diff", first, second)
    assert result.exit_code == 0
    assert result.stdout.startswith("equal: both hold 8 records in 9 entries, digest ")
    assert "cluster" not in result.stdout


def test_a_log_that_is_the_beginning_of_the_other_does_not_differ(
    run: Run, tmp_path: Path, agreement: str
) -> None:
    short = make_log(tmp_path / "short", b"a", b"b", layer=make_agreement(agreement))
    long = tmp_path / "long"
    shutil.copytree(short, long)
    (tmp_path / "line").write_bytes(b"c\n")
    assert run("append", long, tmp_path / "line").exit_code == 0
    for pair in ((short, long), (long, short)):
        result = run("diff", *pair)
        assert result.exit_code == 0, result.output
        assert result.stdout.startswith(f"no difference: {short} holds the first ")
        assert f"entries of {long}, 2 of its 3 records; digest " in result.stdout
    fields = json.loads(run("diff", short, long, "--json").stdout)
    assert (fields["records"], fields["difference"]) == ([2, 3], None)
    assert fields["common_entries"] == fields["entries"][0] < fields["entries"][1]


def test_an_empty_log_is_the_beginning_of_any(run: Run, tmp_path: Path) -> None:
    empty, full = store(tmp_path / "n1", []), store(tmp_path / "n2", entries(3))
    result = run("diff", empty, full, "--json")
    assert (result.exit_code, json.loads(result.stdout)["common_entries"]) == (0, 0)


@pytest.mark.parametrize("place", [0, 1, 17, 39])
def test_the_first_entry_that_differs_is_shown(run: Run, tmp_path: Path, place: int) -> None:
    data = entries(40)
    other = [*data]
    other[place] = run_entry("n2", 8, 0, [b"same", b"\x1bother" * 20])
    first, second = store(tmp_path / "n1", data), store(tmp_path / "n2", other)
    fields = differing(run, first, second)
    assert (fields["common_entries"], fields["difference"]["index"]) == (place, place + 1)
    left, right = fields["difference"]["entries"]
    assert left["kind"] == ("records" if place else "noop")
    ((found,),) = [right["runs"]]
    assert (found["node"], found["life"], found["count"]) == ("n2", 8, 2)
    assert (right["records"], right["delivered"]["records"]) == (2, 2)
    offset = max(0, place - 1)
    assert left["delivered"]["offset"] == right["delivered"]["offset"] == offset
    assert right["differs"]["offset"] == offset
    assert bytes.fromhex(right["differs"]["start"]) == b"same"
    text = run("diff", first, second).stdout
    assert text.startswith(f"different: entry {place + 1} is the first that differs")
    assert ("before it are equal, digest " in text) is (place > 0)
    assert f"{second}: entry {place + 1}  records  epoch 1 of n1  offsets {offset} to" in text
    assert "    2 records of n2 in life 8, 1 runs from sequence 0, " in text
    assert f"    differs at offset {offset}: 4 bytes, b'same'\n" in text


def test_the_record_shown_is_the_first_that_the_other_lacks(run: Run, tmp_path: Path) -> None:
    long = Random(1).randbytes(1000)
    one = [noop(), run_entry("n1", 5, 0, [b"a", b"b", long])]
    two = [noop(), run_entry("n1", 5, 0, [b"a", b"b"])]
    three = [noop(), run_entry("n1", 6, 0, [b"a", b"b"])]
    first, second, third = (
        store(tmp_path / f"n{place}", data) for place, data in enumerate((one, two, three))
    )
    left, right = differing(run, first, second)["difference"]["entries"]
    assert left["differs"] == {"offset": 2, "bytes": 1000, "start": long[:48].hex()}
    assert right["differs"] is None
    assert f"{long[:48]!r}..." in run("diff", first, second).stdout
    left, right = differing(run, second, third)["difference"]["entries"]
    assert (left["differs"], right["differs"]) == (None, None)
    assert [left["runs"][0]["life"], right["runs"][0]["life"]] == [5, 6]


def test_what_is_not_known_to_be_committed_is_not_compared(run: Run, tmp_path: Path) -> None:
    data = entries(5)
    other = [*data[:4], run_entry("n3", 3, 0, [b"lost"])]
    first, second = store(tmp_path / "n1", data), store(tmp_path / "n2", other, beyond=1)
    result = run("diff", first, second, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["entries"] == [5, 4]


def test_logs_of_different_clusters_are_said_to_be_so_first(run: Run, tmp_path: Path) -> None:
    first = store(tmp_path / "n1", entries(3))
    second = store(tmp_path / "n2", entries(2), cluster_id=b"another cluster!")
    result = run("diff", first, second)
    assert result.exit_code == 0
    assert result.stdout.startswith("these are logs of different clusters: ")
    assert "\nno difference: " in result.stdout
    third = make_log(tmp_path / "n3", b"a")
    fields = differing(run, first, third)
    assert fields["clusters"][0] != fields["clusters"][1]
    lines = run("diff", first, third).stdout.splitlines()
    assert lines[0].startswith("these are logs of different clusters: ")
    assert lines[1].startswith("different: entry 1 ")


def test_wrong_usage(run: Run, tmp_path: Path) -> None:
    directory = store(tmp_path / "n1", entries(2))
    for arguments, says in (
        ((directory, tmp_path / "none"), "holds no store"),
        ((directory, tmp_path / "." / "n1"), "are the same directory"),
        ((directory,), "Missing argument 'DIR2'"),
    ):
        result = run("diff", *arguments)
        assert result.exit_code == 2
        assert says in result.stderr


# --- compacted logs -------------------------------------------------------------------------------


def cut(directory: Path, index: int, **changes: object) -> Path:
    """Let a closed store begin behind this entry."""
    opened = open_store(directory, **changes)
    position = opened.position()
    header = StoredSnapshot(position.index << 1, snapshot_at(position, TERM_1))
    opened.commit([Batch(sealed=header, compact_to=index)])
    opened.close()
    return directory


def test_logs_that_begin_at_different_entries_are_compared_from_the_later_one(
    run: Run, tmp_path: Path
) -> None:
    first = cut(store(tmp_path / "n1", entries(20)), 5)
    second = cut(store(tmp_path / "n2", entries(20)), 9)
    third = store(tmp_path / "n3", entries(14))
    for pair in ((first, second), (second, first), (second, third)):
        fields = json.loads(run("diff", *pair, "--json").stdout)
        assert fields["difference"] is None
        assert fields["common_entries"] == min(fields["entries"])
    assert fields["compacted"] == [9, 0]
    assert run("diff", first, second).stdout.startswith("equal: both hold 19 records in 20 entries")


@pytest.mark.parametrize("place", [9, 10, 18, 19])
def test_the_first_difference_behind_both_bases_is_found(
    run: Run, tmp_path: Path, place: int
) -> None:
    other = entries(20)
    other[place] = run_entry("n1", 8, 0, [b"other"])
    first = cut(store(tmp_path / "n1", entries(20)), 5)
    second = cut(store(tmp_path / "n2", other), 9)
    fields = differing(run, first, second)
    assert (fields["common_entries"], fields["difference"]["index"]) == (place, place + 1)


@pytest.mark.parametrize("place", [1, 8])
def test_a_difference_where_one_log_is_compacted_is_said_to_lie_there(
    run: Run, tmp_path: Path, place: int
) -> None:
    other = entries(20)
    other[place] = run_entry("n1", 8, 0, [b"other"])
    first = store(tmp_path / "n1", entries(20))
    second = cut(store(tmp_path / "n2", other), 9)
    fields = differing(run, first, second)
    assert fields["difference"] == {"index": None, "at_or_below": 9, "entries": []}
    assert fields["common_entries"] == 0
    text = run("diff", second, first).stdout
    assert text == "different: in entry 9 or before it, where one of them is compacted\n"


def test_an_entry_that_is_compacted_while_it_is_looked_at_is_said_to_lie_there(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = entries(20)
    other[11] = run_entry("n1", 8, 0, [b"other"])
    first = store(tmp_path / "n1", entries(20))
    second = cut(store(tmp_path / "n2", other), 9)
    read = LogReader.stored_entries
    compacted: list[object] = []

    def compact_and_read(reader: LogReader, start: int, stop: int) -> Any:
        if not compacted:
            lines = f"from tests.cli.test_diff import *; cut(Path({str(second)!r}), 15)"
            compacted.append(subprocess.run([sys.executable, "-c", lines], cwd=ROOT, check=True))
        return read(reader, start, stop)

    monkeypatch.setattr(LogReader, "stored_entries", compact_and_read)
    fields = differing(run, first, second)
    assert compacted
    assert fields["compacted"] == [0, 15]
    assert fields["difference"] == {"index": None, "at_or_below": 15, "entries": []}


def test_logs_that_do_not_meet_cannot_be_compared(run: Run, tmp_path: Path) -> None:
    first = store(tmp_path / "n1", entries(8))
    second = cut(store(tmp_path / "n2", entries(20)), 9)
    result = run("diff", first, second)
    assert result.exit_code == 1
    says = "one log ends with entry 8, and the other begins behind entry 9: they cannot be compared"
    assert says in result.stderr
