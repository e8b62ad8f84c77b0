"""The judges of histories agree with brute force, on every history small enough for it."""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, combinations, permutations
from random import Random
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replog.testing.linearizability import (
    PENDING,
    Add,
    Append,
    AppendLog,
    CompareAndSet,
    Counter,
    Counterexample,
    Delete,
    End,
    Finding,
    Get,
    KeyValue,
    Model,
    Operation,
    Put,
    Read,
    check,
    find_misorder,
)

AnyModel = Model[Any, Any, Any]
AnyOperation = Operation[Any, Any]

KEY_VALUE, LOG, COUNTER = KeyValue(), AppendLog(), Counter()
OPERATIONS_MAX = 6


def answered(
    given: object, output: object, called_at: int, returned_at: int, client: str = "c"
) -> AnyOperation:
    return Operation(client, given, output, called_at, returned_at)


def still_open(given: object, called_at: int, client: str = "o") -> AnyOperation:
    return Operation(client, given, PENDING, called_at, None)


def in_turn(*steps: tuple[object, object]) -> list[AnyOperation]:
    """Operations one after the other."""
    return [
        answered(given, output, 10 * place, 10 * place + 5)
        for place, (given, output) in enumerate(steps, start=1)
    ]


def keeps_real_time(order: Sequence[AnyOperation]) -> bool:
    return not any(
        later.returned_at is not None and later.returned_at < earlier.called_at
        for earlier, later in combinations(order, 2)
    )


def replays(model: AnyModel, order: Sequence[AnyOperation]) -> bool:
    """Whether the machine gives these outputs in this order. Partitions are played together."""
    states: dict[Hashable, Any] = {}
    for operation in order:
        key = model.partition(operation.input)
        states[key], output = model.step(states.get(key, model.initial), operation.input)
        if operation.output is not PENDING and output != operation.output:
            return False
    return True


def has_order(
    model: AnyModel, required: Sequence[AnyOperation], allowed: Sequence[AnyOperation]
) -> bool:
    """Whether any order of all the required and some of the allowed explains them."""
    subsets = chain.from_iterable(combinations(allowed, count) for count in range(len(allowed) + 1))
    return any(
        replays(model, order) and keeps_real_time(order)
        for subset in subsets
        for order in permutations([*required, *subset])
    )


def is_linearizable(model: AnyModel, history: Sequence[AnyOperation]) -> bool:
    required = [operation for operation in history if operation.returned_at is not None]
    return has_order(model, required, [o for o in history if o.returned_at is None])


def assert_proves(
    model: AnyModel, history: Sequence[AnyOperation], example: Counterexample
) -> None:
    """Everything that a counterexample says of a history is true of it."""
    parts: dict[Hashable, list[AnyOperation]] = {}
    for operation in history:
        parts.setdefault(model.partition(operation.input), []).append(operation)
    members = parts[example.partition]
    assert example.operations == len(members)
    for others in parts.values():
        assert len(others) >= len(members) or is_linearizable(model, others)

    until = example.blocked.returned_at
    assert until is not None
    shown = [*example.linearized, example.blocked, *example.unplaced]
    placed = Tally(map(id, shown))
    assert set(placed.values()) == {1}
    for operation in members:
        assert (id(operation) in placed) == (operation.called_at <= until)
    assert replays(model, example.linearized)
    assert keeps_real_time(example.linearized)
    assert all(o.returned_at is None or o.returned_at >= until for o in example.unplaced)
    assert not replays(model, [*example.linearized, example.blocked])
    assert replays(model, [*example.linearized, replace(example.blocked, output=example.expected)])
    required = [o for o in shown if o.returned_at is not None and o.returned_at <= until]
    allowed = [o for o in shown if o.returned_at is None or o.returned_at > until]
    assert not has_order(model, required, allowed)


def assert_judged_rightly(model: AnyModel, history: Sequence[AnyOperation]) -> Finding:
    verdict = check(model, history)
    right = is_linearizable(model, history)
    assert verdict.finding is (Finding.LINEARIZABLE if right else Finding.NOT_LINEARIZABLE)
    assert bool(verdict) is right
    if verdict.counterexample is not None:
        assert_proves(model, history, verdict.counterexample)
    return verdict.finding


