"""A store of each sort, for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from replog.store.interface import Store
from replog.store.memory import MemoryDisk
from tests.store.author import fill, memory_store, open_store


@pytest.fixture(params=["lmdb", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store that holds the sample: 9 entries, 7 delivered, promise (5, n3)."""
    opened: Store = (
        open_store(tmp_path) if request.param == "lmdb" else memory_store(MemoryDisk(b"s" * 16))
    )
    fill(opened)
    yield opened
    opened.close()
