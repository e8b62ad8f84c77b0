"""`replog node`: what it refuses, how it runs and how it stops."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import raftlog
from replog.control import ControlClient
from tests.cli.conftest import SECONDS, Run, make_log, make_member
from tests.each_agreement import make_agreement

ROOT = Path(__file__).resolve().parents[2]
MEMBERS = [f"--member=n{number}=tcp://127.0.0.1:{number}" for number in (1, 2, 3)]


class Renamed(raftlog.Raft):
    """Another agreement layer, as a third party would bring it."""

    @property
    def name(self) -> str:
        return "renamed"


@contextmanager
def running(directory: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "replog", "node", str(directory), "--json", *options]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def next_event(child: subprocess.Popen[str]) -> dict[str, Any]:
    assert child.stdout
    fields: dict[str, Any] = json.loads(child.stdout.readline())
    return fields


def ask_to_stop(directory: Path) -> None:
    with ControlClient(directory) as client:
        client.stop(SECONDS)


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda child, _: child.send_signal(signal.SIGTERM), "SIGTERM"),
        (lambda child, _: child.send_signal(signal.SIGINT), "SIGINT"),
        (lambda child, _: child.stdin.close(), "the end of its input"),
        (lambda _, directory: ask_to_stop(directory), "a request"),
    ],
    ids=["SIGTERM", "SIGINT", "end of input", "request"],
)
def test_a_node_runs_until_it_is_stopped(
    end: Callable[[subprocess.Popen[str], Path], None], reason: str, tmp_path: Path
) -> None:
    directory = tmp_path / "n7"
    with running(directory, "--node=n7", "--stop-with-input") as child:
        event = next_event(child)
        assert event == {
            "event": "running",
            "node": "n7",
            "directory": str(directory),
            "pid": child.pid,
        }
        event = next_event(child)
        while event.get("role") != "leader":
            event = next_event(child)
        assert (event["leader"], event["introduced"]) == ("n7", True)
        end(child, directory)
        assert child.wait(SECONDS) == 0
        event = next_event(child)
        assert (event["event"], event["reason"]) == ("stopped", reason)


def test_a_node_that_is_killed_starts_again_over_its_old_socket(
    tmp_path: Path, agreement: str
) -> None:
    directory = tmp_path / "n1"
    for offset, options in enumerate(([f"--agreement={agreement}"], [])):
        with running(directory, *options) as child:
            assert next_event(child)["event"] == "running"
            with ControlClient(directory) as client:
                assert client.append(b"a") == offset
                assert client.status()["agreement"] == agreement
        assert child.returncode == -signal.SIGKILL
        assert (directory / "control").is_socket()


def test_a_node_needs_no_options_to_come_back(tmp_path: Path) -> None:
    directory = tmp_path / "n7"
    with running(directory, "--node=n7"):
        pass
    with running(directory, "--node=n7", "--agreement=tests.cli.test_node:Renamed") as child:
        assert next_event(child)["event"] == "running"
    with running(directory) as child:
        # The name of the agreement is stored, and nothing of that name is installed.
        assert child.wait(SECONDS) == 2
        assert "no agreement layer named 'renamed' is installed" in next_event(child)["message"]


def test_settings_reach_the_agreement_layer(tmp_path: Path) -> None:
    three = ("--node=n1", "--agreement=paxos", *MEMBERS)
    with running(tmp_path / "n1", *three, "--set=accept_quorum=3") as child:
        assert next_event(child)["event"] == "running"
    for quorum, status in (("1", 2), ("3", None)):  # the quorums are part of the membership
        with running(tmp_path / "n1", *three, f"--set=accept_quorum={quorum}") as child:
            event = next_event(child)
            assert (event.get("event") == "running") == (status is None), event
            if status is not None:
                assert child.wait(SECONDS) == status


def test_directories_of_others_are_refused(run: Run, tmp_path: Path) -> None:
    three = make_member(tmp_path / "three")
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").write_text("dear")
    for arguments, says in (
        ((three, "--node=n2", *MEMBERS), "n1"),
        ((three, "--node=n1", "--cluster=another", *MEMBERS), "cluster"),
        ((three, "--node=n1"), "cluster"),
        ((three, "--agreement=tests.cli.test_node:Renamed", *MEMBERS), "renamed"),
        ((other,), "holds 'letter.txt' but no store"),
    ):
        result = run("node", *arguments)
        assert result.exit_code == 2, result.output
        (line,) = result.stderr.splitlines()
        assert line.startswith(f"replog node: WrongStore: {arguments[0]}")
        assert says in line


def test_a_log_is_not_opened_under_another_agreement(
    run: Run, tmp_path: Path, agreement: str
) -> None:
    directory = make_log(tmp_path / "n1", b"kept", layer=make_agreement(agreement))
    for other in {"raft", "paxos"} - {agreement}:
        result = run("node", directory, f"--agreement={other}")
        assert result.exit_code == 2, result.output
        (line,) = result.stderr.splitlines()
        assert line.startswith(f"replog node: WrongStore: {directory}")
        assert f"holds a log under {agreement!r}, not {other!r}" in line


def test_bad_arguments_are_named_and_nothing_is_made(run: Run, tmp_path: Path) -> None:
    for arguments, says in (
        (("--member=n1=tcp://0.0.0.0:7001", *MEMBERS[1:]), "plaintext=True"),
        (("--node=n9", *MEMBERS), "node 'n9' is not among the members n1, n2, n3"),
        (("--node=no good",), "'no good' is no node id"),
        (("--member=n1",), "'n1' is not ID=ADDRESS"),
        ((MEMBERS[0], MEMBERS[0]), "n1 is given twice"),
        (("--member=n1=udp://127.0.0.1:1", *MEMBERS[1:]), "'udp://127.0.0.1:1' is no address"),
        (("--agreement=none",), "no agreement layer named 'none' is installed (installed: "),
        (("--agreement=none:None",), "agreement 'none:None' cannot be loaded"),
        (("--agreement=pathlib:Path",), "'pathlib:Path' is no agreement layer"),
        (("--agreement=a:b:c",), "no agreement layer named 'a:b:c' is installed"),
        (("--set=heartbeat_ms",), "'heartbeat_ms' is not NAME=NUMBER"),
        (("--set=heartbeat_ms=-1",), "'heartbeat_ms=-1' is not NAME=NUMBER"),
        (("--set=heartbeat_ms=900",), "heartbeat_ms 900 must fit 3 times"),
        (("--set=patience=1",), "'patience'"),
        (("--agreement=paxos", "--set=accept_quorum=2"), "accept_quorum 2 exceeds 1 voters"),
    ):
        result = run("node", tmp_path / "n1", *arguments)
        assert result.exit_code == 2, result.output
        assert says in result.stderr
        assert not (tmp_path / "n1").exists()


def test_a_file_is_no_directory(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run("node", tmp_path / "file")
    assert result.exit_code == 2
    assert "is a file" in result.stderr


def test_a_directory_that_is_open_is_in_use(run: Run, tmp_path: Path) -> None:
    directory = make_log(tmp_path / "n1")
    with running(directory) as child:
        assert next_event(child)["event"] == "running"
        result = run("node", directory, "--json")
        assert result.exit_code == 1
        assert json.loads(result.stdout)["error"] == "StoreInUse"
        assert f"{directory} is in use by process {child.pid}" in result.stderr