class Event(NamedTuple):
    """One operation as it really happened; `None` for an effect or a return that never came."""

    given: Any
    called_at: int
    effect_at: int | None
    returned_at: int | None
    client: str = "c"


def played(model: AnyModel, events: Sequence[Event]) -> list[AnyOperation]:
    """The history that clients of a correct machine see."""
    states: dict[Hashable, Any] = {}
    outputs: dict[int, Any] = {}
    effective = [place for place, event in enumerate(events) if event.effect_at is not None]
    for place in sorted(effective, key=lambda place: events[place].effect_at or 0):
        key = model.partition(events[place].given)
        state = states.get(key, model.initial)
        states[key], outputs[place] = model.step(state, events[place].given)
    return [
        Operation(
            event.client,
            event.given,
            PENDING if event.returned_at is None else outputs[place],
            event.called_at,
            event.returned_at,
        )
        for place, event in enumerate(events)
    ]


def swapped(history: Sequence[AnyOperation], one: int, other: int) -> list[AnyOperation]:
    """With the outputs of two answered operations exchanged."""
    changed = list(history)
    changed[one] = replace(history[one], output=history[other].output)
    changed[other] = replace(history[other], output=history[one].output)
    return changed


def request_of_map(random: Random, keys: Sequence[str]) -> object:
    key, value = random.choice(keys), random.randrange(3)
    update = CompareAndSet(key, random.choice([None, 0, 1]), value)
    return random.choice([Get(key), Get(key), Put(key, value), update, Delete(key)])


def request_of_log(random: Random) -> object:
    return random.choice([Append(random.randrange(9)), Append("a"), Read(0), End()])


MODELS: dict[str, AnyModel] = {"key-value": KEY_VALUE, "log": LOG, "counter": COUNTER}
REQUESTS: dict[str, Callable[[Random], object]] = {
    "key-value": lambda random: request_of_map(random, "xxxy"),
    "log": request_of_log,
    "counter": lambda random: Add(random.randrange(-1, 2)),
}
OUTPUTS: dict[type, list[Any]] = {
    Get: [None, 0, 1],
    Put: [None],
    CompareAndSet: [True, False],
    Delete: [True, False],
    Append: [0, 1, 2],
    Read: [[], ["a"], ["a", "a"]],
    End: [0, 1, 2],
    Add: [-1, 0, 1],
}
FIFTY_KEYS = partial(request_of_map, keys=[f"key {number}" for number in range(50)])


def run_of_clients(
    random: Random, request: Callable[[Random], object], clients: int, count: int
) -> list[Event]:
    """Each client asks one thing after the other; one answer in twenty never comes."""
    free_at = [0] * clients
    drawn = []
    for _ in range(count):
        client = min(range(clients), key=free_at.__getitem__)
        called_at = free_at[client] + random.randint(1, 4)
        effect_at = called_at + random.randint(0, 9)
        returned_at = effect_at + random.randint(0, 9)
        free_at[client] = returned_at
        given = request(random)
        if random.randrange(20):
            drawn.append(Event(given, called_at, effect_at, returned_at, f"c{client}"))
        else:
            happens = random.randrange(2)
            drawn.append(Event(given, called_at, effect_at if happens else None, None))
    return drawn


def judge_many(
    name: str, variants: Callable[[Random, list[AnyOperation]], Iterator[list[AnyOperation]]]
) -> None:
    """Variants of right histories are judged as by brute force; often right and often wrong."""
    model = MODELS[name]
    findings: Tally[Finding] = Tally()

    # The same examples each time, so that tallies of them are facts.
    @settings(max_examples=300, derandomize=True, database=None, deadline=None)
    @given(st.randoms(use_true_random=True))
    def judge(random: Random) -> None:
        clients, count = random.randint(2, 5), random.randint(3, OPERATIONS_MAX)
        history = played(model, run_of_clients(random, REQUESTS[name], clients, count))
        assert check(model, history).finding is Finding.LINEARIZABLE
        for variant in variants(random, history):
            findings[assert_judged_rightly(model, variant)] += 1

    judge()
    assert findings[Finding.LINEARIZABLE] >= 30, findings
    assert findings[Finding.NOT_LINEARIZABLE] >= 60, findings


