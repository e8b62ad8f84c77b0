"""Compaction: when the log is looked at, and how what may go goes, in small steps.

Rules of this file:

1. A step drops few entries, in a batch of its own size; the next follows once it is on the disk.
2. Nothing is dropped that is not delivered on the disk, or that the newest snapshot does not stand
   for.
3. Readers learn the first offset that stays before anything below it goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from replog.replica.effects import LoadDroppable

if TYPE_CHECKING:
    from collections.abc import Callable

    from replog.replica.loads import Loads
    from replog.retention import Droppable, Retention
    from replog.snapshot import Base

ENTRIES_PER_STEP_MAX = 256
"""Of one batch."""
CHECK_MS = 1000
"""So long after it has grown, at the latest, a log is looked at."""
CHECKS_PER_BOUND = 8
"""It is looked at sooner when it has grown by this part of a bound: an eighth."""


class Needed(NamedTuple):
    """What of the log must stay, whatever the retention says."""

    index_max: int
    """What is above."""
    offset: int | None
    """From here on, for some reader."""


class Compaction:
    """How far the log of this node is dropped."""

    def __init__(self, retention: Retention | None, base: Base, loads: Loads) -> None:
        self.base_index = base.index
        """The log begins behind this entry, or will with the next batch."""
        self.first_offset = base.offset
        """Of the first record that readers may ask for."""
        self.target_index = base.index
        """Entries up to here may go."""
        self._retention = retention
        self._loads = loads
        self._looking = False
        self._step_under_way = 0
        """The batch that holds the last step; 0: it is on the disk."""
        self._told_offset = base.offset
        self._told_index = base.index
        """The target by then."""
        self._bytes_since = 0
        self._records_since = 0
        self._grown = False
        self._more_may_go = False
        self._outdated = False
        """What is needed has changed since the look that is under way."""
        self.deadline: int | None = None
        """When `look` is due."""

    def delivered(self, now: int, records: int, size: int) -> None:
        """The log has grown by one entry."""
        retention = self._retention
        if retention is None:
            return
        self._bytes_since += size
        self._records_since += records
        if retention.bytes_max and self._bytes_since * CHECKS_PER_BOUND > retention.bytes_max:
            self._grown = True
        if retention.records_max and self._records_since * CHECKS_PER_BOUND > retention.records_max:
            self._grown = True
        if self.deadline is None:
            self.deadline = now + CHECK_MS

    def needs_more(self) -> None:
        """A named reader or a machine begins: an answer that is under way knows nothing of it, nor
        does one that nobody was told of yet."""
        self._outdated = self._looking
        if self.target_index != self._told_index:
            self.give_up()
            self._grown = True

    def look_again(self) -> None:
        """More may go than before: a reader needs less, or a newer snapshot stands for more."""
        self._more_may_go = self._retention is not None

    def look(self, now: int, wall_ms: int, needed: Callable[[], Needed]) -> None:
        """Find out what may go, if it is time: then `needed` is asked what must stay."""
        retention = self._retention
        if self._more_may_go and self.deadline is None:
            self.deadline = now + CHECK_MS
        self._more_may_go = False
        due = self._grown or (self.deadline is not None and now >= self.deadline)
        if retention is None or not due:
            return
        # What made it grow may not be on the disk yet: a look that came early is not the last one.
        once_more = self._grown or retention.age_ms_max is not None
        self.deadline = now + CHECK_MS if once_more else None
        if self._looking:
            return
        index_max, needed_offset = needed()
        if index_max <= self.base_index:
            return
        self._grown = False
        self._bytes_since = self._records_since = 0
        self._looking = True
        load = LoadDroppable(retention, wall_ms, index_max, needed_offset)
        self._loads.ask(load, self._found)

    def _found(self, _: int, found: Droppable) -> None:
        self._looking = False
        if self._outdated:
            self._outdated = False
            self._grown = True
        elif found.index > self.target_index:
            self.target_index = found.index
            self.first_offset = max(self.first_offset, found.offset)

    def take_first_offset(self) -> int | None:
        """The first offset that stays, if readers have not been told yet."""
        self._told_index = self.target_index
        if self._told_offset == self.first_offset:
            return None
        self._told_offset = self.first_offset
        return self.first_offset

    @property
    def has_step(self) -> bool:
        """Whether `step` would drop anything."""
        return self.target_index > self.base_index and not self._step_under_way

    def step(self, batch_id: int) -> int:
        """How far this batch drops the log: up to the index returned."""
        self.base_index = min(self.base_index + ENTRIES_PER_STEP_MAX, self.target_index)
        self._step_under_way = batch_id
        return self.base_index

    def give_up(self) -> None:
        """Nothing more may go: the next look finds out again."""
        self.target_index = self._told_index = self.base_index
        self.first_offset = self._told_offset

    def durable(self, batch_id: int) -> None:
        """Every batch up to this id is on the disk."""
        if self._step_under_way <= batch_id:
            self._step_under_way = 0

    def installed(self, base: Base) -> None:
        """A snapshot took the place of the log."""
        self.base_index = self.target_index = self._told_index = base.index
        self.first_offset = self._told_offset = base.offset
