"""What turns measurements into figures: percentiles, windows, bars, the file that keeps them."""

from __future__ import annotations

import json
import socket
import threading
import time
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from benchmarks import machine, results
from benchmarks.load import CHUNKS, Tally, runs, single_appends
from benchmarks.results import Figure
from benchmarks.samples import median, percentile, spread
from replog import Pending
from replog.pending import resolve

SAMPLES = st.lists(st.floats(0, 1e9), min_size=1)
MACHINE = {
    "processor": "P",
    "cores": 2,
    "memory_gib": 1.0,
    "kernel": "K",
    "file_system": "ext4",
    "python": "CPython",
    "packages": {"lmdb": "3"},
    "libzmq": "4",
    "processors_busy_before": 0.0,
}

# --- samples --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1), (1, 1), (50, 50), (50.5, 51), (99, 99), (100, 100)]
)
def test_a_percentile_is_the_nearest_rank(percent: float, expected: float) -> None:
    assert percentile(range(100, 0, -1), percent) == expected


@settings(suppress_health_check=[HealthCheck.too_slow])  # it measures how busy the machine is
@given(SAMPLES, st.floats(0, 100))
def test_a_percentile_is_a_sample_that_enough_others_do_not_exceed(
    samples: list[float], percent: float
) -> None:
    found = percentile(samples, percent)
    assert found in samples
    assert sum(sample <= found for sample in samples) >= percent / 100 * len(samples)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(SAMPLES)
def test_a_spread_is_in_order(samples: list[float]) -> None:
    lowest, middle, highest = spread(samples)
    assert lowest == min(samples) <= middle <= highest == max(samples)


@pytest.mark.parametrize("percent", [-1, 101])
def test_there_is_no_percentile_outside_0_to_100(percent: float) -> None:
    with pytest.raises(ValueError, match="no percentile"):
        percentile([1.0], percent)


def test_nothing_is_said_about_no_samples() -> None:
    with pytest.raises(ValueError, match="no percentile"):
        percentile([], 50)
    with pytest.raises(ValueError, match="no median"):
        median([])


# --- counting -------------------------------------------------------------------------------------


class InstantLog:
    """Gives each record its offset `lag` appends later, and remembers how many were open."""

    def __init__(self, lag: int) -> None:
        self._lag = lag
        self._open: list[tuple[Pending[Any], int | range]] = []
        self.end_offset = 0
        self.open_max = 0

    def append(self, _: bytes) -> Pending[int]:
        pending: Pending[int] = Pending()
        self._add(pending, self.end_offset, 1)
        return pending

    def append_many(self, records: list[bytes]) -> Pending[range]:
        pending: Pending[range] = Pending()
        offsets = range(self.end_offset, self.end_offset + len(records))
        self._add(pending, offsets, len(records))
        return pending

    def _add(self, pending: Pending[Any], value: int | range, count: int) -> None:
        self.end_offset += count
        self._open.append((pending, value))
        self.open_max = max(self.open_max, len(self._open))
        if len(self._open) > self._lag:
            resolve(*self._open.pop(0))

    def settle(self) -> None:
        while self._open:
            resolve(*self._open.pop(0))


def test_records_count_only_when_acknowledged_within_the_window() -> None:
    now = time.monotonic()
    early, open_, late = Tally(now + 60, now + 61), Tally(now, now + 60), Tally(now - 2, now - 1)
    for tally in (early, open_, late):
        tally.add(5, appended_at=now)
    assert [tally.counted().acknowledged for tally in (early, open_, late)] == [0, 5, 0]
    assert [tally.counted().appended for tally in (early, open_, late)] == [5, 5, 5]
    assert [tally.is_over for tally in (early, open_, late)] == [False, False, True]


def test_the_wait_is_from_append_to_acknowledgement() -> None:
    now = time.monotonic()
    tally = Tally(now - 60, now + 60)
    tally.add(1, appended_at=now - 30)
    assert tally.counted().wait_ms_p50 == pytest.approx(30_000, rel=0.1)


