"""Appending through one node, and the ledger of what became of every record.

Rules of this file:

1. A record puts a line under a key of a `KeyValue`. Each of a node is unique: the line begins with
   the node's name and a number that grows by one. All nodes use the same few keys, so that what a
   machine comes to depends on the order of all records.
2. A record is submitted once. What is in flight when its node dies stays unknown: it may be in the
   log or not, and is never submitted again.
3. The ledger believes the node's answers and nothing else. It takes 8 bytes for each record.
"""

from __future__ import annotations

import time
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import msgpack

from replog.control.words import APPEND, APPEND_MANY, STATUS
from replog.errors import NotAppended
from replog.machines import KeyValue

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
KEYS = 10_000
UNKNOWN = -1
REFUSED = -2


class Lines(Protocol):
    """Lines of a text, by their numbers from 0; at least one."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> bytes: ...


@dataclass(slots=True)
class Ledger:
    """What is known of one node's records."""

    node: str
    lines: Lines
    """Used in turn, over and over."""
    submitted: int = 0
    """Sequence number of the next record."""
    acknowledged: int = 0
    last_acknowledged: int = -1
    """Of the record acknowledged last."""
    _outcomes: array[int] = field(default_factory=lambda: array("q"), init=False, repr=False)

    def record(self, sequence: int) -> bytes:
        """The record with this number."""
        line = self.lines[sequence % len(self.lines)]
        value = b"%s:%07d %s" % (self.node.encode(), sequence, line)
        return KeyValue.put(b"%d" % (sequence % KEYS), value)

    def settle(self, numbers: range, offsets: Sequence[Sequence[int]], error: Any) -> None:
        """Note an answer about these records: `offsets` of the first ones, `error` of the rest."""
        place, outcomes = numbers.start, self.outcomes()
        for first, count in offsets:
            outcomes[place : place + count] = array("q", range(first, first + count))
            self.acknowledged += count
            place += count
            self.last_acknowledged = place - 1
        if isinstance(error, NotAppended):
            outcomes[place : numbers.stop] = array("q", [REFUSED]) * (numbers.stop - place)

    def outcomes(self) -> array[int]:
        """For each record submitted its offset, UNKNOWN or REFUSED."""
        self._outcomes.extend(array("q", [UNKNOWN]) * (self.submitted - len(self._outcomes)))
        return self._outcomes


def origin_of(data: bytes) -> tuple[str, int] | None:
    """Whose record this is, and its number there; None when no ledger made it."""
    try:
        _, _, value = msgpack.unpackb(data, use_list=False)
        name, _, number = value.partition(b" ")[0].partition(b":")
        return name.decode(), int(number)
    except Exception:  # noqa: BLE001 - whatever foreign bytes lead to
        return None


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
