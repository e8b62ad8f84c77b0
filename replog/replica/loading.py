"""Filling sends with bytes: from the window, or from the disk through the host.

Rules of this file:

1. A send takes bytes by (index, epoch); what is neither here nor on the disk under that epoch any
   more is reported to the core as lost.
2. At most one load is under way for each peer: the core waits for the report of its send.
3. A send is cut by size; the core is told how far it came.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replog.entry import NO_EPOCH
from replog.replica.effects import LoadEntries
from replog.store.interface import StoredEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from replog.agreement import Core, Send
    from replog.config import Limits
    from replog.replica.loads import Loads
    from replog.replica.window import Window

    SendEntries = Callable[[Send, Sequence[StoredEntry]], None]


class Loading:
    """Sends that wait for the disk."""

    def __init__(
        self, core: Core, window: Window, limits: Limits, loads: Loads, send: SendEntries
    ) -> None:
        self._core = core
        self._window = window
        self._limits = limits
        self._loads = loads
        self._send = send
        self._waiting: list[Send] = []

    def fill(self, send: Send) -> None:
        """Send with entries from the window, or once they are loaded."""
        found: list[StoredEntry] = []
        size = 0
        for ref in send.entries:
            held = self._window.find(ref)
            if held is None:
                break
            epoch, entry = held
            size += len(entry.data)
            if found and size > self._limits.message_bytes_max:
                break
            found.append(StoredEntry(ref.index, epoch, entry.data))
        if found:
            self._leave(send, found)
        elif self._window.at(send.entries[0].index) is not None:
            self._core.lost(send.to)  # overwritten under another epoch
        else:
            self._load(send)

    def give_up(self) -> None:
        """The leadership changed: sends that still wait for the disk are out of date."""
        given_up, self._waiting = self._waiting, []
        for send in given_up:
            self._core.lost(send.to)

    def _load(self, send: Send) -> None:
        first, last = send.entries[0].index, send.entries[-1].index
        self._waiting.append(send)
        self._loads.ask(
            LoadEntries(first, last, self._limits.message_bytes_max),
            lambda _, entries: self._loaded(send, entries),
        )

    def _loaded(self, send: Send, entries: Sequence[StoredEntry]) -> None:
        """From its first index on; empty when that is not on the disk."""
        if not any(waiting is send for waiting in self._waiting):
            return
        self._waiting = [waiting for waiting in self._waiting if waiting is not send]
        found = []
        for ref, stored in zip(send.entries, entries, strict=False):
            if stored.index != ref.index or ref.epoch not in (stored.epoch, NO_EPOCH):
                break
            found.append(stored)
        if found:
            self._leave(send, found)
        else:
            self._core.lost(send.to)

    def _leave(self, send: Send, found: Sequence[StoredEntry]) -> None:
        self._send(send, found)
        self._core.sent(send.to, found[-1].index, sum([len(stored.data) for stored in found]))
