"""Each transcript under `scenarios/` prints what it did when it was recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from raftlog import Raft
from tests.agreement.scenario import Scenario, parse
from tests.raft.watcher import Watcher

FILES = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_scenario(path: Path, pytestconfig: pytest.Config) -> None:
    scenario = Scenario(Raft, Watcher, number_is_enough=True)
    blocks = parse(path.read_text(encoding="utf-8"))
    printed = [scenario.run(block) for block in blocks]
    if pytestconfig.getoption("--rewrite-scenarios", default=False):
        texts = [block.render(lines) for block, lines in zip(blocks, printed, strict=True)]
        path.write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    else:
        for block, lines in zip(blocks, printed, strict=True):
            assert lines == list(block.expected), "\n".join(block.commands)
