"""The bytes of a store: its tables, keys and values, the same on every machine.

Rules of this file:

1. Every value carries a checksum over its table, key and content; what does not match it, or is
   malformed behind it, raises `Corruption` naming file, table and key.
2. Keys are big-endian, so that they sort as their numbers do.
3. The promise is stored twice, in two tables; each copy says with its generation which is newer.

Tables::

    meta       name                 format, identity, eras, life, introduced, promise, position,
                                    base
    promise    "copy"               the second copy of the promise
    log        index                crc, epoch, the entry's bytes
    epochs     first index          epoch: the runs of entries of one epoch, `NO_EPOCH` for a gap
    delivered  base offset, index   count, accepted runs, timestamp, digest
    peers      node id              store id, life
    snapshots  snapshot id, number  number 0: the header of a whole snapshot; from 1: a piece
    readers    name                 the offset up to which it has acknowledged

A value is four bytes of crc32, then its content: msgpack, but in `log` and for pieces. In `log` the
crc covers key, epoch and the entry's header; the header holds the crc of the entry's body, and so
covers the rest. A piece is its bytes.
"""

from __future__ import annotations

from struct import Struct
from struct import error as struct_error
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

import msgpack

from replog.entry import LENGTH_BYTES, Entry, Epoch, parse_entry
from replog.errors import Corruption, PeerFault
from replog.membership import Membership, decode_membership
from replog.producers import ProducerRow
from replog.snapshot import Base, decode_snapshot, encode_snapshot
from replog.store.interface import (
    Delivered,
    Peer,
    Position,
    StoredEntry,
    StoredPiece,
    StoredSnapshot,
)

if TYPE_CHECKING:
    from collections.abc import Callable

FORMAT = 2
"""Version of this layout. A store of another one is not opened."""

META = "meta"
PROMISE = "promise"
LOG = "log"
EPOCHS = "epochs"
DELIVERED = "delivered"
PEERS = "peers"
SNAPSHOTS = "snapshots"
READERS = "readers"
TABLES = (META, PROMISE, LOG, EPOCHS, DELIVERED, PEERS, SNAPSHOTS, READERS)

FORMAT_KEY = b"format"
IDENTITY_KEY = b"identity"
ERAS_KEY = b"eras"
LIFE_KEY = b"life"
INTRODUCED_KEY = b"introduced"
PROMISE_KEY = b"promise"
PROMISE_COPY_KEY = b"copy"
POSITION_KEY = b"position"
BASE_KEY = b"base"

HEADER_NUMBER = 0
"""Under which a snapshot's header stands before its pieces."""

_CRC = Struct(">I")
_DELIVERED_KEY = Struct(">QQ")
_PIECE_KEY = Struct(">QI")
SNAPSHOT_ID_BYTES = 8
"""They begin the key of a piece."""
_EPOCH = Struct(">QB")

_SEEDS = {table: crc32(table.encode()) for table in TABLES}


class Era(NamedTuple):
    """A stretch of the log under one agreement layer. A store of this format holds one."""

    agreement: str
    membership: Membership
    first_index: int


class StoreIdentity(NamedTuple):
    """What a directory is formatted with and keeps."""

    cluster_id: bytes
    node: str
    store_id: bytes


class StoredPromise(NamedTuple):
    """One of the two copies of the promise."""

    generation: int
    """Grows with each promise written."""
    promise: Epoch


def corruption(file: str, table: str, key: str, reason: str) -> Corruption:
    """The error for a damaged value; the caller raises it."""
    return Corruption(f"{file}: table {table}, key {key}: {reason}")


def index_key(index: int) -> bytes:
    """The key of an index; raises `OverflowError` beyond 64 bits."""
    return index.to_bytes(8, "big")


def delivered_key(base_offset: int, index: int) -> bytes:
    """The key of a delivered row: ascends with both numbers."""
    return _DELIVERED_KEY.pack(base_offset, index)


def parse_index_key(file: str, table: str, key: bytes) -> int:
    """The index of a key of `log` or `epochs`."""
    if len(key) != 8:
        raise corruption(file, table, key.hex(), "is no index")
    return int.from_bytes(key, "big")


