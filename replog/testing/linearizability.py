"""Judges of histories: what clients saw, against what one machine alone could have answered.

A history is linearizable if its operations can be put in one order in which a sequential machine
gives every output, and in which whatever returned before another was called comes before it
(Herlihy and Wing, "Linearizability", 1990). `check` looks for that order; a `Model` is the machine.
`find_misorder` compares the offsets of appends and reads of a log, in linear time after a sort.

Rules of this file:

1. An operation precedes another if it returned at an earlier time than the other was called. Equal
   times make them concurrent: a coarse clock may hide a fault, but never invents one.
2. An open operation never returned: it takes effect after its call, at any time, or never.
3. Partitions are judged one by one: together they are linearizable if and only if each is (Horn and
   Kroening, "Faster linearizability checking via P-compositionality", 2015).
4. A search places one operation after the other (Wing and Gong, "Testing and verifying concurrent
   objects", 1993) and never goes twice through the same configuration: what is placed, and the
   state (Lowe, "Testing for linearizability", 2017).
5. Short cuts leave out only what cannot matter:
   a. an open operation is not placed where it changes nothing, nor before an open one with an
      equal input that was called earlier: the two can change places;
   b. a configuration is left if a known one has the same state and the same answered operations
      placed, and no other open ones: it can be continued in every way that this one can.
6. Work is bounded by steps, not by time: the same history has the same verdict on every machine.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

STEPS_MAX = 1_000_000
PREFIX_LINES_MAX = 40

State = TypeVar("State", bound=Hashable)
Input = TypeVar("Input", bound=Hashable)
Input_co = TypeVar("Input_co", bound=Hashable, covariant=True)
Input_contra = TypeVar("Input_contra", bound=Hashable, contravariant=True)
Output = TypeVar("Output")
Output_co = TypeVar("Output_co", covariant=True)


class Unanswered(Enum):
    """What stands for the output of an operation that never returned."""

    PENDING = "pending"


PENDING: Final = Unanswered.PENDING


@dataclass(frozen=True, slots=True)
class Operation(Generic[Input_co, Output_co]):
    """What one client asked, what it was answered, and when.

    Times come from one clock that never goes back, in any unit: only their order counts. Open is
    what never returned, or with an unknown outcome (`OutcomeUnknown`): `PENDING`, and `None` for
    the return. What certainly had no effect (`NotAppended`) is left out. `client` is for reports;
    its operations may overlap. Raises `ValueError` where output and times contradict each other.
    """

    client: object
    input: Input_co
    output: Output_co | Unanswered
    called_at: int
    returned_at: int | None

    def __post_init__(self) -> None:
        if (self.output is PENDING) != (self.returned_at is None):
            raise ValueError(f"an operation has an output if and only if it returned: {self}")
        if self.returned_at is not None and self.returned_at < self.called_at:
            raise ValueError(f"an operation returned before it was called: {self}")


class Model(Protocol[State, Input_contra, Output_co]):
    """A sequential machine; each partition has its own state. What is equal is interchangeable."""

    @property
    def initial(self) -> State:
        """The state of a partition before its first operation."""

    def step(self, state: State, given: Input_contra, /) -> tuple[State, Output_co]:
        """The state after an operation with this input, and its output. Changes nothing itself."""

    def partition(self, given: Input_contra, /) -> Hashable:
        """The partition that an operation with this input belongs to; it touches no other."""


class Finding(Enum):
    """What a check has come to."""

    LINEARIZABLE = "linearizable"
    NOT_LINEARIZABLE = "not linearizable"
    UNDECIDED = "undecided"


def _row(mark: str, operation: Operation[Any, Any], remark: str = "") -> list[str]:
    returned_at, output = "-", "?"
    if operation.returned_at is not None:
        returned_at, output = str(operation.returned_at), f"{operation.output!r:.60}{remark}"
    called_at, given = str(operation.called_at), f"{operation.input!r:.60}"
    return [mark, str(operation.client), called_at, returned_at, given, output]


@dataclass(frozen=True, slots=True)
class Counterexample:
    """A partition that no order explains.

    Everything that returned before `blocked` did can be put in order; `linearized` is such
    an order. None of them, however it goes on, has a place for `blocked`. What operations
    still open at that time returned later, if ever, is taken into account.

    As text, one line for each operation, in aligned columns, values cut at 60 characters::

        order     its place in `linearized`, of which the last 40 are shown; `!` is `blocked`; `-`
                  was called before that returned, and has no place
        client    who called it
        called    when; returned: when, or `-` if it is open
        input     what was asked
        output    what was answered, or `?`; for `blocked`, also what the model would have answered
    """

    partition: Hashable
    operations: int
    """How many the partition has; those called after `blocked` returned are not shown."""
    linearized: tuple[Operation[Any, Any], ...]
    blocked: Operation[Any, Any]
    expected: Any
    """The output of `blocked`, had it come after `linearized`."""
    unplaced: tuple[Operation[Any, Any], ...]

    def __str__(self) -> str:
        count = len(self.linearized) + 1 + len(self.unplaced)
        order = list(enumerate(self.linearized, start=1))[-PREFIX_LINES_MAX:]
        rows = [["order", "client", "called", "returned", "input", "output"]]
        rows += [_row(str(place), operation) for place, operation in order]
        rows += [_row("!", self.blocked, f", expected {self.expected!r:.60}")]
        rows += [_row("-", operation) for operation in self.unplaced]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [f"partition {self.partition!r}: no order explains {count} of {self.operations}"]
        lines += ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `check` found. True only of a history that is certainly linearizable."""

    partitions: int
    steps: int
    """The work that was done: operations tried and configurations compared."""
    undecided: tuple[Hashable, ...]
    """The partitions that were given up for want of steps, the smallest first."""
    counterexample: Counterexample | None
    """The smallest partition that is certainly not linearizable."""

    @property
    def finding(self) -> Finding:
        """One counterexample decides, whatever else is undecided."""
        if self.counterexample is not None:
            return Finding.NOT_LINEARIZABLE
        return Finding.UNDECIDED if self.undecided else Finding.LINEARIZABLE

    def __bool__(self) -> bool:
        return self.finding is Finding.LINEARIZABLE

    def __str__(self) -> str:
        text = f"{self.finding.value}: {self.partitions} partitions, {self.steps} steps"
        if self.undecided:
            text += f", {len(self.undecided)} given up, the smallest {self.undecided[0]!r}"
        return text if self.counterexample is None else f"{text}\n{self.counterexample}"


