"""Entries: what the nodes agree on at one index, and the bytes they are made of.

Rules of this file:

1. A run is packed once, at its origin; an entry's body is its runs' bytes as they came.
2. The same entry bytes go to the leader's disk, onto the wire and onto the followers' disks.
3. Work is per run, never per record; only `unpack_runs` looks at records.

Layout of an entry (`data`)::

    4 bytes   length of the header, big-endian
    header    msgpack [kind, [[node, life, first_sequence, count, size], ...], timestamp_ms, crc]
    body      the runs' bytes, each one msgpack array of bin
"""

from __future__ import annotations

from enum import IntEnum
from hashlib import blake2b
from itertools import accumulate
from operator import countOf
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

import msgpack

from replog.errors import PeerFault

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

LENGTH_BYTES = 4
HEADER_BYTES_MAX = 1 << 20
RUNS_MAX = 4096
"""Most runs in one entry."""
RECORDS_PER_RUN_MAX = 1 << 20
"""Most records in one run."""
NODE_ID_CHARACTERS_MAX = 64
INTEGER_MAX = (1 << 63) - 1
DIGEST_BYTES = 16
DIGEST_START = bytes(DIGEST_BYTES)
"""The digest of an empty log."""


class Kind(IntEnum):
    """What an entry holds."""

    NOOP = 0
    RECORDS = 1


class Epoch(NamedTuple):
    """One leadership: Raft's term and its leader, Paxos's ballot. As a promise of a Raft node,
    the term and the candidate it voted for, "" for none."""

    number: int
    node: str


NO_EPOCH = Epoch(0, "")


class Run(NamedTuple):
    """Consecutive records of one producer: (node, life) names the producer."""

    node: str
    life: int
    first_sequence: int
    count: int  # type: ignore[assignment]
    size: int
    """Bytes of the packed run."""


class Entry(NamedTuple):
    """One entry: its parsed header and the bytes that are stored and sent."""

    kind: Kind
    runs: tuple[Run, ...]
    timestamp_ms: int
    crc: int
    data: bytes
    body_start: int

    @property
    def header(self) -> bytes:
        """The packed header, without its length."""
        return self.data[LENGTH_BYTES : self.body_start]

    @property
    def body_bytes(self) -> int:
        """Length of the body."""
        return len(self.data) - self.body_start


def pack_run(records: Sequence[bytes]) -> bytes:
    """Pack records into the bytes of one run."""
    packed: bytes = msgpack.packb(records)
    return packed


def unpack_records(entry: Entry, run: int) -> list[bytes]:
    """The records of the run at this place in the entry. Raises as `unpack_runs`."""
    start = entry.body_start + sum([other.size for other in entry.runs[:run]])
    wanted = entry.runs[run]
    return _unpack_run(run, wanted, memoryview(entry.data)[start : start + wanted.size])


def unpack_runs(entry: Entry, places: Iterable[int]) -> Iterator[list[bytes]]:
    """The records of each of the runs at these places in the entry, in time O(entry): for those who
    want more than one. The iterator raises `PeerFault` when a run's bytes are not the array of
    records its header promises.
    """
    starts = list(accumulate([run.size for run in entry.runs], initial=entry.body_start))
    data = memoryview(entry.data)
    for place in places:
        yield _unpack_run(place, entry.runs[place], data[starts[place] : starts[place + 1]])


def _unpack_run(place: int, run: Run, packed: memoryview) -> list[bytes]:
    try:
        records = msgpack.unpackb(
            packed, max_array_len=run.count, max_bin_len=run.size, max_map_len=0, max_ext_len=0
        )
    except Exception as error:  # msgpack raises several unrelated classes for bad bytes
        raise PeerFault(f"run {place} does not unpack: {error}") from error
    if (
        type(records) is not list
        or len(records) != run.count
        or countOf(map(type, records), bytes) != run.count
    ):
        raise PeerFault(f"run {place} is not an array of {run.count} records")
    return records


