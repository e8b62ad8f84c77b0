"""Other processes read a directory while its node writes to it."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from replog.demo.cluster import LocalCluster
from tests.cluster.load import SECONDS, Load

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "replog"]
SHOWN_SECONDS_MAX = 0.1
APPENDS = 9

Shown = SimpleQueue[tuple[float, dict[str, Any]]]
"""When a line came, and what it says."""


@contextmanager
def following(directory: Path) -> Iterator[Shown]:
    """A process that follows this directory from its end on."""
    shown: Shown = SimpleQueue()

    def read() -> None:
        for line in child.stdout or ():
            if line.endswith(b"\n"):  # else it was killed within a line
                shown.put((time.monotonic(), json.loads(line)))

    command = [*COMMAND, "tail", str(directory), "--follow", "--json", "-n", "1"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as child:
        reader = threading.Thread(target=read)
        reader.start()
        try:
            yield shown
        finally:
            child.kill()
            reader.join(SECONDS)


def test_tail_shows_the_last_record_of_an_idle_cluster_within_a_tenth_of_a_second(
    cluster: LocalCluster,
) -> None:
    leader = cluster.leader()
    follower = next(member for member in cluster if member is not leader)
    assert leader.client
    leader.client.append(b"before")
    cluster.wait_until(cluster.is_even, "the nodes are not even")
    delays: dict[str, list[float]] = {"leader": [], "follower": []}
    with following(leader.directory) as at_leader, following(follower.directory) as at_follower:
        for shown in (at_leader, at_follower):
            assert shown.get(timeout=SECONDS)[1]["data"] == "before"
        for number in range(APPENDS):
            record = f"record {number}"
            offset = leader.client.append(record.encode())
            committed = time.monotonic()
            for delay, shown in zip(delays.values(), (at_leader, at_follower), strict=True):
                seen, line = shown.get(timeout=SECONDS)
                assert (line["offset"], line["data"]) == (offset, record)
                delay.append(seen - committed)
    for delay in delays.values():
        assert statistics.median(delay) < SHOWN_SECONDS_MAX, delays


def test_tail_follows_a_directory_through_the_death_of_its_node(cluster: LocalCluster) -> None:
    load = Load(cluster)
    member = cluster["n2"]
    load.until_more([member.name], 100)
    cluster.wait_until(lambda: "n2" in str(member.client and member.client.status()), "no status")
    with following(member.directory) as shown:
        first = shown.get(timeout=SECONDS)[1]["offset"]
        load.until_more([member.name])
        load.kill(member)
        load.restart(member)
        load.until_more([member.name])
        assert load.finish().faults == ()
        end = next(iter(load.report().nodes.values())).records
        offsets = [shown.get(timeout=SECONDS)[1]["offset"] for _ in range(first + 1, end)]
    assert offsets == list(range(first + 1, end))


def test_verify_and_status_work_beside_running_nodes(cluster: LocalCluster) -> None:
    load = Load(cluster)
    load.until_more(list(load.feeders), 3000)
    directories = [str(member.directory) for member in cluster]
    for command in ("verify", "status"):
        with subprocess.Popen(
            [*COMMAND, command, "--json", *directories], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as child:
            load.until(lambda: child.poll() is not None, command)
            assert child.stdout
            rows = [json.loads(line) for line in child.stdout]
        assert child.returncode == 0
        assert [row["directory"] for row in rows] == directories
        if command == "verify":
            assert all(row["whole"] and row["records"] > 1000 for row in rows)
        else:
            assert [row["node"] for row in rows] == ["n1", "n2", "n3"]
            assert {row["state"] for row in rows} == {"running"}
            leader = cluster.leader().name
            assert [row["node"] for row in rows if row["role"] == "leader"] == [leader]
            assert {row["leader"] for row in rows} == {leader}
    assert load.finish().faults == ()


def test_the_status_of_a_paused_node_is_read_from_its_directory(cluster: LocalCluster) -> None:
    member = cluster["n3"]
    member.pause()
    shown = subprocess.run(
        [*COMMAND, "status", "--json", str(member.directory)],
        cwd=ROOT,
        capture_output=True,
        check=True,
        timeout=SECONDS,
    )
    member.resume()
    row = json.loads(shown.stdout)
    assert (row["node"], row["state"]) == ("n3", "silent")
