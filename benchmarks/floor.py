"""What the disk, LMDB and ZeroMQ cost on this machine when nothing of replog is in the way.

Run as a program, this module is the other side of its own measurements.
"""

from __future__ import annotations

import os
import select
import struct
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import lmdb
import zmq

from benchmarks.processes import Child, ChildFailed, end_all
from benchmarks.samples import median

if TYPE_CHECKING:
    from collections.abc import Callable

VALUE_BYTES = 128
BLOCK_BYTES = 4096
FILE_BLOCKS = 256
MAP_BYTES = 1 << 30
NODES = 3
QUORUM = 2
ANSWER_SECONDS_MAX = 10
TIME = struct.Struct("=q")

# --- one process ----------------------------------------------------------------------------------


def sync_us(directory: Path, samples: int) -> list[float]:
    """Overwrite 4 KiB of a file and fdatasync it."""
    path = directory / "blocks"
    block = os.urandom(BLOCK_BYTES)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, block * FILE_BLOCKS)
        os.fsync(descriptor)

        def overwrite(number: int) -> None:
            os.pwrite(descriptor, block, number % FILE_BLOCKS * BLOCK_BYTES)
            os.fdatasync(descriptor)

        return timed_us(overwrite, samples)
    finally:
        os.close(descriptor)
        path.unlink()


def commit_us(directory: Path, samples: int) -> list[float]:
    """Append one value of 128 bytes to a table of LMDB and commit."""
    with Log(directory / "commit") as log:
        return timed_us(log.append, samples)


class Log:
    """The least that is durable: one table of ascending keys in LMDB, synced as replog syncs."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self._environment = lmdb.open(
            str(directory), map_size=MAP_BYTES, max_dbs=1, lib_version=0, sync=True, metasync=True
        )
        self._table = self._environment.open_db(b"log")
        self._value = os.urandom(VALUE_BYTES)
        with self._environment.begin(db=self._table) as txn:
            self._next = int(txn.stat()["entries"])

    def append(self, _: int = 0) -> None:
        """Commit one more value."""
        with self._environment.begin(write=True, db=self._table) as txn:
            if not txn.put(self._next.to_bytes(8, "big"), self._value, append=True):
                raise ValueError(f"key {self._next} is taken: nothing would be committed")
        self._next += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._environment.close()


def timed_us(
    step: Callable[[int], object], samples: int, pause_seconds: float = 0.0
) -> list[float]:
    """How long each of these steps takes, with a pause before each."""
    durations = []
    for number in range(samples):
        time.sleep(pause_seconds)
        begin = time.perf_counter_ns()
        step(number)
        durations.append((time.perf_counter_ns() - begin) / 1000)
    return durations


# --- two processes --------------------------------------------------------------------------------


class Echo:
    """A ROUTER in another process that sends back what a DEALER here sends."""

    def __init__(self, directory: Path) -> None:
        self._child = Child("benchmarks.floor", ["echo"], directory / "echo.log")
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        try:
            self._socket.set(zmq.RCVTIMEO, 1000 * ANSWER_SECONDS_MAX)
            self._socket.connect(f"tcp://127.0.0.1:{self._child.answer()['port']}")
            self._message = os.urandom(VALUE_BYTES)
            self.round_trip(0)
        except BaseException:
            self.close()
            raise

    def round_trip(self, _: int) -> None:
        """One message there and back."""
        self._socket.send(self._message)
        self._socket.recv()

    def close(self) -> None:
        """End the other process."""
        self._context.destroy(linger=0)
        self._child.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def echo() -> None:
    """The other process."""
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    print(f'{{"port": {port}}}', flush=True)
    poller = zmq.Poller()
    poller.register(router, zmq.POLLIN)
    poller.register(0, zmq.POLLIN)
    while not any(ready == 0 for ready, _ in poller.poll()):
        router.send_multipart(router.recv_multipart())
    context.destroy(linger=0)


# --- three processes ------------------------------------------------------------------------------


class Commits:
    """Three unconnected processes that, released together, commit one value each to their own
    LMDB: the disk's share of any append that two of three disks must hold."""

    def __init__(self, directory: Path) -> None:
        self._children = [
            Child("benchmarks.floor", ["commit", str(directory / f"c{n}")], directory / f"c{n}.log")
            for n in range(NODES)
        ]
        try:
            self.second_done_us()
        except BaseException:
            self.close()
            raise

    def second_done_us(self) -> float:
        """From the release to the end of the second commit."""
        released = time.monotonic_ns()
        for child in self._children:
            os.write(child.input_fd, b"\0")
        ends = sorted([done_ns(child) for child in self._children])
        return (ends[QUORUM - 1] - released) / 1000

    def close(self) -> None:
        """End the processes."""
        end_all(self._children)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def done_ns(child: Child) -> int:
    """When one of them was done, by the clock that all processes share."""
    if not select.select([child.output_fd], [], [], ANSWER_SECONDS_MAX)[0]:
        raise ChildFailed(f"a commit took longer than {ANSWER_SECONDS_MAX} s")
    answer = os.read(child.output_fd, TIME.size)
    if len(answer) != TIME.size:
        raise ChildFailed("a committing process ended")
    return int(TIME.unpack(answer)[0])


def commit_when_released(directory: Path) -> None:
    """Each of the three."""
    with Log(directory) as log:
        while os.read(0, 1):
            log.append()
            os.write(1, TIME.pack(time.monotonic_ns()))


# --- together -------------------------------------------------------------------------------------


class AppendFloor(NamedTuple):
    """The parts that no append on an idle cluster of three can do without."""

    commits_us: float
    round_trip_us: float

    @property
    def sum_us(self) -> float:
        """The floor."""
        return self.commits_us + self.round_trip_us


class Floor:
    """Measures the floor of one append, again and again."""

    def __init__(self, directory: Path) -> None:
        with ExitStack() as stack:
            self._commits = stack.enter_context(Commits(directory))
            self._echo = stack.enter_context(Echo(directory))
            self._stack = stack.pop_all()

    def append(self, samples: int, pause_seconds: float) -> AppendFloor:
        """Medians over this many samples, with a pause before each."""
        commits = []
        for _ in range(samples):
            time.sleep(pause_seconds)
            commits.append(self._commits.second_done_us())
        return AppendFloor(median(commits), median(self.round_trips_us(samples, pause_seconds)))

    def round_trips_us(self, samples: int, pause_seconds: float = 0.0) -> list[float]:
        """ZeroMQ alone."""
        return timed_us(self._echo.round_trip, samples, pause_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()


if __name__ == "__main__":
    if sys.argv[1] == "echo":
        echo()
    else:
        commit_when_released(Path(sys.argv[2]))
