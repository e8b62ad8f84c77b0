"""For the tests of Raft: options that record scenarios anew and make random runs longer."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("replog")
    group.addoption(
        "--rewrite-scenarios",
        action="store_true",
        help="record what the scenarios print now, instead of comparing",
    )
    group.addoption(
        "--random-blocks",
        type=int,
        default=1,
        help="how many hundreds of random runs of a cluster of cores to make (default: 1)",
    )
