"""`KeyValue` beside a dict."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from replog.machines import Compared, KeyValue
from tests.machines.kinds import KEYS, VALUES, as_records

OPERATIONS = st.one_of(
    st.tuples(st.just("put"), KEYS, VALUES),
    st.tuples(st.just("delete"), KEYS),
    st.tuples(st.just("compare_and_set"), KEYS, st.none() | VALUES, st.none() | VALUES),
)


def expected(model: dict[bytes, bytes], operation: str, key: bytes, *values: bytes | None):
    before = model.get(key)
    if operation == "compare_and_set" and before != values[0]:
        return Compared(swapped=False, found=before)
    after = None if operation == "delete" else values[-1]
    if after is None:
        model.pop(key, None)
    else:
        model[key] = after
    return Compared(swapped=True, found=before) if operation == "compare_and_set" else before


@given(operations=st.lists(OPERATIONS))
def test_it_answers_as_a_dict_does(operations: list[tuple[str, bytes]]) -> None:
    machine, model = KeyValue(), dict[bytes, bytes]()
    commands = [getattr(KeyValue, name)(*arguments) for name, *arguments in operations]
    answers = machine.apply(as_records(commands))
    assert answers == [expected(model, *operation) for operation in operations]
    assert dict(machine.items()) == model
    assert {key: machine.get(key) for key in model} == model
    assert machine.get(b"never put") is None


def test_compare_and_set_creates_swaps_and_removes() -> None:
    machine = KeyValue()
    steps = [(None, b"1"), (None, b"2"), (b"1", b"2"), (b"1", None), (b"2", None), (None, None)]
    answers = machine.apply(
        as_records([KeyValue.compare_and_set(b"a", before, after) for before, after in steps])
    )
    assert answers == [
        Compared(swapped=True, found=None),
        Compared(swapped=False, found=b"1"),
        Compared(swapped=True, found=b"1"),
        Compared(swapped=False, found=b"2"),
        Compared(swapped=True, found=b"2"),
        Compared(swapped=True, found=None),
    ]
    assert not machine.items()


def test_items_are_those_of_the_call() -> None:
    machine = KeyValue()
    machine.apply(as_records([KeyValue.put(b"a", b"1")]))
    items = machine.items()
    machine.apply(as_records([KeyValue.put(b"b", b"2")], base=1))
    assert list(items) == [(b"a", b"1")]


def test_a_snapshot_of_a_large_map_is_drawn_and_read_in_little_memory() -> None:
    machine, restored = KeyValue(), KeyValue()
    values = {b"%d" % number: bytes([number % 256]) * 20_000 for number in range(1500)}
    machine.apply(as_records([KeyValue.put(key, value) for key, value in values.items()]))
    tracemalloc.start()
    try:
        pieces = sum(1 for _ in machine.snapshot())
        _, drawing_bytes = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        restored.restore(machine.snapshot())
        _, restoring_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert pieces >= 28
    assert drawing_bytes < 5_000_000
    assert restoring_bytes < 30_000_000 + 10_000_000  # the values themselves, and little more
    assert restored.digest() == machine.digest()
