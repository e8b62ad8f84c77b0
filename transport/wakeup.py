"""A descriptor that any thread can make readable, to end another thread's poll.

1. A wake-up is lost to nobody: a `set` that finds the descriptor set already returned before the
   `clear` that consumes it.
2. After `close` nothing is written: by then the number may be another file's descriptor.
"""

from __future__ import annotations

import os
import threading

__all__ = ["WAIT_TIMEOUT_MS_MAX", "Wakeup"]

WAIT_TIMEOUT_MS_MAX = 2**31 - 1
"""What a poll can count."""
READ_BYTES = 64
"""More than is ever in the pipe."""


class Wakeup:
    """Level-triggered: `fd` is readable from `set` to `clear`, however often it was set."""

    __slots__ = ("_closed", "_is_set", "_lock", "_write_fd", "fd")

    def __init__(self) -> None:
        self.fd, self._write_fd = os.pipe()
        self._lock = threading.Lock()
        self._is_set = False
        self._closed = False

    def set(self) -> None:
        """Make `fd` readable. Any thread."""
        if self._is_set:
            return
        with self._lock:
            if self._closed or self._is_set:
                return
            # In this order: an exception of a signal in between may cost a write, never a wake-up.
            os.write(self._write_fd, b"\0")
            self._is_set = True

    def clear(self) -> None:
        """Make `fd` unreadable. Called only when it was seen readable, so that it never blocks."""
        with self._lock:
            os.read(self.fd, READ_BYTES)
            self._is_set = False

    def close(self) -> None:
        """Free the descriptors. Idempotent; `set` has no effect from here."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            os.close(self.fd)
            os.close(self._write_fd)
