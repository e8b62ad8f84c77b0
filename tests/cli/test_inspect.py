"""`replog inspect`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import replog
from replog.disk_room import map_bytes
from replog.errors import Corruption
from replog.log_reader import LogReader
from replog.store import layout
from replog.store.interface import Batch
from tests.cli.conftest import SECONDS, Run, make_log, make_member, served
from tests.each_agreement import make_agreement
from tests.store.author import STATE, compact, fill, fill_with_gaps, open_store, put

ROOT = Path(__file__).resolve().parents[2]


def rows(run: Run, *arguments: object) -> list[dict[str, Any]]:
    result = run("inspect", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def member(tmp_path: Path) -> Path:
    """n1 of three: 9 entries in two epochs, 7 of them delivered, a gap behind them, and more."""
    store = open_store(tmp_path / "n1")
    fill_with_gaps(store)
    store.close()
    return tmp_path / "n1"


def test_what_a_log_of_one_node_holds(run: Run, tmp_path: Path, agreement: str) -> None:
    directory = make_log(tmp_path / "n1", b"a", b"bc", layer=make_agreement(agreement))
    (fields,) = rows(run, directory)
    with LogReader(directory) as reader:
        identity, position = reader.identity, reader.position()
    assert fields["agreement"] == agreement
    assert fields["cluster_id"] == identity.cluster_id.hex()
    assert fields["store_id"] == identity.store_id.hex()
    assert (fields["node"], fields["life"]) == ("n1", identity.life)
    assert (fields["members"], fields["quorums"]) == (["n1"], {"elect": 1, "commit": 1})
    assert fields["introduced"] is True
    assert fields["promise"] == fields["epochs"][-1][1:] == [fields["promise"][0], "n1"]
    assert fields["position"] == {
        "index": position.index,
        "offset": 2,
        "digest": position.digest.hex(),
        "timestamp_ms": position.timestamp_ms,
    }
    assert fields["producers"] == {"n1": {"life": identity.life, "next_sequence": 2}}
    assert fields["entries"] == fields["last_index"] == position.index
    assert (fields["beyond"], fields["peers"]) == (0, {})
    assert fields["tables"]["log"]["rows"] == position.index
    assert all(size["bytes"] % 4096 == 0 for size in fields["tables"].values())
    assert sum(size["bytes"] for size in fields["tables"].values()) < fields["used_bytes"]
    assert fields["used_bytes"] <= fields["file_bytes"] <= fields["map_bytes"]
    assert fields["file_bytes"] == (directory / "data.mdb").stat().st_size
    assert fields["map_bytes"] == map_bytes(replog.Limits().map_bytes_max)


def test_what_a_member_of_a_cluster_holds(run: Run, member: Path) -> None:
    (fields,) = rows(run, member)
    assert fields["members"] == ["n1", "n2", "n3"]
    assert fields["quorums"] == {"elect": 2, "commit": 2}
    assert fields["promise"] == [5, "n3"]
    assert fields["epochs"] == [
        [1, 2, "n2"],
        [5, 4, "n1"],
        [10, 0, ""],
        [12, 6, "n2"],
        [14, 0, ""],
        [15, 7, "n1"],
    ]
    assert (fields["entries"], fields["last_index"], fields["beyond"]) == (12, 15, 5)
    assert (fields["position"]["index"], fields["position"]["offset"]) == (7, 303)
    assert fields["producers"] == {
        "n1": {"life": 7, "next_sequence": 3},
        "n2": {"life": 3, "next_sequence": 300},
    }


def test_people_read_the_same(run: Run, member: Path, tmp_path: Path) -> None:
    text = run("inspect", member).stdout
    for line in (
        "members      n1, n2, n3; 2 elect, 2 commit\n",
        "promise      epoch 5 of n3\n",
        "epochs       from entry 1: epoch 2 of n2\n             from entry 5: epoch 4 of n1\n",
        "             from entry 10: none\n",
        "delivered    303 records in 7 entries; 5 beyond, not known committed\n",
        "last record  1970-01-01 00:00:05.002+00:00\n",
        "producers    n1 in life 7, next sequence 3\n",
        "peers        none\n",
        "kept         everything\n",
        "snapshot     none\n",
        "readers      none\n",
        "; waits for the other members of its first start\n",
        "tables       meta ",
    ):
        assert line in text
    text = run("inspect", make_member(tmp_path / "empty")).stdout
    assert "delivered    0 records in 0 entries\n" in text
    assert "last record  none\n" in text
    assert "epochs       none\n" in text


def test_what_a_compacted_log_holds(run: Run, tmp_path: Path) -> None:
    store = open_store(tmp_path / "n1")
    fill_with_gaps(store)
    compact(store)
    store.commit([Batch(readers={"billing": 302, "audit": 303})])
    store.close()
    (fields,) = rows(run, tmp_path / "n1")
    assert (fields["base"]["index"], fields["base"]["epoch"]) == (5, [4, "n1"])
    assert fields["first_offset"] == fields["base"]["offset"] == 302
    assert (fields["entries"], fields["last_index"], fields["beyond"]) == (7, 15, 5)
    assert fields["snapshot"] == {"index": 6, "offset": 302, "size": len(STATE[0]), "pieces": 1}
    assert fields["readers"] == {
        "audit": {"offset": 303, "lag": 0},
        "billing": {"offset": 302, "lag": 1},
    }
    assert fields["eras"] == [
        {"agreement": "raft", "members": ["n1", "n2", "n3"], "first_index": 1}
    ]
    text = run("inspect", tmp_path / "n1").stdout
    for line in (
        "agreement    raft, from entry 1 on\n",
        "delivered    303 records in 7 entries; 5 beyond, not known committed\n",
        "kept         1 records from offset 302 on; compacted to entry 5\n",
        f"snapshot     of entry 6, at offset 302; {len(STATE[0])} bytes in 1 pieces\n",
        "readers      audit has acknowledged up to offset 303, 0 records behind\n",
        "             billing has acknowledged up to offset 302, 1 records behind\n",
    ):
        assert line in text
    indexes = [row["index"] for row in rows(run, tmp_path / "n1", "--entries", ":")]
    assert indexes == [6, 7, 8, 9, 12, 13, 15]


def test_the_entries_of_a_range(run: Run, member: Path) -> None:
    def indexes(given: str) -> list[int]:
        return [row["index"] for row in rows(run, member, "--entries", given)]

    everything = [*range(1, 10), 12, 13, 15]
    assert indexes(":") == indexes("1:") == indexes("0:99") == everything
    assert indexes("3:6") == [3, 4, 5]
    assert indexes("9:13") == [9, 12]
    assert indexes("10:12") == indexes("6:6") == indexes("16:") == indexes("9:3") == []
    assert indexes("14:") == [15]


def test_what_is_told_of_an_entry(run: Run, member: Path) -> None:
    found = {row["index"]: row for row in rows(run, member, "--entries", ":")}
    assert found[1]["kind"] == "noop"
    assert (found[1]["runs"], found[1]["records"]) == ([], 0)
    third = found[3]
    assert (third["epoch"], third["kind"], third["records"]) == ([2, "n2"], "records", 300)
    (only,) = third["runs"]
    assert {**only, "size": 0} == {
        "node": "n2",
        "life": 3,
        "first_sequence": 0,
        "count": 300,
        "size": 0,
        "delivered": True,
    }
    assert (third["delivered"]["offset"], third["delivered"]["records"]) == (2, 300)
    with LogReader(member) as reader:
        assert third["delivered"]["digest"] == reader.digest(3).hex()
        ((stored, _),) = reader.stored_entries(3, 4)
        assert third["bytes"] == len(stored.data)
    # Entry 6 repeats the run of entry 2; entry 8 is not delivered.
    assert found[6]["delivered"]["records"] == 0
    assert found[6]["runs"][0]["delivered"] is False
    assert found[8]["delivered"] is None
    text = run("inspect", member, "--entries", "3:9").stdout.splitlines()
    assert [line.split()[1] for line in text] == ["3", "4", "5", "6", "7", "8"]
    assert "  epoch 2 of n2  offsets 2 to 301  300 records in 1 runs  " in text[0]
    assert "  no offset, before 302  " in text[3]
    assert "  not delivered  " in text[5]


def test_one_whole_copy_of_the_promise_is_enough(run: Run, tmp_path: Path) -> None:
    store = open_store(tmp_path / "n1")
    fill(store)
    store.close()
    put(tmp_path / "n1", layout.META, layout.PROMISE_KEY, b"damaged")
    (fields,) = rows(run, tmp_path / "n1")
    assert fields["promise"] == [5, "n3"]
    put(tmp_path / "n1", layout.PROMISE, layout.PROMISE_COPY_KEY, b"damaged")
    result = run("inspect", tmp_path / "n1")
    assert result.exit_code == 1
    assert "Corruption: " in result.stderr
    assert "table promise, key copy: does not match its checksum" in result.stderr


def test_a_row_that_is_missing_is_named(member: Path) -> None:
    with LogReader(member) as reader:
        assert reader.row(7).index == 7
        with pytest.raises(Corruption, match="the row of entry 8 is missing"):
            reader.row(8)


def test_a_live_directory_is_inspected_replayed_and_compared(
    tmp_path: Path, agreement: str
) -> None:
    def shown(*arguments: object) -> str:
        return subprocess.run(
            [sys.executable, "-m", "replog", *map(str, arguments)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=SECONDS,
        ).stdout

    with served(tmp_path / "n1", make_agreement(agreement)) as (log, _):
        log.append_many([b"x"] * 100).result(SECONDS)
        # What is delivered is written down with the next write at the latest.
        log.append(b"y").result(SECONDS)
        fields = json.loads(shown("inspect", tmp_path / "n1", "--json"))
        listed = shown("inspect", tmp_path / "n1", "--entries", ":", "--json").splitlines()
        machine = ("--machine", "replog.machines:KeyValue")
        replayed = json.loads(shown("replay", tmp_path / "n1", *machine, "--to", 100, "--json"))
        other = make_log(tmp_path / "n2", b"other", layer=make_agreement(agreement))
        compared = subprocess.run(
            [sys.executable, "-m", "replog", "diff", tmp_path / "n1", other],
            cwd=ROOT,
            capture_output=True,
            check=False,
            timeout=SECONDS,
        )
        assert log.append(b"z").result(SECONDS) == 101
    assert fields["position"]["offset"] >= 100
    assert fields["life"] == json.loads(listed[-1])["runs"][0]["life"]
    assert (replayed["records"], replayed["offset"]) == (100, 100)
    assert compared.returncode == 1
    assert compared.stdout.startswith(b"different: entry 1 ")
