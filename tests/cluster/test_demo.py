"""`replog demo`, as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
    order = ["start", "leader", "killed", "takeover", "restarted", "caught up", "stopped", "result"]
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
    assert not place.exists()


def test_the_demo_takes_a_text_and_tells_people(agreement: str, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_bytes(b"".join([b"line %d \xff\r\n" % number for number in range(6000)]))
    place = tmp_path / "kept"
    shown = demo(f"--input={text}", f"--agreement={agreement}", f"--directory={place}", "--keep")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    for words in ("was killed with SIGKILL", "leads now", "everything held", "is back"):
        assert words in shown.stdout
    assert (place / "n1" / "data.mdb").exists()


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
