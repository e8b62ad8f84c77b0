"""What a leader knows of one follower's log, and how it feeds it.

Rules of this file:

1. `match_index` only grows and `next_index` stays above it, within one leadership (figure 2).
2. The entries in the air are derived, `next_index - 1 - match_index`; their bytes are the sum of
   the reports that no acknowledgement has covered yet.
3. Every stop ends without a message that could be lost: heartbeats go out on a timer whatever the
   mode, and the first reply restarts a follower that is down or whose acknowledgement is overdue.
4. A follower that needs a snapshot is `ASKED` whether its log holds the leader's base, once each
   time the answer is overdue, until it does.

::

                sent              accepted
    PROBE ----------------> ASKED ----------> REPLICATE
      ^  ^     refused        |                   |
      |  +--------------------+-------------------+
      | heard                    lost: from any mode
    DOWN <-----------------------------------------
"""

from __future__ import annotations

from collections import deque
from enum import Enum


class Mode(Enum):
    """How entries flow to one follower (dissertation section 10.2.2)."""

    PROBE = "probe"
    """Unknown where the logs part: one send, then wait."""
    ASKED = "asked"
    """The probe is in the air."""
    REPLICATE = "replicate"
    """The logs match below `next_index`: entries leave ahead of their acknowledgements."""
    DOWN = "down"
    """A send did not leave: nothing follows until the follower is heard."""


class Progress:
    """One follower in one leadership."""

    __slots__ = (
        "_air",
        "_air_bytes",
        "commit_told",
        "heard_at",
        "match_index",
        "mode",
        "moved_at",
        "next_index",
        "offered_at",
    )

    def __init__(self, next_index: int, now: int) -> None:
        self.match_index = 0
        """The follower's disk holds the leader's log up to here, as far as the leader knows."""
        self.next_index = next_index
        """The first entry to send."""
        self.mode = Mode.PROBE
        self.heard_at = now
        """When its last reply arrived; at first, when the leadership began."""
        self.moved_at = now
        """When something was last put into the empty air, acknowledged, or asked for again."""
        self.commit_told = 0
        """The commit index that the follower has been told or can derive from what it was sent."""
        self.offered_at: int | None = None
        """When it was last offered a snapshot."""
        self._air: deque[tuple[int, int]] = deque()
        self._air_bytes = 0

    def room(self, entries_max: int, bytes_max: int) -> int:
        """How many entries may be sent now; the last send may exceed `bytes_max`."""
        if self.mode is Mode.PROBE:
            return entries_max
        if self.mode is not Mode.REPLICATE or self._air_bytes >= bytes_max:
            return 0
        return entries_max - (self.next_index - 1 - self.match_index)

    def sent(self, now: int, last_index: int, size: int) -> None:
        """Entries from `next_index` to `last_index`, of `size` bytes, have left."""
        if self.mode is Mode.PROBE:
            self.mode = Mode.ASKED
            self.moved_at = now
        elif self.mode is Mode.REPLICATE:
            if self.next_index == self.match_index + 1:
                self.moved_at = now
            self.next_index = last_index + 1
            self._air.append((last_index, size))
            self._air_bytes += size

    def lost(self) -> None:
        """A send did not leave, or was dropped: wait for a sign of life, then probe."""
        self._enter(Mode.DOWN)

    def heard(self, now: int) -> None:
        """A reply of this term has arrived."""
        self.heard_at = now
        if self.mode is Mode.DOWN:
            self._enter(Mode.PROBE)

    def accepted(self, now: int, match_index: int) -> bool:
        """The follower holds everything up to `match_index`; whether that is news."""
        if self.mode is not Mode.REPLICATE and match_index >= self.next_index - 1:
            self._enter(Mode.REPLICATE)
        if match_index <= self.match_index:
            return False
        self.match_index = match_index
        self.next_index = max(self.next_index, match_index + 1)
        self.moved_at = now
        while self._air and self._air[0][0] <= match_index:
            self._air_bytes -= self._air.popleft()[1]
        return True

    def stale_refusal(self, previous_index: int, base_index: int) -> bool:
        """Whether a refusal answers something that has been settled or asked anew since.

        What is compacted cannot be asked again: a refusal of that stays a refusal of the base.
        """
        if not self.match_index < previous_index < self.next_index:
            return True
        asked = self.mode is Mode.REPLICATE or previous_index == self.next_index - 1
        return not asked and previous_index >= base_index

    def refused(self, next_index: int) -> None:
        """The logs part: probe again from `next_index`, but never at or below the match."""
        self.next_index = max(self.match_index + 1, next_index)
        self._enter(Mode.PROBE)

    def skip_to(self, next_index: int) -> None:
        """What lies below `next_index` is compacted: probe from there, unless an answer to an
        earlier question is still to come."""
        if self.next_index < next_index:
            self.next_index = next_index
            if self.mode is Mode.REPLICATE:
                self._enter(Mode.PROBE)

    def lacks(self, next_index: int, now: int, again_ms: int) -> bool:
        """The follower cannot take `next_index`, the first entry that is left, before a snapshot;
        whether to offer it one now."""
        self.next_index = next_index
        self._enter(Mode.ASKED)
        if self.offered_at is not None and now - self.offered_at < again_ms:
            return False
        self.offered_at = self.moved_at = now
        return True

    def overdue(self, now: int, after_ms: int) -> bool:
        """Whether the answer to something sent is missing after `after_ms` without progress."""
        waiting = self.mode is Mode.ASKED or self.next_index > self.match_index + 1
        return waiting and now - self.moved_at >= after_ms

    def _enter(self, mode: Mode) -> None:
        self.mode = mode
        self._air.clear()
        self._air_bytes = 0
