"""A map from keys to values."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from replog.machines.commands import Command, Commands, Malformed
from replog.machines.rows import Rows

if TYPE_CHECKING:
    from collections.abc import ItemsView, Iterable, Iterator, Sequence

    from replog.machine import Record

PUT = Command("put", 1, bytes, bytes)
DELETE = Command("delete", 2, bytes)
COMPARE_AND_SET = Command("compare_and_set", 3, bytes, bytes | None, bytes | None)

ROWS = Rows("replog.machines.KeyValue/1", bytes, bytes)


class Compared(NamedTuple):
    """The answer to `compare_and_set`."""

    swapped: bool
    found: bytes | None
    """What the key held before the command; None: nothing."""


class KeyValue:
    """A map from keys to values, both bytes. `put`, `delete` and `compare_and_set` make commands
    for `log.call`, and raise `TypeError` for anything but bytes; `get` and `items` read this
    machine."""

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}
        self._commands: Commands[bytes | Compared | None] = Commands(
            {
                PUT: self._put,
                DELETE: self._delete,
                COMPARE_AND_SET: self._compare_and_set,
            }
        )

    # -- commands ------------------------------------------------------------------------------

    @staticmethod
    def put(key: bytes, value: bytes) -> bytes:
        """Let the key hold this value. Answered with the value it held before, or None."""
        return PUT.pack(key, value)

    @staticmethod
    def delete(key: bytes) -> bytes:
        """Let the key hold nothing. Answered with the value it held before, or None."""
        return DELETE.pack(key)

    @staticmethod
    def compare_and_set(key: bytes, expected: bytes | None, value: bytes | None) -> bytes:
        """If the key holds `expected`, let it hold `value`; None is nothing, for both. Answered
        with `Compared`."""
        return COMPARE_AND_SET.pack(key, expected, value)

    # -- reading -------------------------------------------------------------------------------

    def get(self, key: bytes) -> bytes | None:
        """What the key holds, or None."""
        return self._values.get(key)

    def items(self) -> ItemsView[bytes, bytes]:
        """Every key and value, as of now, in no order to rely on."""
        return self._values.copy().items()

    # -- the machine ---------------------------------------------------------------------------

    def apply(self, records: Sequence[Record]) -> list[bytes | Compared | Malformed | None]:
        """Take these records; one answer for each."""
        return self._commands.apply(records)

    def snapshot(self) -> Iterator[bytes]:
        """The state as of this call, packed as the pieces are taken, of at most 1 MiB each."""
        return ROWS.pieces(self.items())

    def restore(self, pieces: Iterable[bytes]) -> None:
        """Replace the state. Raises `Corruption`, and keeps it, for anything but a snapshot."""
        self._values = dict(ROWS.read(pieces))

    def digest(self) -> bytes:
        """16 bytes, equal for equal maps; O(n)."""
        return ROWS.digest(self.items())

    def _put(self, record: Record, key: bytes, value: bytes) -> bytes | None:
        before = self._values.get(key)
        self._values[key] = value
        return before

    def _delete(self, record: Record, key: bytes) -> bytes | None:
        return self._values.pop(key, None)

    def _compare_and_set(
        self, record: Record, key: bytes, expected: bytes | None, value: bytes | None
    ) -> Compared:
        found = self._values.get(key)
        if found != expected:
            return Compared(swapped=False, found=found)
        if value is None:
            self._values.pop(key, None)
        else:
            self._values[key] = value
        return Compared(swapped=True, found=found)
