"""The records appended on this node, from the application's hand to their delivery.

Rules of this file:

1. A run's boundaries and bytes are fixed when its sequence numbers are given; it is offered again
   as it was, never changed.
2. Sequence numbers are given as late as possible: when a leader can take the run, or the forward
   window has room. Until then a record is certainly not in the log.
3. Forwarding is go-back-N: runs leave in sequence; on a new leadership, on `Expected`, and on a
   timer without progress they leave again from the first one that is missing.
4. Every stop has a timer: no lost message hangs an append.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from replog.entry import Run, pack_run
from replog.errors import InvariantBroken
from replog.messages import Forward
from replog.replica.effects import Completion, Ticket

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replog.config import Limits
    from replog.producers import ProducerRow

RECORD_OVERHEAD_BYTES = 5
"""At most what msgpack adds to a record."""
RECORDS_PER_FORMED_RUN_MAX = 8192
"""Single appends gathered into one run: bounds the work of one turn."""


class _Waiting:
    """Appends without sequence numbers: single records gathered, or one packed run."""

    __slots__ = ("body", "count", "records", "size", "tickets")

    def __init__(
        self,
        size: int,
        records: list[bytes],
        tickets: list[Ticket],
        body: bytes = b"",
        count: int = 0,
    ) -> None:
        self.size = size
        self.records = records
        self.tickets = tickets
        self.body = body
        self.count = count


class OwnRun(NamedTuple):
    """A run of this node's producer, not yet delivered."""

    run: Run
    body: bytes
    tickets: Sequence[Ticket]
    size: int
    """Bytes as they were submitted: of the records, or of a whole packed run."""
    whole: bool


