"""Named counters.

1. A counter at 0 is the same as one that never was, and takes no room.
2. A value stays within 64 bits with a sign, so that every value can be packed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from replog.machines.commands import Command, Commands, Malformed
from replog.machines.rows import Rows

if TYPE_CHECKING:
    from collections.abc import ItemsView, Iterable, Iterator, Sequence

    from replog.machine import Record

ADD = Command("add", 16, str, int)

ROWS = Rows("replog.machines.Counter/1", str, int)

VALUE_MIN = -(1 << 63)
VALUE_MAX = (1 << 63) - 1


class OutOfRange(NamedTuple):
    """The answer to an `add` that would leave the range of a value. It changed nothing."""

    value: int
    """What the counter stands at."""


class Counter:
    """Counters by name, each at 0 until something is added. `add` makes a command for `log.call`,
    and raises `TypeError` for arguments of other types; `get` and `items` read this machine."""

    def __init__(self) -> None:
        self._values: dict[str, int] = {}
        self._commands: Commands[int | OutOfRange] = Commands({ADD: self._add})

    # -- commands ------------------------------------------------------------------------------

    @staticmethod
    def add(name: str, amount: int = 1) -> bytes:
        """Add this amount, which may be negative. Answered with the new value, or `OutOfRange`
        beyond -2**63 to 2**63 - 1. Raises `OverflowError` for an amount beyond 64 bits."""
        return ADD.pack(name, amount)

    # -- reading -------------------------------------------------------------------------------

    def get(self, name: str) -> int:
        """What the counter stands at."""
        return self._values.get(name, 0)

    def items(self) -> ItemsView[str, int]:
        """Every counter that is not at 0, as of now, in no order to rely on."""
        return self._values.copy().items()

    # -- the machine ---------------------------------------------------------------------------

    def apply(self, records: Sequence[Record]) -> list[int | OutOfRange | Malformed]:
        """Take these records; one answer for each."""
        return self._commands.apply(records)

    def snapshot(self) -> Iterator[bytes]:
        """The state as of this call, packed as the pieces are taken, of at most 1 MiB each."""
        return ROWS.pieces(self.items())

    def restore(self, pieces: Iterable[bytes]) -> None:
        """Replace the state. Raises `Corruption`, and keeps it, for anything but a snapshot."""
        self._values = dict(ROWS.read(pieces))

    def digest(self) -> bytes:
        """16 bytes, equal for equal counters; O(n)."""
        return ROWS.digest(self.items())

    def _add(self, record: Record, name: str, amount: int) -> int | OutOfRange:
        before = self._values.get(name, 0)
        value = before + amount
        if not VALUE_MIN <= value <= VALUE_MAX:
            return OutOfRange(before)
        if value:
            self._values[name] = value
        else:
            self._values.pop(name, None)
        return value
