"""Load made inside a node's process, through the public API, by the thread of an application."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from itertools import cycle
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from benchmarks.samples import percentile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from replog import Pending, ReplicatedLog

T = TypeVar("T")

CHUNKS = 16
"""Single appends are made, and waited for, in this many parts of what is outstanding."""
ANSWER_SECONDS_MAX = 20.0
WAIT_MS_MAX = 20_000
RUN_BYTES = 128 << 10


class Counted(NamedTuple):
    """What a load came to."""

    acknowledged: int
    """Records whose append ended within the window."""
    appended: int
    """Records whose append ended at all: every one."""
    wait_ms_p50: float
    """From an append to its end, in the window."""
    wait_ms_p99: float


class Tally:
    """Counts records that are acknowledged between two moments of `time.monotonic`."""

    def __init__(self, begin: float, end: float) -> None:
        self._begin = begin
        self._end = end
        self._acknowledged = 0
        self._appended = 0
        self._waits_ms: list[float] = []

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._end

    def add(self, records: int, appended_at: float) -> None:
        """Records appended then are acknowledged now."""
        now = time.monotonic()
        self._appended += records
        if self._begin <= now < self._end:
            self._acknowledged += records
            self._waits_ms.append(1000 * (now - appended_at))

    def counted(self) -> Counted:
        waits = self._waits_ms or [0.0]
        return Counted(
            self._acknowledged, self._appended, percentile(waits, 50), percentile(waits, 99)
        )


def single_appends(
    log: ReplicatedLog, *, outstanding: int, record_bytes: int, begin: float, end: float
) -> Counted:
    """Keep this many `append` outstanding from now to `end`, and take every answer."""
    records = [os.urandom(record_bytes) for _ in range(max(1, outstanding // CHUNKS))]
    append = log.append

    def offer() -> list[Pending[int]]:
        return [append(record) for record in records]

    def take(pendings: list[Pending[int]]) -> None:
        # The last one first: those before it are known by then, and need no wake-up each.
        pendings[-1].result(ANSWER_SECONDS_MAX)
        for pending in pendings:
            pending.result(ANSWER_SECONDS_MAX)

    return keep_outstanding(offer, take, CHUNKS, len(records), Tally(begin, end))


def runs(
    log: ReplicatedLog,
    *,
    outstanding: int,
    records_per_run: int,
    record_bytes: int,
    begin: float,
    end: float,
) -> Counted:
    """Keep this many `append_many` outstanding from now to `end`, and take every answer."""
    records = [os.urandom(record_bytes) for _ in range(records_per_run)]

    def offer() -> Pending[range]:
        return log.append_many(records)

    def take(pending: Pending[range]) -> None:
        pending.result(ANSWER_SECONDS_MAX)

    return keep_outstanding(offer, take, outstanding, records_per_run, Tally(begin, end))


def keep_outstanding(
    offer: Callable[[], T], take: Callable[[T], None], many: int, records: int, tally: Tally
) -> Counted:
    """Offer `many` times, then once for each answer taken, and at the end take what is left."""
    waiting: deque[tuple[float, T]] = deque()
    while not tally.is_over:
        while len(waiting) < many:
            waiting.append((time.monotonic(), offer()))
        appended_at, oldest = waiting.popleft()
        take(oldest)
        tally.add(records, appended_at)
    for appended_at, oldest in waiting:
        take(oldest)
        tally.add(records, appended_at)
    return tally.counted()


def paced(
    log: ReplicatedLog, *, pause_seconds: float, record_bytes: int, end: float
) -> list[tuple[float, float]]:
    """Append one record after each pause until `end`, whether or not those before it are answered.

    When each was submitted, and when acknowledged, by `time.monotonic`; every one is waited for.
    """
    record = os.urandom(record_bytes)
    submitted: list[float] = []
    acknowledged: list[float] = []

    def note(_: Pending[int]) -> None:
        acknowledged.append(time.monotonic())

    pendings = []
    while (now := time.monotonic()) < end:
        submitted.append(now)
        pendings.append(log.append(record))
        pendings[-1].add_done_callback(note)
        time.sleep(pause_seconds)
    for pending in pendings:
        pending.result(ANSWER_SECONDS_MAX)
    # One producer's records are acknowledged in the order of their appends.
    return list(zip(submitted, acknowledged, strict=True))


class Waits(NamedTuple):
    """How long appends took that were made all the time."""

    appended: int
    appends_per_second: float
    wait_ms_p50: float
    wait_ms_p99: float
    wait_ms_max: float
    pause_ms_max: float
    """The longest time between two acknowledgements."""


class Steady:
    """Appends all the time, one record after each pause, in a thread of its own. Its memory does
    not grow: waits are counted by the millisecond."""

    def __init__(self, log: ReplicatedLog) -> None:
        self._log = log
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._counts = [0] * (WAIT_MS_MAX + 1)
        self._wait_max = self._pause_max = self._began = self._last = 0.0
        self._failure: BaseException | None = None

    def begin(self, *, pause_seconds: float, record_bytes: int) -> None:
        """Begin, and count from here."""
        self._stopping.clear()
        self._counts = [0] * (WAIT_MS_MAX + 1)
        self._wait_max = self._pause_max = 0.0
        self._began = self._last = time.monotonic()
        self._thread = threading.Thread(target=self._run, args=(pause_seconds, record_bytes))
        self._thread.start()

    def end(self) -> Waits:
        """Append no more; what it was, once every append is answered. Raises what one raised."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        if self._failure is not None:
            raise self._failure
        appended = sum(self._counts)
        seconds = time.monotonic() - self._began
        p50, p99 = (self._percentile_ms(appended, percent) for percent in (50, 99))
        return Waits(
            appended, appended / seconds, p50, p99, 1000 * self._wait_max, 1000 * self._pause_max
        )

    def _run(self, pause_seconds: float, record_bytes: int) -> None:
        record = os.urandom(record_bytes)
        try:
            pending = self._append(record)
            while not self._stopping.wait(pause_seconds):
                pending = self._append(record)
            # One producer's records are acknowledged in the order of their appends.
            pending.result(ANSWER_SECONDS_MAX)
        except BaseException as error:  # noqa: BLE001 - for whoever ends it
            self._failure = error

    def _append(self, record: bytes) -> Pending[int]:
        began = time.monotonic()
        pending = self._log.append(record)
        pending.add_done_callback(lambda _: self._count(began))
        return pending

    def _count(self, began: float) -> None:
        now = time.monotonic()
        self._pause_max = max(self._pause_max, now - self._last)
        self._wait_max = max(self._wait_max, now - began)
        self._counts[min(int(1000 * (now - began)), WAIT_MS_MAX)] += 1
        self._last = now

    def _percentile_ms(self, appended: int, percent: float) -> float:
        seen = 0
        for milliseconds, count in enumerate(self._counts):
            seen += count
            if 100 * seen >= appended * percent:
                return milliseconds + 1.0
        return float(WAIT_MS_MAX)


