"""Every error this library raises, told apart by what the caller may conclude.

* `NotAppended`: the record is certainly not in the log and never will be.
* `OutcomeUnknown`: the record may or may not be in the log.
* `StoreError`: this node's disk or directory is at fault.
* `PeerFault`: a peer sent something it must not send; it is dropped and counted, the node lives on.
* `InvariantBroken`: this program is at fault; the node stops rather than guess.
"""

from __future__ import annotations


class ReplogError(Exception):
    """Base of every error of this library."""


class ConfigError(ReplogError, ValueError):
    """An argument or address cannot be used; the message names it and says what to change."""


class NotAppended(ReplogError):
    """The record is certainly not in the log: nothing was given a sequence number."""


class Busy(NotAppended):
    """More bytes are waiting than `pending_bytes_max`, the disk is at its soft limit, or too many
    calls wait for the machine. The message says what to wait for: `await log.room()`, or
    `await log.applied()`."""


class TooLarge(NotAppended):
    """A record exceeds `record_bytes_max`, or a run exceeds `run_bytes_max`."""


class Closed(NotAppended):
    """The log is closed, or, for an append, its node has stopped (then `__cause__` tells why)."""


class NodeStopped(ReplogError):
    """The node stopped itself; `__cause__` holds the fault."""


class MachineStopped(ReplogError):
    """The state machine takes no more records: its `apply` raised, its state differs from a
    majority's, or the log was closed or its node stopped. `__cause__` holds the fault.

    `offset` is where the record of the call lies in the log, None when it was not appended. The
    machine's state, here and elsewhere, may or may not come to include it.
    """

    def __init__(self, message: str, offset: int | None = None) -> None:
        super().__init__(message)
        self.offset = offset


class OutcomeUnknown(ReplogError):
    """The log closed or its node stopped while the record was in flight; or this node has caught up
    by a snapshot, which stands for the record without saying what became of it.

    `appended` is True when the record is known to be in the log: only its offset is unknown then,
    and for a call what the machine answers to it.
    """

    def __init__(self, message: str, *, appended: bool = False) -> None:
        super().__init__(message)
        self.appended = appended


class OffsetOutOfRange(ReplogError, IndexError):
    """An offset below the first or beyond the last readable one was asked for. Below `first_offset`
    nothing is kept any more."""

    def __init__(self, offset: int, first_offset: int, end_offset: int) -> None:
        if end_offset > first_offset:
            held = f"holds offsets {first_offset} to {end_offset - 1}"
        elif first_offset:
            held = f"holds no records now, and goes on at offset {first_offset}"
        else:
            held = "holds no records yet"
        gone = "; what lies below is compacted" if 0 <= offset < first_offset else ""
        super().__init__(f"offset {offset} is out of range: this log {held}{gone}")
        self.offset = offset
        self.first_offset = first_offset
        self.end_offset = end_offset


class EntryCompacted(ReplogError, LookupError):
    """An entry was asked for that this node does not keep any more."""

    def __init__(self, index: int, first_index: int) -> None:
        super().__init__(f"entry {index} is compacted: the log here begins at entry {first_index}")
        self.index = index
        self.first_index = first_index


class StoreError(ReplogError):
    """The directory or the disk of this node cannot be used."""


class StoreInUse(StoreError):
    """Another process, or another log of this process, has the directory open."""


class WrongStore(StoreError):
    """The directory belongs to another node, cluster, agreement or format version."""


class Corruption(StoreError):
    """Stored bytes are damaged or missing, and the message names the file, table and key; or a
    machine is given a snapshot that is not of its form."""


class StoreFailed(StoreError):
    """A write or sync failed: nothing more is read or written through this store.

    Whether the failed write is on disk is unknown. Open the directory again to find out.
    """


class IdentityRefused(ReplogError):
    """The other members remember this node by other data: its directory was lost or copied."""


class PeerFault(ReplogError):
    """A peer sent what the protocol does not allow; the message is dropped and counted."""


class InvariantBroken(ReplogError):
    """A rule that must always hold does not: a fault of this program. The node stops."""
