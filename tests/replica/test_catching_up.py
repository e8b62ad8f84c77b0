"""How a snapshot is given and taken, part by part, and how a log is dropped behind it."""

from __future__ import annotations

from zlib import crc32

import pytest

from replog.agreement import EntryRef, Message
from replog.entry import Epoch
from replog.errors import PeerFault
from replog.membership import Membership
from replog.messages import FetchPiece, OfferSnapshot, SnapshotPart
from replog.quorum import majorities
from replog.replica.compaction import CHECK_MS, ENTRIES_PER_STEP_MAX, Compaction, Needed
from replog.replica.effects import LoadDigest, LoadDroppable, LoadPart, PartOfPiece
from replog.replica.giving import PIN_MS, TAKING_MS_MAX, Giving
from replog.replica.loads import Loads
from replog.replica.receiving import SILENCES_MAX, Receiving
from replog.replica.snapshots import Snapshots, Written
from replog.retention import Droppable, Retention
from replog.snapshot import NO_BASE, Position, Snapshot, StateDigest, encode_snapshot
from replog.store.interface import StoredPiece, StoredSnapshot

RETRY_MS = 200
MEMBERSHIP = Membership(majorities({"n1", "n2", "n3"}))
PIECES = (b"a" * 100, b"b" * 100, b"c" * 30)
PART_BYTES = 60


def snapshot(index: int, pieces: tuple[bytes, ...] = PIECES) -> Snapshot:
    digest = StateDigest()
    for piece in pieces:
        digest.add(piece)
    position = Position(index, index, b"d" * 16, 1, {})
    return Snapshot(
        position, Epoch(1, "n1"), MEMBERSHIP, digest.pieces, digest.size, digest.value()
    )


