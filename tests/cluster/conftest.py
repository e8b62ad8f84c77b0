"""Clusters of real processes, under each agreement layer that is installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from replog.demo.cluster import LocalCluster
from tests.each_agreement import pytest_generate_tests

__all__ = ["pytest_generate_tests"]


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
