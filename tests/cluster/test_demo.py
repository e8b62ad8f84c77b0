"""`replog demo`, as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import pytest

from replog import Record
from replog.demo.cluster import NAMES, ClusterFailed, LocalCluster
from replog.demo.feeder import KEYS
from replog.demo.stage import Row
from replog.demo.story import NODE_OPTIONS, Story
from replog.demo.text import read_text
from replog.log_reader import LogReader
from replog.machines import KeyValue
from tests.cluster.load import SECONDS

ROOT = Path(__file__).resolve().parents[2]


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "replog", "demo", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * SECONDS,
    )


def processes_in(directory: Path) -> Sequence[int]:
    """Processes whose command line names something in this directory."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.fsencode(directory) in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_the_demo_holds_and_says_what_happened(agreement: str, tmp_path: Path) -> None:
    place = tmp_path / "demo"
    shown = demo("--json", f"--agreement={agreement}", "--records=30000", f"--directory={place}")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    events: dict[str, dict[str, Any]] = {}
    for line in shown.stdout.splitlines():
        fields = json.loads(line)
        events[fields["event"]] = fields
    order = ["start", "leader", "killed", "takeover", "restarted", "caught up", "stopped"]
    order += ["replayed", "machines", "result"]
    assert [event for event in events if event in order] == order
    assert events["killed"]["node"] == events["leader"]["leader"] == events["restarted"]["node"]
    assert events["killed"]["in_flight"] > 0
    assert events["takeover"]["leader"] != events["killed"]["node"]
    result = events["result"]
    assert result["held"] is True
    in_flight = result["unknown_found"] + result["unknown_missing"]
    assert result["acknowledged"] + in_flight == 30000
    assert in_flight == events["killed"]["in_flight"]
    assert result["acknowledged"] > 25000
    assert len({json.dumps(node) for node in result["nodes"].values()}) == 1
    assert result["takeover_milliseconds"] > 0
    assert events["replayed"]["node"] == events["killed"]["node"]
    assert events["replayed"]["records"] == result["nodes"]["n1"]["records"]
    assert events["replayed"]["records_per_second"] > 0
    assert events["machines"]["equal"] is True
    assert events["machines"]["keys"] == KEYS
    assert not place.exists()


def test_the_demo_takes_a_text_and_tells_people(agreement: str, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_bytes(b"".join([b"line %d \xff\r\n" % number for number in range(6000)]))
    place = tmp_path / "kept"
    shown = demo(f"--input={text}", f"--agreement={agreement}", f"--directory={place}", "--keep")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    for words in ("was killed with SIGKILL", "leads now", "everything held", "is back"):
        assert words in shown.stdout
    for words in ("into an empty machine in", "of 2,000 keys, equals the three live ones"):
        assert words in shown.stdout
    assert (place / "n1" / "data.mdb").exists()
    assert len(list(iterate(place / "n1"))) > 5000


def iterate(directory: Path) -> Iterator[bytes]:
    with LogReader(directory) as reader:
        for batch in reader.batches(0, reader.position().offset):
            yield from [record.data for record in batch]


def test_a_short_text_is_taken_over_and_over(agreement: str, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_bytes(b"one\ntwo\nthree\nfour\n")
    place = tmp_path / "kept"
    given = (f"--input={text}", "--records=5000", f"--directory={place}", "--keep", "--json")
    shown = demo(f"--agreement={agreement}", *given)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    lines = {record.rpartition(b" ")[2] for record in iterate(place / "n3")}
    assert lines == {b"one", b"two", b"three", b"four"}
    assert json.loads(shown.stdout.splitlines()[0])["records"] == 5000


class Recorded:
    """A stage for nobody."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str, dict[str, Any]]] = []

    def say(self, event: str, text: str, **fields: Any) -> None:
        self.said.append((event, text, fields))

    def tell(self, event: str, **fields: Any) -> None:
        self.say(event, "", **fields)

    def update(self, rows: Sequence[Row]) -> None: ...

    def table(self, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None: ...


class Forgetful(KeyValue):
    """Takes the record at offset 1000 for another one."""

    def apply(self, records: Sequence[Record]) -> list[Any]:
        other = KeyValue.put(b"another key", b"")
        return super().apply(
            [one._replace(data=other) if one.offset == 1000 else one for one in records]
        )


@pytest.mark.parametrize("wrong", [None, "n2"])
def test_the_demo_fails_when_the_machine_of_a_node_came_to_another_digest(
    wrong: str | None, agreement: str, tmp_path: Path
) -> None:
    options = dict.fromkeys(NAMES, NODE_OPTIONS)
    if wrong is not None:
        options[wrong] = ("--json", "--machine=tests.cluster.test_demo:Forgetful")
    stage = Recorded()
    with LocalCluster(tmp_path, agreement=agreement, options=options) as cluster:
        story = Story(stage, cluster, read_text(None, 7000), 7000, SECONDS)
        assert story.run(tmp_path) is (wrong is None)
    events = {event: fields for event, _, fields in stage.said}
    assert events["machines"]["equal"] is events["result"]["held"] is (wrong is None)
    faults = [text for event, text, _ in stage.said if event == "fault"]
    assert len(faults) == (0 if wrong is None else 1)
    assert all("the machine of n2 came to digest" in fault for fault in faults)


def test_the_demo_fails_when_a_machine_stops(agreement: str, tmp_path: Path) -> None:
    options = dict.fromkeys(NAMES, NODE_OPTIONS)
    options["n3"] = ("--json", "--machine=tests.cluster.test_demo:Broken")
    stage = Recorded()
    with LocalCluster(tmp_path, agreement=agreement, options=options) as cluster:
        story = Story(stage, cluster, read_text(None, 7000), 7000, SECONDS)
        with pytest.raises(ClusterFailed, match=r"n3 has a machine that stopped.*no more today"):
            story.run(tmp_path)


class Broken(KeyValue):
    """Takes nothing from offset 1000 on."""

    def apply(self, records: Sequence[Record]) -> list[Any]:
        if records[-1].offset >= 1000:
            raise ValueError("no more today")
        return super().apply(records)


def test_a_demo_that_fails_says_why_and_leaves_no_process(tmp_path: Path) -> None:
    place = tmp_path / "demo"
    shown = demo("--json", "--records=30000", f"--directory={place}", "--seconds-max=1")
    assert shown.returncode == 1
    assert "was not over after 1.0 s in all" in shown.stdout
    assert place.exists()
    assert processes_in(place) == []


def test_nodes_end_when_the_demo_is_killed(tmp_path: Path) -> None:
    place = tmp_path / "demo"
    command = [sys.executable, "-m", "replog", "demo", "--json", f"--directory={place}"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as child:
        assert child.stdout
        while b'"leader"' not in child.stdout.readline():
            assert child.poll() is None
        assert len(processes_in(place)) == 4  # three nodes and the demo
        child.send_signal(signal.SIGKILL)
    give_up = time.monotonic() + SECONDS
    while processes_in(place):
        assert time.monotonic() < give_up, "nodes outlive the demo"
        time.sleep(0.05)