def test_single_appends_are_all_waited_for_and_bounded() -> None:
    outstanding = 64
    log: Any = InstantLog(lag=outstanding - outstanding // CHUNKS)
    now = time.monotonic()
    end = now + 0.05
    # This log answers when others follow: the last ones need a push.
    push = threading.Timer(0.1, log.settle)
    push.start()
    counted = single_appends(log, outstanding=outstanding, record_bytes=16, begin=now, end=end)
    push.join()
    assert counted.appended == log.end_offset
    assert 0 < counted.acknowledged <= counted.appended
    assert log.open_max <= outstanding


def test_runs_count_their_records() -> None:
    log: Any = InstantLog(lag=0)
    now = time.monotonic()
    counted = runs(
        log, outstanding=4, records_per_run=10, record_bytes=16, begin=now, end=now + 0.02
    )
    assert counted.appended == log.end_offset
    assert counted.appended % 10 == 0
    assert counted.acknowledged > 0


# --- figures --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bars", "meets"),
    [
        ({}, None),
        ({"at_least": 2.0}, True),
        ({"at_least": 2.1}, False),
        ({"at_most": 2.0}, True),
        ({"at_most": 1.9}, False),
    ],
)
def test_the_median_is_held_against_the_bar(bars: dict[str, Any], meets: bool | None) -> None:
    figure = Figure(question="q", name="n", unit="x", values=(1.0, 2.0, 90.0), **bars)
    assert figure.meets_bar is meets


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.123456, "0.123"), (97.66, "97.7"), (638.4, "638"), (2438, "2,438"), (60_000, "60 k")],
)
def test_figures_are_readable(value: float, shown: str) -> None:
    assert results.readable(value) == shown


def test_a_millionfold_is_readable() -> None:
    assert results.readable(999_999) == "1 M"
    assert results.readable(1_748_667) == "1.75 M"


def test_figures_are_shown_and_kept(tmp_path: Path) -> None:
    figure = Figure(
        question="q", name="appends", unit="records/s", values=(70_000.0,), at_least=60_000
    )
    shown = StringIO()
    results.show(Console(file=shown, width=100), MACHINE, [figure])
    assert "appends" in shown.getvalue()
    assert "70 k" in shown.getvalue()
    path = tmp_path / "results" / "now.json"
    results.write(path, MACHINE, {"seconds": 1}, [figure])
    kept = json.loads(path.read_text(encoding="utf-8"))
    assert kept["machine"] == MACHINE
    assert kept["figures"][0]["values"] == [70_000.0]
    assert kept["figures"][0]["at_least"] == 60_000


@pytest.mark.parametrize(("value", "says"), [(0.0, "met"), (1.0, "missed")])
def test_a_bar_of_nothing_is_met_or_missed(value: float, says: str) -> None:
    figure = Figure(question="q", name="elections", unit="", values=(value,), at_most=0)
    shown = StringIO()
    results.show(Console(file=shown, width=100), MACHINE, [figure])
    assert says in shown.getvalue()


def test_a_disturbed_run_says_so() -> None:
    for busy, says in ((0.1, False), (1.5, True)):
        shown = StringIO()
        machine_then = {**MACHINE, "processors_busy_before": busy}
        results.show(Console(file=shown, width=200), machine_then, [])
        assert ("1.5 of 2 cores busy" in shown.getvalue()) is says


# --- the machine ----------------------------------------------------------------------------------


def test_a_directory_in_memory_is_refused() -> None:
    if machine.file_system(Path("/dev/shm")) != "tmpfs":
        pytest.skip("no tmpfs at /dev/shm")
    with pytest.raises(ValueError, match="in memory"):
        machine.check_disk(Path("/dev/shm/data"))


def test_the_machine_is_described_without_names(tmp_path: Path) -> None:
    described = machine.describe(tmp_path)
    assert described["cores"] >= 1
    assert described["memory_gib"] > 0
    assert set(described["packages"]) == {"lmdb", "msgpack", "pyzmq"}
    assert described["file_system"]
    assert socket.gethostname() not in json.dumps(described)
