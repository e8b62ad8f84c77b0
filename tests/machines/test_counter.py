"""`Counter` beside plain addition."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from replog.machines import Counter, OutOfRange
from tests.machines.kinds import NAMES, as_records

LARGEST = (1 << 63) - 1


@given(additions=st.lists(st.tuples(NAMES, st.integers(-5, 5))))
def test_it_adds(additions: list[tuple[str, int]]) -> None:
    machine, model = Counter(), dict[str, int]()
    answers = machine.apply(as_records([Counter.add(*addition) for addition in additions]))
    for (name, amount), answer in zip(additions, answers, strict=True):
        model[name] = model.get(name, 0) + amount
        assert answer == model[name]
    assert dict(machine.items()) == {name: value for name, value in model.items() if value}
    assert {name: machine.get(name) for name in model} == model


def test_a_value_stays_within_64_bits() -> None:
    machine = Counter()
    amounts = [LARGEST, 1, (1 << 64) - 1, -LARGEST, -LARGEST - 1, -1, 1]
    answers = machine.apply(as_records([Counter.add("a", amount) for amount in amounts]))
    assert answers == [
        LARGEST,
        OutOfRange(LARGEST),
        OutOfRange(LARGEST),
        0,
        -LARGEST - 1,
        OutOfRange(-LARGEST - 1),
        -LARGEST,
    ]
    restored = Counter()
    restored.restore(machine.snapshot())
    assert restored.get("a") == -LARGEST


def test_a_counter_at_0_is_one_that_never_was() -> None:
    machine = Counter()
    assert machine.apply(as_records([Counter.add("a"), Counter.add("a", -1)])) == [1, 0]
    assert machine.get("a") == machine.get("never added to") == 0
    assert machine.digest() == Counter().digest()
