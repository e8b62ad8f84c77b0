"""What holds for each machine: grouping, snapshots, digests, and records that are no commands."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replog.errors import Corruption
from replog.machines import Counter, KeyValue, Lock, Malformed, Queue
from replog.machines.rows import PIECE_BYTES_MAX
from tests.machines.kinds import KINDS, Kind, as_records, cut, fed, histories, state

SAMPLES = {
    "key_value": [
        KeyValue.put(b"a", b"1"),
        KeyValue.put(b"b", b""),
        KeyValue.compare_and_set(b"a", b"1", b"2"),
    ],
    "counter": [Counter.add("a", 3), Counter.add("b", -1)],
    "lock": [Lock.acquire("a", "ann", 50), Lock.acquire("b", "bob"), Lock.renew("a", 1, 60)],
    "queue": [Queue.push(b"x"), Queue.push(b"x"), Queue.push(b"y")],
}
"""Commands after which each machine holds something."""


EXAMPLES = settings(max_examples=50)
"""For each of the machines."""


@pytest.fixture(params=KINDS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@EXAMPLES
@given(data=st.data())
def test_how_records_are_grouped_makes_no_difference(kind: Kind, data: st.DataObject) -> None:
    records = data.draw(histories(kind))
    places = data.draw(st.lists(st.integers(0, len(records))))
    bounds = [0, *sorted(places), len(records)]
    whole, parts = kind.make(), kind.make()
    answers = whole.apply(records)
    assert len(answers) == len(records)
    assert answers == [
        answer for start, end in pairwise(bounds) for answer in parts.apply(records[start:end])
    ]
    assert state(parts) == state(whole)
    assert parts.digest() == whole.digest()


@EXAMPLES
@given(data=st.data())
def test_a_restored_machine_equals_the_one_of_the_snapshot(kind: Kind, data: st.DataObject) -> None:
    records = data.draw(histories(kind))
    taken = data.draw(st.integers(0, len(records)))
    machine = fed(kind, records[:taken])
    restored = fed(kind, data.draw(histories(kind)))
    snapshot = state(machine)
    restored.restore(cut(snapshot, data.draw(st.lists(st.integers(0, len(snapshot))))))
    assert kind.view(restored) == kind.view(machine)
    assert restored.digest() == machine.digest()
    assert restored.apply(records[taken:]) == machine.apply(records[taken:])
    assert restored.digest() == machine.digest()


@EXAMPLES
@given(data=st.data())
def test_digests_are_equal_exactly_when_states_are(kind: Kind, data: st.DataObject) -> None:
    left = fed(kind, data.draw(histories(kind, length_max=3)))
    right = fed(kind, data.draw(histories(kind, length_max=3)))
    assert (left.digest() == right.digest()) == (kind.view(left) == kind.view(right))


def test_every_step_of_the_samples_changes_the_digest(name: str) -> None:
    machine = KINDS[name].make()
    digests = [machine.digest()]
    for record in as_records(SAMPLES[name]):
        machine.apply([record])
        digests.append(machine.digest())
    assert len(set(digests)) == len(SAMPLES[name]) + 1
    assert {len(digest) for digest in digests} == {16}


def test_empty_machines_of_two_kinds_have_two_digests() -> None:
    assert len({kind.make().digest() for kind in KINDS.values()}) == len(KINDS)


@pytest.mark.parametrize(
    ("commands", "others"),
    [
        ("key_value", [KeyValue.put(b"b", b""), KeyValue.put(b"a", b"2")]),
        ("counter", [Counter.add("b", -1), Counter.add("a", 1), Counter.add("a", 2)]),
    ],
)
def test_the_digest_does_not_tell_how_a_state_came_about(
    commands: str, others: list[bytes]
) -> None:
    kind = KINDS[commands]
    first, second = fed(kind, as_records(SAMPLES[commands])), fed(kind, as_records(others))
    assert list(kind.view(first)) != list(kind.view(second))  # type: ignore[call-overload]
    assert first.digest() == second.digest()


# --- records that are no commands -----------------------------------------------------------------


def malformed(name: str) -> list[bytes]:
    """Records that only look like the commands of this machine, and others' commands."""
    values: list[Any] = [True, 1.5, [b"a"], {}]
    own = SAMPLES[name] + ([Queue.pop()] if name == "queue" else [])
    foreign = [command for other in SAMPLES if other != name for command in SAMPLES[other]]
    broken = [
        b"",
        b"hello",
        b"\xc1",
        b"\x91" * 5000,
        b"\xc0",
        b"\x80",
        b"\x90",
        b"\x05",
        b"\xa1\xff",
    ]
    for command in own:
        code, *arguments = msgpack.unpackb(command)
        broken += [command[:end] for end in range(len(command))]
        broken += [command + b"\x00", command + command, command[1:]]
        broken += [
            msgpack.packb(changed)
            for changed in (
                [code, *arguments, None],
                [code, *arguments] + [0] * 100_000,
                [code, [*arguments]],
                [float(code), *arguments],
                [str(code), *arguments],
                [[code], *arguments],
                {code: arguments},
                bytes([code]),
                bytes([code, code]),
                [127, *arguments],
                *(
                    [code, *arguments[:place], value, *arguments[place + 1 :]]
                    for place in range(len(arguments))
                    for value in values
                ),
            )
        ]
    return foreign + broken


