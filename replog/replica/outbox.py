"""What a step gives out: messages, and the writes that some of them wait for.

Rules of this file:

1. Batches are numbered from 1 and become durable in that order.
2. A message that promises something leaves only once the batch is durable that holds the last
   write issued before it; the writes of the step under way belong to the next batch.
3. What waits is bounded; a message beyond the bound is lost, as on any network.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from replog.agreement import EntryRef
from replog.replica.effects import Outgoing

if TYPE_CHECKING:
    from collections.abc import Sequence, Set

    from replog.agreement import Message, Send
    from replog.codec import Codec
    from replog.store.interface import StoredEntry, StoredWrite

GATED_MESSAGES_MAX = 4096
"""Messages that wait for the disk."""


class _Issued(NamedTuple):
    """A batch on its way to the disk."""

    batch_id: int
    last_write_id: int
    """0 when it holds none of the core's writes."""
    first_index: int
    """The lowest entry it writes; 0 for none."""


class Outbox:
    """Messages and writes of one replica."""

    def __init__(self, codec: Codec, control_messages: Set[type[Message]]) -> None:
        """`control_messages`: see `Agreement`. What else a core says travels on the bulk channel,
        and so does whatever has parts."""
        self.lost_count = 0
        """Messages lost by rule 3."""
        self._codec = codec
        self._control_messages = control_messages
        self._sends: list[Outgoing] = []
        self._gated: deque[tuple[int, Outgoing]] = deque()
        self._writes: list[StoredWrite] = []
        self._last_write_id = 0
        self._batch_id = 0
        self._durable_batch = 0
        self._issued: deque[_Issued] = deque()

    # -- messages ------------------------------------------------------------------------------

    def post(self, to: str, message: Message, parts: Sequence[bytes] = ()) -> None:
        """A message of the trunk, which promises nothing and waits for nothing."""
        self._sends.append(Outgoing(to, self._codec.encode(message), parts, bool(parts)))

    def send(self, send: Send, entries: Sequence[StoredEntry]) -> None:
        """A core's message with these of its entries. It waits for the write that it names."""
        refs = [EntryRef(stored.index, stored.epoch) for stored in entries]
        header = self._codec.encode(send.message, refs)
        bulk = bool(entries) or type(send.message) not in self._control_messages
        outgoing = Outgoing(send.to, header, [stored.data for stored in entries], bulk)
        write_id = send.after_write_id
        self._gate(self._batch_of(write_id) if write_id else 0, outgoing)

    def post_after_all(self, to: str, message: Message, *, more: bool) -> None:
        """A message of the trunk that waits for everything decided so far; `more`: and for what the
        next batch brings beside writes."""
        outgoing = Outgoing(to, self._codec.encode(message), (), bulk=False)
        self._gate(self._batch_id + 1 if more or self._writes else self._batch_id, outgoing)

    def take_sends(self) -> list[Outgoing]:
        """What may leave now."""
        sends, self._sends = self._sends, []
        return sends

    # -- writes --------------------------------------------------------------------------------

    @property
    def has_writes(self) -> bool:
        """Whether the step under way has written anything."""
        return bool(self._writes)

    @property
    def entries_under_way(self) -> bool:
        """Whether entries are written and not yet durable."""
        return bool(self._writes) or any(issued.first_index for issued in self._issued)

    def write(self, write_id: int, write: StoredWrite) -> None:
        """One write of the core; ids ascend."""
        self._writes.append(write)
        self._last_write_id = write_id

    def issue(self) -> tuple[int, list[StoredWrite]]:
        """Number the next batch; its writes."""
        writes, self._writes = self._writes, []
        self._batch_id += 1
        firsts = [write.entries[0].index for write in writes if write.entries]
        last_write_id = self._last_write_id if writes else 0
        self._issued.append(_Issued(self._batch_id, last_write_id, min(firsts, default=0)))
        return self._batch_id, writes

    def durable(self, batch_id: int) -> int:
        """Every batch up to this id is durable: what waited for it may leave. The last write of the
        core among them, 0 for none."""
        self._durable_batch = batch_id
        write_id = 0
        while self._issued and self._issued[0].batch_id <= batch_id:
            write_id = self._issued.popleft().last_write_id or write_id
        while self._gated and self._gated[0][0] <= batch_id:
            self._sends.append(self._gated.popleft()[1])
        return write_id

    def settled_index(self, last_index: int) -> int:
        """Every entry up to here is durable, in a log that ends at `last_index`."""
        firsts = [issued.first_index for issued in self._issued if issued.first_index]
        return min(firsts) - 1 if firsts else last_index

    def _batch_of(self, write_id: int) -> int:
        for issued in self._issued:
            if write_id <= issued.last_write_id:
                return issued.batch_id
        return self._batch_id + 1 if self._writes else 0

    def _gate(self, batch_id: int, outgoing: Outgoing) -> None:
        if batch_id <= self._durable_batch:
            self._sends.append(outgoing)
        elif len(self._gated) < GATED_MESSAGES_MAX:
            self._gated.append((batch_id, outgoing))
        else:
            self.lost_count += 1
