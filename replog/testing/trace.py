"""The trace of one simulated run: one event a line, and a digest of them all.

Columns of a printed line, aligned::

    virtual time in ms | node | event | details

    start       life, next offset, last entry delivered and last entry, as found on the disk
    crash       why, and how many unsynced batches were lost; stop: a node stopped itself
    close       how many appends are refused, have an unknown outcome, and how many barriers end
    submit      records, the first of them; barrier: its number
    send        frame number, to whom, the message, checksum of its parts; refuse: as send, but the
                transport did not take it
    arrive      frame number, from whom; drop: frame number, cause; duplicate, hold: frame number
    commit      last batch, how many, whether the node was told; load: first, last, how many found
    snapshot    index, how many pieces are to be stored; sealed: index, all is stored
    installed   index, pieces; skip: records that it stands for; reader: its name and offset
    deliver     index, base offset, records; acknowledge: base offset, records; pass: a barrier
    lead        a node sees itself leading this epoch
    fault       what the simulator does to the node, or to several: `*`

Rule of this file: the digest covers every event with all its details, whether or not it is printed,
so that equal digests mean equal runs.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from replog.testing.schedule import Schedule

    Describe = Callable[[bytes], str]

DIGEST_BYTES = 16
DETAIL_CHARACTERS_MAX = 160


class Trace:
    """Records events; prints them when given where to."""

    def __init__(
        self, schedule: Schedule, describe: Describe, write: Callable[[str], object] | None = None
    ) -> None:
        self._schedule = schedule
        self._describe = describe
        self._write = write
        self._hash = blake2b(digest_size=DIGEST_BYTES)
        self.events = 0

    def record(self, node: str, event: str, *details: Any) -> None:
        """One event. Bytes among the details are message headers."""
        now = self._schedule.now
        self.events += 1
        self._hash.update(repr((now, node, event, details)).encode())
        if self._write is not None:
            text = " ".join([self._text(detail) for detail in details])
            self._write(f"{now:>8}  {node:<3} {event:<11} {text[:DETAIL_CHARACTERS_MAX]}\n")

    def _text(self, detail: Any) -> str:
        return self._describe(detail) if type(detail) is bytes else str(detail)

    @property
    def digest(self) -> str:
        """The digest of every event so far, in hexadecimal."""
        return self._hash.hexdigest()
