"""The gate of a store: any number of threads may be inside, until it is shut for good.

Rules of this file:

1. Nobody enters after `poison`, `shut` or a fork: entering raises `StoreFailed` with the reason.
2. `shut` returns only when everybody has left: only then may the environment be closed.
"""

from __future__ import annotations

import os
from threading import Condition, Lock
from typing import TYPE_CHECKING

from replog.errors import StoreFailed

if TYPE_CHECKING:
    from types import TracebackType


class Gate:
    """Entered with `with` around every use of the environment."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._pid = os.getpid()
        self._empty = Condition(Lock())
        self._inside = 0
        self._reason = ""
        self._cause: BaseException | None = None

    @property
    def forked(self) -> bool:
        """Whether this process is a child of the one that opened the store."""
        return os.getpid() != self._pid

    def __enter__(self) -> None:
        # Before the lock: in a forked child a thread that is not there may hold it for ever.
        if self.forked:
            raise StoreFailed(
                f"{self._file} was opened before this process was forked: open logs after forking"
            )
        with self._empty:
            if self._reason:
                raise StoreFailed(f"{self._file} {self._reason}") from self._cause
            self._inside += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._empty:
            self._inside -= 1
            if self._reason and not self._inside:
                self._empty.notify_all()

    def poison(self, reason: str, cause: BaseException) -> None:
        """Let nobody in any more, for this reason. Only the first reason counts."""
        with self._empty:
            if not self._reason:
                self._reason, self._cause = reason, cause

    def shut(self) -> None:
        """Let nobody in any more and wait until everybody has left. Not from inside."""
        with self._empty:
            self._reason = self._reason or "is closed"
            self._empty.wait_for(lambda: not self._inside)
