"""The entries a replica holds in memory.

Rules of this file:

1. An entry is here from its arrival, or from the open of the store, until it is durable and
   delivered; after that, until room is needed.
2. Bytes are asked for by (index, epoch): an index alone may name an overwritten entry.
3. Arrived or proposed entries are staged until the core has decided which of them to write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replog.agreement import EntryRef
from replog.entry import NO_EPOCH, parse_entry
from replog.errors import Corruption, InvariantBroken, PeerFault

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replog.agreement import WriteEntry
    from replog.entry import Entry, Epoch
    from replog.store.interface import StoredEntry


class Window:
    """Recent entries by index, bounded in bytes beyond what is pinned."""

    def __init__(self, bytes_max: int, tail: Sequence[StoredEntry]) -> None:
        """`tail` is what the disk holds and delivery has not reached."""
        self._bytes_max = bytes_max
        self._entries = {stored.index: (stored.epoch, _parse(stored)) for stored in tail}
        self._bytes = sum([len(stored.data) for stored in tail])
        self._staged: dict[EntryRef, Entry] = {}

    def stage(self, ref: EntryRef, entry: Entry) -> None:
        """Keep an entry until `settle`, in case the core writes it."""
        self._staged[ref] = entry

    def settle(self) -> None:
        """Forget staged entries: the core has had its say."""
        if self._staged:
            self._staged = {}

    def write(self, wanted: WriteEntry) -> Entry:
        """Take an entry in under its new position; its bytes were staged or are here."""
        index, epoch, source_epoch = wanted
        source = EntryRef(index, source_epoch)
        entry = self._staged.get(source)
        if entry is None:
            held = self.find(source)
            entry = held[1] if held is not None else None
        if entry is None:
            raise InvariantBroken(
                f"the core writes entry {index} of {source_epoch}, never received"
            )
        self._remove(index)
        self._entries[index] = (epoch, entry)
        self._bytes += len(entry.data)
        return entry

    def truncate(self, first: int) -> None:
        """Drop every entry from this index on."""
        for index in [index for index in self._entries if index >= first]:
            self._remove(index)

    def drop(self, through: int) -> None:
        """Drop every entry up to this index: a snapshot stands for them."""
        for index in [index for index in self._entries if index <= through]:
            self._remove(index)

    def find(self, ref: EntryRef) -> tuple[Epoch, Entry] | None:
        """The entry that this names, with its epoch, if it is here."""
        held = self._entries.get(ref.index)
        return held if held is not None and ref.epoch in (held[0], NO_EPOCH) else None

    def at(self, index: int) -> Entry | None:
        """The entry this node now has at this index, if it is here."""
        held = self._entries.get(index)
        return held[1] if held is not None else None

    @property
    def is_full(self) -> bool:
        """Whether `evict` should be called."""
        return self._bytes > self._bytes_max

    def evict(self, through: int) -> None:
        """Make room, oldest first, among entries up to this index: durable and delivered ones."""
        while self.is_full:
            oldest = next(iter(self._entries))
            if oldest > through:
                return
            self._remove(oldest)

    def _remove(self, index: int) -> None:
        held = self._entries.pop(index, None)
        if held is not None:
            self._bytes -= len(held[1].data)


def _parse(stored: StoredEntry) -> Entry:
    try:
        return parse_entry(stored.data)
    except PeerFault as fault:  # nobody sent it: it comes from this node's own disk
        raise Corruption(f"entry {stored.index} of the log does not parse: {fault}") from fault
