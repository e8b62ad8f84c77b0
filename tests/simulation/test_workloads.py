"""State machines under faults: equal on every node, linearizable for its clients; and the judge can
tell when they are not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Hashable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgpack
import pytest

from replog.agreements import load_agreement
from replog.machine import Record
from replog.machines import KeyValue
from replog.replica.reads import Reads
from replog.testing import Simulation, SimulationFailure, Workload
from replog.testing.linearizability import Finding, Operation, check

AGREEMENTS = ("raft", "paxos")
KEYS = tuple([b"key %d" % number for number in range(12)])
SEEDS = 12
SEEDS_TO_FIND = 100
EXAMPLES = Path(__file__).parents[2] / "examples"
LINES_MAX = 40


class Values:
    """The sequential specification of `KeyValue` for the linearizability checker."""

    initial: Hashable = None

    def step(self, state: Any, given: bytes, /) -> tuple[Any, Any]:
        code, _, *values = msgpack.unpackb(given)
        if code == 0:
            return state, state
        return (values[0] if code == 1 else None), state

    def partition(self, given: bytes, /) -> bytes:
        key: bytes = msgpack.unpackb(given)[1]
        return key


class Commands:
    """Puts of values that no other put has, and deletes."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, random: Random) -> bytes:
        self.count += 1
        key = random.choice(KEYS)
        return (
            KeyValue.delete(key) if random.random() < 0.2 else KeyValue.put(key, b"%d" % self.count)
        )


def query(machine: KeyValue, random: Random) -> tuple[bytes, bytes | None]:
    key = random.choice(KEYS)
    return msgpack.packb((0, key)), machine.get(key)


def history(agreement: str, seed: int) -> Sequence[Operation[Any, Any]]:
    workload = Workload(machine=KeyValue, command=Commands(), query=query)
    simulation = Simulation(seed, load_agreement(agreement), workload=workload)
    simulation.run()
    return simulation.history


@pytest.mark.parametrize("agreement", AGREEMENTS)
def test_a_table_under_faults_is_linearizable(agreement: str) -> None:
    answered = reads = undecided = 0
    for seed in range(SEEDS):
        operations = history(agreement, seed)
        verdict = check(Values(), operations)
        assert verdict.finding is not Finding.NOT_LINEARIZABLE, f"{seed}\n{verdict.counterexample}"
        undecided += verdict.finding is Finding.UNDECIDED
        answered += sum(operation.returned_at is not None for operation in operations)
        reads += sum(msgpack.unpackb(operation.input)[0] == 0 for operation in operations)
    assert undecided <= SEEDS // 4
    assert answered > 20 * SEEDS
    assert reads > 3 * SEEDS


@pytest.mark.parametrize("agreement", AGREEMENTS)
def test_reads_that_do_not_wait_for_delivery_are_not_linearizable(
    agreement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def passed(self: Reads, _: int) -> list[Any]:
        held = [ticket for _, tickets in self._confirmed for ticket in tickets]
        self._confirmed = []
        return held

    monkeypatch.setattr(Reads, "passed", passed)
    monkeypatch.setattr("replog.testing.checkers.Barriers.passed", lambda *_: None)
    findings = (check(Values(), history(agreement, seed)).finding for seed in range(SEEDS_TO_FIND))
    assert Finding.NOT_LINEARIZABLE in findings


class Forgetful(KeyValue):
    """No function of its records: every machine forgets something else."""

    made = 0

    def __init__(self) -> None:
        super().__init__()
        Forgetful.made += 1
        self.number = Forgetful.made

    def apply(self, records: Sequence[Record]) -> list[Any]:
        kept = [record for record in records if record.offset % 7 != self.number % 7]
        results = super().apply(kept)
        return results + [None] * (len(records) - len(kept))


@pytest.mark.parametrize("agreement", AGREEMENTS)
def test_a_machine_that_is_no_function_of_its_records_is_found(agreement: str) -> None:
    workload = Workload(machine=Forgetful, command=Commands())
    with pytest.raises(SimulationFailure, match="two machines differ"):
        Simulation(1, load_agreement(agreement), nodes=3, workload=workload).run()


def test_what_a_machine_checks_itself_is_a_failure() -> None:
    def refuse(_: KeyValue) -> None:
        raise ValueError("this machine is never right")

    workload = Workload(machine=KeyValue, command=Commands(), check=refuse)
    with pytest.raises(SimulationFailure, match="never right"):
        Simulation(1, load_agreement("raft"), workload=workload).run()


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_each_example_is_short_and_runs(example: Path) -> None:
    assert len(example.read_text().splitlines()) < LINES_MAX
    subprocess.run([sys.executable, example], check=True, timeout=100, capture_output=True)


class Counting(KeyValue):
    """Not a function of its records alone: it counts the calls that they came in."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def apply(self, records: Sequence[Record]) -> Any:
        self.calls += 1
        return super().apply(records)

    def digest(self) -> bytes:
        return super().digest() + b"%d" % self.calls


class Guessing(KeyValue):
    """Answers what it likes."""

    def apply(self, records: Sequence[Record]) -> Any:
        return [self.chance.random() for _ in super().apply(records)]

    chance = Random(1)


class Undigested(KeyValue):
    """Forgot the return."""

    def digest(self) -> Any:
        super().digest()


class Emptying(KeyValue):
    """Uses up the list that it is given."""

    def apply(self, records: Sequence[Record]) -> Any:
        results = super().apply(list(records))
        assert isinstance(records, list)
        records.clear()
        return results


def run_with(machine: type[KeyValue], check: Any = None) -> None:
    workload = Workload(machine=machine, command=Commands(), check=check)
    for seed in range(4):
        Simulation(seed, load_agreement("raft"), workload=workload).run()


@pytest.mark.parametrize(
    ("machine", "noticed"),
    [
        (Counting, "two machines differ: one is not a function"),
        (Guessing, "differ in their answer"),
        (Undigested, "a digest is of bytes"),
    ],
)
def test_a_machine_that_is_none_is_found_out(machine: type[KeyValue], noticed: str) -> None:
    with pytest.raises(SimulationFailure, match=noticed):
        run_with(machine)


def test_a_check_that_answers_false_is_a_failure() -> None:
    with pytest.raises(SimulationFailure, match="answers False"):
        run_with(KeyValue, lambda machine: not list(machine.items()))


def test_a_machine_may_use_up_the_list_it_is_given() -> None:
    run_with(Emptying)
