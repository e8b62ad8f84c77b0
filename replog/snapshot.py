"""Snapshots and bases: what stands for the part of a log that is not kept any more.

Rules of this file:

1. A snapshot stands for every entry up to its own index, that one included: for the producers and
   offsets they made, and, if a machine took it, for the state they led to.
2. A base is what the entries behind a dropped part are checked against. A log begins right behind
   its base; the base of a whole log is that of index 0.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

import msgpack

from replog.entry import DIGEST_START, NO_EPOCH, Epoch, check_node_id
from replog.errors import PeerFault, ReplogError
from replog.membership import Membership, decode_membership
from replog.producers import ProducerRow

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

FORMAT = 1
PIECE_BYTES_MAX = 1 << 20
"""Bytes of one piece, on any node."""
PIECES_MAX = 1 << 24
"""Of one snapshot: 16 TiB of state."""
PIECES_UNWRITTEN_MAX = 2
"""Pieces of one snapshot that may be on their way to the disk."""
HEADER_BYTES_MAX = 64 << 10
"""Of an encoded `Snapshot`."""
STATE_DIGEST_BYTES = 16


class NotKept(ReplogError):
    """A snapshot cannot be kept as it is; nothing was changed."""


class Position(NamedTuple):
    """How far delivery has come: the state after entry `index`. The commit hint on open."""

    index: int  # type: ignore[assignment]
    offset: int
    """The next offset to be given."""
    digest: bytes
    timestamp_ms: int
    producers: Mapping[str, ProducerRow]


class Base(NamedTuple):
    """What a log whose entries up to `index` are dropped begins behind."""

    index: int  # type: ignore[assignment]
    epoch: Epoch
    """Of the entry at `index`."""
    offset: int
    """The first offset that can be read."""
    digest: bytes
    timestamp_ms: int


NO_BASE = Base(0, NO_EPOCH, 0, DIGEST_START, 0)
"""Of a log that is whole."""


class Snapshot(NamedTuple):
    """The header of a snapshot: what is known of it besides its pieces."""

    position: Position
    """After its last entry."""
    epoch: Epoch
    """Of its last entry; `NO_EPOCH` where the agreement does not ask."""
    membership: Membership
    pieces: int
    """How many there are; 0 when no machine took it: then it has no state at all."""
    size: int
    """Bytes of all pieces together."""
    state_digest: bytes
    """blake2b-128 over all pieces, in order."""

    @property
    def index(self) -> int:  # type: ignore[override]
        """Index of its last entry."""
        return self.position.index

    @property
    def base(self) -> Base:
        """Of a log that begins right behind it."""
        position = self.position
        return Base(
            position.index, self.epoch, position.offset, position.digest, position.timestamp_ms
        )

    def is_made_of(self, found: StateDigest) -> bool:
        """Whether these are its pieces: as many, of as many bytes, and the same."""
        wanted = (self.pieces, self.size, self.state_digest)
        return (found.pieces, found.size, found.value()) == wanted


class StateDigest:
    """The digest over the pieces of a state, as they come."""

    def __init__(self) -> None:
        self.pieces = 0
        self.size = 0
        self._hash = blake2b(digest_size=STATE_DIGEST_BYTES)

    def add(self, piece: bytes) -> None:
        """One more piece."""
        self.pieces += 1
        self.size += len(piece)
        self._hash.update(piece)

    def value(self) -> bytes:
        """Over all pieces so far."""
        return self._hash.digest()


def own_snapshot_id(index: int) -> int:
    """The id of a snapshot up to this entry that a node takes itself. Ids ascend with the index: a
    lower id never stands for more."""
    return index << 1


def received_snapshot_id(index: int) -> int:
    """The id of one that a node receives: never that of one it takes."""
    return index << 1 | 1


def index_of_snapshot(snapshot_id: int) -> int:
    """The last entry of a snapshot of this id, whoever took it."""
    return snapshot_id >> 1


def cut_into_pieces(chunks: Iterable[bytes], piece_bytes: int = PIECE_BYTES_MAX) -> Iterator[bytes]:
    """The same bytes in pieces of this size, at least one, the last of them smaller. Holds one
    piece at a time beside the chunk at hand."""
    piece = bytearray()
    for chunk in chunks:
        # An array's items may be larger than bytes: it would be cut by those.
        rest = memoryview(chunk).cast("B")
        while len(piece) + len(rest) > piece_bytes:
            room = piece_bytes - len(piece)
            yield bytes(piece) + rest[:room]
            rest = rest[room:]
            piece.clear()
        piece += rest
    # An empty state is one empty piece: no piece at all means that there is no state.
    yield bytes(piece)


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """The bytes of a header, on disk and on the wire."""
    position, epoch, membership, *rest = snapshot
    index, offset, digest, timestamp_ms, producers = position
    rows = [(node, *row) for node, row in sorted(producers.items())]
    packed: bytes = msgpack.packb(
        (FORMAT, index, offset, digest, timestamp_ms, rows, epoch, membership.encode(), *rest)
    )
    return packed


def check_header(snapshot: Snapshot) -> None:
    """Raise `NotKept` for a snapshot whose header could not be read again."""
    try:
        decode_snapshot(encode_snapshot(snapshot))
    except (PeerFault, OverflowError, TypeError, ValueError) as error:
        raise NotKept(f"the snapshot of entry {snapshot.index} cannot be kept: {error}") from error


def decode_snapshot(data: bytes) -> Snapshot:
    """The value that `encode_snapshot` wrote. Raises `PeerFault` for anything else."""
    try:
        if len(data) > HEADER_BYTES_MAX:
            raise PeerFault(f"a header of {len(data)} bytes, {HEADER_BYTES_MAX} are allowed")
        (form, index, offset, digest, timestamp_ms, rows, epoch, membership, *rest) = (
            msgpack.unpackb(data, use_list=False, max_array_len=HEADER_BYTES_MAX)
        )
        pieces, size, state_digest = rest
        if form != FORMAT:
            raise PeerFault(f"a snapshot of format {form!r} is not known here")
        producers = {
            check_node_id(node): ProducerRow(life, sequence) for node, life, sequence in rows
        }
        snapshot = Snapshot(
            Position(index, offset, digest, timestamp_ms, producers),
            Epoch(*epoch),
            decode_membership(membership),
            pieces,
            size,
            state_digest,
        )
        numbers = [index, offset, timestamp_ms, pieces, size, snapshot.epoch.number]
        numbers += [number for row in producers.values() for number in row]
        if (
            any(type(number) is not int or number < 0 for number in numbers)
            or [type(digest), type(state_digest)] != [bytes, bytes]
            or index < 1
            or pieces > PIECES_MAX
            or size > pieces * PIECE_BYTES_MAX
        ):
            raise PeerFault("a snapshot's header says what cannot be")
    except PeerFault:
        raise
    except Exception as error:  # msgpack raises several unrelated classes for bad bytes
        raise PeerFault(f"a snapshot's header is malformed: {error}") from error
    return snapshot
