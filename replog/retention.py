"""How much of a log is kept, and when a machine's state is. By default everything, for ever.

Rules of this file:

1. Nothing is dropped but behind the newest snapshot. With a machine that is one of the machine;
   without, a header is enough.
2. What a named reader or a running transfer still needs is not dropped, up to a bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from replog.config import check_positive
from replog.errors import ConfigError

if TYPE_CHECKING:
    from replog.store.interface import Reader


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What of the log is kept: its newest records, within every bound that is given.

    The first records go once any of the bounds is exceeded, always whole entries, and only behind
    the newest snapshot. Raises `ConfigError` when no bound is given, or one below 1.
    """

    records_max: int | None = None
    """Records kept."""
    bytes_max: int | None = None
    """Bytes of entries kept, counted as the pages they take on disk."""
    age_ms_max: int | None = None
    """Milliseconds for which records are kept, by their timestamps and this node's wall clock."""
    readers_records_max: int = 1 << 24
    """So many records more are kept for named readers that lag; beyond that they lose them."""

    def __post_init__(self) -> None:
        check_positive(self)
        if (self.records_max, self.bytes_max, self.age_ms_max) == (None, None, None):
            raise ConfigError("a retention bounds records, bytes or age: without any, leave it out")


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotEvery:
    """When a machine's state is kept anew: after so much more of the log, whichever comes first.

    Raises `ConfigError` when neither is given, or one below 1.
    """

    records: int | None = None
    """How many records."""
    bytes: int | None = None
    """Bytes of records, as they were appended."""

    def __post_init__(self) -> None:
        check_positive(self)
        if self.records is None and self.bytes is None:
            raise ConfigError("a snapshot is taken after so many records, bytes, or both")


class Droppable(NamedTuple):
    """How far a log may be dropped."""

    index: int  # type: ignore[assignment]
    """Every entry up to here; the base's when nothing may go."""
    offset: int
    """The first one left."""


def droppable(
    reader: Reader,
    retention: Retention,
    wall_ms: int,
    index_max: int,
    needed_offset: int | None = None,
) -> Droppable:
    """How far this retention lets entries go, up to `index_max`. From `needed_offset` on named
    readers need the log; None: there are none.

    Raises `Corruption`.
    """
    base, position = reader.base(), reader.position()
    offsets = []
    if retention.records_max is not None:
        offsets.append(position.offset - retention.records_max)
    if retention.age_ms_max is not None:
        offsets.append(reader.offset_at(wall_ms - retention.age_ms_max))
    index = reader.index_below(max(offsets)) if offsets and max(offsets) > base.offset else 0
    if retention.bytes_max is not None:
        index = max(index, _beyond_bytes(reader, retention.bytes_max))
    acknowledged = position.offset if needed_offset is None else needed_offset
    pinned = max(acknowledged, position.offset - retention.readers_records_max)
    if pinned < position.offset:
        index = min(index, reader.index_below(max(pinned, base.offset)))
    index = max(base.index, min(index, index_max, position.index))
    return Droppable(index, reader.offset_behind(index))


def _beyond_bytes(reader: Reader, bytes_max: int) -> int:
    """Drop up to here, and about so many bytes are left: as if all entries were of one size. What
    that misses, the next look finds."""
    size, rows = reader.log_extent()
    if size <= bytes_max or not rows:
        return 0
    return reader.base().index + -(-(size - bytes_max) * rows // size)
