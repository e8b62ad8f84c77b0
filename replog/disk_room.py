"""How much more a store may take: its map must never be full within a commit.

::

    nothing               0.8        0.9         0.95        the whole map
    |----------------------|----------|-----------|-------------|
     records of the log     snapshots  what could  bookkeeping: votes, positions, compaction
                                       not be used

Rules of this file:

1. Pages that were never used are counted on to the last one.
2. Of pages that were freed a part is not counted on: a reader may still see some, and an entry of
   many pages needs as many in a row.
3. If the file grows all the same, they could not be used: near its end nothing is counted on.
4. A snapshot finds room where records find none, for it lets records go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from replog.store.interface import Usage

APPENDS_SHARE = 0.8
"""Of the map, for everything when a record is appended."""
SNAPSHOTS_SHARE = 0.9
"""Of the map, for everything when a piece of a snapshot is written."""
LAST_SHARE = 0.95
"""Of the map, for the file, however much of it is free."""
LIVE_SHARE = 0.75
"""Of what these shares allow, once it is freed pages that are used."""


class DiskRoom(NamedTuple):
    """Bytes that a store may grow by; none when below 1."""

    appends: int
    snapshots: int


def disk_room(usage: Usage, map_bytes_max: int) -> DiskRoom:
    """What a store with this map may still take."""

    def below(share: float) -> int:
        unused = share * map_bytes_max - usage.file_bytes
        freed = LIVE_SHARE * share * map_bytes_max - usage.live_bytes
        return int(max(unused, min(freed, LAST_SHARE * map_bytes_max - usage.file_bytes)))

    return DiskRoom(below(APPENDS_SHARE), below(SNAPSHOTS_SHARE))
