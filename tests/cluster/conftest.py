"""Clusters of real processes, under each agreement layer that is installed."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from replog.demo.cluster import LocalCluster


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "agreement" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--agreement")
        installed = sorted({entry.name for entry in entry_points(group="replog.agreements")})
        metafunc.parametrize("agreement", [chosen] if chosen else installed)


@pytest.fixture
def stopped_cluster(tmp_path: Path, agreement: str) -> Iterator[LocalCluster]:
    """Three nodes, none of which was started."""
    with LocalCluster(tmp_path, agreement=agreement) as cluster:
        yield cluster


@pytest.fixture
def cluster(stopped_cluster: LocalCluster) -> LocalCluster:
    """Three nodes that run and have a leader."""
    stopped_cluster.start()
    stopped_cluster.leader()
    return stopped_cluster
