"""The machines under one test: how to make each, its commands, and what can be read of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from hypothesis import strategies as st

from replog.machine import Machine, Record
from replog.machines import Counter, KeyValue, Lock, Queue

KEYS = st.sampled_from([b"", b"a", b"b", b"c"])
VALUES = st.binary(max_size=3)
NAMES = st.sampled_from(["", "a", "b"])
OWNERS = st.sampled_from(["ann", "bob"])
TTLS_MS = st.none() | st.integers(1, 20)
EPOCHS = st.integers(0, 12)

KEY_VALUE_COMMANDS = st.one_of(
    st.builds(KeyValue.put, KEYS, VALUES),
    st.builds(KeyValue.delete, KEYS),
    st.builds(KeyValue.compare_and_set, KEYS, st.none() | VALUES, st.none() | VALUES),
)
COUNTER_COMMANDS = st.builds(
    Counter.add, NAMES, st.integers(-3, 3) | st.integers(-(1 << 63), (1 << 64) - 1)
)
LOCK_COMMANDS = st.one_of(
    st.builds(Lock.acquire, NAMES, OWNERS, TTLS_MS),
    st.builds(Lock.renew, NAMES, EPOCHS, TTLS_MS),
    st.builds(Lock.release, NAMES, EPOCHS),
)
QUEUE_COMMANDS = st.builds(Queue.push, VALUES, st.integers(1, 4)) | st.builds(Queue.pop)


class Kind(NamedTuple):
    """One machine."""

    make: Callable[[], Machine]
    commands: st.SearchStrategy[bytes]
    view: Callable[[Any], object]
    """All that can be read of the machine, comparable."""


KINDS = {
    "key_value": Kind(KeyValue, KEY_VALUE_COMMANDS, lambda machine: dict(machine.items())),
    "counter": Kind(Counter, COUNTER_COMMANDS, lambda machine: dict(machine.items())),
    "lock": Kind(Lock, LOCK_COMMANDS, lambda machine: machine.held()),
    "queue": Kind(Queue, QUEUE_COMMANDS, lambda machine: machine.items()),
}


def as_records(
    commands: Iterable[bytes], gaps_ms: Sequence[int] = (), base: int = 0, start_ms: int = 100
) -> list[Record]:
    """These commands at consecutive offsets, each so long after the one before."""
    records = []
    now_ms = start_ms
    for place, command in enumerate(commands):
        now_ms += gaps_ms[place] if place < len(gaps_ms) else 0
        records.append(Record(base + place, command, now_ms))
    return records


def histories(kind: Kind, length_max: int = 25) -> st.SearchStrategy[list[Record]]:
    """Records that follow each other in a log."""
    steps = st.lists(st.tuples(kind.commands, st.integers(0, 15)), max_size=length_max)
    return steps.map(
        lambda drawn: as_records([command for command, _ in drawn], [gap for _, gap in drawn])
    )


def fed(kind: Kind, records: Sequence[Record]) -> Machine:
    """A machine that took these records."""
    machine = kind.make()
    machine.apply(records)
    return machine


def state(machine: Machine) -> bytes:
    """The snapshot, in one piece."""
    return b"".join(machine.snapshot())


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """These bytes in other pieces, empty ones among them when places repeat."""
    bounds = [0, *sorted(min(place, len(data)) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(bounds)]