def parse_delivered_key(file: str, key: bytes) -> tuple[int, int]:
    """(base offset, index) of a key of `delivered`."""
    if len(key) != _DELIVERED_KEY.size:
        raise corruption(file, DELIVERED, key.hex(), "is no offset and index")
    base_offset, index = _DELIVERED_KEY.unpack(key)
    return base_offset, index


def piece_key(snapshot_id: int, number: int) -> bytes:
    """The key of a piece of a snapshot, or of its header: ascends with both numbers."""
    return _PIECE_KEY.pack(snapshot_id, number)


def parse_piece_key(file: str, key: bytes) -> tuple[int, int]:
    """(snapshot id, number) of a key of `snapshots`."""
    if len(key) != _PIECE_KEY.size:
        raise corruption(file, SNAPSHOTS, key.hex(), "is no snapshot id and number")
    snapshot_id, number = _PIECE_KEY.unpack(key)
    return snapshot_id, number


def _seal(table: str, key: bytes, content: object) -> bytes:
    return _seal_bytes(table, key, msgpack.packb(content))


def _seal_bytes(table: str, key: bytes, content: bytes) -> bytes:
    return b"".join((_CRC.pack(crc32(content, crc32(key, _SEEDS[table]))), content))


def _unseal(
    file: str, table: str, key: bytes, value: bytes | None, build: Callable[..., Any]
) -> Any:
    """What `build` makes of the sealed content."""
    content = _unseal_bytes(file, table, key, value)
    try:
        return build(msgpack.unpackb(content, use_list=False))
    except (TypeError, ValueError, PeerFault) as error:  # msgpack's own errors are ValueErrors
        raise corruption(file, table, _readable(table, key), f"is malformed: {error}") from error


def _unseal_bytes(file: str, table: str, key: bytes, value: bytes | None) -> memoryview:
    if value is None:
        raise corruption(file, table, _readable(table, key), "is missing")
    content = memoryview(value)[_CRC.size :]
    if value[: _CRC.size] != _CRC.pack(crc32(content, crc32(key, _SEEDS[table]))):
        raise corruption(file, table, _readable(table, key), "does not match its checksum")
    return content


def _readable(table: str, key: bytes) -> str:
    if table in {LOG, EPOCHS} and len(key) == 8:
        return str(int.from_bytes(key, "big"))
    if table == DELIVERED and len(key) == _DELIVERED_KEY.size:
        return "offset {}, index {}".format(*_DELIVERED_KEY.unpack(key))
    if table == SNAPSHOTS and len(key) == _PIECE_KEY.size:
        return piece_name(*_PIECE_KEY.unpack(key))
    return key.decode("ascii", "backslashreplace")


def piece_name(snapshot_id: int, number: int) -> str:
    """What a key of `snapshots` is called in messages."""
    part = f"piece {number}" if number != HEADER_NUMBER else "header"
    return f"snapshot {snapshot_id}, {part}"


# The values of `meta` and `promise`.


def pack_format() -> bytes:
    """The value of `FORMAT_KEY`."""
    return _seal(META, FORMAT_KEY, FORMAT)


def parse_format(file: str, value: bytes | None) -> int:
    """The version of the layout of a store. This value never changes its own layout."""
    found: int = _unseal(file, META, FORMAT_KEY, value, int)
    return found


def pack_identity(identity: StoreIdentity) -> bytes:
    """The value of `IDENTITY_KEY`."""
    return _seal(META, IDENTITY_KEY, identity)


def parse_identity(file: str, value: bytes | None) -> StoreIdentity:
    """What `pack_identity` packed."""
    identity: StoreIdentity = _unseal(
        file, META, IDENTITY_KEY, value, lambda fields: StoreIdentity(*fields)
    )
    return identity


def pack_eras(era: Era) -> bytes:
    """The value of `ERAS_KEY`: a list of one era."""
    return _seal(META, ERAS_KEY, [(era.agreement, era.membership.encode(), era.first_index)])


