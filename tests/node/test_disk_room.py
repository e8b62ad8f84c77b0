"""How much more a store may take, from what its map holds."""

from __future__ import annotations

import pytest

from replog.disk_room import IN_FLIGHT_BYTES as UNDER_WAY
from replog.disk_room import RESERVE_BYTES, DiskRoom, disk_room, map_bytes
from replog.store.interface import Usage

BOUND = 1000


def never() -> bool:
    raise AssertionError("asked where it does not count")


@pytest.mark.parametrize(
    ("live_bytes", "file_bytes", "snapshot_bytes", "room"),
    [
        (0, 0, 0, (800, 1000)),
        (300, 300, 0, (500, 700)),
        (300, 300, 150, (350, 700)),
        # At the mark of the records a snapshot still finds room.
        (800, 800, 0, (0, 200)),
        (850, 850, 0, (-50, 150)),
        # What was dropped is room again, however long the file is.
        (200, 999, 0, (600, 800)),
    ],
)
def test_room_is_what_may_be_live_and_is_not(
    live_bytes: int, file_bytes: int, snapshot_bytes: int, room: tuple[int, int]
) -> None:
    found = disk_room(Usage(live_bytes, file_bytes), BOUND, snapshot_bytes, never)
    assert found == (*room, BOUND - live_bytes + UNDER_WAY)


def test_while_somebody_reads_for_long_the_file_grows_to_the_bound_and_no_further() -> None:
    long = Usage(100, 1010)
    assert disk_room(long, BOUND, 0, lambda: True)[:2] == (-10, -10)
    assert disk_room(long, BOUND, 0, lambda: False)[:2] == (700, 900)


def test_a_file_full_of_holes_stays_far_from_the_end_of_the_map() -> None:
    end = map_bytes(BOUND) - RESERVE_BYTES
    assert disk_room(Usage(100, end - 10), BOUND, 0, lambda: False)[:2] == (10, 10)
    assert RESERVE_BYTES >= 1 << 29


def test_what_a_leader_has_under_way_is_taken_beyond_the_bound() -> None:
    assert disk_room(Usage(1000, 1000), BOUND, 0, lambda: True) == DiskRoom(-200, 0, UNDER_WAY)
    full = disk_room(Usage(1000 + UNDER_WAY, 1000), BOUND, 0, lambda: True)
    assert full.entries == 0