class Origin:
    """One life of one node as a source of records."""

    def __init__(self, node: str, life: int, limits: Limits) -> None:
        self._node = node
        self._life = life
        self._limits = limits
        self._waiting: deque[_Waiting] = deque()
        self._runs: deque[OwnRun] = deque()
        self._offered = 0
        """How many of `_runs`, from the front, were offered to the present leader."""
        self._offered_bytes = 0
        self._next_sequence = 0
        self._target: str | None = None
        self._probing = False
        """Only the first run was sent again; wait for a sign before sending the others."""
        self._rewound_to = -1
        self._redirect_after = 0
        self.deadline: int | None = None
        self.pending_records = 0
        self.waiting_bytes = 0
        """Bytes of the appends that have no sequence number yet."""

    # -- appends -------------------------------------------------------------------------------

    def submit_records(self, records: list[bytes], tickets: list[Ticket], size: int) -> None:
        """Single appends of `size` bytes together, each with its ticket."""
        self.pending_records += len(records)
        self.waiting_bytes += size
        last = self._waiting[-1] if self._waiting else None
        if last is not None and last.records:
            last.records += records
            last.tickets += tickets
            last.size += size
        else:
            self._waiting.append(_Waiting(size, records, tickets))

    def submit_run(self, body: bytes, count: int, ticket: Ticket) -> None:
        """One packed run, all or nothing."""
        self.pending_records += count
        self.waiting_bytes += len(body)
        self._waiting.append(_Waiting(len(body), [], [ticket], body, count))

    @property
    def has_unoffered(self) -> bool:
        """Whether `next_run` has anything to give."""
        return bool(self._waiting) or self._offered < len(self._runs)

    def next_run(self, bytes_max: int) -> OwnRun | None:
        """The next run to offer to the leader, marked as offered; None when it exceeds
        `bytes_max` (for several gathered records: the run is cut to fit)."""
        if self._offered == len(self._runs):
            if not self._waiting:
                return None
            head = self._waiting[0]
            if not head.records and len(head.body) > bytes_max:
                return None
            self._form(head, bytes_max)
        own = self._runs[self._offered]
        if own.run.size > bytes_max:
            return None
        self._offered += 1
        self._offered_bytes += own.run.size
        return own

    def _form(self, head: _Waiting, bytes_max: int) -> None:
        """Give sequence numbers to the first waiting appends."""
        whole = not head.records
        if whole:
            body, tickets, count, size = head.body, head.tickets, head.count, head.size
        else:
            room = min(bytes_max, self._limits.entry_bytes_max, self._limits.run_bytes_max)
            fitting = max(1, room // (len(head.records[0]) + RECORD_OVERHEAD_BYTES))
            count = min(len(head.records), RECORDS_PER_FORMED_RUN_MAX, fitting)
            body = pack_run(head.records[:count])
            while len(body) > room and count > 1:
                count = (count + 1) >> 1
                body = pack_run(head.records[:count])
            tickets = head.tickets[:count]
            size = sum(map(len, head.records[:count]))
        if whole or count == len(head.records):
            self._waiting.popleft()
        else:
            head.size -= size
            del head.records[:count], head.tickets[:count]
        self.waiting_bytes -= size
        run = Run(self._node, self._life, self._next_sequence, count, len(body))
        self._next_sequence += count
        self._runs.append(OwnRun(run, body, tickets, size, whole))

    def delivered(self, now: int, run: Run, base_offset: int) -> Completion:
        """A run of this producer was delivered: it is the first one that was not."""
        if not self._runs or self._runs[0].run != run:
            raise InvariantBroken(f"delivered {run}, which is not this node's next run")
        own = self._runs.popleft()
        if self._offered:
            self._offered -= 1
            self._offered_bytes -= own.run.size
        self.pending_records -= run.count
        self._probing = False
        self._restart_timer(now)
        return Completion(own.tickets, base_offset, run.count, own.size, own.whole)

    def is_own(self, life: int) -> bool:
        """Whether records that this node appended in this life, and that were delivered, are of its
        present one. Raises `InvariantBroken` for a later life."""
        if life > self._life:
            raise InvariantBroken(
                f"records of a later life of {self._node} are in the log: a copy of this directory "
                f"runs elsewhere"
            )
        return life == self._life

    def install(self, row: ProducerRow) -> list[Completion]:
        """A snapshot stands for everything of this producer up to here, at offsets that nobody
        knows: those of them that were waited for. Raises as `is_own`."""
        skipped: list[Completion] = []
        while self.is_own(row.life) and self._runs:
            own = self._runs[0]
            if own.run.first_sequence >= row.next_sequence:
                break
            self._runs.popleft()
            self.pending_records -= own.run.count
            skipped.append(Completion(own.tickets, -1, own.run.count, own.size, own.whole))
        self.rewind()
        return skipped

    def drain(self) -> tuple[list[Ticket], list[Ticket]]:
        """At the end: tickets that have no sequence number, and tickets whose outcome is open."""
        unsequenced = [ticket for waiting in self._waiting for ticket in waiting.tickets]
        open_ones = [ticket for own in self._runs for ticket in own.tickets]
        self._waiting.clear()
        self._runs.clear()
        return unsequenced, open_ones

    # -- offering to a leader ------------------------------------------------------------------

    def rewind(self, next_sequence: int = 0) -> None:
        """Offer again from the first run that is not below this sequence number."""
        self._offered = self._offered_bytes = 0
        for own in self._runs:
            if own.run.first_sequence >= next_sequence:
                break
            self._offered += 1
            self._offered_bytes += own.run.size
        self._probing = False

    def follow(self, leader: str | None) -> None:
        """A new leadership: forward everything undelivered to this leader, if any."""
        self._target = leader if leader != self._node else None
        self._rewound_to = -1
        self._redirect_after = 0
        self.deadline = None
        self.rewind()

    def redirect(self, now: int, sender: str, leaders: Sequence[str | None]) -> None:
        """Whom this node forwards to does not lead: try the first other one of these, at most once
        a period. What anybody else says of itself is no news."""
        others = [leader for leader in leaders if leader not in {None, sender, self._node}]
        if sender != self._target or not others or now < self._redirect_after:
            return
        self._target = others[0]
        self._redirect_after = now + self._limits.retry_ms
        self.rewind()

    def expected(self, next_sequence: int) -> None:
        """The leader takes records from this sequence number on. A repeated word is ignored:
        the messages already under way earn one each."""
        if next_sequence != self._rewound_to:
            self._rewound_to = next_sequence
            self.rewind(next_sequence)

    def forwards(self, now: int) -> list[tuple[str, Forward, list[bytes]]]:
        """Messages to send to the leader now, within the forward window."""
        messages: list[tuple[str, Forward, list[bytes]]] = []
        if self._target is None:
            return messages
        overdue = self.deadline is not None and now >= self.deadline
        if overdue:
            self._rewound_to = -1
            self.rewind()
        limits = self._limits
        while not self._probing:
            room = limits.forward_bytes_max - self._offered_bytes
            batch = self._forward_batch(min(room, limits.message_bytes_max))
            if not batch:
                break
            message = Forward(batch[0].run.first_sequence, tuple([own.run.count for own in batch]))
            messages.append((self._target, message, [own.body for own in batch]))
            self._probing = overdue
        if overdue or self.deadline is None:
            self._restart_timer(now)
        return messages

    def _restart_timer(self, now: int) -> None:
        waits = self._target is not None and self._runs
        self.deadline = now + self._limits.retry_ms if waits else None

    def _forward_batch(self, bytes_max: int) -> list[OwnRun]:
        batch: list[OwnRun] = []
        size = 0
        while self._offered < self._limits.forward_runs_max:
            # An empty forward window takes any one run, or a run larger than it would never leave.
            room = bytes_max - size if self._offered else self._limits.run_bytes_max
            own = self.next_run(room)
            if own is None:
                break
            batch.append(own)
            size += own.run.size
        return batch
