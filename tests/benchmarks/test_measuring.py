"""Every measurement runs, for a moment, on a real cluster, and proves what it counted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import floor, latency, throughput
from benchmarks.cluster import Cluster, ClusterBroken
from benchmarks.floor import Floor
from benchmarks.processes import Child, ChildFailed

LOAD_SECONDS = 0.15


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.mark.parametrize("load", throughput.LOADS, ids=lambda load: load.name)
def test_what_a_load_counts_is_delivered_on_all_nodes(
    cluster: Cluster, load: throughput.Load
) -> None:
    before = cluster.agree()
    nodes = throughput.nodes_of(cluster, load)
    found = throughput.run(cluster, load.command, nodes, LOAD_SECONDS)
    appended = sum(counted["appended"] for counted in found["nodes"].values())
    assert cluster.agree() - before == appended
    assert 0 < found["records_per_second"] * LOAD_SECONDS <= appended
    assert set(found["nodes"]) == set(nodes)
    assert set(found["processors"]) == set(cluster.nodes)


def test_loads_go_where_they_say(cluster: Cluster) -> None:
    through = {load.through: throughput.nodes_of(cluster, load) for load in throughput.LOADS}
    assert through["leader"] == [cluster.leader]
    assert len(through["follower"]) == 1
    assert cluster.leader not in through["follower"]
    assert len(through["all"]) == 3


def test_latency_is_held_against_the_floor_of_the_same_round(
    cluster: Cluster, tmp_path: Path
) -> None:
    said: list[str] = []
    with Floor(tmp_path) as beside:
        figures = latency.measure(cluster, beside, seconds=0.1, repeats=1, say=said.append)
    of = {figure.name: figure for figure in figures}
    base, append = of["floor: their sum, p50"], of["thread, leader, p50"]
    ratio = of["thread, leader, p50 / floor"]
    assert len(said) == latency.ROUNDS
    assert ratio.at_most == 1.5
    assert ratio.values == tuple(
        [took / least for took, least in zip(append.values, base.values, strict=True)]
    )
    assert min(ratio.values) > 0


def test_records_that_nobody_counted_are_noticed(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = cluster.nodes[cluster.followers[0]]
    told = follower.tell

    def tell_and_append_more(command: dict[str, object]) -> None:
        if command["command"] == "single appends":
            told({"command": "one by one", "samples": 3, "record_bytes": 1, "pause_seconds": 0})
            follower.answer()
        told(command)

    monkeypatch.setattr(follower, "tell", tell_and_append_more)
    with pytest.raises(ClusterBroken, match="were acknowledged"):
        throughput.run(cluster, throughput.SINGLE_APPENDS, [cluster.followers[0]], LOAD_SECONDS)


def test_each_part_of_the_floor_costs_something(tmp_path: Path) -> None:
    assert min(floor.sync_us(tmp_path, 5)) > 0
    assert min(floor.commit_us(tmp_path, 5)) > 0
    assert min(floor.commit_us(tmp_path, 5)) > 0  # the same directory again


def test_a_command_that_fails_is_reported(tmp_path: Path) -> None:
    with Cluster(tmp_path) as running, pytest.raises(ChildFailed, match="no command 'dance'"):
        running.nodes["n1"].ask({"command": "dance"})


def test_a_child_that_dies_is_reported_with_its_last_words(tmp_path: Path) -> None:
    child = Child("benchmarks.worker", ["no json"], tmp_path / "log")
    try:
        with pytest.raises(ChildFailed, match="JSONDecodeError"):
            child.answer()
    finally:
        child.end()


def test_no_process_outlives_its_cluster(tmp_path: Path) -> None:
    with Cluster(tmp_path) as running:
        pids = [child.pid for child in running.nodes.values()]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
