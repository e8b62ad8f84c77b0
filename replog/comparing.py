"""Asking a machine for its digest, to compare it with those of the other nodes' machines.

The node compares (`replog.replica.machines`); this is what the machine's thread does for it.
"""

from __future__ import annotations

import time
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from replog.replica.machines import DIGEST_BYTES, DigestSchedule

if TYPE_CHECKING:
    from collections.abc import Callable

    from replog.machine import Machine


class Comparing(NamedTuple):
    """How a machine is compared with those of the other nodes."""

    records: int
    """See `Limits.machine_digest_records`."""
    tell: Callable[[int, bytes], object]
    """Called with each agreed offset and the digest there. Raises `Closed` or `NodeStopped`."""


class Digests:
    """Asks a machine for its digest where that is due, and tells the node. A machine that has no
    `digest` is not asked, nor one again whose `digest` has raised."""

    def __init__(self, machine: Machine, comparing: Comparing | None) -> None:
        self.failure = ""
        """Why the machine is not asked any more."""
        self._machine = machine
        self._comparing = comparing if callable(getattr(machine, "digest", None)) else None
        self._schedule = DigestSchedule(1 if comparing is None else comparing.records)
        self._last_offset = 0
        self._last_time = time.monotonic()

    def next_offset(self, offset: int) -> int | None:
        """The first one beyond `offset` at which the digest is wanted; None: none is."""
        return None if self._comparing is None else self._schedule.next_offset(offset)

    def take(self, offset: int) -> None:
        """The machine has taken every record below this offset, at which its digest is wanted.
        Raises what `Comparing.tell` does."""
        if self._comparing is None:
            return
        elapsed = time.monotonic() - self._last_time
        began = time.thread_time()
        try:
            # As many bytes travel, however long the machine makes its digest.
            digest = blake2b(self._machine.digest(), digest_size=DIGEST_BYTES).digest()
        except BaseException as error:  # noqa: BLE001 - an application's, whatever it is
            self.failure = type(error).__name__
            self._comparing = None
            return
        seconds = time.thread_time() - began
        self._schedule.taken(seconds, offset - self._last_offset, elapsed)
        self._last_offset, self._last_time = offset, time.monotonic()
        self._comparing.tell(offset, digest)
