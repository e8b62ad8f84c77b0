"""What a replica wants done: values that its host, a node or a simulator, carries out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from replog.agreement import Leadership
    from replog.entry import Entry
    from replog.retention import Retention
    from replog.snapshot import Snapshot
    from replog.store.interface import Batch, Delivered, ProducerRow

Ticket = Any
"""Whatever the host hands in with an append or a barrier, handed back with its outcome."""


class Outgoing(NamedTuple):
    """One message to put on the wire now."""

    to: str
    header: bytes
    parts: Sequence[bytes]
    bulk: bool
    """Travels on the bulk channel; a refusal is reported with `Replica.lost`."""


class LoadEntries(NamedTuple):
    """Wants `Reader.entries`."""

    first: int
    last: int
    bytes_max: int


class LoadPart(NamedTuple):
    """Wants a `PartOfPiece`, or None when that piece is not there any more."""

    snapshot_id: int
    number: int
    start: int
    bytes_max: int


class PartOfPiece(NamedTuple):
    """A part of one piece of a snapshot, and what its receiver checks the whole piece with."""

    data: bytes
    """Empty beyond the end."""
    piece_size: int
    piece_crc: int


class LoadDigest(NamedTuple):
    """Wants the `StateDigest` over the pieces of a snapshot, as they can be read back."""

    snapshot_id: int
    pieces: int


class LoadDroppable(NamedTuple):
    """Wants `retention.droppable`."""

    retention: Retention
    wall_ms: int
    index_max: int
    needed_offset: int | None = None


Load = LoadEntries | LoadPart | LoadDigest | LoadDroppable
"""Something to read from the store; see `replog.loads`."""


class Completion(NamedTuple):
    """Records that are committed: record i of `tickets` lies at `base_offset + i`."""

    tickets: Sequence[Ticket]
    """One ticket for each record, or a single one for a whole run."""
    base_offset: int
    count: int  # type: ignore[assignment]
    size: int
    """Bytes as they were submitted."""
    whole: bool
    """Whether the one ticket stands for all `count` records."""


class Stored(NamedTuple):
    """Something the host asked for is on disk."""

    ticket: Ticket
    result: Any


class Effects(NamedTuple):
    """Everything one step wants done, in the order of the fields."""

    sends: Sequence[Outgoing]
    batch: tuple[int, Batch] | None
    """To be committed, in the order of the ids; answered with `Replica.durable`."""
    loads: Sequence[tuple[int, Load]]
    """By number; answered with `Replica.loaded`."""
    delivered: Sequence[tuple[Delivered, Entry]]
    """For readers, in index order."""
    completions: Sequence[Completion]
    barriers: Sequence[Ticket]
    """Barriers that hold: everything committed before them is delivered here."""
    stored: Sequence[Stored] = ()
    installed: Snapshot | None = None
    """A snapshot took the place of the log up to its position, which is delivered by that; this
    comes before `delivered`."""
    skipped: Sequence[Completion] = ()
    """Records of this node among those that the snapshot stands for: they are in the log, but
    nobody knows where. `base_offset` says nothing."""
    first_offset: int | None = None
    """Records below this one are dropped, beginning with this batch: tell readers first."""
    machine_verdict: str = ""
    """Empty, or why the machine of this node must stop."""


class MachineStatus(NamedTuple):
    """A state machine as its node sees it."""

    offset: int
    """It has taken every record below."""
    failure: str
    """Empty, or why it takes no more."""


class SnapshotStatus(NamedTuple):
    """A whole snapshot."""

    index: int  # type: ignore[assignment]
    """Of its last entry."""
    offset: int
    """It stands for every record below."""
    size: int
    """Bytes of its state; 0 without a machine."""


class Status(NamedTuple):
    """One node as it sees itself at one moment."""

    node: str
    agreement: str
    life: int
    leadership: Leadership
    introduced: bool
    """Whether this node may vote yet: the first start of a cluster needs all its members once."""
    last_index: int
    commit_index: int
    applied_index: int
    first_offset: int
    end_offset: int
    digest: bytes
    producers: Mapping[str, ProducerRow]
    members: Sequence[str]
    pending_records: int
    """Records appended here and not yet delivered."""
    drops: Mapping[str, int]
    """Messages dropped since the node started, by cause."""
    alarm: str
    """Empty, or what an operator must look at."""
    snapshot: SnapshotStatus | None = None
    """The newest whole snapshot here."""
    transfer: str = ""
    """Empty, or what of a snapshot this node has received so far."""
    readers: Mapping[str, int] = {}
    """Named readers of this node: each has acknowledged every record below its offset."""
    machine: MachineStatus | None = None
    """None when no machine is attached."""
