"""State machines: what an application feeds with the records of the log, in their order.

Rules for every machine:

1. It is a function of its records alone: no clock, no chance, no network. Then every node's machine
   comes to the same state, and a replay years later too. A record's `timestamp_ms` may be used: it
   is the same on every node and never falls.
2. `apply` answers every record, a bad one too: what it raises stops the machine for good.
3. A machine belongs to one thread, which `replog` runs. Other threads may read it as far as its own
   methods allow.
"""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Record(NamedTuple):
    """One record of the log."""

    offset: int
    data: bytes
    timestamp_ms: int
    """Wall clock of the leader that took it, in ms since 1970; never falls along the log."""


def make_records(offset: int, data: Sequence[bytes], timestamp_ms: int) -> list[Record]:
    """The records of these bytes, from `offset` on."""
    fields = zip(range(offset, offset + len(data)), data, repeat(timestamp_ms))
    # A third of the time that calling Record takes, for each record.
    return list(map(tuple.__new__, repeat(Record), fields))


class Applies(Protocol):
    """The part of a machine that takes records."""

    def apply(self, records: Sequence[Record]) -> Sequence[Any]:
        """Take these records, in their order; one result for each.

        Offsets ascend without gaps from call to call. How records are grouped into calls differs
        from node to node and must make no difference.
        """


class Digests(Applies, Protocol):
    """The part of a machine that takes records and can be compared."""

    def digest(self) -> bytes:
        """Equal for equal states and, but for a collision, for no others.

        A node compares it with those of the other nodes' machines: whoever differs from a majority
        stops. So a program that makes it otherwise must run on all of them before any attaches it.
        """


class Machine(Digests, Protocol):
    """A state machine: any object with these methods."""

    def snapshot(self) -> Iterable[bytes]:
        """The whole state in pieces of any size, from which `restore` makes an equal machine.

        They are taken one after the other and let go of, so that a generator of small pieces holds
        little. The machine takes no records until the snapshot is whole; appends and reads of the
        log go on. What this raises ends the snapshot, not the machine.
        """

    def restore(self, pieces: Iterable[bytes]) -> None:
        """Replace the state, whatever it was, by one that `snapshot` gave, here or on another node,
        in the same pieces or others: only their concatenation counts.

        Called before the first records, and again whenever this node has caught up by a snapshot
        instead of the records. Take every piece: the last one raises `Corruption` when they are not
        what was kept. It is called again when it raised because a newer snapshot has replaced this
        one meanwhile; anything else that it raises stops the machine for good.
        """


def apply_all(machine: Applies, records: Sequence[Record]) -> Sequence[Any]:
    """What the machine answers to these records, at least one.

    Raises what `apply` raises, and `ValueError` for another number of results, with a note of which
    records it was about.
    """
    # The list is the machine's from here on: it may empty it.
    first, count = records[0].offset, len(records)
    try:
        results = list(machine.apply(records))
        if len(results) != count:
            raise ValueError(f"{len(results)} results for {count} records")
    except BaseException as error:
        error.add_note(f"in apply, of records {first} to {first + count - 1}")
        raise
    return results
