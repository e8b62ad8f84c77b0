"""What is persisted: large states, long logs, bounded files, each measured for a moment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import replog
from benchmarks import __main__ as program
from benchmarks import recovery, snapshot, space
from benchmarks.load import WAIT_MS_MAX, Steady, fill
from benchmarks.machine import memory_mib
from benchmarks.processes import ChildFailed
from benchmarks.recovery import Log
from benchmarks.state import CHUNK_BYTES, LargeState
from replog import Pending, Record
from replog.agreements import load_agreement
from replog.pending import resolve

SMALL = Log("few small records", 4000, 16, 1000)
LARGE = Log("few large records", 200, 1024, 100)


def test_they_are_asked_of_one_agreement_and_count_their_steps() -> None:
    def steps(*argv: str) -> int:
        return program.steps(program.arguments(list(argv))) - 1

    assert steps("snapshot", "--repeats", "2") == 2
    assert steps("recovery", "--repeats", "2") == recovery.STEPS
    assert steps("space", "--agreement", "both") == 2 * len(space.MIXES)


# --- the state ------------------------------------------------------------------------------------


def counted(records: int, state_bytes: int) -> LargeState:
    machine = LargeState(state_bytes)
    machine.apply([Record(offset, b"", 0) for offset in range(records)])
    return machine


def test_a_large_state_is_as_large_as_it_says_and_comes_back() -> None:
    machine = counted(3, 5 * CHUNK_BYTES)
    state = b"".join(machine.snapshot())
    assert 5 * CHUNK_BYTES <= len(state) <= 5 * CHUNK_BYTES + 100
    other = LargeState(5 * CHUNK_BYTES)
    other.restore([state[:1000], state[1000:]])
    assert (other.count, other.restored, other.digest()) == (3, 1, machine.digest())


def test_another_state_is_noticed() -> None:
    state = bytearray(b"".join(counted(3, 2 * CHUNK_BYTES).snapshot()))
    state[-1] ^= 1
    other = LargeState(2 * CHUNK_BYTES)
    for wrong in (bytes(state), bytes(state[:-1]), b""):
        with pytest.raises(ValueError, match="not the state"):
            other.restore([wrong])
    assert (other.count, other.restored) == (0, 0)


# --- the load -------------------------------------------------------------------------------------


class AnsweringLog:
    """Answers an append at once, but the first only with the second."""

    def __init__(self) -> None:
        self.first: Pending[int] | None = None
        self.appended = 0

    def append(self, _: bytes) -> Pending[int]:
        pending: Pending[int] = Pending()
        self.appended += 1
        if self.first is None:
            self.first = pending
            return pending
        if self.appended == 2:
            resolve(self.first, 0)
        resolve(pending, self.appended - 1)
        return pending


def test_steady_appends_are_all_counted() -> None:
    log = AnsweringLog()
    steady = Steady(log)  # type: ignore[arg-type]
    steady.begin(pause_seconds=0.02, record_bytes=1)
    while log.appended < 5:
        pass
    waits = steady.end()
    assert waits.appended == log.appended >= 5
    assert 20 <= waits.wait_ms_max < WAIT_MS_MAX
    assert waits.wait_ms_p50 <= waits.wait_ms_p99
    assert waits.pause_ms_max >= 20
    assert waits.appends_per_second > 0


def test_a_fill_appends_each_size_in_turn(tmp_path: Path) -> None:
    with replog.open(tmp_path / "n1", agreement=load_agreement("raft")) as log:
        assert fill(log, fill_bytes=600_000, record_bytes=[1000, 200_000], outstanding=3) == 0
        sizes = [len(record.data) for record in log.read()]
    assert sizes == ([1000] * 131 + [200_000]) * 2


def test_memory_is_told_apart_by_what_is_behind_it() -> None:
    before = memory_mib(os.getpid())
    held = bytearray(b"x") * (32 << 20)
    after = memory_mib(os.getpid())
    assert len(held) == 32 << 20
    assert 28 < after.own - before.own < 40
    assert after.of_files - before.of_files < 8


# --- the questions --------------------------------------------------------------------------------


@pytest.mark.parametrize("agreement", program.PAIR)
def test_a_large_state_is_kept_sent_and_installed(
    agreement: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "STATE_BYTES", 4 << 20)
    monkeypatch.setattr(snapshot, "BEFORE_SECONDS", 0.2)
    course = snapshot.run(tmp_path / agreement, agreement)
    assert len(course.keeping.memory) == 2
    assert len(course.sending.memory) == 3
    assert min(grown.own_max for grown in course.sending.memory.values()) > 1
    assert course.sending.waits["appended"] > 0
    figures = snapshot.figures_of(agreement, [course])
    assert [figure.name for figure in figures if figure.at_most is not None] == [
        "kept: any node's memory grows by",
        "sent: any node's memory grows by",
        "elections",
    ]


def test_a_log_is_opened_replayed_and_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "SMALL", SMALL)
    monkeypatch.setattr(recovery, "LARGE", LARGE)
    said: list[str] = []
    figures = recovery.measure(tmp_path, ["raft"], 1, said.append)
    assert len(said) == recovery.STEPS
    assert all(min(figure.values) > 0 for figure in figures)
    assert sum(figure.meets_bar is not None for figure in figures) == 4


def test_a_log_that_is_not_whole_has_no_rate(tmp_path: Path) -> None:
    recovery.fill(tmp_path / "n1", "raft", LARGE)
    with pytest.raises(ChildFailed, match="replog verify found"):
        recovery.verified_mb_per_second(tmp_path / "n1", LARGE._replace(records=201))


@pytest.mark.parametrize("mix", space.MIXES, ids=lambda mix: mix.name)
def test_the_file_is_looked_at_as_it_is_filled(
    mix: space.Mix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space, "KEPT_BYTES", 1_000_000)
    monkeypatch.setattr(space, "APPENDED_BYTES", 10_000_000)
    monkeypatch.setattr(space, "STEPS", 5)
    samples = space.run(tmp_path, "raft", mix)
    assert [sample.appended_bytes for sample in samples] == [
        *range(2 * 10**6, 11 * 10**6, 2 * 10**6)
    ]
    first_offsets = [sample.first_offset for sample in samples]
    assert first_offsets == sorted(first_offsets)
    assert 1_000_000 < samples[-1].block_bytes <= samples[-1].file_bytes
