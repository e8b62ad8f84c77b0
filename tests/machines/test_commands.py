"""Commands: what can be packed, and how a machine of one's own is put together."""

from __future__ import annotations

import pytest

from replog.errors import ConfigError
from replog.machines import (
    Command,
    Commands,
    Counter,
    KeyValue,
    Lock,
    Malformed,
    Queue,
    counter,
    key_value,
    lock,
    queue,
)
from tests.machines.kinds import as_records

COMMANDS = [
    value
    for module in (counter, key_value, lock, queue)
    for value in vars(module).values()
    if isinstance(value, Command)
]


def test_no_two_commands_of_the_package_share_a_code() -> None:
    assert len(COMMANDS) == 9
    assert len({command.code for command in COMMANDS}) == len(COMMANDS)
    assert all(0 <= command.code < 128 for command in COMMANDS)


@pytest.mark.parametrize(
    ("build", "arguments"),
    [
        (KeyValue.put, ("a", b"1")),
        (KeyValue.put, (b"a", None)),
        (KeyValue.put, (bytearray(b"a"), b"1")),
        (KeyValue.delete, (None,)),
        (KeyValue.compare_and_set, (b"a", b"1", "2")),
        (Counter.add, (b"a", 1)),
        (Counter.add, ("a", True)),
        (Counter.add, ("a", 1.0)),
        (Lock.acquire, ("a", None)),
        (Lock.renew, ("a", "1")),
        (Lock.release, ("a", None)),
        (Queue.push, ("item",)),
    ],
)
def test_a_command_of_other_types_is_refused_where_it_is_made(build, arguments) -> None:
    with pytest.raises(TypeError, match="does not take"):
        build(*arguments)


def test_what_msgpack_cannot_hold_is_refused_where_it_is_made() -> None:
    with pytest.raises(OverflowError):
        Counter.add("a", 1 << 64)
    with pytest.raises(ValueError, match="surrogates not allowed"):
        Counter.add("\ud800")


@pytest.mark.parametrize("ttl_ms", [0, -1, 1 << 63])
def test_a_time_to_live_is_positive_and_fits(ttl_ms: int) -> None:
    with pytest.raises(ValueError, match="ttl_ms"):
        Lock.acquire("a", "ann", ttl_ms)
    with pytest.raises(ValueError, match="ttl_ms"):
        Lock.renew("a", 1, ttl_ms)


def test_a_queue_that_lets_nothing_in_is_refused() -> None:
    with pytest.raises(ValueError, match="length_max"):
        Queue.push(b"x", 0)


def test_optional_arguments_are_two_shapes() -> None:
    maybe = Command("maybe", 1, bytes | None, int)
    assert maybe.shapes == {(bytes, int), (type(None), int)}
    commands: Commands[object] = Commands({maybe: lambda record, *arguments: arguments})
    records = as_records([maybe.pack(None, 1), maybe.pack(b"", 2), b"no command"])
    assert commands.apply(records)[:2] == [(None, 1), (b"", 2)]
    assert type(commands.apply(records)[2]) is Malformed


def test_a_fault_of_a_step_is_let_through() -> None:
    def step(record, place: int) -> int:
        return [10, 20][place]

    at = Command("at", 1, int)
    commands = Commands({at: step})
    assert commands.apply(as_records([at.pack(1)])) == [20]
    with pytest.raises(IndexError):
        commands.apply(as_records([at.pack(2)]))


def test_a_machine_has_one_command_for_a_code() -> None:
    steps = {Command("one", 1): len, Command("other", 1): len}
    with pytest.raises(ConfigError, match="same code"):
        Commands(steps)


def test_a_command_has_few_arguments() -> None:
    widest = Command("wide", 1, *[int] * 15)
    commands: Commands[int] = Commands({widest: lambda record, *arguments: sum(arguments)})
    assert commands.apply(as_records([widest.pack(*range(15))])) == [105]
    with pytest.raises(ConfigError, match="16 arguments"):
        Command("wider", 1, *[int] * 16)
