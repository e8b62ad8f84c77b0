"""For all tests: the options of long campaigns, and made-up trees for the self-checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

Plant = Callable[[Mapping[str, str]], Path]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare here, not in a folder's conftest: options must be known whichever tests are run."""
    group = parser.getgroup("replog")
    group.addoption(
        "--chaos-seconds",
        type=float,
        default=12.0,
        help="how long the chaos test torments a cluster under each agreement (default: 12)",
    )
    group.addoption(
        "--chaos-seed",
        type=int,
        default=None,
        help="the seed of the chaos test's choices (default: another each time, printed)",
    )
    group.addoption(
        "--nemesis-seconds",
        type=float,
        default=8.0,
        help="how long the nemesis torments a cluster under each agreement, at least (default: 8)",
    )
    group.addoption(
        "--nemesis-seed",
        type=int,
        default=None,
        help="the seed of the nemesis's choices (default: another each time, printed)",
    )
    group.addoption(
        "--snapshot-rounds",
        type=int,
        default=10,
        help="how many rounds of snapshots and kill -9 under each agreement (default: 10)",
    )
    group.addoption(
        "--agreement",
        default="",
        help="run tests of clusters under this agreement only (default: under each)",
    )
    group.addoption(
        "--rewrite-scenarios",
        action="store_true",
        help="record what the scenarios print now, instead of comparing",
    )
    group.addoption(
        "--random-blocks",
        type=int,
        default=1,
        help="how many hundreds of random runs of a cluster of Raft cores to make (default: 1)",
    )
    group.addoption(
        "--random-runs",
        type=int,
        default=100,
        help="how many random runs of a cluster of Multi-Paxos cores to make (default: 100)",
    )


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    """Write files, given as path -> text, into an empty tree; gives its root.

    A lone surrogate becomes its byte: "\\udcff" is a file that is no text.
    """

    def write(files: Mapping[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", errors="surrogateescape")
        return tmp_path

    return write