def make_entry(
    kind: Kind, runs: Iterable[Run], bodies: Iterable[bytes], timestamp_ms: int
) -> Entry:
    """Concatenate runs into one entry."""
    body = b"".join(bodies)
    crc = crc32(body)
    runs = tuple(runs)
    header: bytes = msgpack.packb((int(kind), runs, timestamp_ms, crc))
    data = b"".join((len(header).to_bytes(LENGTH_BYTES, "big"), header, body))
    return Entry(kind, runs, timestamp_ms, crc, data, LENGTH_BYTES + len(header))


def parse_entry(data: bytes) -> Entry:
    """Check every field of an entry's bytes, its checksum included.

    Raises `PeerFault` for bytes that `make_entry` cannot have made.
    """
    start = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "big")
    if not LENGTH_BYTES < start <= min(len(data), LENGTH_BYTES + HEADER_BYTES_MAX):
        raise PeerFault(f"entry of {len(data)} bytes has no header")
    try:
        kind_number, rows, timestamp_ms, crc = msgpack.unpackb(
            memoryview(data)[LENGTH_BYTES:start],
            use_list=False,
            max_array_len=RUNS_MAX,
            max_str_len=NODE_ID_CHARACTERS_MAX,
            max_bin_len=0,
            max_map_len=0,
            max_ext_len=0,
        )
        kind = Kind(kind_number)
        runs = tuple([_run(*row) for row in rows])
    except PeerFault:
        raise
    except Exception as error:  # msgpack raises several unrelated classes for bad bytes
        raise PeerFault(f"entry header is malformed: {error}") from error
    if type(kind_number) is not int or not _is_integer(timestamp_ms) or not _is_integer(crc):
        raise PeerFault("entry header has a field of the wrong type")
    if sum([run.size for run in runs]) != len(data) - start:
        raise PeerFault("entry body is not as long as its runs")
    if bool(runs) != (kind is Kind.RECORDS):
        raise PeerFault(f"entry of kind {kind.name} has {len(runs)} runs")
    if crc32(memoryview(data)[start:]) != crc:
        raise PeerFault("entry body does not match its checksum")
    return Entry(kind, runs, timestamp_ms, crc, data, start)


def chain_digest(
    previous: bytes, index: int, base_offset: int, accepted: Sequence[int], entry: Entry
) -> bytes:
    """The digest after this entry: it covers the decisions of delivery, not only bytes.

    `accepted` names the runs that delivery accepted, by their place in the entry. No epochs: two
    leaders may store one value under different epochs.
    """
    numbers: bytes = msgpack.packb((index, base_offset, accepted, entry.body_bytes, entry.crc))
    return blake2b(previous + numbers + entry.header, digest_size=DIGEST_BYTES).digest()


def check_node_id(node: object) -> str:
    """Return a valid node id: 1 to 64 characters of A-Z a-z 0-9 . _ -; else raise `ValueError`."""
    if (
        type(node) is not str
        or not 0 < len(node) <= NODE_ID_CHARACTERS_MAX
        or not node.isascii()
        or not node.replace(".", "a").replace("_", "a").replace("-", "a").isalnum()
    ):
        raise ValueError(f"{node!r} is no node id: use 1 to 64 of A-Z a-z 0-9 . _ -")
    return node


def _is_integer(value: object) -> bool:
    return type(value) is int and 0 <= value <= INTEGER_MAX


def _run(node: object, life: int, first_sequence: int, count: int, size: int) -> Run:
    if (
        type(node) is not str
        or not 0 < len(node) <= NODE_ID_CHARACTERS_MAX
        or not (_is_integer(life) and _is_integer(first_sequence))
        or not (_is_integer(count) and 0 < count <= RECORDS_PER_RUN_MAX)
        or not (_is_integer(size) and size > 0)
    ):
        raise PeerFault("entry header has a malformed run")
    return Run(node, life, first_sequence, count, size)