def check(
    model: Model[State, Input, Output],
    operations: Iterable[Operation[Input, Output]],
    *,
    steps_max: int = STEPS_MAX,
) -> Verdict:
    """Whether a history is linearizable with respect to a model.

    After `steps_max` steps no further operation is tried. Partitions are judged from the smallest
    to the largest; each may use an equal share of the steps that are left, so that a hard one
    leaves some to the others. Memory: at most a configuration for each step.
    """
    partitions: dict[Hashable, list[Operation[Input, Output]]] = {}
    for operation in operations:
        partitions.setdefault(model.partition(operation.input), []).append(operation)
    by_size = sorted(partitions.items(), key=lambda item: len(item[1]))
    steps, undecided = 0, list[Hashable]()
    for done, (key, members) in enumerate(by_size):
        search = _Search(model, members)
        finding = search.run((steps_max - steps) // (len(by_size) - done))
        steps += search.steps
        if finding is Finding.NOT_LINEARIZABLE:
            example = search.counterexample(key)
            return Verdict(len(by_size), steps, tuple(undecided), example)
        if finding is Finding.UNDECIDED:
            undecided.append(key)
    return Verdict(len(by_size), steps, tuple(undecided), None)


class _Configuration(NamedTuple, Generic[State]):
    """A point of the search. Operations have numbers: the answered, then the open, each by call."""

    first: int
    """The lowest answered operation that is not placed."""
    placed: int
    """Bit k: operation `first + k`, an answered one, is placed. A window: it stays small."""
    opened: int
    """Bit k: open operation k is placed."""
    state: State


class _Frame(NamedTuple, Generic[State]):
    """A configuration on the path that is being searched."""

    placed: int
    """The operation that led here."""
    here: _Configuration[State]
    candidates: Iterator[int]
    """The operations that may come next and have not been tried."""
    explains: tuple[int, int]
    """When the first answered operation that is not placed returned, and which it is."""


def _reach(path: list[_Frame[State]]) -> tuple[tuple[int, int], int]:
    """How long a history a path explains; of two equal in that, the shorter explains more."""
    return path[-1].explains, -len(path)


class _Search(Generic[State, Input, Output]):
    """The search for an order of one partition."""

    def __init__(
        self, model: Model[State, Input, Output], operations: Iterable[Operation[Input, Output]]
    ) -> None:
        self._operations = sorted(operations, key=lambda o: (o.returned_at is None, o.called_at))
        self._returned_at = [o.returned_at for o in self._operations if o.returned_at is not None]
        self._answered = len(self._returned_at)
        self._open = self._operations[self._answered :]
        self._model = model
        self._known: dict[tuple[int, int, State], list[int]] = {}
        """Of each configuration without `opened`, those that have been searched."""
        self._furthest: list[_Frame[State]] = []
        """The path that explains the longest history."""
        self.steps = 0

    def run(self, steps_max: int) -> Finding:
        """Search until an order is found, none is left, or the steps are used up."""
        if not self._answered:
            return Finding.LINEARIZABLE
        frames = [self._frame(-1, _Configuration(0, 0, 0, self._model.initial))]
        while frames:
            here = frames[-1].here
            index = next(frames[-1].candidates, None)
            if index is None:
                if not self._furthest or _reach(frames) > _reach(self._furthest):
                    self._furthest = frames.copy()
                frames.pop()
                continue
            if self.steps >= steps_max:
                return Finding.UNDECIDED
            there = self._place(here, index)
            if there is None or self._is_known(there):
                continue
            if there.first == self._answered:
                return Finding.LINEARIZABLE
            frames.append(self._frame(index, there))
        return Finding.NOT_LINEARIZABLE

    def counterexample(self, partition: Hashable) -> Counterexample:
        """Why there is no order, after a search that found none."""
        until, index = self._furthest[-1].explains
        blocked = self._operations[index]
        order = [frame.placed for frame in self._furthest[1:]]
        rest = sorted({*range(len(self._operations))}.difference(order, [index]))
        unplaced = [self._operations[index] for index in rest]
        return Counterexample(
            partition,
            len(self._operations),
            tuple([self._operations[index] for index in order]),
            blocked,
            self._model.step(self._furthest[-1].here.state, blocked.input)[1],
            tuple([operation for operation in unplaced if operation.called_at <= until]),
        )

    def _frame(self, placed: int, here: _Configuration[State]) -> _Frame[State]:
        """With its candidates: whatever was called before anything that is not placed returned."""
        candidates: list[int] = []
        until, blocked = self._returned_at[here.first], here.first
        free = ~here.placed  # infinitely many bits beyond the window are set
        while True:
            lowest = free & -free
            index = here.first + lowest.bit_length() - 1
            if index == self._answered or self._operations[index].called_at > until:
                break
            candidates.append(index)
            if self._returned_at[index] < until:
                until, blocked = self._returned_at[index], index
            free ^= lowest
        earliest: dict[Input, int] = {}
        for place, operation in enumerate(self._open):
            if operation.called_at > until:
                break
            if not here.opened >> place & 1:
                earliest.setdefault(operation.input, self._answered + place)
        candidates += earliest.values()
        return _Frame(placed, here, iter(candidates), (until, blocked))

    def _place(self, here: _Configuration[State], index: int) -> _Configuration[State] | None:
        """The configuration after placing an operation; none if it does not fit here."""
        self.steps += 1
        operation = self._operations[index]
        state, output = self._model.step(here.state, operation.input)
        if index >= self._answered:
            opened = here.opened | 1 << (index - self._answered)
            return None if state == here.state else here._replace(opened=opened, state=state)
        if output != operation.output:
            return None
        placed = here.placed | 1 << (index - here.first)
        ones = (~placed & (placed + 1)).bit_length() - 1  # how many lowest bits are set
        return _Configuration(here.first + ones, placed >> ones, here.opened, state)

    def _is_known(self, there: _Configuration[State]) -> bool:
        """Whether a configuration need not be searched; if so far it must, it is known from now."""
        known = self._known.setdefault((there.first, there.placed, there.state), [])
        self.steps += len(known)
        if any(not opened & ~there.opened for opened in known):
            return True
        known.append(there.opened)
        return False


@dataclass(frozen=True, slots=True)
class Get:
    """Answered with the key's value, `None` if it has none."""

    key: Hashable


@dataclass(frozen=True, slots=True)
class Put:
    """Gives the key a value; answered with `None`."""

    key: Hashable
    value: Hashable


@dataclass(frozen=True, slots=True)
class CompareAndSet:
    """Gives the key a value if it has the expected one (`None`: if it has none); whether it did."""

    key: Hashable
    expected: Hashable
    value: Hashable


@dataclass(frozen=True, slots=True)
class Delete:
    """Takes the key's value away; answered with whether it had one."""

    key: Hashable


KeyValueInput = Get | Put | CompareAndSet | Delete


class KeyValue:
    """A map; with a single key, a register. A key's state is its value, `None` if it has none."""

    initial: Hashable = None

    def step(self, state: Hashable, given: KeyValueInput, /) -> tuple[Hashable, Hashable]:
        """See the inputs."""
        match given:
            case Get():
                return state, state
            case Put():
                return given.value, None
            case CompareAndSet():
                fits = state == given.expected
                return given.value if fits else state, fits
            case Delete():
                return None, state is not None

    def partition(self, given: KeyValueInput, /) -> Hashable:
        """Each key for itself."""
        return given.key


@dataclass(frozen=True, slots=True)
class Append:
    """Answered with the record's offset. A run is one append for each record, at equal times."""

    record: Hashable


@dataclass(frozen=True, slots=True)
class Read:
    """Answered with the list of all records from an offset on, which is not negative."""

    start: int


@dataclass(frozen=True, slots=True)
class End:
    """Answered with how many records there are: `end_offset` once a `barrier` has passed."""


LogInput = Append | Read | End
LogOutput = int | list[Hashable]
LogOperation = Operation[LogInput, LogOutput]
Records = tuple[Hashable, ...]


class AppendLog:
    """A log of records."""

    initial: Records = ()

    def step(self, state: Records, given: LogInput, /) -> tuple[Records, LogOutput]:
        """See the inputs."""
        match given:
            case Append():
                return (*state, given.record), len(state)
            case Read():
                return state, list(state[given.start :])
            case End():
                return state, len(state)

    def partition(self, given: LogInput, /) -> Hashable:
        """A log is one whole."""
        return None


@dataclass(frozen=True, slots=True)
class Add:
    """Answered with the total after it. To add 0 is to read."""

    amount: int


class Counter:
    """A number, 0 at first."""

    initial: int = 0

    def step(self, state: int, given: Add, /) -> tuple[int, int]:
        """See the input."""
        return state + given.amount, state + given.amount

    def partition(self, given: Add, /) -> Hashable:
        """A counter is one whole."""
        return None


def find_misorder(operations: Iterable[LogOperation]) -> tuple[LogOperation, LogOperation] | None:
    """Two operations on a log, the earlier first, whose offsets contradict real time; or `None`.

    No two appends take the same offset. An append takes no offset below what was acknowledged or
    shown to anyone before it was called; a read or an end shows at least all of that.

    One sort and one pass. What the records are is not looked at. Otherwise the answer is `None`
    exactly if `check` finds an order once open appends, called before all else, may fill the gaps.
    Raises `TypeError` for an output that is of no type that `AppendLog` gives.
    """
    takers: dict[int, LogOperation] = {}
    events: list[tuple[int, int, int, LogOperation]] = []
    for operation in operations:
        if operation.returned_at is not None:
            before, after = _shown(operation)
            if isinstance(operation.input, Append):
                if before in takers:
                    return takers[before], operation
                takers[before] = operation
            events.append((operation.called_at, 0, before, operation))
            events.append((operation.returned_at, 1, after, operation))
    floor, witness = 0, None
    # Rule 1: at equal times, calls come first.
    for _, has_returned, records, operation in sorted(events, key=lambda event: event[:2]):
        if has_returned and records > floor:
            floor, witness = records, operation
        elif not has_returned and witness is not None and records < floor:
            return witness, operation
    return None


def _shown(operation: LogOperation) -> tuple[int, int]:
    """How many records at most there were before it, and how many at least there are after it."""
    match operation.input, operation.output:
        case Append(), int(offset):
            return offset, offset + 1
        case End(), int(end):
            return end, end
        case Read(start), list(records):
            return start + len(records), start + len(records) if records else 0
    raise TypeError(f"a log gives no such output: {operation}")
