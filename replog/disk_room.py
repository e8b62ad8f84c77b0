"""How much more a store may take, and how large the map is that it is kept in.

Rules of this file:

1. What counts is what is live. The pages of what was dropped are used again.
2. They are not while somebody reads for long (a backup does): then the file grows instead, and
   nothing more is taken once it has grown to the bound of what may be live. It never shrinks.
3. A commit must never meet the end of the map. So that is far behind: for what is on its way when
   the bound is met, for bookkeeping while somebody reads, for holes between large entries.
4. Whoever leads stops proposing at its own bound. What it has under way then must be able to be
   committed, else nobody would come to drop anything: the others take it beyond theirs.
5. A snapshot finds room where records find none, for it lets records go. Records leave room for the
   next one: as much as the last one took.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from replog.entry import INTEGER_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

    from replog.store.interface import Usage

APPENDS_SHARE = 0.8
"""The part of the bound up to which records are appended."""
MAP_FACTOR = 2
"""The map is so many times as long as what may be live, and"""
SPARE_BYTES = 1 << 30
"""so much longer."""
RESERVE_BYTES = 512 << 20
"""At the end of the map, for what cannot be refused."""
IN_FLIGHT_BYTES = 256 << 20
"""Beyond the bound, for entries of other nodes."""


class DiskRoom(NamedTuple):
    """Bytes that a store may take more; none when below 1."""

    appends: int
    """Of records that this node proposes."""
    snapshots: int
    entries: int
    """Of what other nodes propose."""


UNBOUNDED = DiskRoom(INTEGER_MAX, INTEGER_MAX, INTEGER_MAX)


def map_bytes(map_bytes_max: int) -> int:
    """The size of the map in which so much may be live: address space, not disk."""
    return MAP_FACTOR * map_bytes_max + SPARE_BYTES


def disk_room(
    usage: Usage, map_bytes_max: int, snapshot_bytes: int, is_held_back: Callable[[], bool]
) -> DiskRoom:
    """What may be added to a store of which `map_bytes_max` may be live.

    `snapshot_bytes` is the size of its newest snapshot. `is_held_back` says whether somebody has
    been reading for so long that pages are not used again; it is asked only where that counts.
    """
    end = map_bytes(map_bytes_max) - RESERVE_BYTES
    if usage.file_bytes >= map_bytes_max and is_held_back():
        end = map_bytes_max
    of_file = end - usage.file_bytes
    appends = int(APPENDS_SHARE * map_bytes_max) - usage.live_bytes - snapshot_bytes
    snapshots = map_bytes_max - usage.live_bytes
    entries = snapshots + IN_FLIGHT_BYTES
    return DiskRoom(min(appends, of_file), min(snapshots, of_file), entries)
