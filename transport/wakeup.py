"""A descriptor that any thread can make readable, to end another thread's poll.

1. A wake-up is lost to nobody: a `set` that finds the descriptor set already returned before the
   `clear` that consumes it.
2. After `close` nothing is written: by then the number may be another file's descriptor.
"""

from __future__ import annotations

import os
import threading

__all__ = ["Wakeup"]


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
            self._is_set = True
            os.write(self._write_fd, b"\0")

    def clear(self) -> None:
        """Make `fd` unreadable. Called only when it was seen readable, so that it never blocks."""
        with self._lock:
            os.read(self.fd, 1)
            self._is_set = False

    def close(self) -> None:
        """Free the descriptors. Idempotent; `set` has no effect from here."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            os.close(self.fd)
            os.close(self._write_fd)
