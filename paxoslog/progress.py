"""What a leader knows of one acceptor, and how it feeds it.

Rules of this file:

1. `match_index` only grows and `next_index` stays above it, within one ballot.
2. Nothing at or below the leader's base is ever sent: the match index is no lower.
3. The entries in the air are derived, `next_index - 1 - match_index`; their bytes are the sum of
   the reports that no acknowledgement has covered yet.
4. Every stop ends without a message that could be lost: heartbeats go out on a timer whatever the
   mode, and the first reply restarts an acceptor that is down or whose answer is overdue.

An acceptor takes an entry whatever it has before it, so nothing needs to be found out first::

                   missing            sent
    REPLICATE -------------> PROBE ----------> ASKED ---+
      |   ^                   ^  ^    missing    |      |
      |   |                   |  +---------------+      | accepted
      |   +-------------------|-------------------------+
      | lost                  | heard
      +-------------------> DOWN    (lost: from any mode)
"""

from __future__ import annotations

from collections import deque
from enum import Enum

from paxoslog.messages import ACCEPTED_AHEAD_MAX


class Mode(Enum):
    """How entries flow to one acceptor."""

    PROBE = "probe"
    """Something was lost: one send, then wait."""
    ASKED = "asked"
    """The probe is in the air."""
    REPLICATE = "replicate"
    """Entries leave ahead of their acknowledgements."""
    DOWN = "down"
    """A send did not leave: nothing follows until the acceptor is heard."""


class Progress:
    """One acceptor under one ballot."""

    __slots__ = (
        "_ahead",
        "_air",
        "_air_bytes",
        "_asking",
        "commit_index",
        "commit_told",
        "heard_at",
        "match_index",
        "mode",
        "moved_at",
        "next_index",
    )

    def __init__(self, commit_index: int, now: int) -> None:
        self.match_index = 0
        """Up to here the acceptor has accepted, durably, whatever this leader proposes, or knows
        what is chosen, or must learn it elsewhere."""
        self.next_index = 1
        """The first entry to send."""
        self.mode = Mode.REPLICATE
        self.heard_at = now
        """When its last answer arrived; at first, when the leadership began."""
        self.moved_at = now
        """When something was last put into the empty air, acknowledged, or asked for again."""
        self.commit_index = commit_index
        """As the acceptor last said."""
        self.commit_told = 0
        """As the acceptor was last told."""
        self._ahead = (0, 0)
        """The ends of what it has accepted beyond a gap: the last such piece."""
        self._air: deque[tuple[int, int]] = deque()
        self._air_bytes = 0
        self._asking = False

    def begin(self, base_index: int) -> None:
        """Nothing up to `base_index` is sent: what this leader proposes lies above it, or its value
        is gone. The acceptor learns it elsewhere."""
        if base_index <= self.match_index:
            return
        self.match_index = base_index
        if self.next_index <= base_index:
            self.next_index = base_index + 1
            if self.mode is Mode.ASKED:
                self._enter(Mode.PROBE)
        self._land(base_index)

    def room(self, entries_max: int, bytes_max: int) -> int:
        """How many entries may be sent now; the last send may exceed `bytes_max`."""
        sent_index = self.next_index - 1
        reach = self.commit_index + ACCEPTED_AHEAD_MAX - sent_index
        if self.mode is Mode.PROBE:
            return min(entries_max, reach)
        if self.mode is not Mode.REPLICATE or self._air_bytes >= bytes_max:
            return 0
        return min(entries_max - (sent_index - self.match_index), reach)

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
        """An answer of this ballot has arrived."""
        self.heard_at = now
        if self.mode is Mode.DOWN:
            self._enter(Mode.PROBE)
            self.next_index = self.match_index + 1

    def accepted(self, now: int, first_index: int, last_index: int) -> None:
        """The acceptor has everything from `first_index` to `last_index`."""
        if first_index > self.match_index + 1:
            self._ahead = max(self._ahead, (first_index, last_index))
            return
        if self._ahead[0] <= last_index + 1:
            last_index = max(last_index, self._ahead[1])
        if last_index <= self.match_index:
            return
        self.match_index = last_index
        self.moved_at = now
        if self.mode is not Mode.REPLICATE and last_index >= self.next_index:
            self._enter(Mode.REPLICATE)
        self.next_index = max(self.next_index, last_index + 1)
        self._land(last_index)

    def missing(self, index: int) -> None:
        """The acceptor lacks the entry at `index`: send again from there.

        While a probe is in the air, only the answer to a question counts: every entry that was sent
        after the lost one makes the acceptor say the same.
        """
        if self.mode is Mode.ASKED and not self._asking:
            return
        end = self.next_index + (self.mode is Mode.ASKED)
        if self.match_index < index < end:
            self.next_index = index
            self._enter(Mode.PROBE)

    def overdue(self, now: int, after_ms: int) -> bool:
        """Whether the answer to something sent is missing after `after_ms` without progress."""
        waiting = self.mode is Mode.ASKED or self.next_index > self.match_index + 1
        return waiting and now - self.moved_at >= after_ms

    def ask(self, now: int) -> tuple[int, int]:
        """The first and last index to ask about."""
        self.moved_at = now
        self._asking = True
        return self.match_index + 1, self.next_index - (self.mode is not Mode.ASKED)

    def _land(self, last_index: int) -> None:
        while self._air and self._air[0][0] <= last_index:
            self._air_bytes -= self._air.popleft()[1]

    def _enter(self, mode: Mode) -> None:
        self.mode = mode
        self._air.clear()
        self._air_bytes = 0
        self._asking = False