def parse_eras(file: str, value: bytes | None) -> Era:
    """The one era of a store of this format."""

    def build(eras: tuple[tuple[str, bytes, int]]) -> Era:
        ((agreement, membership, first_index),) = eras
        return Era(agreement, decode_membership(membership), first_index)

    era: Era = _unseal(file, META, ERAS_KEY, value, build)
    return era


def pack_life(life: int) -> bytes:
    """The value of `LIFE_KEY`."""
    return _seal(META, LIFE_KEY, life)


def parse_life(file: str, value: bytes | None) -> int:
    """What `pack_life` packed."""
    life: int = _unseal(file, META, LIFE_KEY, value, int)
    return life


def pack_introduced(introduced: bool) -> bytes:  # noqa: FBT001 - the value itself
    """The value of `INTRODUCED_KEY`."""
    return _seal(META, INTRODUCED_KEY, introduced)


def parse_introduced(file: str, value: bytes | None) -> bool:
    """What `pack_introduced` packed."""
    introduced: bool = _unseal(file, META, INTRODUCED_KEY, value, bool)
    return introduced


def pack_promise(table: str, key: bytes, stored: StoredPromise) -> bytes:
    """One copy of the promise, for its table and key."""
    return _seal(table, key, stored)


def parse_promise(file: str, table: str, key: bytes, value: bytes | None) -> StoredPromise:
    """One copy of the promise."""
    stored: StoredPromise = _unseal(
        file, table, key, value, lambda fields: StoredPromise(fields[0], Epoch(*fields[1]))
    )
    return stored


def pack_position(position: Position) -> bytes:
    """The value of `POSITION_KEY`."""
    rows = [(node, *row) for node, row in position.producers.items()]
    return _seal(META, POSITION_KEY, (*position[:4], rows))


def parse_position(file: str, value: bytes | None) -> Position:
    """What `pack_position` packed."""

    def build(fields: tuple[Any, ...]) -> Position:
        index, offset, digest, timestamp_ms, rows = fields
        producers = {node: ProducerRow(life, sequence) for node, life, sequence in rows}
        return Position(index, offset, digest, timestamp_ms, producers)

    position: Position = _unseal(file, META, POSITION_KEY, value, build)
    return position


def pack_base(base: Base) -> bytes:
    """The value of `BASE_KEY`."""
    return _seal(META, BASE_KEY, base)


def parse_base(file: str, value: bytes | None) -> Base:
    """What `pack_base` packed."""

    def build(fields: tuple[Any, ...]) -> Base:
        index, epoch, offset, digest, timestamp_ms = fields
        return Base(index, Epoch(*epoch), offset, digest, timestamp_ms)

    base: Base = _unseal(file, META, BASE_KEY, value, build)
    return base


# The values of the other tables.


def pack_log_row(entry: StoredEntry) -> tuple[bytes, bytes]:
    """Key and value of an entry. Its body is copied once, into the value, and not read."""
    key = index_key(entry.index)
    node = entry.epoch.node.encode()
    epoch = _EPOCH.pack(entry.epoch.number, len(node)) + node
    body_start = LENGTH_BYTES + int.from_bytes(entry.data[:LENGTH_BYTES], "big")
    crc = crc32(entry.data[:body_start], crc32(key + epoch))
    return key, b"".join((_CRC.pack(crc), epoch, entry.data))


def entry_bytes(value: bytes) -> int:
    """Length of the entry in a row of `log`, before anything in it is checked."""
    head = _CRC.size + _EPOCH.size
    return len(value) - head - value[head - 1] if len(value) > head else 0


def parse_log_row(file: str, key: bytes, value: bytes) -> tuple[StoredEntry, Entry]:
    """The entry of a row, every byte of it checked, and what its bytes say."""
    index = parse_index_key(file, LOG, key)
    try:
        (crc,) = _CRC.unpack_from(value)
        number, node_bytes = _EPOCH.unpack_from(value, _CRC.size)
        node_start = _CRC.size + _EPOCH.size
        data_start = node_start + node_bytes
        body_start = (
            data_start
            + LENGTH_BYTES
            + int.from_bytes(value[data_start : data_start + LENGTH_BYTES], "big")
        )
        if crc32(memoryview(value)[_CRC.size : body_start], crc32(key)) != crc:
            raise corruption(file, LOG, str(index), "does not match its checksum")
        data = value[data_start:]
        entry = parse_entry(data)
        epoch = Epoch(number, value[node_start:data_start].decode("ascii"))
    except (struct_error, UnicodeDecodeError, PeerFault) as error:
        raise corruption(file, LOG, str(index), str(error)) from error
    return StoredEntry(index, epoch, data), entry