def test_a_record_that_is_no_command_is_answered_and_changes_nothing(name: str) -> None:
    kind = KINDS[name]
    machine = fed(kind, as_records(SAMPLES[name]))
    before, digest, records = state(machine), machine.digest(), malformed(name)
    answers = machine.apply(as_records(records, [1000] * len(records), base=10))
    assert len(answers) == len(records)
    assert {type(answer) for answer in answers} == {Malformed}
    assert all(0 < len(answer.reason) < 200 for answer in answers)
    assert (state(machine), machine.digest()) == (before, digest)


@EXAMPLES
@given(data=st.data())
def test_whatever_bytes_come_each_record_is_answered(kind: Kind, data: st.DataObject) -> None:
    records = as_records(data.draw(st.lists(st.binary(max_size=12) | kind.commands)))
    machine = kind.make()
    assert len(machine.apply(records)) == len(records)
    restored = kind.make()
    restored.restore(machine.snapshot())
    assert restored.digest() == machine.digest()


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (b"hello", "not a msgpack array"),
        (msgpack.packb({}), "begins with a code"),
        (msgpack.packb(["put"]), "begins with a code"),
        (Queue.pop(), "code 49 is no command of this machine"),
        (msgpack.packb([1, "a", b"1"]), r"put does not take \(str, bytes\)"),
    ],
)
def test_the_answer_says_what_is_wrong(record: bytes, says: str) -> None:
    (answer,) = KeyValue().apply(as_records([record]))
    assert isinstance(answer, Malformed)
    assert re.search(says, answer.reason)


# --- snapshots ------------------------------------------------------------------------------------


def test_a_snapshot_is_the_state_as_of_the_call(name: str) -> None:
    kind = KINDS[name]
    machine = fed(kind, as_records(SAMPLES[name]))
    before, later = state(machine), machine.snapshot()
    more = [KeyValue.delete(b"a"), Counter.add("c"), Lock.release("b", 2), Queue.pop()]
    machine.apply(as_records(more, base=10))
    assert b"".join(later) == before
    assert state(machine) != before


def test_what_is_no_whole_snapshot_is_refused_and_the_state_kept(name: str) -> None:
    kind = KINDS[name]
    snapshot = state(fed(kind, as_records(SAMPLES[name])))
    other = state(fed(kind, as_records(SAMPLES[name][:1])))
    form, count = msgpack.unpackb(msgpack.packb([f"{name}/0", 0]))
    broken = [snapshot[:end] for end in range(len(snapshot))]
    broken += [snapshot + tail for tail in (b"\x00", b"\xc0", b"\x92", b"\xc1", snapshot)]
    broken += [msgpack.packb([form, count]), b"\xc0" + snapshot, b"\xc1", b"\x91" * 5000]
    broken += [state(KINDS[another].make()) for another in KINDS if another != name]
    machine = kind.make()
    machine.restore([other])
    for piece in broken:
        with pytest.raises(Corruption):
            machine.restore([piece])
        with pytest.raises(Corruption):
            machine.restore(cut(piece, range(1, len(piece))))
    assert state(machine) == other
    machine.restore([snapshot])
    assert state(machine) == snapshot


def test_a_row_of_other_types_is_refused(name: str) -> None:
    kind = KINDS[name]
    form, count = msgpack.unpackb(state(kind.make()))
    assert count == 0
    rows: list[Any] = [[], [None], [True, True], [b"a", b"b", b"c"], ["a", 1.5], {}, b"ab", None]
    for row in rows:
        with pytest.raises(Corruption, match="row 0 of 1"):
            kind.make().restore([msgpack.packb([form, 1]), msgpack.packb(row)])


def test_no_piece_is_long_however_long_a_value_is() -> None:
    values = {
        b"%d" % size: bytes([size % 251]) * size for size in (0, 1, PIECE_BYTES_MAX, 3_500_000)
    }
    machine = KeyValue()
    machine.apply(as_records([KeyValue.put(key, value) for key, value in values.items()]))
    pieces = list(machine.snapshot())
    assert max(map(len, pieces)) == PIECE_BYTES_MAX
    assert len(pieces) == 5
    for given_pieces in (
        pieces,
        [b"".join(pieces)],
        cut(b"".join(pieces), range(0, 1 << 22, 9999)),
    ):
        restored = KeyValue()
        restored.restore(given_pieces)
        assert dict(restored.items()) == values
        assert restored.digest() == machine.digest()


def test_what_the_pieces_raise_is_let_through(kind: Kind) -> None:
    def pieces():
        yield b""
        raise OSError("the disk")

    with pytest.raises(OSError, match="the disk"):
        kind.make().restore(pieces())
