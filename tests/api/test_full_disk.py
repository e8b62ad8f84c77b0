"""A log at the end of its map: appends are refused, and go on once something is dropped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import replog
from replog import Busy, Limits, Record, ReplicatedLog, Retention
from replog.agreement import Agreement
from replog.machines import KeyValue
from replog.pending import Pending
from tests.api.conftest import MEMBERS, SECONDS, Cluster
from tests.store.author import program
from transport.loopback import LoopbackNetwork

MIB = 1 << 20
MAP_BYTES = 8 * MIB
LIMITS = Limits(map_bytes_max=MAP_BYTES)
ENTRY_BYTES = 20_000

Open = Callable[..., ReplicatedLog]


@pytest.fixture
def reopen(tmp_path: Path, layer: Agreement) -> Iterator[Open]:
    """Closes the log of this test, if it is open, and opens it with these settings."""
    opened: list[ReplicatedLog] = []

    def open_log(**settings) -> ReplicatedLog:
        for log in opened:
            log.close()
        settings = {"limits": LIMITS, **settings}
        opened.append(replog.open(tmp_path / "alone", agreement=layer, **settings))
        return opened[-1]

    yield open_log
    for log in opened:
        log.close()


def fill(log: ReplicatedLog, record_bytes: int = 1024, bytes_max: int = MAP_BYTES) -> int:
    """Append until the disk is full, or so many bytes are in; how many."""
    appended = 0
    while appended < bytes_max:
        records = [bytes([appended % 251]) * record_bytes] * max(1, ENTRY_BYTES // record_bytes)
        try:
            log.append_many(records).result(SECONDS)
        except Busy as error:
            assert "map_bytes_max" in str(error)  # noqa: PT017 - or the other kind
            break
        appended += record_bytes * len(records)
    return appended


def fill_as_room_comes(log: ReplicatedLog, bytes_wanted: int) -> None:
    """Append so much more, each time that there is room."""
    appended, end = 0, time.monotonic() + SECONDS
    while appended < bytes_wanted:
        assert time.monotonic() < end, log.status()
        appended += fill(log, bytes_max=bytes_wanted - appended)
        time.sleep(0.01)


@pytest.mark.parametrize("record_bytes", [40, 1024, 60_000])
def test_a_full_log_takes_records_again_once_a_reader_lets_them_go(
    reopen: Open, record_bytes: int
) -> None:
    log = reopen(retention=Retention(bytes_max=1 * MIB))
    reader = log.reader("slow")
    fill(log, record_bytes, 4 * MAP_BYTES)
    assert log.first_offset == 0
    reader.ack(log.end_offset).result(SECONDS)
    reader.forget().result(SECONDS)
    fill_as_room_comes(log, 2 * MAP_BYTES)
    first_offset, end_offset = log.first_offset, log.end_offset
    log = reopen()
    log.barrier().result(SECONDS)
    assert log.first_offset >= first_offset > 0
    assert [record.offset for record in log.read()] == list(range(log.first_offset, end_offset))


def test_a_full_log_takes_records_again_once_it_is_opened_with_a_retention(reopen: Open) -> None:
    assert fill(reopen()) > MAP_BYTES // 2
    with pytest.raises(Busy):
        reopen().append(bytes(MAP_BYTES // 10))
    log = reopen(retention=Retention(records_max=100))
    fill_as_room_comes(log, MAP_BYTES)


def test_a_full_log_takes_records_again_behind_a_snapshot_of_its_machine(reopen: Open) -> None:
    log = reopen(retention=Retention(records_max=100))
    machine = KeyValue()
    log.attach(machine)
    put = [KeyValue.put(b"%d" % number, bytes(1000)) for number in range(20)]
    with pytest.raises(Busy):  # noqa: PT012 - one of many appends
        while True:
            log.append_many(put).result(SECONDS)
    assert log.first_offset == 0
    kept = log.snapshot().result(SECONDS)
    assert kept is not None
    fill_as_room_comes(log, MAP_BYTES // 4)
    assert log.first_offset > 0


HOLD = """
import sys
from replog.log_reader import LogReader
from replog.store import layout

with LogReader(sys.argv[1]) as reader, reader._reader.reading(layout.META):
    print("holds", flush=True)
    sys.stdin.read()
"""


def test_while_somebody_reads_for_long_a_log_that_has_dropped_is_full_and_not_after(
    reopen: Open, tmp_path: Path
) -> None:
    log = reopen(retention=Retention(bytes_max=1 * MIB))
    fill(log, bytes_max=MAP_BYTES)
    with program(HOLD, tmp_path / "alone") as holding:
        assert holding.stdout is not None
        assert holding.stdout.readline() == "holds\n"
        assert fill(log, bytes_max=10 * MAP_BYTES) < 9 * MAP_BYTES
        assert "appends are refused" in log.status().alarm
        for number in range(100):  # what cannot be refused is not
            log.reader("slow").ack(log.first_offset + number).result(SECONDS)
        log.reader("slow").forget().result(SECONDS)
        holding.communicate("")
    fill_as_room_comes(log, 2 * MAP_BYTES)
    assert log.status().alarm == ""


def test_a_cluster_whose_disks_were_full_goes_on(tmp_path: Path, layer: Agreement) -> None:
    """Large records from everywhere, more than fit: what is on its way goes beyond the bound."""
    settings: dict[str, Any] = {"limits": LIMITS, "retention": Retention(bytes_max=MAP_BYTES // 4)}
    cluster = Cluster(tmp_path, LoopbackNetwork(), layer)
    try:
        for node in MEMBERS:
            cluster.open(node, **settings)
        refused, end = 0, time.monotonic() + SECONDS
        appended: list[Pending[int]] = []
        while len(appended) * 300_000 < 3 * MAP_BYTES:
            assert time.monotonic() < end
            for log in cluster.logs.values():
                try:
                    appended.append(log.append(bytes(300_000)))
                except Busy:
                    refused += 1
                    time.sleep(0.001)
        assert refused > 0
        cluster.close()
        cluster = Cluster(tmp_path, LoopbackNetwork(), layer)
        for node in MEMBERS:
            cluster.open(node, **settings)
        for log in cluster.logs.values():
            log.barrier().result(SECONDS)
            fill_as_room_comes(log, MAP_BYTES)
    finally:
        cluster.close()


class Large(KeyValue):
    """A state for which there may be no room."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def apply(self, records: Sequence[Record]):
        return [None for _ in records]

    def snapshot(self) -> Iterator[bytes]:
        for _ in range(self.size // MIB):
            yield bytes(MIB)


def test_a_snapshot_without_room_fails_and_nothing_else_does(reopen: Open) -> None:
    limits = Limits(map_bytes_max=4 * MAP_BYTES)
    log = reopen(retention=Retention(records_max=100), limits=limits)
    machine = Large()
    log.attach(machine)
    machine.size = 4 * MAP_BYTES
    log.append(b"one").result(SECONDS)
    with pytest.raises(Busy, match="map_bytes_max"):
        log.snapshot().result(SECONDS)
    assert "the last snapshot of the machine failed" in log.status().alarm
    fill_as_room_comes(log, 1024)  # what was staged of it goes
    machine.size = MIB
    assert log.snapshot().result(SECONDS) is not None
    assert log.status().alarm == ""
    machine.size = 4 * MAP_BYTES
    fill_as_room_comes(log, 1024)
    with pytest.raises(Busy, match="map_bytes_max"):
        log.snapshot().result(SECONDS)
    end_offset = log.end_offset
    log = reopen(limits=limits)
    log.barrier().result(SECONDS)
    assert log.end_offset == end_offset
