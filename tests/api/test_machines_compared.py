"""Machines of three nodes, one of which comes to another state: it stops, and nothing else does."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from replog import Limits, MachineStopped, Record, ReplicatedLog
from replog.machines import KeyValue
from tests.api.conftest import MEMBERS, SECONDS, Cluster

EVERY = 8
LIMITS = Limits(machine_digest_records=EVERY)


class Flawed(KeyValue):
    """Changes one value on its way, from the record at this offset on."""

    def __init__(self, offset: int) -> None:
        super().__init__()
        self.offset = offset
        self.calls: list[tuple[int, int]] = []

    def apply(self, records: Sequence[Record]) -> Any:
        self.calls.append((records[0].offset, records[-1].offset + 1))
        return super().apply([self._seen(record) for record in records])

    def _seen(self, record: Record) -> Record:
        if record.offset != self.offset:
            return record
        return record._replace(data=KeyValue.put(b"flaw", b""))


@pytest.fixture
def trio(cluster: Cluster) -> Cluster:
    """Nodes that compare every eight records."""
    cluster.leader()  # all three have met by then
    cluster.close()
    for node in MEMBERS:
        cluster.open(node, limits=LIMITS)
    return cluster


def puts(count: int) -> list[bytes]:
    return [KeyValue.put(b"key %d" % (number % 5), b"%d" % number) for number in range(count)]


def until(holds: Callable[[], bool]) -> None:
    give_up = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def failure(log: ReplicatedLog) -> str:
    machine = log.status().machine
    assert machine is not None
    return machine.failure


def settle(trio: Cluster, offset: int) -> None:
    for log in trio.logs.values():
        until(lambda log=log: log.end_offset == offset)  # type: ignore[misc]
        log.applied().result(SECONDS)


def test_equal_machines_go_on(trio: Cluster) -> None:
    machines = [log.attach(KeyValue()) for log in trio.logs.values()]
    trio.logs["n1"].append_many(puts(10 * EVERY)).result(SECONDS)
    settle(trio, 10 * EVERY)
    assert [failure(log) for log in trio.logs.values()] == ["", "", ""]
    assert {log.status().alarm for log in trio.logs.values()} == {""}
    assert len({machine.digest() for machine in machines}) == 1
    for log in trio.logs.values():
        one = log._node._replica.machines
        until(lambda one=one: one._compared_offset == 10 * EVERY)  # type: ignore[misc]


@pytest.mark.parametrize("wrong", ["n1", "n3"])
def test_a_machine_that_differs_stops_and_appends_and_reads_go_on(
    trio: Cluster, wrong: str
) -> None:
    for node, log in trio.logs.items():
        log.attach(Flawed(3 * EVERY + 1) if node == wrong else KeyValue())
    log = trio.logs[wrong]
    assert log.append_many(puts(3 * EVERY)).result(SECONDS)
    settle(trio, 3 * EVERY)
    assert failure(log) == ""
    log.append_many(puts(EVERY)).result(SECONDS)
    until(lambda: failure(log) != "")
    right = ", ".join(node for node in MEMBERS if node != wrong)
    assert f"it differs from the machines of a majority ({right})" in failure(log)
    assert f"below offset {4 * EVERY}" in failure(log)
    with pytest.raises(MachineStopped, match="differs from the machines of a majority"):
        log.call(KeyValue.put(b"a", b"b"))
    offset = log.append(KeyValue.put(b"after", b"")).result(SECONDS)
    assert [record.offset for record in log.read(offset)] == [offset]
    for node in set(MEMBERS) - {wrong}:
        other = trio.logs[node]
        until(lambda other=other: other.end_offset > offset)  # type: ignore[misc]
        other.applied().result(SECONDS)
        assert failure(other) == ""
        assert other.status().alarm == ""
        assert other.call(KeyValue.put(b"after", node.encode())).result(SECONDS) is not None


def test_two_machines_that_differ_raise_an_alarm_while_there_is_no_third(trio: Cluster) -> None:
    trio.logs["n1"].attach(KeyValue())
    trio.logs["n2"].attach(Flawed(2))
    trio.logs["n1"].append_many(puts(EVERY)).result(SECONDS)
    for node in ("n1", "n2"):
        log = trio.logs[node]
        until(lambda log=log: "n1 against n2" in log.status().alarm)  # type: ignore[misc]
        assert failure(log) == ""
    trio.logs["n3"].attach(KeyValue())
    until(lambda: failure(trio.logs["n2"]) != "")
    until(lambda: trio.logs["n1"].status().alarm == "")
    assert failure(trio.logs["n1"]) == failure(trio.logs["n3"]) == ""


def test_a_machine_that_is_attached_late_hears_that_it_differs(trio: Cluster) -> None:
    for node in ("n1", "n2"):
        trio.logs[node].attach(KeyValue())
    trio.logs["n3"].close()
    trio.logs["n1"].append_many(puts(EVERY)).result(SECONDS)
    for node in ("n1", "n2"):
        until(lambda node=node: trio.logs[node].end_offset == EVERY)  # type: ignore[misc]
        trio.logs[node].applied().result(SECONDS)
    late = trio.open("n3", limits=LIMITS)
    late.attach(Flawed(0))
    until(lambda: failure(late) != "")
    assert "(n1, n2)" in failure(late)


def test_calls_of_one_run_that_is_cut_at_an_agreed_offset_are_all_answered(
    open_alone: Callable[..., ReplicatedLog],
) -> None:
    log = open_alone(machine_digest_records=4)
    machine = Flawed(-1)
    log.append_many(puts(10)).result(SECONDS)
    log.attach(machine)
    log.applied(10).result(SECONDS)
    assert machine.calls == [(0, 4), (4, 8), (8, 10)]
    calls = [log.call(KeyValue.put(b"k", b"%d" % number)) for number in range(50)]
    answers = [None, *[b"%d" % number for number in range(49)]]
    assert [call.result(SECONDS) for call in calls] == answers
    cuts = {stop for start, stop in machine.calls} | {0}
    assert cuts >= set(range(0, 61, 4))


class Silent:
    """A machine without a digest, or with one that raises."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def apply(self, records: Sequence[Record]) -> Sequence[None]:
        self.calls.append(len(records))
        return [None] * len(records)


class Mute(Silent):
    def digest(self) -> bytes:
        raise ArithmeticError("no digest today")


def test_a_machine_without_a_digest_is_not_compared(
    open_alone: Callable[..., ReplicatedLog],
) -> None:
    log = open_alone(machine_digest_records=4)
    log.append_many(puts(10)).result(SECONDS)
    machine: Any = Silent()
    log.attach(machine)
    log.applied(10).result(SECONDS)
    assert machine.calls == [10]
    assert log.status().alarm == ""


def test_what_a_digest_raises_stops_nothing_and_is_told(
    open_alone: Callable[..., ReplicatedLog],
) -> None:
    log = open_alone(machine_digest_records=4)
    log.append_many(puts(10)).result(SECONDS)
    machine: Any = Mute()
    log.attach(machine)
    log.applied(10).result(SECONDS)
    assert machine.calls == [4, 6]
    assert "its digest failed: ArithmeticError" in log.status().alarm
    assert failure(log) == ""
