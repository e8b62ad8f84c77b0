"""Each judge of the simulator lets a right history pass and sees through a wrong one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from replog.entry import DIGEST_START, NO_EPOCH, Entry, Epoch, Kind, Run, make_entry, pack_run
from replog.producers import ProducerRow
from replog.quorum import majorities
from replog.replica.effects import Completion
from replog.store.interface import Delivered, Position, StoredEntry
from replog.store.memory import MemoryDisk
from replog.store.rules import Outline
from replog.testing.checkers import (
    Acknowledgements,
    AppendTicket,
    Barriers,
    Contents,
    Durability,
    History,
    Leaders,
    Manners,
    Stewards,
)
from replog.testing.violation import Violation

A, B, C = (b"n1/1/0 a", b"n1/1/1 b", b"n1/1/2 c")
EPOCH = Epoch(1, "n1")


def entry_of(*records: bytes) -> Entry:
    """One run of these records; what its header says of the run is not judged."""
    if not records:
        return make_entry(Kind.NOOP, (), (), 1)
    body = pack_run(records)
    return make_entry(Kind.RECORDS, [Run("n1", 1, 0, len(records), len(body))], [body], 1)


def row(index: int, offset: int, count: int, *, time: int = 1, digest: bytes = b"d") -> Delivered:
    return Delivered(index, offset, count, (0,) if count else (), time, digest)


def history(*nodes: str) -> History:
    """Of nodes that have just started, and clients who have submitted three records."""
    empty = History()
    empty.submitted.update((A, B, C))
    for node in nodes or ("n1", "n2"):
        empty.started(node, Position(0, 0, DIGEST_START, 0, {}))
    return empty


def disk_with(*entries: Entry) -> MemoryDisk:
    disk = MemoryDisk(b"store id")
    disk.log = [StoredEntry(index, EPOCH, entry.data) for index, entry in enumerate(entries, 1)]
    disk.outline = Outline(NO_EPOCH, (), len(entries), disk.outline.position)
    return disk


def size_of(tickets: Sequence[AppendTicket]) -> int:
    """Bytes of their records."""
    return sum([len(payload) for ticket in tickets for payload in ticket.payloads])


# --- History --------------------------------------------------------------------------------------


def test_the_same_deliveries_on_two_nodes_are_right() -> None:
    judge = history()
    for node in ("n1", "n2"):
        first = node == "n1"
        assert judge.delivered(node, row(1, 0, 2), entry_of(A, B)) is first
        assert judge.delivered(node, row(2, 2, 0), entry_of()) is first
        assert judge.delivered(node, row(3, 2, 1), entry_of(C)) is first
    assert judge.records == [A, B, C]
    judge.started("n2", Position(2, 2, b"d", 1, {"n1": ProducerRow(1, 2)}))
    assert judge.applied == {"n1": 3, "n2": 2}


def test_other_bytes_at_an_index_are_wrong() -> None:
    judge = history()
    judge.delivered("n1", row(1, 0, 1), entry_of(A))
    with pytest.raises(Violation, match="n2 delivers other bytes at entry 1"):
        judge.delivered("n2", row(1, 0, 1), entry_of(B))


@pytest.mark.parametrize(
    "other",
    [row(1, 0, 1, digest=b"other"), row(1, 0, 0), row(1, 1, 1), row(1, 0, 1, time=2)],
    ids=["digest", "accepted runs", "offset", "timestamp"],
)
def test_another_row_for_an_entry_is_wrong(other: Delivered) -> None:
    judge = history()
    judge.delivered("n1", row(1, 0, 1), entry_of(A))
    with pytest.raises(Violation, match="n2 delivers Delivered"):
        judge.delivered("n2", other, entry_of(A))


@pytest.mark.parametrize("index", [0, 1, 3])
def test_a_delivery_out_of_order_is_wrong(index: int) -> None:
    judge = history()
    judge.delivered("n1", row(1, 0, 1), entry_of(A))
    with pytest.raises(Violation, match=f"n1 delivers entry {index} after 1"):
        judge.delivered("n1", row(index, 1, 1), entry_of(B))


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ((A, A), "is delivered after life 1, number 0"),
        ((B,), "is delivered after life 0, number -1"),
        ((A, C), "is delivered after life 1, number 0"),
        ((b"n1/1/0 x",), "which nobody has submitted"),
    ],
    ids=["twice", "not the first", "a gap", "invented"],
)
def test_a_wrong_record_is_seen(records: tuple[bytes, ...], message: str) -> None:
    with pytest.raises(Violation, match=message):
        history().delivered("n1", row(1, 0, len(records)), entry_of(*records))


def test_a_record_of_an_ended_life_after_one_of_the_next_is_wrong() -> None:
    judge = history()
    judge.submitted.add(b"n1/2/0 a")
    judge.delivered("n1", row(1, 0, 1), entry_of(b"n1/2/0 a"))
    with pytest.raises(Violation, match="is delivered after life 2"):
        judge.delivered("n1", row(2, 1, 1), entry_of(A))


def test_a_record_whose_client_was_refused_is_wrong() -> None:
    judge = history()
    Acknowledgements(judge).refused([AppendTicket(1, "n1", 1, (A,))])
    with pytest.raises(Violation, match="or was refused"):
        judge.delivered("n1", row(1, 0, 1), entry_of(A))


def test_an_offset_that_is_not_the_next_is_wrong() -> None:
    with pytest.raises(Violation, match="the next offset is 0"):
        history().delivered("n1", row(1, 1, 1), entry_of(A))


def test_a_count_of_other_records_than_there_are_is_wrong() -> None:
    with pytest.raises(Violation, match="counts other records"):
        history().delivered("n1", row(1, 0, 2), entry_of(A))


def test_time_that_falls_is_wrong() -> None:
    judge = history()
    judge.delivered("n1", row(1, 0, 1, time=5), entry_of(A))
    with pytest.raises(Violation, match="older than the entry before it"):
        judge.delivered("n1", row(2, 1, 1, time=4), entry_of(B))


@pytest.mark.parametrize(
    ("position", "message"),
    [
        (Position(2, 2, b"d", 1, {}), "nobody delivered beyond 1"),
        (Position(1, 1, b"other", 1, {}), "another digest"),
        (Position(1, 2, b"d", 1, {}), "another digest"),
    ],
    ids=["beyond what was delivered", "digest", "offset"],
)
def test_a_life_that_starts_from_another_past_is_wrong(position: Position, message: str) -> None:
    judge = history()
    judge.delivered("n1", row(1, 0, 1), entry_of(A))
    with pytest.raises(Violation, match=message):
        judge.started("n2", position)


# --- disks ----------------------------------------------------------------------------------------


def test_delivered_entries_lie_on_a_quorum_of_disks() -> None:
    entry = entry_of(A)
    disks = {"n1": disk_with(entry), "n2": disk_with(entry), "n3": disk_with()}
    judge = Durability(majorities(set(disks)), disks)
    judge.delivered(1, entry.data)
    disks["n2"].log[0] = StoredEntry(1, EPOCH, entry_of(B).data)
    with pytest.raises(Violation, match=r"entry 1 is delivered, but only \['n1'\]"):
        judge.delivered(1, entry.data)


def test_an_index_and_epoch_name_one_entry() -> None:
    judge = Contents()
    judge.wrote("n1", StoredEntry(1, EPOCH, b"one"))
    judge.wrote("n2", StoredEntry(1, EPOCH, b"one"))
    judge.wrote("n2", StoredEntry(1, Epoch(2, "n2"), b"other"))
    with pytest.raises(Violation, match="n2 stores other bytes as entry 1"):
        judge.wrote("n2", StoredEntry(1, EPOCH, b"other"))


# --- messages -------------------------------------------------------------------------------------


def test_two_leaders_of_an_epoch_are_wrong() -> None:
    judge = Leaders(by_number=True)
    assert judge.leads("n1", 1, EPOCH)
    assert not judge.leads("n1", 1, EPOCH)
    assert judge.leads("n2", 1, Epoch(2, "n2"))
    assert judge.changes == 1
    with pytest.raises(Violation, match="n2 leads"):
        judge.leads("n2", 1, Epoch(1, "n2"))
    with pytest.raises(Violation, match="n3 leads"):
        judge.leads("n3", 1, Epoch(3, "n2"))


@pytest.mark.parametrize("agreement", ["raft", "paxos"])
def test_an_epoch_that_two_lives_lead_is_wrong(agreement: str) -> None:
    judge = Leaders(by_number=agreement == "raft")
    judge.leads("n1", 1, EPOCH)
    with pytest.raises(Violation, match="life 2 of n1 leads"):
        judge.leads("n1", 2, EPOCH)


def test_where_epochs_are_pairs_a_number_may_have_two_leaders() -> None:
    judge = Leaders(by_number=False)
    assert judge.leads("n1", 1, EPOCH)
    assert judge.leads("n2", 1, Epoch(1, "n2"))


def test_blame_is_wrong_where_all_are_correct() -> None:
    Manners().blames("n1", Counter({"identity": 1}), "")
    with pytest.raises(Violation, match="n1 drops a frame as its peer's fault: n2: nonsense"):
        Manners().blames("n1", Counter({"peer fault": 1}), "n2: nonsense")


def test_a_leader_may_go_on_while_a_quorum_is_heard_and_for_a_while_after() -> None:
    judge = Stewards(majorities({"n1", "n2", "n3"}), 600)
    judge.leads("n1", 1, Epoch(1, "n1"), 0)
    judge.leads("n1", 1, Epoch(1, "n1"), 599)
    judge.heard("n1", "n2", 590)
    judge.leads("n1", 1, Epoch(1, "n1"), 1190)
    with pytest.raises(Violation, match=r"n1 still leads .* for 600 ms heard only from \[\]"):
        judge.leads("n1", 1, Epoch(1, "n1"), 1191)


def test_a_new_leadership_has_time_to_be_answered() -> None:
    judge = Stewards(majorities({"n1", "n2", "n3"}), 600)
    judge.leads("n1", 1, Epoch(1, "n1"), 0)
    judge.leads("n1", 1, Epoch(2, "n1"), 700)
    judge.leads("n1", 2, Epoch(2, "n1"), 1400)


def test_what_another_node_hears_counts_for_that_node() -> None:
    judge = Stewards(majorities({"n1", "n2", "n3"}), 600)
    judge.leads("n1", 1, Epoch(1, "n1"), 0)
    judge.heard("n2", "n3", 590)
    with pytest.raises(Violation, match="n1 still leads"):
        judge.leads("n1", 1, Epoch(1, "n1"), 600)


# --- answers to clients ---------------------------------------------------------------------------


def acknowledgements() -> Acknowledgements:
    """Of a history with two records in one entry."""
    judge = history()
    judge.delivered("n1", row(1, 0, 2), entry_of(A, B))
    return Acknowledgements(judge)


RUN = AppendTicket(1, "n1", 1, (A, B))


def test_records_are_acknowledged_where_they_lie() -> None:
    singles = [AppendTicket(2, "n1", 1, (A,)), AppendTicket(3, "n1", 1, (B,))]
    judge = acknowledgements()
    assert judge.acknowledged("n1", 1, Completion([RUN], 0, 2, 9, whole=True)) == [RUN]
    assert (
        judge.acknowledged("n1", 1, Completion(singles, 0, 2, size_of(singles), whole=False))
        == singles
    )


@pytest.mark.parametrize("offset", [1, 2, 100])
def test_an_acknowledgement_at_another_offset_is_wrong(offset: int) -> None:
    with pytest.raises(Violation, match=f"acknowledged at offset {offset}, where it is not"):
        acknowledgements().acknowledged("n1", 1, Completion([RUN], offset, 2, 9, whole=True))


def test_a_second_acknowledgement_is_wrong() -> None:
    judge = acknowledgements()
    judge.acknowledged("n1", 1, Completion([RUN], 0, 2, 9, whole=True))
    with pytest.raises(Violation, match="is acknowledged twice"):
        judge.acknowledged("n1", 1, Completion([RUN], 0, 2, 9, whole=True))


def test_what_was_submitted_after_an_acknowledgement_lies_behind_it() -> None:
    first, second = AppendTicket(2, "n1", 1, (B,)), AppendTicket(3, "n1", 1, (A,))
    judge = acknowledgements()
    judge.submitted([first])
    judge.acknowledged("n1", 1, Completion([first], 1, 1, size_of([first]), whole=False))
    judge.submitted([second])
    with pytest.raises(Violation, match="lies at offset 0, before what was acknowledged"):
        judge.acknowledged("n1", 1, Completion([second], 0, 1, size_of([second]), whole=False))


def test_what_was_submitted_together_may_be_acknowledged_in_any_order() -> None:
    both = [AppendTicket(2, "n1", 1, (B,)), AppendTicket(3, "n1", 1, (A,))]
    judge = acknowledgements()
    judge.submitted(both)
    judge.acknowledged("n1", 1, Completion(both[:1], 1, 1, size_of(both[:1]), whole=False))
    judge.acknowledged("n1", 1, Completion(both[1:], 0, 1, size_of(both[1:]), whole=False))


def test_an_acknowledgement_by_another_life_is_wrong() -> None:
    with pytest.raises(Violation, match="life 2 of n1 acknowledges"):
        acknowledgements().acknowledged("n1", 2, Completion([RUN], 0, 2, 9, whole=True))


def test_an_acknowledgement_of_another_number_of_records_is_wrong() -> None:
    with pytest.raises(Violation, match="another number of records"):
        acknowledgements().acknowledged("n1", 1, Completion([RUN], 0, 3, 9, whole=True))


def test_a_refusal_of_what_is_in_the_log_is_wrong() -> None:
    with pytest.raises(Violation, match="is refused and yet in the log"):
        acknowledgements().refused([RUN])


def test_a_refusal_of_what_was_acknowledged_is_wrong() -> None:
    judge = acknowledgements()
    judge.acknowledged("n1", 1, Completion([RUN], 0, 2, 9, whole=True))
    with pytest.raises(Violation, match="refused after it was acknowledged"):
        judge.refused([RUN])


def test_a_barrier_covers_what_was_delivered_anywhere_before_it() -> None:
    log = history()
    judge = Barriers(log)
    early = judge.asked()
    log.delivered("n1", row(1, 0, 1), entry_of(A))
    late = judge.asked()
    judge.passed("n2", early)
    judge.passed("n1", late)
    with pytest.raises(Violation, match=f"barrier {late} holds on n2"):
        judge.passed("n2", late)


@pytest.mark.parametrize(("size", "whole"), [(0, False), (16, True)])
def test_an_acknowledgement_gives_back_the_room_that_its_records_took(
    size: int, whole: bool
) -> None:
    singles = [AppendTicket(2, "n1", 1, (A,)), AppendTicket(3, "n1", 1, (B,))]
    with pytest.raises(Violation, match="gives back other room"):
        acknowledgements().acknowledged("n1", 1, Completion(singles, 0, 2, size, whole=whole))
