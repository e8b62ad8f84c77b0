"""`replog backup` and `replog restore`; what they do to a store: `tests.store.test_copying`."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress

import replog
from replog.cli.progress import LateBar
from replog.control import ControlClient
from replog.machines import KeyValue
from replog.store import copying
from tests.cli.conftest import SECONDS, Run, make_compacted, make_log, make_member, state_at
from tests.cli.test_node import next_event, running
from tests.each_agreement import make_agreement


def fields_of(run: Run, *arguments: object) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    fields: dict[str, Any] = json.loads(result.stdout)
    return fields


def test_a_backup_is_looked_at_like_any_log(run: Run, tmp_path: Path, agreement: str) -> None:
    one, copy = make_compacted(tmp_path / "n1", make_agreement(agreement)), tmp_path / "copy"
    fields = fields_of(run, "backup", one, copy)
    assert (fields["directory"], fields["node"]) == (str(copy), "n1")
    assert (fields["first_offset"], fields["end_offset"], fields["verified"]) == (15, 30, True)
    assert fields["bytes"] == (copy / "data.mdb").stat().st_size
    assert fields_of(run, "verify", copy)["digest"] == fields["digest"]
    assert fields_of(run, "diff", one, copy)["difference"] is None
    machine = ("--machine", "replog.machines:KeyValue")
    assert fields_of(run, "replay", copy, *machine)["digest"] == state_at(30)
    assert fields_of(run, "inspect", copy)["backup"] is True
    shown = run("inspect", copy).stdout
    assert "cluster      none: this is a backup\n" in shown
    assert "waits for" not in shown
    assert run("export", copy).stdout == run("export", one).stdout


def test_no_node_runs_in_a_backup(run: Run, tmp_path: Path) -> None:
    run("backup", make_member(tmp_path / "n1"), tmp_path / "copy")
    (tmp_path / "line").write_bytes(b"b\n")
    for arguments in (
        ("node", tmp_path / "copy"),
        ("append", tmp_path / "copy", tmp_path / "line"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2, result.output
        assert "is a backup of the log of n1" in result.stderr
        assert "with `replog restore`" in result.stderr


def test_a_member_is_restored_and_runs_by_the_line_that_is_printed(
    run: Run, tmp_path: Path, agreement: str
) -> None:
    made = make_compacted(tmp_path / "n1", make_agreement(agreement))
    text = run("backup", made, tmp_path / "copy").stdout
    assert text.startswith(f"{tmp_path / 'copy'}: a backup of n1; 15 records from offset 15 on, ")
    text, line = run("restore", tmp_path / "copy", tmp_path / "again").stdout.splitlines()
    assert text.startswith(f"{tmp_path / 'again'}: n1, restored; 15 records from offset 15 on, ")
    assert ", verified; digest " in text
    program, command, *options = line.split()
    assert (program, command) == ("replog", "node")
    machine = ("--machine", "replog.machines:KeyValue")
    with running(Path(options[0]), *options[1:], *machine, "--stop-with-input") as child:
        assert next_event(child)["event"] == "running"
        assert child.stdin
        child.stdin.close()
        event = next_event(child)
        while event["event"] != "stopped":
            event = next_event(child)
    assert event["machine"] == {"offset": 30, "digest": state_at(30), "failure": ""}
    result = run("node", options[0])
    assert result.exit_code == 2
    assert "cluster name it was made with" in result.stderr


def test_members_of_other_names_get_one_cluster(run: Run, tmp_path: Path) -> None:
    run("backup", make_log(tmp_path / "n1", b"a"), tmp_path / "copy", "--no-verify")
    members = [f"--member=m{number}=tcp://127.0.0.1:{number}" for number in (1, 2, 3)]
    made = [
        fields_of(run, "restore", tmp_path / "copy", tmp_path / node, f"--node={node}", *members)
        for node in ("m1", "m2", "m3")
    ]
    assert [fields["node"] for fields in made] == ["m1", "m2", "m3"]
    assert len({fields["cluster"] for fields in made}) == 1
    assert len({fields["cluster_id"] for fields in made}) == 1
    inspected = fields_of(run, "inspect", tmp_path / "m2")
    assert inspected["members"] == ["m1", "m2", "m3"]
    assert inspected["cluster_id"] == made[0]["cluster_id"]
    line = run(
        "restore", tmp_path / "copy", tmp_path / "m1 again", "--node=m1", *members
    ).stdout.splitlines()[1]
    assert line.endswith(
        f" --cluster {made[0]['cluster']} "
        + " ".join(f"--member m{number}=tcp://127.0.0.1:{number}" for number in (1, 2, 3))
    )


def test_wrong_usage(run: Run, tmp_path: Path) -> None:
    directory = make_log(tmp_path / "n1", b"a")
    run("backup", directory, tmp_path / "copy")
    for arguments, says in (
        (("backup", directory, tmp_path / "copy"), "name an empty or a new directory"),
        (("backup", tmp_path / "none", tmp_path / "new"), "holds no store"),
        (("restore", tmp_path / "none", tmp_path / "new"), "holds no store"),
        (("restore", directory, tmp_path / "new"), "is no backup, but the log of n1"),
        (("restore", tmp_path / "copy", directory), "name an empty or a new directory"),
        (("restore", tmp_path / "copy", tmp_path / "new", "--member=a=b"), "give --node too"),
        (
            ("restore", tmp_path / "copy", tmp_path / "new", "--node=m1", "--member=a=b"),
            "node 'm1' is not among the members a",
        ),
        (("restore", tmp_path / "copy", tmp_path / "new", "--agreement=none"), "no agreement"),
        (("restore", tmp_path / "copy", tmp_path / "new", "--set=patience=1"), "'patience'"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2, result.output
        assert says in result.stderr
        assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
@pytest.mark.parametrize("place", ["mkdir", "_give", "_verify", "mark"])
def test_what_is_cut_short_leaves_an_empty_directory_for_another_try(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    error: BaseException,
) -> None:
    taken = tmp_path / "taken"
    assert run("backup", make_log(tmp_path / "n1", b"one"), taken).exit_code == 0
    owner = Path if place == "mkdir" else copying
    whole: Any = getattr(owner, place)

    def cut_short(*arguments: Any, **settings: Any) -> None:
        whole(*arguments, **settings)
        raise error

    for command, source in (("backup", tmp_path / "n1"), ("restore", taken)):
        target = tmp_path / command
        target.mkdir()
        with monkeypatch.context() as changed:
            changed.setattr(owner, place, cut_short)
            result = run(command, source, target)
        assert (result.exit_code, result.stdout) == (1 if isinstance(error, OSError) else 130, "")
        assert list(target.iterdir()) == []
        assert run(command, source, target).exit_code == 0


def test_what_goes_on_is_told_and_a_bar_comes_only_when_it_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, int, int]] = []
    directory = make_log(tmp_path / "n1", *[b"x"] * 5)
    replog.backup(directory, tmp_path / "copy", progress=lambda *fields: told.append(fields))
    assert told[-1][0] == "entries"
    assert told[-1][1] == told[-1][2] > 5
    assert all(done <= most for _, done, most in told)
    for seconds, comes in ((60.0, False), (0.0, True)):
        monkeypatch.setattr("replog.cli.progress.LATE_SECONDS", seconds)
        progress = Progress(console=Console(file=StringIO()))
        LateBar(progress).advance("bytes", 1, 2)
        assert progress.live.is_started is comes
        progress.stop()


# --- snapshots ------------------------------------------------------------------------------------


def test_a_running_node_keeps_a_snapshot_when_asked(run: Run, tmp_path: Path) -> None:
    options = ("--machine=replog.machines:KeyValue", "--stop-with-input")
    with running(tmp_path / "n1", *options) as child:
        assert next_event(child)["event"] == "running"
        (tmp_path / "line").write_bytes(KeyValue.put(b"a", b"b"))
        assert run("append", tmp_path / "n1", tmp_path / "line").exit_code == 0
        fields = fields_of(run, "snapshot", tmp_path / "n1")["snapshot"]
        assert (fields["offset"], fields["pieces"]) == (1, 1)
        status = fields_of(run, "status", tmp_path / "n1")
        assert (status["snapshot"]["offset"], status["machine"]["offset"]) == (1, 1)
        result = run("snapshot", tmp_path / "n1", "--machine", "replog.machines:KeyValue")
        assert result.exit_code == 2
        assert "leave out --machine" in result.stderr
    assert fields_of(run, "inspect", tmp_path / "n1")["snapshot"] == fields


def test_where_no_node_runs_the_log_is_opened_for_it(
    run: Run, tmp_path: Path, agreement: str
) -> None:
    directory = make_log(tmp_path / "n1", KeyValue.put(b"a", b"b"), layer=make_agreement(agreement))
    text = run("snapshot", directory).stdout
    assert text.startswith("snapshot of entry ")
    assert text.endswith(", at offset 1: without a state\n")
    (tmp_path / "line").write_bytes(KeyValue.put(b"c", b"d"))
    run("append", directory, tmp_path / "line")
    machine = ("--machine", "replog.machines:KeyValue")
    kept = fields_of(run, "snapshot", directory, *machine)["snapshot"]
    assert (kept["offset"], kept["pieces"]) == (2, 1)
    result = run("snapshot", directory)
    assert result.exit_code == 2
    assert "at offset 2, holds the state of a machine" in result.stderr
    assert fields_of(run, "inspect", directory)["snapshot"] == kept
    assert fields_of(run, "replay", directory, *machine)["snapshot_index"] == kept["index"]


def test_nothing_is_kept_of_nothing(run: Run, tmp_path: Path) -> None:
    result = run("snapshot", tmp_path / "none")
    assert (result.exit_code, "holds no store" in result.stderr) == (2, True)


# --- what a node keeps ----------------------------------------------------------------------------


def test_a_node_keeps_what_it_is_told_to(run: Run, tmp_path: Path) -> None:
    options = (
        "--keep-records=10",
        "--machine=replog.machines:KeyValue",
        "--snapshot-records=20",
    )
    directory = tmp_path / "n1"
    with running(directory, *options, "--stop-with-input") as child:
        assert next_event(child)["event"] == "running"
        with ControlClient(directory) as client:
            first = 0
            while first <= 20:
                client.append(KeyValue.put(b"a", bytes(100)), SECONDS)
                first = client.status(SECONDS)["first_offset"]
            end = client.append(KeyValue.put(b"end", b""), SECONDS) + 1
            client.stop(SECONDS)
        event = next_event(child)
        while event["event"] != "stopped":
            event = next_event(child)
    assert event["machine"]["offset"] == end
    fields = fields_of(run, "replay", directory, "--machine", "replog.machines:KeyValue")
    assert fields["digest"] == event["machine"]["digest"]
    assert fields["from"] >= first > 20
    lines = run("tail", directory, "-n", 10_000).stdout.splitlines()
    assert int(lines[0].partition("\t")[0]) >= first
    exported = run("export", directory).stdout.splitlines()
    assert [json.loads(line)["offset"] for line in exported] == [
        int(line.partition("\t")[0]) for line in lines
    ]


def test_what_is_kept_must_make_sense(run: Run, tmp_path: Path) -> None:
    for options, says in (
        (("--snapshot-records=5",), "give --machine too"),
        (("--snapshot-bytes=5",), "give --machine too"),
        (("--keep-records=0",), "--keep-records"),
        (("--keep-ms=-1",), "--keep-ms"),
        (("--keep-bytes=much",), "--keep-bytes"),
        (("--machine=nothing",), "'nothing' is not MODULE:FACTORY"),
        (("--machine=collections:OrderedDict",), "a OrderedDict has no apply"),
    ):
        result = run("node", tmp_path / "n1", *options)
        assert result.exit_code == 2, result.output
        assert says in result.stderr
        assert not (tmp_path / "n1").exists()