@pytest.mark.parametrize("name", MODELS)
def test_random_outputs_are_judged_as_by_brute_force(name: str) -> None:
    def with_other_outputs(
        random: Random, history: list[AnyOperation]
    ) -> Iterator[list[AnyOperation]]:
        for _ in range(3):
            yield [
                operation
                if operation.output is PENDING or random.randrange(3)
                else replace(operation, output=random.choice(OUTPUTS[type(operation.input)]))
                for operation in history
            ]

    judge_many(name, with_other_outputs)


@pytest.mark.parametrize("name", MODELS)
def test_swapped_outputs_are_seen_exactly_if_brute_force_sees_them(name: str) -> None:
    def with_two_swapped(_: Random, history: list[AnyOperation]) -> Iterator[list[AnyOperation]]:
        for one, other in combinations(range(len(history)), 2):
            outputs = [history[place].output for place in (one, other)]
            same_kind = type(history[one].input) is type(history[other].input)
            if same_kind and PENDING not in outputs and outputs[0] != outputs[1]:
                yield swapped(history, one, other)

    judge_many(name, with_two_swapped)


# --- check, on what is known to be tricky ---------------------------------------------------------

BESIDE_A_WRITE = answered(Put("x", 1), None, 0, 9)
OPEN_WRITE = still_open(Put("x", 1), 0)
OPEN_APPEND = still_open(Append("a"), 0)
WINS, WINS_TOO = CompareAndSet("x", None, 1), CompareAndSet("x", None, 2)
GET, DELETE = Get("x"), Delete("x")

RIGHT: dict[str, list[AnyOperation]] = {
    "nothing": [],
    "an open operation alone": [OPEN_WRITE],
    "old, then new": [BESIDE_A_WRITE, answered(GET, None, 1, 2), answered(GET, 1, 3, 4)],
    "an open write must take effect": [OPEN_WRITE, *in_turn((GET, None), (GET, 1))],
    "an open append must take effect": [
        OPEN_APPEND,
        *in_turn((Append("b"), 0), (Append("c"), 2), (End(), 3)),
    ],
    "an open write has no effect": [OPEN_WRITE, *in_turn((GET, None), (DELETE, False))],
    "two open writes": [still_open(Put("x", 2), 0), OPEN_WRITE, *in_turn((GET, 1), (GET, 2))],
    "equal times are concurrent": [answered(Put("x", 1), None, 0, 5), answered(GET, None, 5, 6)],
    "other keys": in_turn((Put("x", 1), None), (Get("y"), None), (Delete("y"), False), (GET, 1)),
}
WRONG: dict[str, list[AnyOperation]] = {
    "a stale read": in_turn((Put("x", 1), None), (Put("x", 2), None), (GET, 1)),
    "a lost update": [answered(Add(1), 1, 0, 5), answered(Add(1), 1, 2, 7)],
    "two winners": [answered(WINS, True, 0, 5), answered(WINS_TOO, True, 2, 7)],
    "new, then old": [BESIDE_A_WRITE, answered(GET, 1, 1, 2), answered(GET, None, 3, 4)],
    "an effect before the call": [answered(GET, 1, 0, 1), still_open(Put("x", 1), 2)],
    "an open write twice": [OPEN_WRITE, *in_turn((GET, 1), (Put("x", 2), None), (GET, 1))],
    "an open write sometimes": [OPEN_WRITE, *in_turn((GET, 1), (DELETE, False))],
    "a hole in the log": in_turn((Append("a"), 0), (Append("b"), 2)),
    "a record that vanishes": in_turn((Append("a"), 0), (Read(0), ["a"]), (Read(0), [])),
}


