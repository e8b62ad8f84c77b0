"""Messages as bytes: layouts and checks derived from the message classes' annotations.

A message header is one msgpack array of fixed positions::

    [number, first_index, [[count, epoch number, epoch node], ...], field, field, ...]

`number` names the class; the second and third positions name the entries that travel beside the
message, in runs of one epoch, and are 0 and [] when there are none.

Fields may be `int` (0 to 2^63-1), `bool`, `str`, `bytes`, `Epoch`, `X | None` and
`tuple[X, ...]`; every type, range and length is checked on receipt.
"""

from __future__ import annotations

import types
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, get_args, get_origin, get_type_hints

import msgpack

from replog.agreement import EntryRef, Message
from replog.entry import INTEGER_MAX, NODE_ID_CHARACTERS_MAX, Epoch
from replog.errors import PeerFault
from replog.messages import TRUNK_MESSAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CORE_NUMBER_START = 64
"""The agreement's messages are numbered from here, the trunk's from 0."""
STRING_CHARACTERS_MAX = 512
BYTES_MAX = 256
LIST_LENGTH_MAX = 4096
ENTRIES_MAX = 1024
"""Most entries beside one message."""

_NO_RUNS: tuple[tuple[int, int, str], ...] = ()

Check = Any
"""A function from a decoded msgpack value to the field's value; raises `PeerFault`."""


class Layout(NamedTuple):
    """How one message class is written and checked."""

    number: int
    message: type[Message]
    checks: tuple[Check, ...]


class Codec:
    """Encodes and decodes the messages of the trunk and of one agreement."""

    def __init__(self, core_messages: Sequence[type[Message]]) -> None:
        numbered = list(enumerate(TRUNK_MESSAGES))
        numbered += list(enumerate(core_messages, start=CORE_NUMBER_START))
        layouts = [Layout(number, message, _checks(message)) for number, message in numbered]
        self._by_number = {layout.number: layout for layout in layouts}
        self._number_of = {layout.message: layout.number for layout in layouts}

    def encode(self, message: Message, entries: Sequence[EntryRef] = ()) -> bytes:
        """The header of a message that travels with these entries (consecutive indexes)."""
        first, runs = 0, _NO_RUNS
        if entries:
            first, runs = entries[0].index, _epoch_runs(entries)
        packed: bytes = msgpack.packb((self._number_of[type(message)], first, runs, *message))
        return packed

    def decode(self, header: bytes) -> tuple[Message, list[EntryRef]]:
        """The message and the names of its entries. Raises `PeerFault` for anything else."""
        try:
            fields = msgpack.unpackb(
                header,
                use_list=False,
                max_array_len=LIST_LENGTH_MAX,
                max_str_len=STRING_CHARACTERS_MAX,
                max_bin_len=BYTES_MAX,
                max_map_len=0,
                max_ext_len=0,
            )
            number, first, runs = fields[:3]
            layout = self._by_number[number]
        except Exception as error:  # msgpack raises several unrelated classes for bad bytes
            raise PeerFault(f"message header is malformed: {error!r}") from error
        values = fields[3:]
        if type(number) is not int or len(values) != len(layout.checks):
            raise PeerFault(f"message {number} has {len(values)} fields")
        name = layout.message.__name__
        try:
            checked = [check(value) for check, value in zip(layout.checks, values, strict=True)]
            refs = _entry_refs(_integer(first), runs) if runs else []
        except PeerFault as fault:
            raise PeerFault(f"{name}: {fault}") from fault
        return layout.message(*checked), refs


def _epoch_runs(entries: Sequence[EntryRef]) -> tuple[tuple[int, int, str], ...]:
    runs: list[tuple[int, int, str]] = []
    start, epoch = 0, entries[0].epoch
    for place, ref in enumerate(entries):
        if ref.epoch != epoch:
            runs.append((place - start, *epoch))
            start, epoch = place, ref.epoch
    runs.append((len(entries) - start, *epoch))
    return tuple(runs)


def _entry_refs(first: int, runs: object) -> list[EntryRef]:
    if type(runs) is not tuple:
        raise PeerFault("entries are not a list of runs")
    refs: list[EntryRef] = []
    for run in runs:
        if type(run) is not tuple or len(run) != 3:
            raise PeerFault("a run of entries is malformed")
        count, epoch = _integer(run[0]), _epoch(run[1:])
        if not 0 < count <= ENTRIES_MAX - len(refs):
            raise PeerFault(f"more than {ENTRIES_MAX} entries beside one message")
        refs += [EntryRef(first + len(refs) + place, epoch) for place in range(count)]
    if first + len(refs) > INTEGER_MAX or first < 1:
        raise PeerFault("an entry's index is out of range")
    return refs


def _integer(value: object) -> int:
    if type(value) is not int or not 0 <= value <= INTEGER_MAX:
        raise PeerFault(f"{value!r} is no integer in range")
    return value


def _bool(value: object) -> bool:
    if type(value) is not bool:
        raise PeerFault(f"{value!r} is no bool")
    return value


def _str(value: object) -> str:
    if type(value) is not str:
        raise PeerFault(f"{value!r} is no str")
    return value


def _bytes(value: object) -> bytes:
    if type(value) is not bytes:
        raise PeerFault(f"{value!r} is no bytes")
    return value


def _epoch(value: object) -> Epoch:
    if type(value) is not tuple or len(value) != 2:
        raise PeerFault(f"{value!r} is no epoch")
    node = _str(value[1])
    if len(node) > NODE_ID_CHARACTERS_MAX:
        raise PeerFault("an epoch's node id is too long")
    return Epoch(_integer(value[0]), node)


_SIMPLE: dict[object, Check] = {
    int: _integer,
    bool: _bool,
    str: _str,
    bytes: _bytes,
    Epoch: _epoch,
}


@cache
def _checks(message: type[Message]) -> tuple[Check, ...]:
    hints = get_type_hints(message)
    fields: tuple[str, ...] = message._fields  # type: ignore[attr-defined]
    return tuple([_check(hints[field]) for field in fields])


def _check(hint: object) -> Check:
    if hint in _SIMPLE:
        return _SIMPLE[hint]
    arguments = get_args(hint)
    if get_origin(hint) is types.UnionType and arguments[1:] == (types.NoneType,):
        return _optional(_check(arguments[0]))
    if get_origin(hint) is tuple and arguments[1:] == (...,):
        return _list(_check(arguments[0]))
    raise TypeError(f"{hint!r} is no field type that the codec knows")


def _optional(check: Callable[[object], object]) -> Check:
    def optional(value: object) -> object:
        return None if value is None else check(value)

    return optional


def _list(check: Callable[[object], object]) -> Check:
    def listed(value: object) -> object:
        if type(value) is not tuple:
            raise PeerFault(f"{value!r} is no list")
        return tuple([check(item) for item in value])

    return listed
