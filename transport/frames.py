"""The frame header: who speaks, for which cluster; and the gate that every frame passes.

A message on the wire is exactly:

    part 0    frame header     msgpack [version, cluster id, agreement, sender, store id, life]
    part 1    message header   opaque here
    part 2..  one per entry    opaque here

1. A frame of another version, agreement or cluster, or not from a peer, is dropped and counted by
   cause before its message header is looked at.
2. A frame header has one encoding: what does not encode back to the same bytes is malformed.
3. A node sends the same frame header all its life, so that it is decoded once and then found by its
   bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgpack

from transport.interface import DROP_CAUSES

__all__ = [
    "ENTRY_PARTS_MAX",
    "FRAME_HEADER_BYTES_MAX",
    "FRAME_VERSION",
    "HEADER_BYTES_MAX",
    "MESSAGE_PARTS_MAX",
    "PART_BYTES_MAX",
    "FrameError",
    "FrameGate",
    "FrameHeader",
    "check_message",
    "check_node",
    "new_drops",
]

FRAME_VERSION: Final = 1
ENTRY_PARTS_MAX: Final = 1024
MESSAGE_PARTS_MAX: Final = ENTRY_PARTS_MAX + 2
FRAME_HEADER_BYTES_MAX: Final = 1024
HEADER_BYTES_MAX: Final = 1024 * 1024
PART_BYTES_MAX: Final = 16 * 1024 * 1024 + 64 * 1024
"""An entry body of 16 MiB, and room for the entry's header."""
ID_BYTES: Final = 16
LIFE_MAX: Final = 2**63 - 1
REMEMBERED_FRAMES_MAX: Final = 256

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Wide enough to read the version of a frame of the future, far below what could hurt.
_UNPACK_LIMITS: Final[dict[str, int]] = {
    "max_str_len": 256,
    "max_bin_len": 256,
    "max_array_len": 64,
    "max_map_len": 0,
    "max_ext_len": 0,
}


class FrameError(Exception):
    """A frame header that is not accepted. `cause` is one of `interface.DROP_CAUSES`."""

    def __init__(self, cause: str, reason: str) -> None:
        super().__init__(f"{cause}: {reason}")
        self.cause = cause


class FrameHeader(NamedTuple):
    """Who sends, and for which cluster: the same for every message of one life."""

    version: int
    """The frame format, FRAME_VERSION."""
    cluster_id: bytes
    """16 bytes."""
    agreement: str
    """The name of the agreement layer: 1 to 64 of `A-Z a-z 0-9 . _ -`."""
    sender: str
    """The id of the sending node: 1 to 64 of `A-Z a-z 0-9 . _ -`."""
    store_id: bytes
    """16 bytes."""
    life: int
    """1 to 2**63 - 1."""

    def encode(self) -> bytes:
        """Return the header's bytes. Raises FrameError for a wrong type or a value out of range."""
        _check_version(self.version)
        _check_fields(self)
        packed: bytes = msgpack.packb(tuple(self), use_bin_type=True)
        return packed

    @classmethod
    def decode(cls, data: bytes) -> FrameHeader:
        """Read a header, checking every type and range. Raises FrameError and nothing else."""
        if len(data) > FRAME_HEADER_BYTES_MAX:
            raise FrameError("malformed", f"a frame header of {len(data)} bytes")
        try:
            fields: Any = msgpack.unpackb(data, raw=False, use_list=False, **_UNPACK_LIMITS)
        except Exception as error:  # noqa: BLE001 - hostile bytes raise many unrelated classes
            raise FrameError("malformed", f"not msgpack: {error!r}") from None
        if type(fields) is not tuple or not fields:
            raise FrameError("malformed", "not an array")
        _check_version(fields[0])
        if len(fields) != len(cls._fields):
            raise FrameError("malformed", f"{len(fields)} fields")
        header = cls._make(fields)
        if header.encode() != data:
            raise FrameError("malformed", "not the one encoding")
        return header


class FrameGate:
    """Lets in the frames of the own cluster from peers; never one in the node's own name."""

    def __init__(self, own: FrameHeader, drops: dict[str, int]) -> None:
        """Count refused frames in `drops`, by cause."""
        self._own = own
        self._drops = drops
        self._peers: set[str] = set()
        self.admitted: dict[bytes, FrameHeader] = {}
        """Headers that `admit` let in, by their bytes: look here first."""

    def allow(self, node: str) -> None:
        """Let in frames of this node."""
        self._peers.add(node)

    def disallow(self, node: str) -> None:
        """Let in no frame of this node."""
        self._peers.discard(node)
        self.admitted.clear()

    def admit(self, frame: bytes) -> FrameHeader | None:
        """Decode and check a frame header. None when it is refused, which has been counted."""
        try:
            header = FrameHeader.decode(frame)
            self._check(header)
        except FrameError as error:
            self._drops[error.cause] += 1
            return None
        if len(self.admitted) >= REMEMBERED_FRAMES_MAX:
            self.admitted.clear()
        self.admitted[frame] = header
        return header

    def _check(self, header: FrameHeader) -> None:
        own = self._own
        # Before the cluster id: that one depends on the agreement too, and would hide this cause.
        if header.agreement != own.agreement:
            raise FrameError("agreement", header.agreement)
        if header.cluster_id != own.cluster_id:
            raise FrameError("cluster", header.cluster_id.hex())
        if header.sender == own.sender or header.sender not in self._peers:
            raise FrameError("sender", header.sender)


def new_drops() -> dict[str, int]:
    """Return a counter for every cause: its keys never change while another thread reads it."""
    return dict.fromkeys(DROP_CAUSES, 0)


def check_node(node: str) -> None:
    """Raise ValueError unless `node` is a node id: 1 to 64 of `A-Z a-z 0-9 . _ -`."""
    if type(node) is not str or _NAME.fullmatch(node) is None:
        raise ValueError(f"{node!r} is no node id: 1 to 64 of A-Z a-z 0-9 . _ -")


def check_message(header: bytes, parts: Sequence[bytes]) -> None:
    """Raise ValueError for a message that every peer would drop."""
    if len(header) > HEADER_BYTES_MAX:
        raise ValueError(f"a message header of {len(header)} bytes, at most {HEADER_BYTES_MAX}")
    if not parts:
        return
    if len(parts) > ENTRY_PARTS_MAX:
        raise ValueError(f"a message of {len(parts)} entries, at most {ENTRY_PARTS_MAX}")
    part_bytes = max(map(len, parts))
    if part_bytes > PART_BYTES_MAX:
        raise ValueError(f"an entry of {part_bytes} bytes, at most {PART_BYTES_MAX}")


def _check_version(version: object) -> None:
    if type(version) is not int:
        raise FrameError("malformed", "the version is not an integer")
    if version != FRAME_VERSION:
        raise FrameError("version", str(version))


def _check_fields(header: FrameHeader) -> None:
    # Exact types: to isinstance, True is an int.
    for name, identity in (("cluster id", header.cluster_id), ("store id", header.store_id)):
        if type(identity) is not bytes or len(identity) != ID_BYTES:
            raise FrameError("malformed", f"the {name} is not {ID_BYTES} bytes")
    for name, text in (("agreement", header.agreement), ("sender", header.sender)):
        if type(text) is not str or _NAME.fullmatch(text) is None:
            raise FrameError("malformed", f"the {name} is not 1 to 64 of A-Z a-z 0-9 . _ -")
    if type(header.life) is not int or not 1 <= header.life <= LIFE_MAX:
        raise FrameError("malformed", "the life is not a positive 63-bit integer")
