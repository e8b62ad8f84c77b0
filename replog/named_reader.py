"""Named readers: followers of the log whose place is kept on this node's disk.

Rules of this file:

1. The offset of a reader never falls. What lies below is done with; what lies above is kept for it,
   within the bounds of the retention.
2. Where a new reader begins is chosen by who compacts the log, which keeps it from that moment on.
3. However often a reader acknowledges, one write of it is under way and one waits, with the newest
   offset by then.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from replog.entry import check_node_id
from replog.errors import ConfigError, ReplogError
from replog.pending import Pending, fail_all, resolve
from replog.reading import Follower

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from replog.reading import DeliveredLog

READERS_MAX = 64
"""Of one node."""


class NamedReader(Follower):
    """Records from the first that is not acknowledged on, and then as they are delivered: iterate
    over it as over a `Follower`. Made by `ReplicatedLog.reader`.

    Local to this node. Two of one name share what is acknowledged, and each iterates by itself.
    """

    def __init__(self, name: str, acknowledged: int, log: DeliveredLog, readers: Readers) -> None:
        super().__init__(log, acknowledged)
        self.name = name
        self._readers = readers

    @property
    def position(self) -> int:
        """The offset of the record that comes next."""
        return self._records[-1].offset if self._records else self._position

    def ack(self, offset: int) -> Pending[None]:
        """Everything below `offset` is done with, and need not be kept for this reader; resolved
        once that is durable. After a new open of the log the reader begins there. Any thread.

        An offset that is not above the last one changes nothing. Raises `ValueError` beyond the
        end, `TypeError` for anything but an integer, `ConfigError` once the reader is forgotten,
        `Closed` and `NodeStopped`.
        """
        return self._readers.acknowledge(self.name, offset)

    def forget(self) -> Pending[None]:
        """Keep nothing for this reader any more, not even its place; resolved once that is durable.
        Harmless twice. Raises `Closed` and `NodeStopped`."""
        return self._readers.forget(self.name)


class _Row:
    """One reader."""

    __slots__ = ("forgotten", "offset", "saved", "waiting")

    def __init__(self, offset: int, saved: Pending[None]) -> None:
        self.offset = offset
        self.saved = saved
        """Of the last write: under way until it is done."""
        self.waiting: Pending[None] | None = None
        """Of the next one, which carries the offset as it is by then."""
        self.forgotten: Pending[None] | None = None
        """Of the write that forgets it."""


class Readers:
    """The named readers of one node. Any thread."""

    def __init__(
        self,
        known: Mapping[str, int],
        log: DeliveredLog,
        begin: Callable[[str], Pending[int]],
        write: Callable[[str, int | None], Pending[None]],
    ) -> None:
        """`begin` chooses where a reader begins, and answers once that is kept for it; `write`
        makes an offset durable, or None, after all that was written before. Both raise `Closed` or
        `NodeStopped`."""
        self._log = log
        self._begin = begin
        self._write = write
        self._lock = threading.RLock()  # a callback may run at once, where it is added
        self._rows: dict[str, _Row] = {}
        for name, offset in known.items():
            saved: Pending[None] = Pending()
            resolve(saved, None)
            self._rows[name] = _Row(offset, saved)

    def open(self, name: str) -> NamedReader:
        """The reader of this name, which is made when there is none: then this waits for the node.
        Raises `ConfigError` for a name that is none and for one too many, `Closed` and
        `NodeStopped`."""
        try:
            check_node_id(name)
        except ValueError:
            raise ConfigError(
                f"{name!r} is no name of a reader: use 1 to 64 of A-Z a-z 0-9 . _ -"
            ) from None
        with self._lock:
            row = self._rows.get(name)
        if row is None:
            # Not with the lock held: the node's thread takes it when a write is done.
            row = self._admit(name, self._begin(name).result())
        return NamedReader(name, row.offset, self._log, self)

    def acknowledge(self, name: str, offset: int) -> Pending[None]:
        """As `NamedReader.ack`."""
        if type(offset) is not int:
            raise TypeError(f"an offset is an integer, not {type(offset).__name__}")
        with self._lock:
            row = self._rows.get(name)
            if row is None:
                raise ConfigError(f"the reader {name} is forgotten: log.reader({name!r}) begins it")
            if offset <= row.offset:
                return row.waiting or row.saved
            end = self._log.end_offset
            if offset > end:
                raise ValueError(f"the reader {name} acknowledges {offset}; the log ends at {end}")
            if row.saved.done():
                row.saved = self._write(name, offset)
                row.offset = offset
                return row.saved
            row.offset = offset
            return self._wait_for_turn(name, row)

    def forget(self, name: str) -> Pending[None]:
        """As `NamedReader.forget`."""
        with self._lock:
            forgotten = self._write(name, None)
            row = self._rows.pop(name, None)
            if row is not None:
                row.forgotten = forgotten
            return forgotten

    def disown(self) -> None:
        """In a forked child: the lock may be held by a thread that is not here."""
        self._lock = threading.RLock()

    def _admit(self, name: str, offset: int) -> _Row:
        """A reader that the log is kept for from this offset on, unless it was here sooner."""
        with self._lock:
            row = self._rows.get(name)
            if row is not None:
                return row
            if len(self._rows) >= READERS_MAX:
                self._write(name, None)
                raise ConfigError(
                    f"this node has {READERS_MAX} named readers, {name} would be one too many: "
                    f"forget those that nobody needs"
                )
            row = self._rows[name] = _Row(offset, self._write(name, offset))
            return row

    def _wait_for_turn(self, name: str, row: _Row) -> Pending[None]:
        """With the lock held: the write that comes after the one under way."""
        waiting = row.waiting
        if waiting is None:
            begun: Pending[None] = Pending()
            row.waiting = waiting = begun
            # Which may run the callback at once.
            row.saved.add_done_callback(lambda _: self._write_waiting(name, row, begun))
        return waiting

    def _write_waiting(self, name: str, row: _Row, waiting: Pending[None]) -> None:
        """What was before it is durable, or never will be."""
        with self._lock:
            row.waiting = None
            try:
                row.saved = saved = row.forgotten or self._write(name, row.offset)
            except ReplogError as error:
                row.saved, failure = waiting, error
            else:
                saved.add_done_callback(lambda _: _pass_on(saved, waiting))
                return
        fail_all((waiting,), failure)


def _pass_on(saved: Pending[None], waiting: Pending[None]) -> None:
    try:
        saved.result()
    except BaseException as error:  # noqa: BLE001 - whatever the write ended with
        fail_all((waiting,), error)
    else:
        resolve(waiting, None)
