"""Reading a log that is compacted or replaced at any moment: nothing is skipped, and what is gone
is told as such."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from replog.entry import parse_entry
from replog.errors import Corruption, InvariantBroken, OffsetOutOfRange
from replog.reading import Follower, read_range
from replog.store.interface import Position, ProducerRow
from tests.node.stand_in import SECONDS, StandIn
from tests.store.author import deliver, run_entry


@pytest.fixture
def node() -> StandIn:
    """Three entries with two records each, and one without."""
    node = StandIn()
    node.grow([b"0", b"1"])
    node.grow()
    node.grow([b"2", b"3"])
    node.grow([b"4", b"5"])
    return node


def position(index: int, offset: int) -> Position:
    return Position(index, offset, bytes(16), 7000, {"n2": ProducerRow(3, offset)})


def data(records) -> list[bytes]:
    return [record.data for record in records]


def test_the_first_offset_follows_the_base(node: StandIn) -> None:
    assert node.log.bounds() == (0, 6)
    node.compact(1)
    assert (node.log.first_offset, node.log.end_offset) == node.log.bounds() == (2, 6)
    assert data(node.log.records(2, 6)) == [b"2", b"3", b"4", b"5"]
    with pytest.raises(OffsetOutOfRange, match=r"holds offsets 2 to 5; what lies below") as gone:
        node.log.items(1)
    assert (gone.value.offset, gone.value.first_offset, gone.value.end_offset) == (1, 2, 6)


def test_a_log_of_which_nothing_is_left_says_where_it_goes_on(node: StandIn) -> None:
    node.compact(4)
    assert node.log.bounds() == (6, 6)
    with pytest.raises(OffsetOutOfRange, match=r"no records now, and goes on at offset 6"):
        node.log.items(0)
    follower = Follower(node.log, 6)
    node.grow([b"6"])
    assert next(follower).data == b"6"


def test_without_a_start_a_read_begins_with_what_is_left_by_then(node: StandIn) -> None:
    bounds, read = node.log.bounds, node.log.records
    whole, part = read_range(bounds, read, None, None), read_range(bounds, read, None, 5)
    short, stated = read_range(bounds, read, None, 1), read_range(bounds, read, 0, None)
    node.compact(1)
    node.grow([b"6"])
    assert data(whole) == [b"2", b"3", b"4", b"5", b"6"]
    assert data(part) == [b"2", b"3", b"4"]
    for lost in (short, stated):
        with pytest.raises(OffsetOutOfRange, match=r"holds offsets 2 to 6"):
            next(lost)


def test_a_follower_without_a_start_begins_with_what_is_left_by_then(node: StandIn) -> None:
    follower, stated = Follower(node.log, 0, stated=False), Follower(node.log, 0)
    node.compact(4)
    node.grow([b"6"])
    assert next(follower).data == b"6"
    with pytest.raises(OffsetOutOfRange):
        next(stated)
    node.grow([b"7"])
    node.seal_header()
    node.compact(6)
    node.grow([b"8"])
    with pytest.raises(OffsetOutOfRange):
        next(follower)  # it has begun: what goes now is missed


def test_a_read_that_compaction_overtakes_ends_with_what_is_left(
    node: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows go between the look at the first offset and the look into the store."""
    delivered = node.store.delivered

    def overtaken(offset: int, bytes_max: int):
        monkeypatch.setattr(node.store, "delivered", delivered)
        node.compact(3)
        return delivered(offset, bytes_max)

    monkeypatch.setattr(node.store, "delivered", overtaken)
    with pytest.raises(OffsetOutOfRange) as gone:
        node.log.items(0)
    assert gone.value.first_offset == 4


def test_a_disk_that_is_ahead_of_the_memory_is_no_corruption(node: StandIn) -> None:
    """A snapshot is installed, and its node has not said so yet."""
    node.store.commit([node.received(position(20, 50), [b"state"])])
    assert node.log.bounds() == (0, 6)
    for offset in range(6):
        with pytest.raises(OffsetOutOfRange) as gone:
            node.log.items(offset)
        assert gone.value.first_offset == 50


def test_rows_that_are_missing_within_the_log_are_corruption(
    node: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = node.store.delivered(4, 1)
    for found in ([], later):
        monkeypatch.setattr(node.store, "delivered", lambda *_, found=found: found)
        with pytest.raises(Corruption, match="offset 2 is delivered, but not stored"):
            node.log.items(2)


def test_an_iteration_that_is_overtaken_skips_nothing(
    node: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("replog.reading.READ_BYTES_MAX", 1)  # one entry at a time
    records = node.log.records(0, 6)
    assert next(records).data == b"0"
    node.compact(3)
    seen = [b"0"]
    with pytest.raises(OffsetOutOfRange):
        seen.extend(record.data for record in records)
    assert seen == [b"0", b"1"]


@pytest.mark.parametrize("form", ["thread", "coroutine"])
def test_a_follower_that_falls_below_the_first_offset_gets_the_error(
    node: StandIn, form: str
) -> None:
    async def following(follower: Follower) -> bytes:
        return (await anext(follower)).data

    def step(follower: Follower) -> bytes:
        return next(follower).data if form == "thread" else asyncio.run(following(follower))

    slow, waiting = Follower(node.log, 0), Follower(node.log, 6)
    more = waiting._wait()
    assert not more.done()
    node.install(position(20, 50), [b"state"])
    more.result(SECONDS)
    for follower in (slow, waiting):
        for _ in range(2):
            with pytest.raises(OffsetOutOfRange) as gone:
                step(follower)
            assert gone.value.first_offset == 50
    at_the_end = Follower(node.log, 50)
    node.grow([b"50"], node="n3")
    assert step(at_the_end) == b"50"


def test_an_install_replaces_what_is_in_memory(node: StandIn) -> None:
    entry = run_entry("n2", 3, 6, [b"6"])
    batch, _ = deliver(node.store.position(), [entry])
    node.recent.add([(batch.delivered[0], parse_entry(entry))])
    assert data(node.log.chunk(6)) == [b"6"]
    beyond = node.recent.wait(50)
    node.install(position(20, 50), [b"state"])
    assert node.recent.holding(6) == []
    assert node.log.bounds() == (50, 50)
    assert not beyond.done()
    node.grow([b"50"], node="n3")
    beyond.result(SECONDS)


def test_offsets_that_do_not_follow_stop_the_node(node: StandIn) -> None:
    entry = run_entry("n3", 3, 0, [b"far"])
    batch, _ = deliver(position(20, 50), [entry])
    with pytest.raises(InvariantBroken, match="offset 50 delivered after 6"):
        node.recent.add([(batch.delivered[0], parse_entry(entry))])
    assert node.log.bounds() == (0, 6)


def test_the_first_offset_never_falls(node: StandIn) -> None:
    tell: Callable[[int], None] = node.recent.begin_at
    tell(4)
    tell(2)
    assert node.log.first_offset == 4
