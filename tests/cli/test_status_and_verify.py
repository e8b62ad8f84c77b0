"""`replog status` and `replog verify`."""

from __future__ import annotations

import json
from pathlib import Path

from replog.cli.status import kept_lines
from replog.machines import KeyValue
from tests.cli.conftest import SECONDS, Run, make_compacted, make_log, make_member, served
from tests.each_agreement import make_agreement


def test_the_status_of_a_stopped_node_comes_from_its_disk(
    run: Run, tmp_path: Path, agreement: str
) -> None:
    one = make_log(tmp_path / "one", b"a", b"b", layer=make_agreement(agreement))
    three = make_member(tmp_path / "three")
    result = run("status", one, three, "--json")
    assert result.exit_code == 0, result.output
    first, second = map(json.loads, result.stdout.splitlines())
    assert (first["state"], first["node"], first["end_offset"]) == ("stopped", "n1", 2)
    assert first["agreement"] == agreement
    assert (first["directory"], first["members"]) == (str(one), ["n1"])
    assert (second["members"], second["end_offset"]) == (["n1", "n2", "n3"], 0)


def test_the_status_of_a_running_node_is_its_own(run: Run, tmp_path: Path, agreement: str) -> None:
    with served(tmp_path / "n1", make_agreement(agreement)) as (log, _):
        log.append(b"a").result(SECONDS)
        row = json.loads(run("status", tmp_path / "n1", "--json").stdout)
        digest = log.status().digest.hex()
    assert (row["state"], row["role"], row["leader"]) == ("running", "leader", "n1")
    assert (row["end_offset"], row["pending_records"], row["alarm"]) == (1, 0, "")
    assert (row["digest"], row["agreement"]) == (digest, agreement)


def test_people_get_a_table(run: Run, tmp_path: Path) -> None:
    with served(tmp_path / "n1") as (log, _):
        log.append(b"a").result(SECONDS)
        lines = run("status", tmp_path / "n1", make_log(tmp_path / "n2")).stdout.splitlines()
    assert lines[0].split()[:3] == ["node", "role", "leader"]
    assert lines[1].split()[:3] == ["n1", "leader", "n1"]
    assert lines[2].split()[:2] == ["n1", "stopped"]


def test_a_place_without_a_store_has_no_status(run: Run, tmp_path: Path) -> None:
    for command in ("status", "verify"):
        result = run(command, tmp_path / "none")
        assert result.exit_code == 2
        assert f"WrongStore: {tmp_path / 'none'} holds no store" in result.stderr


def test_verify_of_a_whole_store(run: Run, tmp_path: Path, agreement: str) -> None:
    directory = make_log(tmp_path / "n1", b"a", b"b", b"c", layer=make_agreement(agreement))
    row = json.loads(run("verify", directory, "--json").stdout)
    assert (row["whole"], row["faults"], row["records"]) == (True, [], 3)
    assert len(row["digest"]) == 32
    result = run("verify", directory)
    assert result.exit_code == 0
    assert f"{directory}: whole; 3 records in " in result.stdout
    assert row["digest"] in result.stdout


def test_verify_of_a_damaged_store(run: Run, tmp_path: Path, agreement: str) -> None:
    layer = make_agreement(agreement)
    directory = make_log(tmp_path / "n1", b"a record to be found again", layer=layer)
    data = directory / "data.mdb"
    content = data.read_bytes()
    damaged = content.replace(b"to be found again", b"to be found agaim")
    assert damaged != content
    data.write_bytes(damaged)
    whole = make_log(tmp_path / "n2")
    result = run("verify", directory, whole)
    assert result.exit_code == 1
    assert f"{data}: table log, key 2: " in result.stdout
    assert f"{whole}: whole" in result.stdout


def test_what_is_kept_of_a_stopped_node(run: Run, tmp_path: Path, agreement: str) -> None:
    directory = make_compacted(tmp_path / "n1", make_agreement(agreement))
    row = json.loads(run("status", directory, "--json").stdout)
    assert (row["first_offset"], row["end_offset"]) == (15, 30)
    assert (row["snapshot"]["offset"], row["readers"]) == (20, {})
    assert row["snapshot"]["size"] > 0
    header, line = run("status", directory).stdout.splitlines()
    assert header.split()[4:6] == ["first", "records"]
    assert line.split()[2:4] == ["15", "30"]
    report = json.loads(run("verify", directory, "--json").stdout)
    assert (report["whole"], report["pieces"], report["records"]) == (True, 1, 15)
    assert "; 1 pieces of snapshots; digest " in run("verify", directory).stdout


def test_what_a_running_node_keeps(run: Run, tmp_path: Path) -> None:
    with served(make_compacted(tmp_path / "n1")) as (log, _):
        log.attach(KeyValue())
        log.reader("billing").ack(17).result(SECONDS)
        log.applied().result(SECONDS)
        row = json.loads(run("status", tmp_path / "n1", "--json").stdout)
        lines = run("status", tmp_path / "n1").stdout.splitlines()
    assert (row["first_offset"], row["snapshot"]["offset"], row["machine"]["offset"]) == (
        15,
        20,
        30,
    )
    assert (row["readers"], row["transfer"]) == ({"billing": 17}, "")
    assert lines[1].split()[-3:-1] == ["20", "30"]
    assert lines[2] == "n1: reader billing is at offset 17, 13 records behind"


def test_a_transfer_under_way_is_told() -> None:
    row = {"node": "n3", "transfer": "3 of 10 pieces", "readers": {}}
    assert [*kept_lines(row)] == ["n3 takes a snapshot of another node: 3 of 10 pieces"]
