"""Snapshots, compaction and named readers of a real node: what its application sees of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue

import pytest

import replog
from replog import (
    MachineStopped,
    OffsetOutOfRange,
    Record,
    ReplicatedLog,
    Retention,
    SnapshotEvery,
)
from replog.agreement import Agreement
from replog.machines import KeyValue
from replog.named_reader import NamedReader
from tests.api.conftest import SECONDS

Open = Callable[..., ReplicatedLog]


class Watched(KeyValue):
    """Knows how many records came one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.applied = 0

    def apply(self, records: Sequence[Record]):
        self.applied += len(records)
        return super().apply(records)


@pytest.fixture
def reopen(tmp_path: Path, layer: Agreement) -> Iterator[Open]:
    """Closes the log of this test, if it is open, and opens it with these settings."""
    opened: list[ReplicatedLog] = []

    def open_log(**settings) -> ReplicatedLog:
        for log in opened:
            log.close()
        opened.append(replog.open(tmp_path / "alone", agreement=layer, **settings))
        return opened[-1]

    yield open_log
    for log in opened:
        log.close()


def put(log: ReplicatedLog, first: int, last: int) -> None:
    """One entry for each, so that there is something to drop."""
    for number in range(first, last):
        log.append(KeyValue.put(b"%d" % number, bytes(100))).result(SECONDS)


def until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_a_machine_is_restored_from_its_snapshot_and_takes_only_what_came_after(
    reopen: Open,
) -> None:
    log = reopen()
    machine = log.attach(Watched())
    put(log, 0, 20)
    log.applied().result(SECONDS)
    kept = log.snapshot().result(SECONDS)
    assert kept is not None
    assert kept.position.offset == 20
    assert kept.pieces == 1
    put(log, 20, 25)
    log.applied().result(SECONDS)
    digest = machine.digest()
    log = reopen()
    again = log.attach(Watched())
    log.applied().result(SECONDS)
    assert (again.applied, again.digest()) == (5, digest)
    assert log.first_offset == 0
    assert len(list(log.read())) == 25


def test_with_a_policy_and_a_retention_the_log_stays_short_and_the_state_whole(
    reopen: Open,
) -> None:
    settings = {
        "retention": Retention(records_max=10),
        "snapshots": SnapshotEvery(records=20),
    }
    log = reopen(**settings)
    machine = log.attach(Watched())
    put(log, 0, 100)
    log.applied().result(SECONDS)
    until(lambda: log.first_offset >= 60)
    assert log.first_offset <= 90
    assert log.status().first_offset == log.first_offset
    with pytest.raises(OffsetOutOfRange) as gone:
        log.read(0)
    assert gone.value.first_offset >= 60
    assert [record.offset for record in log.read()] == list(range(log.first_offset, 100))
    digest = machine.digest()
    first = log.first_offset
    log = reopen(**settings)
    assert log.first_offset >= first
    again = log.attach(Watched())
    log.applied().result(SECONDS)
    assert again.digest() == digest
    assert again.applied <= 40
    assert log.append(b"next").result(SECONDS) == 100


def test_without_a_machine_a_header_lets_the_log_go_and_a_later_machine_says_so(
    reopen: Open,
) -> None:
    log = reopen(retention=Retention(records_max=10))
    put(log, 0, 50)
    header = log.snapshot().result(SECONDS)
    assert header is not None
    assert (header.pieces, header.position.offset) == (0, 50)
    grow_until(log, lambda: log.first_offset > 0)
    end = log.end_offset
    log.attach(Watched())
    with pytest.raises(MachineStopped, match="SnapshotEvery"):
        log.applied().result(SECONDS)
    status = log.status()
    assert status.machine is not None
    assert "no machine was attached" in status.machine.failure
    assert log.append(b"goes on").result(SECONDS) == end


def test_asking_twice_for_a_snapshot_is_harmless(reopen: Open) -> None:
    log = reopen()
    put(log, 0, 3)
    first = log.snapshot().result(SECONDS)
    assert log.snapshot().result(SECONDS) == first
    log.attach(Watched())
    put(log, 3, 4)
    log.applied().result(SECONDS)
    second = log.snapshot().result(SECONDS)
    assert second is not None
    assert second.pieces == 1
    assert log.snapshot().result(SECONDS) == second
    assert log.append(b"fine").result(SECONDS) == 4


