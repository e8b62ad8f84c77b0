"""How much more a store may take, from what its map holds."""

from __future__ import annotations

import pytest

from replog.disk_room import DiskRoom, disk_room, map_bytes
from replog.store.interface import Usage

BOUND = 1000


def never() -> bool:
    raise AssertionError("asked where it does not count")


@pytest.mark.parametrize(
    ("live_bytes", "file_bytes", "snapshot_bytes", "room"),
    [
        (0, 0, 0, DiskRoom(800, 1000)),
        (300, 300, 0, DiskRoom(500, 700)),
        (300, 300, 150, DiskRoom(350, 700)),
        # At the mark of the records a snapshot still finds room.
        (800, 800, 0, DiskRoom(0, 200)),
        (850, 850, 0, DiskRoom(-50, 150)),
        # What was dropped is room again, however long the file is.
        (200, 999, 0, DiskRoom(600, 800)),
    ],
)
def test_room_is_what_may_be_live_and_is_not(
    live_bytes: int, file_bytes: int, snapshot_bytes: int, room: DiskRoom
) -> None:
    assert disk_room(Usage(live_bytes, file_bytes), BOUND, snapshot_bytes, never) == room


def test_while_somebody_reads_for_long_the_file_grows_to_the_bound_and_no_further() -> None:
    long = Usage(100, 1010)
    assert disk_room(long, BOUND, 0, lambda: True) == DiskRoom(-10, -10)
    assert disk_room(long, BOUND, 0, lambda: False) == DiskRoom(700, 900)


def test_a_file_full_of_holes_stays_far_from_the_end_of_the_map() -> None:
    assert disk_room(Usage(100, 1990), BOUND, 0, lambda: False) == DiskRoom(10, 10)
    assert map_bytes(BOUND) > 2 * BOUND + (1 << 29)


def test_small_entries_are_taken_into_the_reserve() -> None:
    assert DiskRoom(1, 1).takes(1 << 20)
    assert DiskRoom(0, 1).takes(4096)
    assert not DiskRoom(0, 1).takes(4097)
    assert not DiskRoom(0, 0).takes(1)