def fill(
    log: ReplicatedLog, *, fill_bytes: int, record_bytes: Sequence[int], outstanding: int
) -> int:
    """Append so many bytes: in turn a run of records of each size, of 128 KiB or of one larger
    record. The first offset that is left by then."""
    data = os.urandom(max(RUN_BYTES, *record_bytes))
    waiting: deque[Pending[range]] = deque()
    for size in cycle(record_bytes):
        count = max(1, RUN_BYTES // size)
        waiting.append(log.append_many([data[at * size : at * size + size] for at in range(count)]))
        fill_bytes -= count * size
        while len(waiting) >= outstanding or (fill_bytes <= 0 and waiting):
            waiting.popleft().result(ANSWER_SECONDS_MAX)
        if fill_bytes <= 0:
            break
    return log.first_offset


def one_by_one_us(
    log: ReplicatedLog, *, samples: int, record_bytes: int, pause_seconds: float
) -> list[float]:
    """How long one append takes, for a thread; a pause before each."""
    record = os.urandom(record_bytes)
    durations = []
    for _ in range(samples):
        time.sleep(pause_seconds)
        begin = time.perf_counter_ns()
        log.append(record).result(ANSWER_SECONDS_MAX)
        durations.append((time.perf_counter_ns() - begin) / 1000)
    return durations


def awaited_one_by_one_us(
    log: ReplicatedLog, *, samples: int, record_bytes: int, pause_seconds: float
) -> list[float]:
    """The same for a coroutine."""

    async def measure() -> list[float]:
        record = os.urandom(record_bytes)
        durations = []
        for _ in range(samples):
            await asyncio.sleep(pause_seconds)
            begin = time.perf_counter_ns()
            await log.append(record)
            durations.append((time.perf_counter_ns() - begin) / 1000)
        return durations

    seconds_max = ANSWER_SECONDS_MAX + samples * pause_seconds
    return asyncio.run(asyncio.wait_for(measure(), seconds_max))
