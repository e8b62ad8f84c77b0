"""What a replica wants done: values that its host, a node or a simulator, carries out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from replog.agreement import Leadership
    from replog.entry import Entry
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


class Load(NamedTuple):
    """A range of entries to read from the store, answered with `Replica.loaded`."""

    load_id: int
    first: int
    last: int
    bytes_max: int


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


class Effects(NamedTuple):
    """Everything one step wants done, in the order of the fields."""

    sends: Sequence[Outgoing]
    batch: tuple[int, Batch] | None
    """To be committed, in the order of the ids; answered with `Replica.durable`."""
    loads: Sequence[Load]
    delivered: Sequence[tuple[Delivered, Entry]]
    """For readers, in index order."""
    completions: Sequence[Completion]
    barriers: Sequence[Ticket]
    """Barriers that hold: everything committed before them is delivered here."""


class MachineStatus(NamedTuple):
    """A state machine as its node sees it."""

    offset: int
    """It has taken every record below."""
    failure: str
    """Empty, or why it takes no more."""


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
    machine: MachineStatus | None = None
    """None when no machine is attached."""
