"""`Queue` beside a deque."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from replog.machines import Full, Pushed, Queue
from tests.machines.kinds import VALUES, as_records

POP = None


@given(operations=st.lists(st.just(POP) | st.tuples(VALUES, st.integers(1, 4))))
def test_it_answers_as_a_bounded_deque_does(operations: list[tuple[bytes, int] | None]) -> None:
    machine, model = Queue(), deque[bytes]()
    commands = [
        Queue.pop() if operation is POP else Queue.push(*operation) for operation in operations
    ]
    for operation, answer in zip(operations, machine.apply(as_records(commands)), strict=True):
        if operation is POP:
            assert answer == (model.popleft() if model else None)
        elif len(model) >= operation[1]:
            assert answer == Full(len(model))
        else:
            model.append(operation[0])
            assert answer == Pushed(len(model))
    assert machine.items() == list(model)
    assert machine.length == len(model)


def test_each_item_goes_to_one_pop_in_the_order_of_the_pushes() -> None:
    machine = Queue()
    items = [b"%d" % number for number in range(100)]
    machine.apply(as_records(map(Queue.push, items)))
    assert machine.apply(as_records([Queue.pop()] * 101)) == [*items, None]


def test_the_order_of_the_items_is_part_of_the_digest() -> None:
    first, second = Queue(), Queue()
    first.apply(as_records([Queue.push(b"x"), Queue.push(b"y")]))
    second.apply(as_records([Queue.push(b"y"), Queue.push(b"x")]))
    assert first.digest() != second.digest()
    rotate = as_records([Queue.pop(), Queue.push(b"y")], base=2)
    assert second.apply(rotate) == [b"y", Pushed(2)]
    assert second.items() == [b"x", b"y"]
    assert first.digest() == second.digest()