def test_a_snapshot_that_fails_is_an_alarm_until_one_succeeds(
    reopen: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> Iterator[bytes]:
        yield b"begun"
        raise ValueError("no state today")

    log = reopen()
    machine = log.attach(Watched())
    put(log, 0, 3)
    log.applied().result(SECONDS)
    with monkeypatch.context() as broken:
        broken.setattr(machine, "snapshot", fail)
        with pytest.raises(ValueError, match="no state today"):
            log.snapshot().result(SECONDS)
    status = log.status()
    assert "no state today" in status.alarm
    assert status.machine is not None
    assert status.machine.failure == ""
    kept = log.snapshot().result(SECONDS)
    assert kept is not None
    assert log.status().alarm == ""


def grow_until(log: ReplicatedLog, condition: Callable[[], bool]) -> None:
    """A log that grows is looked at, and only then."""

    def grown() -> bool:
        log.append(bytes(100)).result(SECONDS)
        return condition()

    until(grown)


def test_a_named_reader_keeps_its_place_and_pins_the_log(reopen: Open) -> None:
    settings = {"retention": Retention(records_max=5)}
    log = reopen(**settings)
    reader = log.reader("billing")
    put(log, 0, 30)
    assert [next(reader).offset for _ in range(12)] == list(range(12))
    reader.ack(12).result(SECONDS)
    grow_until(log, lambda: log.first_offset > 0)
    grow_until(log, lambda: log.end_offset >= 100)
    assert log.first_offset == 12
    assert log.status().readers == {"billing": 12}
    log = reopen(**settings)
    again = log.reader("billing")
    assert again.position == 12
    assert next(again).offset == 12
    again.ack(50).result(SECONDS)
    grow_until(log, lambda: log.first_offset > 12)
    assert log.first_offset <= 50
    again.forget().result(SECONDS)
    assert log.status().readers == {}
    grow_until(log, lambda: log.first_offset > 50)


def test_a_reader_that_lags_beyond_its_bound_loses_the_log_and_is_told(reopen: Open) -> None:
    log = reopen(retention=Retention(records_max=5, readers_records_max=10))
    slow = log.reader("slow")
    grow_until(log, lambda: log.first_offset > 0)
    assert log.end_offset > 10
    with pytest.raises(OffsetOutOfRange) as gone:
        next(slow)
    assert 0 < gone.value.first_offset <= log.first_offset
    slow.ack(log.end_offset).result(SECONDS)
    offset = log.append(b"next").result(SECONDS)
    assert next(log.reader("slow")).offset == offset


def test_what_a_new_reader_reads_first_is_never_compacted(reopen: Open) -> None:
    log = reopen(retention=Retention(records_max=1))
    over = threading.Event()

    def feed() -> None:
        while not over.is_set():
            log.append(b"more").result(SECONDS)

    writers = [threading.Thread(target=feed) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(100):
            reader = log.reader("new")
            for _ in range(20):
                log.barrier().result(SECONDS)
            assert log.first_offset <= reader.position
            reader.forget().result(SECONDS)
    finally:
        over.set()
        for writer in writers:
            writer.join()
    assert log.first_offset > 0


def test_a_done_callback_may_make_a_reader(reopen: Open) -> None:
    log = reopen(retention=Retention(records_max=5))
    made: SimpleQueue[NamedReader] = SimpleQueue()
    log.append(b"one").add_done_callback(lambda _: made.put(log.reader("billing")))
    assert next(made.get(timeout=SECONDS)).data == b"one"
    log.barrier().result(SECONDS)
    assert log.status().readers == {"billing": 0}


@pytest.mark.parametrize("machine", [KeyValue, None])
def test_a_snapshot_whose_header_is_too_large_fails_alone(
    reopen: Open, monkeypatch: pytest.MonkeyPatch, machine: type[KeyValue] | None
) -> None:
    log = reopen()
    if machine is not None:
        log.attach(machine())
    put(log, 0, 3)
    with monkeypatch.context() as changed:
        changed.setattr("replog.snapshot.HEADER_BYTES_MAX", 20)
        with pytest.raises(replog.ReplogError, match=r"cannot be kept: a header of \d+ bytes, 20"):
            log.snapshot().result(SECONDS)
        put(log, 3, 6)
    assert log.status().snapshot is None
    log = reopen()
    assert log.end_offset == 6
    kept = log.snapshot().result(SECONDS)
    assert kept is not None
    assert kept.position.offset == 6


def test_a_log_that_no_header_stands_for_is_kept_and_says_so(
    reopen: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = reopen(retention=Retention(records_max=5))
    with monkeypatch.context() as changed:
        changed.setattr("replog.snapshot.HEADER_BYTES_MAX", 20)
        grow_until(log, lambda: "nothing is compacted: " in log.status().alarm)
        put(log, 0, 20)
        assert log.first_offset == 0
        assert next(log.read()).offset == 0
    grow_until(log, lambda: log.first_offset > 0)
    assert log.status().alarm == ""


def test_a_machine_of_a_laggard_goes_on_from_anothers_snapshot(cluster) -> None:
    machines = {}
    settings = {"retention": Retention(records_max=10), "snapshots": SnapshotEvery(records=20)}
    cluster.close()
    for node in cluster.members:
        machines[node] = cluster.open(node, **settings).attach(Watched())
    log = cluster.logs["n1"]
    put(log, 0, 5)
    until(lambda: cluster.logs["n3"].end_offset == 5)
    cluster.logs["n3"].close()
    put(log, 5, 200)
    until(lambda: all(cluster.logs[node].first_offset > 100 for node in ("n1", "n2")))
    late = cluster.open("n3", **settings)
    machines["n3"] = late.attach(Watched())
    until(lambda: late.end_offset == 200)
    for one in cluster.logs.values():
        one.applied(200).result(SECONDS)
    assert machines["n3"].digest() == machines["n1"].digest()
    assert machines["n3"].applied < 150
    assert late.first_offset > 100
    assert late.call(KeyValue.put(b"0", b"late")).result(SECONDS) == bytes(100)
