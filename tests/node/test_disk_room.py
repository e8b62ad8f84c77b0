"""How much more a store may take, from what its map holds."""

from __future__ import annotations

import pytest

from replog.disk_room import DiskRoom, disk_room
from replog.store.interface import Usage

MAP_BYTES = 1000


@pytest.mark.parametrize(
    ("live_bytes", "file_bytes", "room"),
    [
        (0, 0, DiskRoom(800, 900)),
        (300, 300, DiskRoom(500, 600)),
        # At the mark of the records a snapshot still finds room.
        (800, 800, DiskRoom(0, 100)),
        (850, 850, DiskRoom(-50, 50)),
        # What was freed is room again, but for a quarter, and no more than the file can still grow.
        (200, 800, DiskRoom(150, 150)),
        (560, 800, DiskRoom(40, 115)),
        (620, 800, DiskRoom(0, 100)),
        # A file that grew beside freed pages could not use them.
        (10, 940, DiskRoom(10, 10)),
        (10, 950, DiskRoom(0, 0)),
        (10, 1000, DiskRoom(-50, -50)),
    ],
)
def test_room_is_what_was_never_used_or_most_of_what_was_freed(
    live_bytes: int, file_bytes: int, room: DiskRoom
) -> None:
    found = disk_room(Usage(live_bytes, file_bytes), MAP_BYTES)
    assert found.appends == pytest.approx(room.appends, abs=1)
    assert found.snapshots == pytest.approx(room.snapshots, abs=1)
