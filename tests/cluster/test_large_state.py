"""A machine with a large state, kept, sent and installed by real processes: memory stays small, no
leadership is lost and appends go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import snapshot

STATE_MIB = 32
GROWTH_MIB_MAX = 16.0
"""Half of the state: whoever held all of it would grow by twice as much."""


def test_no_node_holds_a_state_that_it_keeps_sends_or_installs(
    agreement: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "STATE_BYTES", STATE_MIB << 20)
    monkeypatch.setattr(snapshot, "BEFORE_SECONDS", 0.5)
    course = snapshot.run(tmp_path, agreement)
    for phase, nodes in ((course.keeping, 2), (course.sending, 3)):
        grown = [memory.grown for memory in phase.memory.values()]
        assert len(grown) == nodes
        assert max(grown) < GROWTH_MIB_MAX
        assert phase.waits["appended"] > 0
    assert course.elections == 0