def model_of(history: list[AnyOperation]) -> AnyModel:
    kinds = {type(operation.input) for operation in history}
    return LOG if Append in kinds else COUNTER if Add in kinds else KEY_VALUE


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_history_is_linearizable(name: str) -> None:
    assert assert_judged_rightly(model_of(RIGHT[name]), RIGHT[name]) is Finding.LINEARIZABLE


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_history_is_not_linearizable(name: str) -> None:
    assert assert_judged_rightly(model_of(WRONG[name]), WRONG[name]) is Finding.NOT_LINEARIZABLE


@pytest.mark.parametrize("name", [name for name in RIGHT if "must take" in name])
def test_without_its_open_operation_the_history_is_wrong(name: str) -> None:
    rest = [operation for operation in RIGHT[name] if operation.output is not PENDING]
    assert assert_judged_rightly(model_of(rest), rest) is Finding.NOT_LINEARIZABLE


def test_a_counterexample_is_a_table() -> None:
    history = [
        answered(Put("x", 1), None, 0, 3, "ann"),
        answered(Put("x", 2), None, 4, 8, "bob"),
        still_open(Delete("x"), 10, "cyd"),
        answered(Get("x"), 1, 9, 12, "ann"),
        answered(Get("x"), 2, 20, 21, "ann"),
        *in_turn((Get("y"), None)),
    ]
    assert str(check(KEY_VALUE, history)).splitlines()[1:] == [
        "partition 'x': no order explains 4 of 5",
        "order  client  called  returned  input                  output",
        "1      ann     0       3         Put(key='x', value=1)  None",
        "2      bob     4       8         Put(key='x', value=2)  None",
        "!      ann     9       12        Get(key='x')           1, expected 2",
        "-      cyd     10      -         Delete(key='x')        ?",
    ]


def test_a_long_counterexample_shows_the_end_of_its_order() -> None:
    verdict = check(COUNTER, in_turn(*[(Add(1), place) for place in range(1, 101)], (Add(1), 7)))
    lines = str(verdict).splitlines()
    assert len(lines) == 3 + 40 + 1
    assert lines[3].startswith("61 ")
    assert lines[-1].endswith("7, expected 101")


@pytest.mark.parametrize(("output", "returned_at"), [(PENDING, 5), (None, None), (None, 1)])
def test_an_operation_that_contradicts_itself_is_refused(output, returned_at) -> None:
    with pytest.raises(ValueError, match="an operation"):
        Operation("c", Get("x"), output, 2, returned_at)


def hard(key: str) -> list[AnyOperation]:
    """Twelve concurrent writes in any order, and a read of what none has written."""
    writes = [answered(Put(key, value), None, value, 100) for value in range(12)]
    return [*writes, answered(Get(key), 99, 101, 102)]


def test_work_is_bounded() -> None:
    verdict = check(KEY_VALUE, hard("x"), steps_max=1_000)
    assert verdict.finding is Finding.UNDECIDED
    assert not verdict
    assert verdict.steps == 1_000
    assert verdict.undecided == ("x",)
    assert str(verdict) == "undecided: 1 partitions, 1000 steps, 1 given up, the smallest 'x'"
    assert check(KEY_VALUE, hard("x")).finding is Finding.NOT_LINEARIZABLE


def test_a_hard_partition_leaves_steps_to_the_others() -> None:
    fine = [(Put("y", value), None) for value in range(20)]
    history = [*hard("x"), *in_turn(*fine, (Get("y"), 0))]
    verdict = check(KEY_VALUE, history, steps_max=1_000)
    assert verdict.finding is Finding.NOT_LINEARIZABLE
    assert verdict.steps <= 1_000
    assert verdict.undecided == ("x",)
    assert verdict.counterexample is not None
    assert verdict.counterexample.partition == "y"


def test_the_smallest_wrong_partition_is_shown() -> None:
    history = in_turn(
        *[(Put("x", 1), None), (Get("x"), 1), (Get("x"), 2)],
        *[(Put("z", 1), None), (Get("z"), 2)],
        (Get("y"), None),
    )
    for order in (history, history[::-1]):
        example = check(KEY_VALUE, order).counterexample
        assert example is not None
        assert example.partition == "z"


