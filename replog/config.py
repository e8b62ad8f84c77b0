"""What a user may set: the limits of one node, and what every agreement's tuning must obey."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Protocol

from replog.errors import ConfigError
from replog.snapshot import PIECE_BYTES_MAX

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
RUN_BYTES_MAX = 8 * MIB
"""Of any node: what every node takes, whatever it allows its own application."""
RUN_OVERHEAD_BYTES = 16
"""More than msgpack adds to a run of one record."""
HEARTBEATS_PER_ELECTION_TIMEOUT_MIN = 3
"""Two heartbeats in a row may be lost or late without an election."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one node, in the unit each name ends in. The defaults suit most users."""

    record_bytes_max: int = 8 * MIB - RUN_OVERHEAD_BYTES
    """A larger record is refused as `TooLarge`."""
    run_bytes_max: int = 8 * MIB
    """A larger `append_many` is refused as `TooLarge`."""
    entry_bytes_max: int = 1 * MIB
    """An entry takes no further run beyond this; one run may exceed it."""
    forward_bytes_max: int = 4 * MIB
    """Bytes a follower has sent to the leader and not yet seen delivered."""
    forward_runs_max: int = 64
    """Runs a follower has sent to the leader and not yet seen delivered."""
    pending_bytes_max: int = 64 * MIB
    """Bytes of appends waiting in this process; beyond it `append` raises `Busy`."""
    message_bytes_max: int = 2 * MIB
    """A message takes no further entry beyond this; one entry may exceed it."""
    window_bytes_max: int = 64 * MIB
    """Entries kept in memory for followers and readers that lag a little."""
    piece_bytes_max: int = PIECE_BYTES_MAX
    """A machine's state is kept in pieces of this size."""
    part_bytes_max: int = 256 * KIB
    """A piece travels in parts of this size: one is under way to a node at a time."""
    machine_digest_records: int = 1 << 16
    """Machines are compared across nodes every so many records, or every twice, four times ... as
    many where digests would cost more than about 2 % of the time. The same on every node."""
    map_bytes_max: int = 64 * GIB
    """What may be live in the store: records, snapshots and what belongs to them. Its file grows
    beyond that where somebody reads for long, or large entries leave holes (`replog.disk_room`)."""
    position_delay_ms: int = 50
    """How long a delivery may stay unwritten: other processes see it on the disk after this."""
    retry_ms: int = 200
    """A forward or read without progress is sent again after this."""

    def __post_init__(self) -> None:
        check_positive(self)
        if self.record_bytes_max + RUN_OVERHEAD_BYTES > self.run_bytes_max:
            raise ConfigError(
                f"record_bytes_max {self.record_bytes_max} must leave {RUN_OVERHEAD_BYTES} bytes "
                f"within run_bytes_max {self.run_bytes_max}"
            )
        if self.piece_bytes_max > PIECE_BYTES_MAX:
            raise ConfigError(f"piece_bytes_max {self.piece_bytes_max} exceeds 1 MiB")
        if self.run_bytes_max > RUN_BYTES_MAX:
            raise ConfigError(f"run_bytes_max {self.run_bytes_max} exceeds 8 MiB, the wire's limit")


class Timing(Protocol):
    """The times of an agreement that elects a leader and hears it, in milliseconds."""

    @property
    def election_timeout_ms_min(self) -> int:
        """No node campaigns sooner after hearing a leader."""

    @property
    def election_timeout_ms_max(self) -> int:
        """Timeouts are drawn between the two."""

    @property
    def heartbeat_ms(self) -> int:
        """How often a leader is heard."""


def check_positive(settings: Any) -> None:
    """Raise `ConfigError` unless every field of this dataclass is a positive integer, or the None
    that it defaults to."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        if value is None and field.default is None:
            continue
        if type(value) is not int or value <= 0:
            raise ConfigError(f"{field.name} must be a positive integer, not {value!r}")


def check_timing(timing: Timing) -> None:
    """Raise `ConfigError` for times under which no leader would stay."""
    low, high = timing.election_timeout_ms_min, timing.election_timeout_ms_max
    if high <= low:
        raise ConfigError(
            f"election_timeout_ms_max {high} must exceed election_timeout_ms_min {low}: "
            f"equal timeouts collide"
        )
    if timing.heartbeat_ms * HEARTBEATS_PER_ELECTION_TIMEOUT_MIN > low:
        raise ConfigError(
            f"heartbeat_ms {timing.heartbeat_ms} must fit {HEARTBEATS_PER_ELECTION_TIMEOUT_MIN} "
            f"times into election_timeout_ms_min {low}"
        )
