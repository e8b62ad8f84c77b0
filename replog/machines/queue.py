"""A queue of items: first in, first out, each to one taker.

1. The bound is part of each push, not of the machine: no two nodes, and no two versions of a
   program that replays the log, can differ about what was refused.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from replog.machines.commands import Command, Commands, Malformed
from replog.machines.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from replog.machine import Record

PUSH = Command("push", 48, bytes, int)
POP = Command("pop", 49)

ROWS = Rows("replog.machines.Queue/1", bytes)

LENGTH_MAX = 65_536


class Pushed(NamedTuple):
    """The answer to `push` of an item that is in the queue now."""

    length: int
    """Items in the queue, this one included."""


class Full(NamedTuple):
    """The answer to `push` when the queue is as long as that push allows. It changed nothing."""

    length: int
    """Items in the queue."""


class Queue:
    """A queue of items, which are bytes. `push` and `pop` make commands for `log.call`, and raise
    `TypeError` for arguments of other types; `length` and `items` read this machine.

    An item goes to the one `pop` that comes first in the log, and is gone: when its caller dies
    before the answer reaches it, nobody gets the item.
    """

    def __init__(self) -> None:
        self._items: deque[bytes] = deque()
        self._commands: Commands[Pushed | Full | bytes | None] = Commands(
            {PUSH: self._push, POP: self._pop}
        )

    # -- commands ------------------------------------------------------------------------------

    @staticmethod
    def push(item: bytes, length_max: int = LENGTH_MAX) -> bytes:
        """Put an item at the end, unless the queue holds `length_max` items or more. Answered with
        `Pushed` or `Full`.

        Raises `ValueError` for a `length_max` below 1.
        """
        packed = PUSH.pack(item, length_max)
        if length_max < 1:
            raise ValueError(f"length_max is at least 1, {length_max} lets nothing in")
        return packed

    @staticmethod
    def pop() -> bytes:
        """Take the item at the front. Answered with it, or None when there is none."""
        return POP.pack()

    # -- reading -------------------------------------------------------------------------------

    @property
    def length(self) -> int:
        """Items in the queue."""
        return len(self._items)

    def items(self) -> list[bytes]:
        """Every item, as of now, the next one first."""
        return list(self._items)

    # -- the machine ---------------------------------------------------------------------------

    def apply(self, records: Sequence[Record]) -> list[Pushed | Full | bytes | Malformed | None]:
        """Take these records; one answer for each."""
        return self._commands.apply(records)

    def snapshot(self) -> Iterator[bytes]:
        """The state as of this call, packed as the pieces are taken, of at most 1 MiB each."""
        return ROWS.pieces([(item,) for item in self.items()])

    def restore(self, pieces: Iterable[bytes]) -> None:
        """Replace the state. Raises `Corruption`, and keeps it, for anything but a snapshot."""
        self._items = deque(item for (item,) in ROWS.read(pieces))

    def digest(self) -> bytes:
        """16 bytes, equal for queues of equal items in the same order; O(n)."""
        return ROWS.digest(enumerate(self.items()))

    def _push(self, record: Record, item: bytes, length_max: int) -> Pushed | Full:
        if len(self._items) >= length_max:
            return Full(len(self._items))
        self._items.append(item)
        return Pushed(len(self._items))

    def _pop(self, record: Record) -> bytes | None:
        return self._items.popleft() if self._items else None
