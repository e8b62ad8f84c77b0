"""For the tests of Raft: the option that records scenarios anew."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("replog").addoption(
        "--rewrite-scenarios",
        action="store_true",
        help="record what the scenarios print now, instead of comparing",
    )
