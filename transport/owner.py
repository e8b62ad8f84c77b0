"""The one thread that may use a transport, and the one process.

1. The first thread to `claim` a transport owns it until that thread ends: sockets are not safe for
   two threads, and a second one corrupts memory rather than raising.
2. A forked child owns nothing: it shares its parent's sockets and has none of its threads.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Final

from transport.interface import TransportError

__all__ = ["Owner"]

NOBODY: Final = 0
"""No thread has this identity, so that it never compares equal to the running one."""


class Owner:
    """Who owns a transport. A hot path only compares `ident` with the running thread's."""

    __slots__ = ("__weakref__", "_closed", "_forked", "_thread", "ident")

    def __init__(self) -> None:
        self.ident: int = NOBODY
        self._thread: threading.Thread | None = None
        self._closed = False
        self._forked = False
        _owners.add(self)

    @property
    def forked(self) -> bool:
        """Whether this process is a fork of the one that made the transport."""
        return self._forked

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def claim(self) -> None:
        """Make the running thread the owner. Raises TransportError if it cannot be."""
        self.permit()
        self._thread = threading.current_thread()
        self.ident = threading.get_ident()

    def permit(self) -> None:
        """Raise TransportError if the running thread may not use the transport now."""
        if self._forked:
            raise TransportError("this transport is the parent process's: open one after fork")
        if self._closed:
            raise TransportError("this transport is closed")
        owner = self._thread
        if owner is not None and owner is not threading.current_thread() and owner.is_alive():
            raise TransportError(
                f"this transport belongs to the thread {owner.name!r}: only wake() may be called "
                f"from {threading.current_thread().name!r}"
            )

    def close(self) -> None:
        """Nobody may use the transport from here. Raises TransportError as `permit`."""
        if not self._closed:
            self.permit()
        self._closed = True
        self._thread = None
        self.ident = NOBODY

    def disown(self) -> None:
        """In a forked child: nobody may use the transport here."""
        self._forked = True
        self.ident = NOBODY


_owners: weakref.WeakSet[Owner] = weakref.WeakSet()


def _disown_all() -> None:
    for owner in tuple(_owners):
        owner.disown()


os.register_at_fork(after_in_child=_disown_all)