def test_equal_open_operations_cost_little() -> None:
    adds = [still_open(Add(1), 0) for _ in range(40)]
    wrong = in_turn((Add(1), 20), (Add(1), 63))
    verdict = check(COUNTER, [*adds, *wrong], steps_max=1_000)
    assert verdict.finding is Finding.NOT_LINEARIZABLE, str(verdict)


def test_two_thousand_operations_on_fifty_keys_are_judged_in_two_seconds() -> None:
    history = played(KEY_VALUE, run_of_clients(Random(7), FIFTY_KEYS, 20, 2_000))
    place = next(place for place in range(1_000, 2_000) if history[place].output == 1)
    wrong = [*history]
    wrong[place] = replace(history[place], output=-1)
    for changed, finding in ((history, Finding.LINEARIZABLE), (wrong, Finding.NOT_LINEARIZABLE)):
        began = time.process_time()
        verdict = check(KEY_VALUE, changed)
        assert time.process_time() - began < 2
        assert verdict.partitions == 50
        assert verdict.finding is finding, str(verdict)
    assert verdict.counterexample is not None
    assert verdict.counterexample.blocked is wrong[place]


# --- the order of a log ---------------------------------------------------------------------------


def test_offsets_that_follow_real_time_are_right() -> None:
    history = [
        *in_turn((Append("a"), 3), (End(), 4), (Read(1), ["x", "x", "a"]), (Read(9), [])),
        answered(Append("b"), 5, 11, 60),
        answered(Append("c"), 4, 45, 60),
        still_open(Append("d"), 0),
    ]
    assert find_misorder(history) is None


@pytest.mark.parametrize(
    "steps",
    [
        [(Append("a"), 1), (Append("b"), 0)],
        [(Append("a"), 1), (End(), 1)],
        [(Append("a"), 1), (Read(0), ["a"])],
        [(Append("a"), 1), (Read(1), [])],
        [(End(), 3), (Append("a"), 2)],
        [(End(), 3), (End(), 2)],
        [(Read(1), ["a"]), (Append("a"), 1)],
    ],
)
def test_offsets_against_real_time_are_wrong(steps: list[tuple[object, object]]) -> None:
    history = in_turn(*steps)
    assert find_misorder(history) == (history[0], history[1])
    assert find_misorder(history[::-1]) == (history[0], history[1])
    at_once = [replace(history[0], returned_at=history[1].called_at), history[1]]
    assert find_misorder(at_once) is None


def test_an_offset_is_acknowledged_once() -> None:
    first, second = answered(Append("a"), 0, 0, 9), answered(Append("b"), 0, 1, 8)
    assert find_misorder([first, second]) == (first, second)


def test_an_output_of_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match="a log gives no such output"):
        find_misorder([answered(Append("a"), "0", 0, 1)])


def test_the_order_of_a_log_is_judged_as_by_the_search() -> None:
    """Where open appends may fill all gaps, and all records are equal."""
    fillers = [still_open(Append("r"), -1) for _ in range(6)]
    findings: Tally[bool] = Tally()
    for seed in range(600):
        random = Random(seed)
        history = []
        for _ in range(random.randint(2, 5)):
            called_at, size = random.randrange(12), random.randrange(5)
            given, output = random.choice(
                [(Append("r"), size), (End(), size), (Read(1), ["r"] * size)]
            )
            history.append(answered(given, output, called_at, called_at + random.randrange(6)))
        right = find_misorder(history) is None
        findings[right] += 1
        assert check(LOG, [*history, *fillers]).finding is (
            Finding.LINEARIZABLE if right else Finding.NOT_LINEARIZABLE
        )
    assert min(findings[True], findings[False]) >= 150, findings


def test_the_order_of_a_long_log_is_judged_quickly() -> None:
    history = [answered(Append("r"), place, place, place + 9) for place in range(20_000)]
    began = time.process_time()
    assert find_misorder(history) is None
    assert time.process_time() - began < 2
    history[15_000] = answered(End(), 14_990, 15_000, 15_009)
    assert find_misorder(history) == (history[14_990], history[15_000])