def pack_epoch(run: tuple[int, Epoch]) -> tuple[bytes, bytes]:
    """Key and value of a run of entries of one epoch: (first index, epoch)."""
    first_index, epoch = run
    key = index_key(first_index)
    return key, _seal(EPOCHS, key, epoch)


def parse_epoch(file: str, key: bytes, value: bytes) -> tuple[int, Epoch]:
    """(first index, epoch) of a run."""
    first_index = parse_index_key(file, EPOCHS, key)
    return first_index, _unseal(file, EPOCHS, key, value, lambda fields: Epoch(*fields))


def pack_delivered(row: Delivered) -> tuple[bytes, bytes]:
    """Key and value of a delivered entry."""
    key = delivered_key(row.base_offset, row.index)
    return key, _seal(DELIVERED, key, (row.count, row.accepted, row.timestamp_ms, row.digest))


def parse_delivered(file: str, key: bytes, value: bytes) -> Delivered:
    """What `pack_delivered` packed."""
    base_offset, index = parse_delivered_key(file, key)
    row: Delivered = _unseal(
        file, DELIVERED, key, value, lambda fields: Delivered(index, base_offset, *fields)
    )
    return row


def pack_peer(node: str, peer: Peer) -> tuple[bytes, bytes]:
    """Key and value of what is remembered of another node."""
    key = node.encode()
    return key, _seal(PEERS, key, peer)


def parse_peer(file: str, key: bytes, value: bytes) -> tuple[str, Peer]:
    """What `pack_peer` packed."""
    peer: Peer = _unseal(file, PEERS, key, value, lambda fields: Peer(*fields))
    return key.decode("ascii", "backslashreplace"), peer


def pack_snapshot(stored: StoredSnapshot) -> tuple[bytes, bytes]:
    """Key and value of the header of a whole snapshot."""
    key = piece_key(stored.snapshot_id, HEADER_NUMBER)
    return key, _seal_bytes(SNAPSHOTS, key, encode_snapshot(stored.snapshot))


def parse_snapshot(file: str, key: bytes, value: bytes) -> StoredSnapshot:
    """What `pack_snapshot` packed."""
    snapshot_id, number = parse_piece_key(file, key)
    content = _unseal_bytes(file, SNAPSHOTS, key, value)
    try:
        return StoredSnapshot(snapshot_id, decode_snapshot(content.tobytes()))
    except PeerFault as error:
        where = piece_name(snapshot_id, number)
        raise corruption(file, SNAPSHOTS, where, f"is malformed: {error}") from error


def pack_piece(piece: StoredPiece) -> tuple[bytes, bytes]:
    """Key and value of a piece of a snapshot. Its bytes are copied once, into the value."""
    key = piece_key(piece.snapshot_id, piece.number)
    return key, _seal_bytes(SNAPSHOTS, key, piece.data)


def parse_piece(file: str, key: bytes, value: bytes) -> StoredPiece:
    """What `pack_piece` packed."""
    snapshot_id, number = parse_piece_key(file, key)
    return StoredPiece(snapshot_id, number, _unseal_bytes(file, SNAPSHOTS, key, value).tobytes())


def reader_key(name: str) -> bytes:
    """The key of a named reader."""
    return name.encode()


def pack_reader(name: str, offset: int) -> tuple[bytes, bytes]:
    """Key and value of a named reader."""
    key = reader_key(name)
    return key, _seal(READERS, key, offset)


def parse_reader(file: str, key: bytes, value: bytes) -> tuple[str, int]:
    """What `pack_reader` packed."""
    offset: int = _unseal(file, READERS, key, value, int)
    return key.decode("utf-8", "backslashreplace"), offset
