"""Named readers: a place that is kept, never falls, and costs one write at a time."""

from __future__ import annotations

import asyncio

import pytest

from replog.errors import Closed, ConfigError, OffsetOutOfRange
from replog.named_reader import READERS_MAX, NamedReader, Readers
from replog.pending import Pending, fail_all, resolve
from replog.reading import DeliveredLog
from tests.node.stand_in import SECONDS, StandIn


class Disk:
    """Takes the rows of readers, and is done with them when a test says so."""

    def __init__(self, log: DeliveredLog) -> None:
        self.log = log
        self.rows: list[tuple[str, int | None]] = []
        self.pendings: list[Pending[None]] = []
        self.closed = False

    def begin(self, name: str) -> Pending[int]:
        if self.closed:
            raise Closed("the log is closed")
        chosen: Pending[int] = Pending()
        resolve(chosen, self.log.first_offset)
        return chosen

    def write(self, name: str, offset: int | None) -> Pending[None]:
        if self.closed:
            raise Closed("the log is closed")
        self.rows.append((name, offset))
        self.pendings.append(Pending())
        return self.pendings[-1]

    def sync(self) -> None:
        for pending in list(self.pendings):  # what this sets off comes with the next sync
            if not pending.done():
                resolve(pending, None)

    def durable(self) -> dict[str, int]:
        """What the next open finds."""
        found: dict[str, int] = {}
        for (name, offset), pending in zip(self.rows, self.pendings, strict=True):
            if not pending.done():
                break
            found.pop(name, None)
            if offset is not None:
                found[name] = offset
        return found


@pytest.fixture
def node() -> StandIn:
    node = StandIn()
    node.grow([b"%d" % number for number in range(10)])
    return node


@pytest.fixture
def disk(node: StandIn) -> Disk:
    return Disk(node.log)


@pytest.fixture
def readers(node: StandIn, disk: Disk) -> Readers:
    return Readers({}, node.log, disk.begin, disk.write)


def test_a_reader_begins_at_the_start_and_is_kept_from_its_first_use(
    readers: Readers, disk: Disk
) -> None:
    reader = readers.open("billing")
    assert disk.rows == [("billing", 0)]
    assert (reader.name, reader.position) == ("billing", 0)
    assert next(reader).data == b"0"
    assert reader.position == 1
    disk.sync()
    readers.open("billing")
    assert disk.rows == [("billing", 0)]


def test_a_reader_begins_where_it_has_acknowledged(
    node: StandIn, readers: Readers, disk: Disk
) -> None:
    reader = readers.open("billing")
    disk.sync()
    saved = reader.ack(4)
    assert not saved.done()
    disk.sync()
    saved.result(SECONDS)
    assert next(reader).data == b"0"  # its own iteration goes on
    again = Readers(disk.durable(), node.log, disk.begin, disk.write).open("billing")
    assert again.position == 4
    assert next(again).data == b"4"
    assert readers.open("billing").position == 4


def test_a_coroutine_iterates_too(readers: Readers) -> None:
    async def first(reader: NamedReader) -> bytes:
        async for record in reader:
            return record.data
        return b""

    assert asyncio.run(first(readers.open("billing"))) == b"0"


def test_the_first_use_on_a_compacted_log_begins_at_what_is_left(
    node: StandIn, readers: Readers, disk: Disk
) -> None:
    node.grow([b"10"])
    node.compact(1)
    assert next(readers.open("late")).data == b"10"
    assert disk.rows == [("late", 10)]


def test_where_a_new_reader_begins_is_chosen_by_who_compacts(node: StandIn, disk: Disk) -> None:
    chosen: Pending[int] = Pending()
    resolve(chosen, 7)
    readers = Readers({}, node.log, lambda _: chosen, disk.write)
    assert node.log.first_offset == 0
    assert readers.open("billing").position == 7
    assert disk.rows == [("billing", 7)]


def test_one_too_many_is_not_kept_the_log_for(readers: Readers, disk: Disk) -> None:
    for number in range(READERS_MAX):
        readers.open(f"r{number}")
    with pytest.raises(ConfigError, match="one too many"):
        readers.open("r64")
    assert disk.rows[-1] == ("r64", None)


def test_what_waits_when_its_reader_is_forgotten_is_done_with_that(
    readers: Readers, disk: Disk
) -> None:
    reader = readers.open("billing")
    waiting, forgotten = reader.ack(5), reader.forget()
    assert disk.rows == [("billing", 0), ("billing", None)]
    assert not waiting.done()
    disk.sync()
    waiting.result(SECONDS)
    forgotten.result(SECONDS)
    assert disk.rows == [("billing", 0), ("billing", None)]


