"""The words both protocols share: introductions, forwarding, reads, digests, snapshots.

============== ======================= ================================================= ========
message        from, to                purpose                                           waits for
============== ======================= ================================================= ========
Meet           fresh node, every other asks to be bound to its store id                  nothing
Met            member, fresh node      the store id is bound                             its write
Refused        member, sender          the sender's store id or life is not the bound    nothing
Forward        origin, leader          runs to append, one part each                     nothing
Expected       leader, origin          the next sequence number the leader takes         nothing
NotLeader      member, origin          who leads, as known here                          nothing
ReadRequest    node, leader            asks for a confirmed read                         nothing
ReadAnswer     leader, node            the index the read waits for                      nothing
CompareDigest  leader, others          asks for the chain's digest at an index           nothing
DigestAnswer   follower, leader        the follower's digest at that index               nothing
Diverged       leader, one node        a majority has another digest: stop               nothing
OfferSnapshot  member, laggard         what you lack is gone here; take this (one part)  nothing
FetchPiece     laggard, member         the next part of a piece                          nothing
SnapshotPart   member, laggard         it travels beside this                            nothing
MachineDigest  node, others            compares what came of the records below an offset nothing
============== ======================= ================================================= ========

The sender, its store id and its life stand in each frame's header, not in the message.
"""

from __future__ import annotations

from typing import NamedTuple


class Meet(NamedTuple):
    """A node that may not vote yet asks the other members to bind its store id."""

    store_id: bytes


class Met(NamedTuple):
    """The sender has durably bound the receiver to this store id."""

    store_id: bytes


class Refused(NamedTuple):
    """The sender remembers the receiver by another store id, or by a later life."""

    store_id: bytes
    """Of the frame that is refused: a node ignores a refusal of anybody else's."""
    life: int
    reason: str


class Forward(NamedTuple):
    """Consecutive runs of the sender's producer, one part each."""

    first_sequence: int
    counts: tuple[int, ...]
    """Records in each run."""


class Expected(NamedTuple):
    """The leader takes the receiver's records from this sequence number on."""

    life: int
    next_sequence: int


class NotLeader(NamedTuple):
    """The sender does not lead; `leader` is whom it knows, if anyone."""

    leader: str | None


class ReadRequest(NamedTuple):
    """Asks the leader for an index that covers everything committed before now."""

    life: int
    """The sender's: its next life uses the same tokens again, and must not take this answer."""
    token: int


class ReadAnswer(NamedTuple):
    """Everything committed before the request lies at or below `index`."""

    life: int
    """As asked."""
    token: int
    index: int  # type: ignore[assignment]


class CompareDigest(NamedTuple):
    """The leader asks for the digest after entry `index`."""

    index: int  # type: ignore[assignment]


class DigestAnswer(NamedTuple):
    """The sender's digest after entry `index`."""

    index: int  # type: ignore[assignment]
    digest: bytes
    """Empty when the sender does not know it (any more, or yet)."""


class Diverged(NamedTuple):
    """The receiver's digest after entry `index` differs from that of a majority."""

    index: int  # type: ignore[assignment]
    digest: bytes
    """What the majority has."""


class OfferSnapshot(NamedTuple):
    """The receiver lacks entries that the sender has compacted. Beside it travels the header of a
    whole snapshot of the sender's that stands for them (`replog.snapshot`)."""

    snapshot_id: int
    """The sender's name for it."""


class FetchPiece(NamedTuple):
    """Asks for a part of one piece of an offered snapshot. Asking again is harmless; the
    part before is thereby acknowledged."""

    snapshot_id: int
    number: int
    """Of the piece, from 1."""
    start: int
    """Where in it the part begins."""


class SnapshotPart(NamedTuple):
    """A part of a piece travels beside it, of at most 1 MiB."""

    snapshot_id: int
    number: int
    start: int
    piece_size: int
    """Bytes of the whole piece."""
    piece_crc: int
    """crc32 over the whole piece."""


class MachineDigest(NamedTuple):
    """The sender's state machine has this digest when it has taken every record below `offset`."""

    offset: int
    digest: bytes
    """16 bytes."""


TRUNK_MESSAGES = (
    Meet,
    Met,
    Refused,
    Forward,
    Expected,
    NotLeader,
    ReadRequest,
    ReadAnswer,
    CompareDigest,
    DigestAnswer,
    Diverged,
    OfferSnapshot,
    FetchPiece,
    SnapshotPart,
    MachineDigest,
)
"""In the fixed order that numbers them on the wire. New ones go to the end."""
