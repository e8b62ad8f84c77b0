"""Virtual time: what happens next, and nothing in between.

Rules of this file:

1. Time is an integer of milliseconds from 0, and moves only from one action to the next.
2. Actions of one millisecond happen in the order in which they were scheduled.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

from replog.testing.violation import Violation

if TYPE_CHECKING:
    from collections.abc import Callable

    Action = Callable[..., None]

ACTIONS_PER_MS_MAX = 20_000
"""More in one millisecond means that somebody answers himself for ever."""


class Schedule:
    """Actions to come, by time."""

    def __init__(self) -> None:
        self.now = 0
        """Virtual milliseconds since the start."""
        self._sequence = 0
        self._heap: list[tuple[int, int, Action, tuple[Any, ...]]] = []

    def at(self, time: int, action: Action, *arguments: Any) -> None:
        """Carry out `action` at this time; one that is past means as soon as possible."""
        self._sequence += 1
        heappush(self._heap, (max(time, self.now), self._sequence, action, arguments))

    def after(self, delay_ms: int, action: Action, *arguments: Any) -> None:
        """Carry out `action` this much later."""
        self.at(self.now + delay_ms, action, *arguments)

    def run(self, until: int, finished: Callable[[], bool] | None = None) -> bool:
        """Carry out what is due up to this time, inclusive; stop early once `finished` says so.

        Returns whether it did. Time then stands at the last action; else at `until`. Raises
        `Violation` when time stands still.
        """
        heap = self._heap
        actions = 0
        while heap and heap[0][0] <= until:
            time, _, action, arguments = heappop(heap)
            actions = actions + 1 if time == self.now else 0
            if actions > ACTIONS_PER_MS_MAX:
                raise Violation(f"time stands still after {actions} actions in one millisecond")
            self.now = time
            action(*arguments)
            if finished is not None and finished():
                return True
        self.now = until
        return False