def test_a_reader_left_behind_is_told_and_goes_on_when_it_says_so(
    node: StandIn, readers: Readers, disk: Disk
) -> None:
    reader = readers.open("slow")
    disk.sync()
    node.grow([b"10"])
    node.compact(1)
    with pytest.raises(OffsetOutOfRange) as gone:
        next(reader)
    reader.ack(gone.value.first_offset)
    assert next(readers.open("slow")).data == b"10"


def test_an_offset_that_is_not_above_changes_nothing(readers: Readers, disk: Disk) -> None:
    reader = readers.open("billing")
    disk.sync()
    saved = reader.ack(5)
    for lower in (5, 4, 0, -1):
        assert reader.ack(lower) is saved
    assert disk.rows == [("billing", 0), ("billing", 5)]
    assert reader.ack(10) is not saved  # the end itself: everything is done with


@pytest.mark.parametrize("wrong", [11, 10**12])
def test_nobody_is_done_with_what_is_not_there_yet(readers: Readers, wrong: int) -> None:
    with pytest.raises(ValueError, match="the log ends at 10"):
        readers.open("billing").ack(wrong)


@pytest.mark.parametrize("wrong", [True, 1.0, "1", None])
def test_an_offset_is_an_integer(readers: Readers, wrong: object) -> None:
    with pytest.raises(TypeError):
        readers.open("billing").ack(wrong)  # type: ignore[arg-type]


def test_however_many_acknowledge_one_write_is_under_way(readers: Readers, disk: Disk) -> None:
    reader = readers.open("billing")
    disk.sync()
    saved = [reader.ack(offset) for offset in range(1, 11)]
    assert disk.rows[1:] == [("billing", 1)]
    disk.sync()
    assert disk.rows[1:] == [("billing", 1), ("billing", 10)]
    assert saved[0].done()
    assert not saved[1].done()
    disk.sync()
    for one in saved:
        one.result(SECONDS)
    assert disk.durable() == {"billing": 10}


def test_a_reader_that_is_forgotten_pins_nothing_and_begins_anew(
    node: StandIn, readers: Readers, disk: Disk
) -> None:
    reader = readers.open("billing")
    disk.sync()
    reader.ack(5)
    gone = reader.forget()
    assert not gone.done()
    with pytest.raises(ConfigError, match="is forgotten"):
        reader.ack(6)
    disk.sync()
    disk.sync()
    gone.result(SECONDS)
    assert disk.durable() == {}
    reader.forget()
    disk.sync()
    assert readers.open("billing").position == 0
    disk.sync()
    assert disk.durable() == {"billing": 0}


def test_one_begun_anew_at_once_is_not_undone_by_the_old_one(readers: Readers, disk: Disk) -> None:
    reader = readers.open("billing")
    reader.ack(5)
    reader.forget()
    again = readers.open("billing")
    again.ack(3)
    for _ in range(4):
        disk.sync()
    assert disk.durable() == {"billing": 3}


@pytest.mark.parametrize("name", ["", "a b", "é", "x" * 65, None, 7])
def test_a_reader_has_a_name(readers: Readers, disk: Disk, name: str) -> None:
    with pytest.raises(ConfigError, match="no name of a reader"):
        readers.open(name)
    assert disk.rows == []


def test_readers_are_bounded(readers: Readers, disk: Disk) -> None:
    first = readers.open("r0")
    for number in range(1, READERS_MAX):
        readers.open(f"r{number}")
    disk.sync()
    with pytest.raises(ConfigError, match="one too many"):
        readers.open("r64")
    readers.open("r7")  # a known one is none too many
    first.forget()
    disk.sync()
    readers.open("r64")
    assert len(readers._rows) == READERS_MAX


def test_what_waits_when_the_log_closes_is_told_the_truth(readers: Readers, disk: Disk) -> None:
    reader = readers.open("billing")
    disk.sync()
    under_way, waiting = reader.ack(1), reader.ack(2)
    disk.closed = True
    fail_all((disk.pendings[-1],), Closed("the log is closed"))
    for saved in (under_way, waiting, reader.ack(2), reader.ack(1)):
        with pytest.raises(Closed):
            saved.result(SECONDS)
    with pytest.raises(Closed):
        readers.open("other")
