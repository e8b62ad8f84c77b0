"""A live core as a value that can be compared, hashed and brought back to life.

Rules of this file:

1. `thaw(freeze(x))` behaves as `x` does, and shares nothing with it that can change.
2. Equal frozen values mean equal behaviour: nothing is left out, and the order of a dict is kept,
   for a core may iterate over it. Two states that differ in no behaviour may well freeze
   differently: that costs states and misses nothing.
3. A tuple keeps its class, for tuples of different classes may be equal.
4. What can change is reached on one path only. A second path would be lost in a copy, so it is
   refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum
from operator import attrgetter
from typing import Any

COLLECTIONS: tuple[type, ...] = (list, deque)
SPECIAL = frozenset({"__dict__", "__weakref__"})
WRITTEN_IN_PYTHON = 1 << 9
"""The flag `Py_TPFLAGS_HEAPTYPE` of a class."""


class Frozen(tuple[Any, ...]):
    """What stands for something that is made of parts: its class, and what it held."""

    __slots__ = ()


class Capture:
    """Freezes and thaws states; `shared` are the classes whose objects never change, and equal none
    of another class."""

    def __init__(self, shared: Iterable[type]) -> None:
        self._atoms: set[type] = {
            bool,
            bytes,
            float,
            frozenset,
            int,
            str,
            type,
            type(None),
            *shared,
        }
        self._setters: dict[type, list[Callable[[Any, Any], object]]] = {}
        self._fields: dict[type, Callable[[Any], tuple[Any, ...]]] = {}

    def freeze(self, value: Any) -> Any:
        """A hashable value that stands for this one. Raises `TypeError` for what is reachable on
        two paths."""
        return value if type(value) in self._atoms else self._freeze(value, set())

    def _freeze(self, value: Any, met: set[int]) -> Any:
        """As `freeze`, for what is no atom."""
        kind = type(value)
        parts: Any = value
        if isinstance(value, Enum):
            self._atoms.add(kind)
            return value
        if not isinstance(value, tuple):
            if id(value) in met:
                raise TypeError(f"{kind.__name__} {value!r} is reachable on two paths")
            met.add(id(value))
            if kind is set:
                return Frozen((set, frozenset(value)))
            if kind is dict:
                parts = value.items()
            elif kind not in COLLECTIONS:
                parts = self._fields_of(kind)(value)
        atoms = self._atoms
        frozen = [part if type(part) in atoms else self._freeze(part, met) for part in parts]
        return Frozen((kind, *frozen))

    def thaw(self, frozen: Any) -> Any:
        """A new object that behaves as the frozen one did."""
        if type(frozen) is not Frozen:
            return frozen
        kind: Any
        kind, *members = frozen
        thaw = self.thaw
        parts = [part if type(part) is not Frozen else thaw(part) for part in members]
        setters = self._setters.get(kind)
        if setters is not None:
            twin = object.__new__(kind)
            for set_field, part in zip(setters, parts, strict=True):
                set_field(twin, part)
            return twin
        if kind is set:
            return set(parts[0])
        return tuple.__new__(kind, parts) if issubclass(kind, tuple) else kind(parts)

    def _fields_of(self, kind: type) -> Callable[[Any], tuple[Any, ...]]:
        fields = self._fields.get(kind)
        if fields is None:
            fields = self._fields[kind] = self._learn(kind)
        return fields

    def _learn(self, kind: type) -> Callable[[Any], tuple[Any, ...]]:
        """Where objects of this class keep what they know."""
        bases = kind.__mro__[:-1]
        if not all(base.__flags__ & WRITTEN_IN_PYTHON for base in bases):
            raise TypeError(f"{kind.__name__} keeps its state where nobody sees it")
        slots = {name: base for base in bases for name in _slots(base) if name not in SPECIAL}
        setters = [getattr(base, name).__set__ for name, base in slots.items()]
        names = list(slots)
        if kind.__dictoffset__:
            names.append("__dict__")
            setters.append(lambda twin, fields: object.__setattr__(twin, "__dict__", fields))
        self._setters[kind] = setters
        if len(names) > 1:
            return attrgetter(*names)
        return lambda value: tuple([getattr(value, name) for name in names])


def _slots(base: type) -> tuple[str, ...]:
    slots = base.__dict__.get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)
