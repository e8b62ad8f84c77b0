"""Commands: records that ask a machine for something, and how it answers each.

A command is the msgpack array [code, argument, ...]. Rules of this file:

1. A command has one code and fixed types of arguments; whoever packs other types learns it at once.
2. Every record is answered. One that is no command of the machine gets `Malformed`, and no step
   runs: nobody can stop a machine with a record.
3. What a step raises is a fault of the machine, not of the record, and is let through.

The codes of this package's machines differ, so that a command of one is foreign to the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from types import UnionType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, get_args

import msgpack

from replog.errors import ConfigError

if TYPE_CHECKING:
    from replog.machine import Record

ITEMS_MAX = 16
"""Most items of a command, its code included."""

Answer = TypeVar("Answer")
Shape = tuple[Any, ...]


class Malformed(NamedTuple):
    """The answer to a record that is no command of the machine. It changed nothing."""

    reason: str


def shapes_of(*types: type | UnionType) -> frozenset[Shape]:
    """Every sequence of exact types that values of these types can have: `bytes | None` is two."""
    return frozenset(product(*(get_args(one) or (one,) for one in types)))


class Command:
    """One operation of a machine: its code, packed as one byte below 128, and the types of its
    arguments. Raises `ConfigError` for another code or more than 15 arguments."""

    def __init__(self, name: str, code: int, *arguments: type | UnionType) -> None:
        if not 0 <= code < 128:
            raise ConfigError(f"the code of {name} is {code}, and not from 0 to 127")
        if len(arguments) >= ITEMS_MAX:
            raise ConfigError(f"{name} takes {len(arguments)} arguments: pass some as one")
        self.name = name
        self.code = code
        self.shapes = shapes_of(*arguments)

    def pack(self, *arguments: Any) -> bytes:
        """The record. Raises `TypeError` for arguments of other types, `ValueError` for text that
        is not UTF-8, `OverflowError` for an integer beyond 64 bits."""
        types = tuple(map(type, arguments))
        if types not in self.shapes:
            raise TypeError(f"{self.name} does not take ({_names(types)})")
        packed: bytes = msgpack.packb((self.code, *arguments))
        return packed


class Commands(Generic[Answer]):
    """The commands of one machine, and its step for each: `step(record, *arguments) -> answer`.

    Raises `ConfigError` when two commands have one code.
    """

    def __init__(self, steps: Mapping[Command, Callable[..., Answer]]) -> None:
        self._names = {command.code: command.name for command in steps}
        if len(self._names) < len(steps):
            raise ConfigError("two commands of one machine have the same code")
        # One look-up checks a whole command: that it is an array, its code, and every type.
        self._steps = {
            (tuple, command.code, int, *shape): step
            for command, step in steps.items()
            for shape in command.shapes
        }

    def apply(self, records: Sequence[Record]) -> list[Answer | Malformed]:
        """Take these records in their order; one answer for each."""
        steps = self._steps
        answers: list[Answer | Malformed] = []
        for record in records:
            try:
                command = _unpack(record.data)
                step = steps[type(command), command[0], *map(type, command)]
            except Exception:  # noqa: BLE001 - whatever bytes that are no command lead to
                answers.append(Malformed(self._reason(record.data)))
            else:
                answers.append(step(record, *command[1:]))
        return answers

    def _reason(self, data: bytes) -> str:
        """What is wrong, in few words however long the record is."""
        try:
            command = _unpack(data)
        except Exception:  # noqa: BLE001 - msgpack raises several unrelated classes for bad bytes
            return f"not a msgpack array of at most {ITEMS_MAX} plain values"
        if type(command) is not tuple or not command or type(command[0]) is not int:
            return "not an array that begins with a code"
        if command[0] not in self._names:
            return f"code {command[0]} is no command of this machine"
        return f"{self._names[command[0]]} does not take ({_names(map(type, command[1:]))})"


def _unpack(data: bytes) -> Any:
    return msgpack.unpackb(
        data, use_list=False, max_array_len=ITEMS_MAX, max_map_len=0, max_ext_len=0
    )


def _names(types: Any) -> str:
    return ", ".join(one.__name__ for one in types)
