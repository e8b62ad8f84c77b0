"""What a leader takes from every node's producer, until it is proposed.

Rules of this file:

1. The leader takes runs only once its own first entry is delivered: then the producer table says
   exactly what every earlier entry will deliver.
2. From there `expected` is the producer table, advanced by each run taken, and dropped with the
   leadership. A run is taken only at `expected`; the rule at delivery stays the judge.
3. Forwarded runs and the leader's own take turns at going first, so neither starves the other.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from replog.config import RUN_BYTES_MAX
from replog.entry import RUNS_MAX, Run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replog.config import Limits
    from replog.producers import Producers
    from replog.replica.origin import Origin


class Taken(NamedTuple):
    """A run and its bytes."""

    run: Run
    body: bytes


class Intake:
    """The leader's queue of runs. Bounded by the forward windows of the other nodes."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._expected: Producers | None = None
        self._queue: deque[Taken] = deque()
        self._queue_bytes = 0
        self._own_first = False

    @property
    def is_open(self) -> bool:
        """Whether this node takes runs now."""
        return self._expected is not None

    def open(self, producers: Producers) -> None:
        """The node leads and its first entry is delivered; `producers` is the table after it."""
        self._expected = producers.copy()

    def close(self) -> None:
        """The node does not lead (any more): what was taken and not proposed is offered again by
        its origins."""
        self._expected = None
        self._queue.clear()
        self._queue_bytes = 0

    def expected(self, node: str, life: int) -> int:
        """The sequence number taken next from this producer."""
        row = self._expected.rows.get(node) if self._expected is not None else None
        return row.next_sequence if row is not None and row.life == life else 0

    def take(self, run: Run, body: bytes) -> bool:
        """Queue a forwarded run, if it is the expected one."""
        if self._expected is None or not self._expected.accept(run):
            return False
        self._queue.append(Taken(run, body))
        self._queue_bytes += run.size
        return True

    def has_work(self, origin: Origin) -> bool:
        """Whether anything waits to be proposed."""
        return self._expected is not None and (bool(self._queue) or origin.has_unoffered)

    def fills_entry(self, origin: Origin) -> bool:
        """Whether what waits here and at home is enough for a whole entry."""
        return self._queue_bytes + origin.waiting_bytes >= self._limits.entry_bytes_max

    def fill(self, origin: Origin) -> Sequence[Taken]:
        """The runs of the next entry, up to `entry_bytes_max`, a first one of any size. None when
        all that waits is in entries of this leadership already."""
        runs: list[Taken] = []
        self._own_first = not self._own_first
        sources = (self._own, self._queued) if self._own_first else (self._queued, self._own)
        size = 0
        for source in sources:
            while len(runs) < RUNS_MAX:
                room = self._limits.entry_bytes_max - size if runs else RUN_BYTES_MAX
                taken = source(origin, room)
                if taken is None:
                    break
                runs.append(taken)
                size += taken.run.size
        return runs

    def _queued(self, _: Origin, room: int) -> Taken | None:
        if not self._queue or self._queue[0].run.size > room:
            return None
        taken = self._queue.popleft()
        self._queue_bytes -= taken.run.size
        return taken

    def _own(self, origin: Origin, room: int) -> Taken | None:
        own = origin.next_run(room)
        while own is not None and self._expected is not None:
            if self._expected.accept(own.run):
                return Taken(own.run, own.body)
            own = origin.next_run(room)  # in an entry of this leadership already
        return None
