"""Each machine attached to a log of one node, and fed again from the log when it is reopened."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import replog
from raftlog import Raft
from replog import Machine, ReplicatedLog
from replog.machines import (
    Counter,
    Grant,
    KeyValue,
    Lock,
    Malformed,
    Pushed,
    Queue,
    Refused,
    Released,
)

SECONDS = 20.0


@pytest.fixture
def log(tmp_path: Path) -> Iterator[ReplicatedLog]:
    with replog.open(tmp_path / "n1", agreement=Raft()) as log:
        yield log


def answers(log: ReplicatedLog, *commands: bytes) -> list[Any]:
    """What the machine answers to each, one after the other; it has taken them all then."""
    answered = [log.call(command).result(SECONDS) for command in commands]
    log.barrier().result(SECONDS)
    log.applied().result(SECONDS)
    return answered


def replay(log: ReplicatedLog, machine: Machine) -> Sequence[Any]:
    """Feed this machine with the whole log."""
    return machine.apply(list(log.read()))


def test_a_key_value_map(log: ReplicatedLog) -> None:
    kv, other = log.attach(KeyValue()), KeyValue()
    commands = KeyValue.put(b"a", b"1"), b"hello", KeyValue.delete(b"b")
    before, malformed, deleted = answers(log, *commands)
    assert (before, type(malformed), deleted) == (None, Malformed, None)
    assert kv.get(b"a") == b"1"
    assert replay(log, other) == [before, malformed, deleted]
    assert other.digest() == kv.digest() != KeyValue().digest()


def test_a_counter(log: ReplicatedLog) -> None:
    counter, other = log.attach(Counter()), Counter()
    assert answers(log, Counter.add("visits"), Counter.add("visits", 2)) == [1, 3]
    assert counter.get("visits") == 3
    assert replay(log, other) == [1, 3]
    assert other.digest() == counter.digest() != Counter().digest()


def test_a_lock(log: ReplicatedLog) -> None:
    lock, other = log.attach(Lock()), Lock()
    (grant,) = answers(log, Lock.acquire("report", "ann", 60_000))
    assert isinstance(grant, Grant)
    assert lock.is_current("report", grant.epoch)
    assert grant.expires_ms == next(log.read()).timestamp_ms + 60_000
    assert answers(log, Lock.acquire("report", "bob")) == [Refused(grant)]
    assert answers(log, Lock.release("report", grant.epoch)) == [Released(grant.epoch)]
    (later,) = answers(log, Lock.acquire("report", "bob"))
    assert later.epoch > grant.epoch
    assert not lock.is_current("report", grant.epoch)
    assert replay(log, other) == [grant, Refused(grant), Released(grant.epoch), later]
    assert other.digest() == lock.digest() != Lock().digest()


def test_a_queue(log: ReplicatedLog) -> None:
    queue, other = log.attach(Queue()), Queue()
    commands = Queue.push(b"x"), Queue.push(b"y"), Queue.pop()
    assert answers(log, *commands) == [Pushed(1), Pushed(2), b"x"]
    assert queue.items() == [b"y"]
    assert replay(log, other) == [Pushed(1), Pushed(2), b"x"]
    assert other.digest() == queue.digest() != Queue().digest()


def test_a_machine_comes_back_with_its_log(tmp_path: Path) -> None:
    with replog.open(tmp_path, agreement=Raft()) as log:
        first = log.attach(KeyValue())
        log.append_many([KeyValue.put(b"%d" % n, b"v") for n in range(1000)]).result(SECONDS)
        log.applied().result(SECONDS)
    with replog.open(tmp_path, agreement=Raft()) as log:
        second = log.attach(KeyValue())
        log.barrier().result(SECONDS)
        log.applied().result(SECONDS)
    assert len(second.items()) == 1000
    assert second.digest() == first.digest()
