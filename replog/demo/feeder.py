"""Appending through one node, and the ledger of what became of every record.

Rules of this file:

1. Each record of a node is unique: it begins with the node's name and a number that grows by one.
2. A record is submitted once. What is in flight when its node dies stays unknown: it may be in the
   log or not, and is never submitted again.
3. The ledger believes the node's answers and nothing else.
"""

from __future__ import annotations

import time
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from replog.control.words import APPEND, APPEND_MANY, STATUS
from replog.errors import NotAppended

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replog.control import ControlClient, Reply

RECORDS_PER_REQUEST = 100
REQUESTS_OPEN_MAX = 8
STATUS_SECONDS = 0.1
"""How often a feeder asks for its node's status."""
END_SECONDS_MAX = 2.0
"""Within that long a connection to a process that is gone has ended."""
ATTEMPT_SECONDS = 0.02
UNKNOWN = -1
REFUSED = -2


class Acknowledged(NamedTuple):
    """Records that the node says are in the log, at consecutive offsets."""

    first_sequence: int
    count: int  # type: ignore[assignment]
    first_offset: int


@dataclass(slots=True)
class Ledger:
    """What is known of one node's records."""

    node: str
    lines: Sequence[bytes]
    """Used in turn, over and over."""
    submitted: int = 0
    """Sequence number of the next record."""
    acknowledged: int = 0
    ranges: list[Acknowledged] = field(default_factory=list)
    refused: list[range] = field(default_factory=list)
    """Certainly not in the log."""

    def record(self, sequence: int) -> bytes:
        """The record with this number."""
        line = self.lines[sequence % len(self.lines)]
        return b"%s:%07d %s" % (self.node.encode(), sequence, line)

    def settle(self, numbers: range, offsets: Sequence[Sequence[int]], error: Any) -> None:
        """Note an answer about these records: `offsets` of the first ones, `error` of the rest."""
        place = numbers.start
        for first_offset, count in offsets:
            self.ranges.append(Acknowledged(place, count, first_offset))
            self.acknowledged += count
            place += count
        if isinstance(error, NotAppended):
            self.refused.append(range(place, numbers.stop))

    def outcomes(self) -> array[int]:
        """For each record submitted its offset, UNKNOWN or REFUSED."""
        outcomes = array("q", [UNKNOWN]) * self.submitted
        for first, count, offset in self.ranges:
            outcomes[first : first + count] = array("q", range(offset, offset + count))
        for numbers in self.refused:
            outcomes[numbers.start : numbers.stop] = array("q", [REFUSED]) * len(numbers)
        return outcomes


class Feeder:
    """Appends a ledger's records in order, many at a time: in turn as a run and one by one."""

    def __init__(self, ledger: Ledger, total: int | None = None) -> None:
        self.ledger = ledger
        self.total = total
        """How many records there are; None: no end."""
        self.client: ControlClient | None = None
        """Set by who runs the cluster, None while the node is down."""
        self.status: dict[str, Any] | None = None
        """What the node last said of itself."""
        self._open: dict[int, tuple[range, bool]] = {}
        self._requests = 0
        self._status_request = 0
        self._status_due = 0.0

    @property
    def node(self) -> str:
        """The node's name."""
        return self.ledger.node

    @property
    def in_flight(self) -> int:
        """Records submitted and not yet answered."""
        return sum([len(numbers) for numbers, _ in self._open.values()])

    @property
    def has_submitted_all(self) -> bool:
        """Whether there is nothing left to submit."""
        return self.total is not None and self.ledger.submitted >= self.total

    @property
    def has_finished(self) -> bool:
        """Whether everything is submitted and answered."""
        return self.has_submitted_all and not self._open

    def turn(self, limit: int) -> None:
        """Note what was answered, and submit up to the sequence number `limit`."""
        if self.client is None:
            return
        for reply in self.client.replies():
            self._take(reply)
        if self.client.ended:
            return
        while len(self._open) < REQUESTS_OPEN_MAX and self.ledger.submitted < limit:
            if not self.submit():
                break
        now = time.monotonic()
        if now >= self._status_due and not self._status_request:
            self._status_request = self.client.submit(STATUS)
            self._status_due = now + STATUS_SECONDS

    def submit(self) -> bool:
        """Submit the next records, whether or not there is room; False when none are left."""
        if self.client is None or self.has_submitted_all:
            return False
        ledger = self.ledger
        stop = ledger.submitted + RECORDS_PER_REQUEST
        numbers = range(ledger.submitted, stop if self.total is None else min(stop, self.total))
        whole = self._requests % 2 == 0
        records = [ledger.record(number) for number in numbers]
        request = self.client.submit(APPEND_MANY if whole else APPEND, records)
        self._open[request] = (numbers, whole)
        self._requests += 1
        ledger.submitted = numbers.stop
        return True

    def disconnect(self) -> int:
        """The node is gone: note what still arrived; how many records remain unknown."""
        lost = 0
        give_up = time.monotonic() + END_SECONDS_MAX
        while self.client is not None:
            is_last = self.client.ended or time.monotonic() > give_up
            for reply in self.client.replies(int(ATTEMPT_SECONDS * 1000)):
                lost += self._take(reply)
            if is_last:
                break
        lost += self.in_flight
        self._open.clear()
        self.client = self.status = None
        self._status_request = 0
        return lost

    def _take(self, reply: Reply) -> int:
        """Note an answer; how many records it leaves unknown."""
        if reply.request_id == self._status_request:
            self._status_request = 0
            self.status = reply.value if reply.error is None else None
            return 0
        numbers, whole = self._open.pop(reply.request_id)
        offsets = reply.value or []
        if whole and offsets:
            offsets = [offsets]
        self.ledger.settle(numbers, offsets, reply.error)
        if reply.error is None or isinstance(reply.error, NotAppended):
            return 0
        return len(numbers) - sum([int(count) for _, count in offsets])