class Posted:
    """Messages that were sent."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, Message, tuple[bytes, ...]]] = []

    def __call__(self, to: str, message: Message, parts: object = ()) -> None:
        assert isinstance(parts, list | tuple)
        self.messages.append((to, message, tuple(parts)))

    def take(self) -> list[tuple[str, Message, tuple[bytes, ...]]]:
        messages, self.messages = self.messages, []
        return messages


class Core:
    """Says whether it installs, and remembers what."""

    def __init__(self) -> None:
        self.answer = True
        self.installed: list[EntryRef] = []

    def install(self, now: int, base: EntryRef) -> bool:
        self.installed.append(base)
        return self.answer


class Laggard:
    """A node that receives; its disk takes everything at once when told."""

    def __init__(self) -> None:
        self.core = Core()
        self.posted = Posted()
        self.loads = Loads()
        self.snapshots = Snapshots(None)
        self.receiving = Receiving(
            self.core,  # type: ignore[arg-type]
            MEMBERSHIP,
            self.snapshots,
            self.loads,
            retry_ms=RETRY_MS,
            post=self.posted,
        )
        self.batch_id = 0
        self.disk: dict[int, bytes] = {}

    def offer(self, now: int, sender: str, snapshot_id: int, offered: Snapshot) -> None:
        header = encode_snapshot(offered)
        self.receiving.offered(now, sender, OfferSnapshot(snapshot_id), header, 0)

    def wanted(self) -> FetchPiece | None:
        """The last question that was sent."""
        messages = [message for _, message, _ in self.posted.take()]
        last = messages[-1] if messages else None
        assert last is None or isinstance(last, FetchPiece)
        return last

    def sync(self, now: int) -> None:
        """What is written comes to the disk, and is reported."""
        self.batch_id += 1
        changes = self.snapshots.take_changes(self.batch_id)
        if changes.dropped:
            self.disk.clear()
        self.disk.update({piece.number: piece.data for piece in changes.pieces})
        for stored in self.snapshots.durable(self.batch_id):
            assert isinstance(stored.ticket, Written)
            self.receiving.written(now, stored.ticket.transfer)

    def read_back(self, now: int) -> None:
        ((load_id, load),) = self.loads.take()
        assert isinstance(load, LoadDigest)
        digest = StateDigest()
        for number in range(1, load.pieces + 1):
            digest.add(self.disk[number])
        self.loads.answer(now, load_id, digest)


def answer(want: FetchPiece, pieces: tuple[bytes, ...] = PIECES) -> tuple[SnapshotPart, bytes]:
    piece = pieces[want.number - 1]
    data = piece[want.start : want.start + PART_BYTES]
    return SnapshotPart(*want, len(piece), crc32(piece)), data


def receive_all(laggard: Laggard, sender: str, pieces: tuple[bytes, ...] = PIECES) -> int:
    """Answer every question; how many parts that took."""
    parts = 0
    while True:
        want = laggard.wanted()
        if want is None:
            return parts
        laggard.receiving.part(1, sender, *answer(want, pieces))
        laggard.sync(1)
        parts += 1


def test_a_snapshot_is_pulled_written_read_back_and_installed() -> None:
    laggard = Laggard()
    offered = snapshot(9)
    laggard.offer(1, "n2", 7, offered)
    assert receive_all(laggard, "n2") == 5  # two parts of each long piece, one of the short one
    assert laggard.core.installed == []
    laggard.read_back(1)
    assert laggard.core.installed == [EntryRef(9, Epoch(1, "n1"))]
    assert laggard.receiving.installing == StoredSnapshot(9 << 1 | 1, offered)


def test_a_header_alone_is_installed_without_any_part() -> None:
    laggard = Laggard()
    laggard.offer(1, "n2", 7, snapshot(9, ()))
    assert laggard.wanted() is None
    laggard.read_back(1)
    assert laggard.core.installed == [EntryRef(9, Epoch(1, "n1"))]


def test_a_lost_question_or_answer_is_asked_again() -> None:
    laggard = Laggard()
    laggard.offer(1, "n2", 7, snapshot(9))
    assert laggard.wanted() == FetchPiece(7, 1, 0)
    assert laggard.receiving.deadline == 1 + RETRY_MS
    laggard.receiving.ask_again(RETRY_MS, 0)
    assert laggard.wanted() is None
    laggard.receiving.ask_again(1 + RETRY_MS, 0)
    assert laggard.wanted() == FetchPiece(7, 1, 0)


def test_a_part_that_comes_twice_counts_once() -> None:
    laggard = Laggard()
    laggard.offer(1, "n2", 7, snapshot(9))
    want = laggard.wanted()
    assert want is not None
    laggard.receiving.part(1, "n2", *answer(want))
    laggard.receiving.part(1, "n2", *answer(want))
    assert [message for _, message, _ in laggard.posted.take()] == [FetchPiece(7, 1, PART_BYTES)]
    assert receive_all(laggard, "n2") == 0


def test_a_damaged_piece_is_fetched_again() -> None:
    laggard = Laggard()
    laggard.offer(1, "n2", 7, snapshot(9))
    for expected_start in (0, PART_BYTES):
        want = laggard.wanted()
        assert want == FetchPiece(7, 1, expected_start)
        part, data = answer(want)
        if expected_start:
            with pytest.raises(PeerFault, match="checksum"):
                laggard.receiving.part(1, "n2", part, b"!" * len(data))
        else:
            laggard.receiving.part(1, "n2", part, data)
    laggard.sync(1)
    assert laggard.disk == {}
    laggard.receiving.ask_again(1 + RETRY_MS, 0)
    assert laggard.wanted() == FetchPiece(7, 1, 0)


def test_a_state_that_does_not_match_its_digest_is_dropped() -> None:
    laggard = Laggard()
    laggard.offer(1, "n2", 7, snapshot(9))
    receive_all(laggard, "n2", (PIECES[0], PIECES[0], PIECES[2]))
    laggard.read_back(1)
    assert laggard.core.installed == []
    assert laggard.receiving.installing is None
    laggard.sync(1)
    assert laggard.disk == {}


def test_a_snapshot_that_the_core_does_not_need_is_dropped() -> None:
    laggard = Laggard()
    laggard.core.answer = False
    laggard.offer(1, "n2", 7, snapshot(9))
    receive_all(laggard, "n2")
    laggard.read_back(1)
    assert laggard.receiving.installing is None
    laggard.sync(1)
    assert laggard.disk == {}


def test_what_is_delivered_already_is_not_taken() -> None:
    laggard = Laggard()
    header = encode_snapshot(snapshot(9))
    laggard.receiving.offered(1, "n2", OfferSnapshot(7), header, delivered_index=9)
    assert laggard.wanted() is None


def test_a_transfer_ends_when_the_log_catches_up_by_itself() -> None:
    laggard = Laggard()
    laggard.offer(1, "n2", 7, snapshot(9))
    laggard.receiving.ask_again(2, delivered_index=9)
    assert laggard.receiving.deadline is None
    assert laggard.receiving.status() == ""


def test_another_offer_is_taken_only_from_a_silent_senders_place() -> None:
    laggard = Laggard()
    laggard.offer(1, "n2", 7, snapshot(9))
    laggard.offer(2, "n3", 8, snapshot(12))
    assert laggard.wanted() == FetchPiece(7, 1, 0)
    now = 1
    for _ in range(SILENCES_MAX):
        now += RETRY_MS
        laggard.receiving.ask_again(now, 0)
    laggard.offer(now, "n3", 8, snapshot(12))
    assert laggard.wanted() == FetchPiece(8, 1, 0)


def test_a_newer_offer_of_the_same_sender_replaces_what_it_no_longer_has() -> None:
    laggard = Laggard()
    laggard.offer(1, "n2", 7, snapshot(9))
    laggard.offer(2, "n2", 8, snapshot(12))
    assert laggard.wanted() == FetchPiece(8, 1, 0)


def test_few_pieces_wait_for_the_disk() -> None:
    laggard = Laggard()
    laggard.offer(1, "n2", 7, snapshot(9, tuple([b"x" * 10] * 9)))
    asked = 0
    while (want := laggard.wanted()) is not None:
        asked += 1
        laggard.receiving.part(1, "n2", *answer(want, tuple([b"x" * 10] * 9)))
    assert asked == 2
    laggard.sync(1)
    assert laggard.wanted() == FetchPiece(7, 3, 0)


def test_what_the_disk_has_no_room_for_is_not_begun_and_the_status_says_so() -> None:
    laggard = Laggard()
    laggard.snapshots.disk_bytes_free = sum(map(len, PIECES)) - 1
    laggard.offer(1, "n2", 7, snapshot(9))
    assert laggard.wanted() is None
    assert laggard.receiving.status().startswith("no room on the disk for 230 bytes")
    laggard.snapshots.disk_bytes_free += 1
    laggard.offer(2, "n2", 7, snapshot(9))
    assert laggard.receiving.status().startswith("0 of 230 bytes")
    assert laggard.wanted() is not None


def test_a_transfer_that_the_disk_has_no_more_room_for_is_given_up() -> None:
    laggard = Laggard()
    laggard.offer(1, "n2", 7, snapshot(9))
    laggard.snapshots.disk_bytes_free = len(PIECES[0])
    # What is on its way to the disk counts, though the host cannot have measured it yet.
    for _ in range(4):
        want = laggard.wanted()
        assert want is not None
        laggard.receiving.part(1, "n2", *answer(want))
    assert laggard.wanted() is None
    assert laggard.receiving.status() == ""
    assert laggard.receiving.deadline is None
    assert laggard.snapshots.take_changes(1).pieces == []


def test_a_header_of_another_membership_or_of_no_sense_is_a_fault() -> None:
    laggard = Laggard()
    other = snapshot(9)._replace(membership=Membership(majorities({"n1", "n9"})))
    for header in (encode_snapshot(other), b"", b"\x90", encode_snapshot(snapshot(9))[:-1]):
        with pytest.raises(PeerFault):
            laggard.receiving.offered(1, "n2", OfferSnapshot(7), header, 0)


class Giver:
    """A node that gives."""

    def __init__(self, newest: StoredSnapshot | None = None) -> None:
        self.posted = Posted()
        self.loads = Loads()
        self.snapshots = Snapshots(newest)
        self.giving = Giving(
            self.snapshots, self.loads, part_bytes_max=PART_BYTES, post=self.posted
        )

    def seal(self, *indexes: int) -> None:
        """Keep these snapshots, one after the other."""
        for index in indexes:
            self.snapshots.seal(StoredSnapshot(index << 1, snapshot(index)))
            self.snapshots.take_changes(index)
            self.snapshots.durable(index)


def test_a_snapshot_is_offered_once_it_is_on_the_disk() -> None:
    giver = Giver()
    stored = StoredSnapshot(18, snapshot(9))
    giver.snapshots.seal(stored)
    giver.giving.offer(1, "n3")
    giver.snapshots.take_changes(1)
    giver.giving.offer(1, "n3")
    assert giver.posted.take() == []
    giver.snapshots.durable(1)
    giver.giving.offer(1, "n3")
    assert giver.posted.take() == [("n3", OfferSnapshot(18), (encode_snapshot(stored.snapshot),))]


def test_parts_are_given_of_what_was_offered() -> None:
    giver = Giver(StoredSnapshot(18, snapshot(9)))
    giver.giving.offer(1, "n3")
    giver.posted.take()
    giver.giving.fetched(1, "n3", FetchPiece(18, 2, 60))
    ((load_id, load),) = giver.loads.take()
    assert load == LoadPart(18, 2, 60, PART_BYTES)
    giver.loads.answer(1, load_id, PartOfPiece(b"b" * 40, 100, 5))
    assert giver.posted.take() == [("n3", SnapshotPart(18, 2, 60, 100, 5), (b"b" * 40,))]


def test_whoever_asks_for_what_is_gone_gets_no_offer_that_the_core_did_not_want() -> None:
    """The core of Raft answers a refusal in its own term; anything else might be installed under an
    older leader, which would then count what it does not have."""
    giver = Giver(StoredSnapshot(18, snapshot(9)))
    giver.giving.fetched(1, "n3", FetchPiece(18, 1, 0))
    assert giver.posted.take() == []
    giver.giving.offer(1, "n3")
    giver.posted.take()
    giver.giving.fetched(1, "n3", FetchPiece(4, 1, 0))
    assert giver.posted.take() == []
    assert giver.loads.take() == []


def test_an_older_snapshot_is_kept_while_somebody_takes_it() -> None:
    giver = Giver()
    giver.seal(9)
    giver.giving.offer(1, "n3")
    giver.seal(12)
    giver.giving.fetched(TAKING_MS_MAX, "n3", FetchPiece(18, 1, 0))
    giver.giving.let_go(PIN_MS)
    assert giver.giving.pinned_index == 9
    assert giver.snapshots.take_changes(13).dropped == []
    giver.giving.let_go(TAKING_MS_MAX + PIN_MS)
    assert giver.giving.pinned_index is None
    assert giver.snapshots.take_changes(14).dropped == [18]


def test_an_older_snapshot_is_kept_until_the_newer_one_is_on_the_disk() -> None:
    snapshots = Snapshots(StoredSnapshot(18, snapshot(9)))
    snapshots.installs(StoredSnapshot(24, snapshot(12)))
    snapshots.let_go(set())
    assert snapshots.take_changes(2).dropped == []
    snapshots.durable(2)
    snapshots.let_go(set())
    assert snapshots.take_changes(3).dropped == [18]


def test_whoever_has_taken_one_and_lacks_more_is_offered_the_newest() -> None:
    giver = Giver()
    giver.seal(9)
    giver.giving.offer(1, "n3")
    giver.seal(12)
    giver.giving.offer(2, "n3")
    giver.giving.offer(2 + TAKING_MS_MAX, "n3")
    offered = [message for _, message, _ in giver.posted.take()]
    assert offered == [OfferSnapshot(18), OfferSnapshot(18), OfferSnapshot(24)]


def test_a_snapshot_that_came_too_late_is_dropped() -> None:
    snapshots = Snapshots(StoredSnapshot(24, snapshot(12)))
    snapshots.stage(StoredPiece(18, 1, b"x"), "piece")
    snapshots.seal(StoredSnapshot(18, snapshot(9)), "ticket")
    changes = snapshots.take_changes(2)
    assert changes.sealed is None
    assert list(changes.pieces) == []
    assert list(changes.dropped) == [18]
    (piece, (ticket, newest)) = snapshots.durable(2)
    assert piece == ("piece", None)
    assert (ticket, newest.index) == ("ticket", 12)


def look(compaction: Compaction, loads: Loads, now: int, index_max: int) -> LoadDroppable | None:
    compaction.look(now, 0, lambda: Needed(index_max, None))
    found = loads.take()
    if not found:
        return None
    ((load_id, load),) = found
    assert isinstance(load, LoadDroppable)
    loads.answer(now, load_id, Droppable(load.index_max, 10 * load.index_max))
    return load


def test_a_log_is_dropped_in_steps_each_behind_the_last() -> None:
    loads = Loads()
    compaction = Compaction(Retention(records_max=8), NO_BASE, loads)
    compaction.delivered(0, 1, 1)
    assert look(compaction, loads, CHECK_MS - 1, 1000) is None
    assert look(compaction, loads, CHECK_MS, 2 * ENTRIES_PER_STEP_MAX + 1) is not None
    assert compaction.take_first_offset() == 10 * (2 * ENTRIES_PER_STEP_MAX + 1)
    assert compaction.take_first_offset() is None
    steps = []
    batch_id = 0
    while compaction.has_step:
        batch_id += 1
        steps.append(compaction.step(batch_id))
        assert not compaction.has_step
        compaction.durable(batch_id - 1)
        assert not compaction.has_step
        compaction.durable(batch_id)
    assert steps == [
        ENTRIES_PER_STEP_MAX,
        2 * ENTRIES_PER_STEP_MAX,
        2 * ENTRIES_PER_STEP_MAX + 1,
    ]


def test_a_log_that_grows_fast_is_looked_at_sooner() -> None:
    loads = Loads()
    compaction = Compaction(Retention(records_max=80), NO_BASE, loads)
    compaction.delivered(0, 10, 1)
    assert look(compaction, loads, 1, 5) is None
    compaction.delivered(0, 1, 1)
    assert look(compaction, loads, 1, 5) is not None


def test_nothing_is_looked_for_where_nothing_may_go() -> None:
    loads = Loads()
    compaction = Compaction(Retention(age_ms_max=5), NO_BASE, loads)
    compaction.delivered(0, 1, 1)
    assert look(compaction, loads, CHECK_MS, 0) is None
    assert compaction.deadline == 2 * CHECK_MS
    without = Compaction(None, NO_BASE, loads)
    without.delivered(0, 1, 1)
    assert without.deadline is None


def test_an_install_leaves_nothing_to_drop() -> None:
    loads = Loads()
    compaction = Compaction(Retention(records_max=8), NO_BASE, loads)
    compaction.delivered(0, 1, 1)
    look(compaction, loads, CHECK_MS, 7)
    compaction.installed(snapshot(9).base)
    assert not compaction.has_step
    assert compaction.first_offset == 9
    assert compaction.take_first_offset() is None
