"""The judges of promises and choices let a right history pass and see through a wrong one."""

from __future__ import annotations

import pytest

from paxoslog.messages import Accept, Accepted, Committed, Heartbeat, Nack, Prepare, Promise
from raftlog.messages import Appended, AppendEntries, RequestVote, Vote
from replog.agreement import Message
from replog.entry import NO_EPOCH, Epoch
from replog.quorum import majorities, sized
from replog.store.interface import StoredEntry, StoredWrite
from replog.store.memory import MemoryDisk
from replog.testing.choices import Choices
from replog.testing.promises import Ballots, Votes
from replog.testing.violation import Violation

LOW, MIDDLE, HIGH = Epoch(1, "n1"), Epoch(2, "n1"), Epoch(2, "n3")
THREE = majorities({"n1", "n2", "n3"})


def promised(promise: Epoch) -> MemoryDisk:
    """A disk that has sworn this."""
    disk = MemoryDisk(b"store id")
    disk.outline = disk.outline._replace(promise=promise)
    return disk


def wrote(index: int, epoch: Epoch, data: bytes = b"", promise: Epoch | None = None) -> StoredWrite:
    return StoredWrite(promise, entries=[StoredEntry(index, epoch, data)])


def nobody_voted() -> Votes:
    return Votes({})


def nobody_promised() -> Ballots:
    return Ballots({}, Choices(THREE, by_number=False))


# --- votes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Epoch(2, ""), Epoch(1, "")),
        (Epoch(2, "n1"), Epoch(2, "")),
        (Epoch(2, "n1"), Epoch(2, "n3")),
    ],
    ids=["the number falls", "a vote is withdrawn", "a vote is changed"],
)
def test_a_vote_that_is_broken_is_seen(before: Epoch, after: Epoch) -> None:
    judge = nobody_voted()
    judge.stored("n2", NO_EPOCH, before)
    judge.stored("n2", Epoch(2, ""), Epoch(2, "n1"))
    with pytest.raises(Violation, match="the disk of n2 promised"):
        judge.stored("n2", before, after)


@pytest.mark.parametrize("promise", [NO_EPOCH, Epoch(3, ""), Epoch(3, "n3")])
def test_a_vote_that_is_not_on_the_disk_is_wrong(promise: Epoch) -> None:
    judge = Votes({"n2": promised(promise)})
    judge.leaves("n2", "n1", Vote(3, granted=False))
    with pytest.raises(Violation, match="n2 votes in term 3 for n1; its disk promised"):
        judge.leaves("n2", "n1", Vote(3, granted=True))


@pytest.mark.parametrize("promise", [NO_EPOCH, Epoch(3, ""), Epoch(3, "n1")])
def test_a_candidate_whose_own_vote_is_not_on_its_disk_is_wrong(promise: Epoch) -> None:
    Votes({"n2": promised(Epoch(3, "n2"))}).leaves("n2", "n1", RequestVote(3, 0, 0))
    with pytest.raises(Violation, match="n2 votes in term 3 for n2; its disk promised"):
        Votes({"n2": promised(promise)}).leaves("n2", "n1", RequestVote(3, 0, 0))


@pytest.mark.parametrize("promise", [Epoch(3, "n1"), Epoch(4, "")])
def test_a_second_vote_in_a_term_is_wrong(promise: Epoch) -> None:
    judge = Votes({"n2": promised(promise)})
    judge.leaves("n2", "n1", Vote(3, granted=True))
    judge.leaves("n2", "n1", Vote(3, granted=True))
    with pytest.raises(Violation, match="n2 votes in term 3 for n3 and another"):
        judge.leaves("n2", "n3", Vote(3, granted=True))


def test_an_acknowledgement_of_an_unwritten_entry_is_wrong() -> None:
    judge = nobody_voted()
    judge.leaves("n2", "n1", Appended(2, 0))
    judge.wrote("n2", wrote(1, LOW))
    judge.wrote("n2", wrote(2, Epoch(3, "n3")))
    judge.wrote("n3", wrote(2, LOW))
    judge.leaves("n2", "n1", Appended(2, 1))
    with pytest.raises(Violation, match="n2 acknowledges entry 2 in term 2 and never wrote it"):
        judge.leaves("n2", "n1", Appended(2, 2))


# --- ballots --------------------------------------------------------------------------------------


def acceptor(*writes: StoredWrite, promise: Epoch) -> Ballots:
    """The judge of n2, which has made these writes and then obeys `promise`."""
    judge = Ballots({"n2": promised(promise)}, Choices(THREE, by_number=False))
    for write in (*writes, StoredWrite(promise)):
        judge.wrote("n2", write)
    return judge


def test_a_promise_to_a_lower_ballot_is_seen() -> None:
    judge = nobody_promised()
    judge.stored("n2", MIDDLE, HIGH)
    with pytest.raises(Violation, match="the disk of n2 promised"):
        judge.stored("n2", HIGH, MIDDLE)


@pytest.mark.parametrize(
    "message",
    [
        Prepare(HIGH, 1),
        Promise(HIGH, 0, (), ()),
        Accept(HIGH, 0),
        Accepted(HIGH, 1, 0, 0),
        Nack(HIGH),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_ballot_that_is_not_promised_on_the_disk_is_wrong(message: Message) -> None:
    for promise in (HIGH, Epoch(3, "n1")):
        acceptor(promise=promise).leaves("n2", "n1", message)
    name = type(message).__name__
    with pytest.raises(Violation, match=f"n2 sends {name} of .*; its disk promised"):
        acceptor(promise=MIDDLE).leaves("n2", "n1", message)


def test_a_ballot_that_is_prepared_twice_is_wrong() -> None:
    judge = acceptor(promise=HIGH)
    judge.leaves("n2", "n1", Prepare(MIDDLE, 1))
    judge.leaves("n2", "n3", Prepare(MIDDLE, 1))
    judge.leaves("n2", "n1", Prepare(HIGH, 1))
    with pytest.raises(Violation, match=r"n2 prepares Epoch.* a second time"):
        judge.leaves("n2", "n1", Prepare(HIGH, 1))


def reporter() -> Ballots:
    """n2 has accepted three entries at two ballots, promised `HIGH`, and then accepted another."""
    judge = acceptor(
        wrote(1, LOW, promise=LOW), wrote(2, LOW), wrote(4, MIDDLE, promise=MIDDLE), promise=HIGH
    )
    judge.wrote("n2", wrote(3, HIGH))
    return judge


@pytest.mark.parametrize(
    "report",
    [
        Promise(HIGH, 0, (1, 2, 4), (LOW, LOW, MIDDLE)),
        Promise(HIGH, 0, (1, 2, 3, 4), (LOW, LOW, HIGH, MIDDLE)),
        Promise(HIGH, 2, (4,), (MIDDLE,)),
        Promise(HIGH, 4, (), ()),
    ],
    ids=["then", "with what came since", "above the commit index", "all is chosen"],
)
def test_a_report_of_all_that_was_accepted_is_right(report: Promise) -> None:
    reporter().leaves("n2", "n3", report)


@pytest.mark.parametrize(
    ("report", "message"),
    [
        (Promise(HIGH, 0, (1, 4), (LOW, MIDDLE)), "n2 hides entry 2"),
        (Promise(HIGH, 2, (), ()), "n2 hides entry 4"),
        (Promise(HIGH, 0, (1, 2, 4), (LOW, LOW, LOW)), "n2 hides entry 4"),
        (Promise(HIGH, 0, (1, 2, 4), (LOW, MIDDLE, MIDDLE)), "n2 reports entry 2"),
        (Promise(HIGH, 0, (1, 2, 4, 5), (LOW, LOW, MIDDLE, LOW)), "n2 reports entry 5"),
    ],
    ids=["one left out", "all left out", "a lower ballot", "a higher ballot", "an invented one"],
)
def test_another_report_is_wrong(report: Promise, message: str) -> None:
    with pytest.raises(Violation, match=message):
        reporter().leaves("n2", "n3", report)


def test_a_report_need_not_go_below_what_was_asked_for() -> None:
    judge = reporter()
    judge._asked[HIGH, "n2"] = 3  # as a prepare of n3 has left it
    judge.leaves("n2", "n3", Promise(HIGH, 0, (4,), (MIDDLE,)))
    with pytest.raises(Violation, match="n2 hides entry 4"):
        judge.leaves("n2", "n3", Promise(HIGH, 0, (), ()))


def test_an_acceptance_that_is_not_on_the_disk_is_wrong() -> None:
    judge = acceptor(wrote(1, LOW, promise=LOW), wrote(2, LOW), promise=HIGH)
    judge.wrote("n2", wrote(2, HIGH))
    judge.leaves("n2", "n1", Accepted(LOW, 1, 2, 0))
    judge.leaves("n2", "n3", Accepted(HIGH, 2, 2, 0))
    judge.leaves("n2", "n3", Accepted(HIGH, 4, 3, 0))
    for first, last in ((1, 2), (2, 3)):
        with pytest.raises(Violation, match=r"n2 accepts entry [13] of .* and never wrote it"):
            judge.leaves("n2", "n3", Accepted(HIGH, first, last, 0))


@pytest.mark.parametrize("ballot", [LOW, HIGH])
def test_an_entry_of_another_ballot_than_is_obeyed_is_wrong(ballot: Epoch) -> None:
    judge = acceptor(promise=MIDDLE)
    judge.wrote("n2", wrote(1, MIDDLE))
    with pytest.raises(Violation, match=r"n2 accepts entry 2 of .* and obeys"):
        judge.wrote("n2", wrote(2, ballot))


def test_what_is_chosen_may_be_learnt_under_a_lower_ballot() -> None:
    choices = Choices(THREE, by_number=False)
    judge = Ballots({}, choices)
    for node in ("n1", "n3"):
        choices.wrote(node, StoredEntry(1, LOW, b"chosen"))
    judge.wrote("n2", StoredWrite(HIGH))
    with pytest.raises(Violation, match="n2 accepts entry 1"):
        judge.wrote("n2", wrote(1, LOW, b"another"))
    judge.wrote("n2", wrote(1, LOW, b"chosen"))


def test_an_entry_that_gives_way_to_a_lower_ballot_is_wrong() -> None:
    choices = Choices(THREE, by_number=False)
    judge = Ballots({}, choices)
    judge.wrote("n2", wrote(1, HIGH, promise=HIGH))
    for node in ("n1", "n3"):
        choices.wrote(node, StoredEntry(1, LOW, b""))
    with pytest.raises(Violation, match="n2 replaces entry 1 by one of a lower ballot"):
        judge.wrote("n2", wrote(1, LOW))


# --- choices --------------------------------------------------------------------------------------


def chosen(agreement: str, *held: tuple[str, int, Epoch, bytes]) -> Choices:
    """Once these nodes have written these entries."""
    judge = Choices(THREE, by_number=agreement == "raft")
    for node, index, epoch, data in held:
        judge.wrote(node, StoredEntry(index, epoch, data))
    return judge


def test_a_value_is_chosen_by_a_quorum_under_one_epoch() -> None:
    one = ("n1", 1, LOW, b"value")
    assert chosen("paxos", one, one).value_at(1) is None
    assert chosen("paxos", one, ("n2", 1, HIGH, b"value")).value_at(1) is None
    judge = chosen("paxos", one, ("n2", 1, LOW, b"value"))
    assert judge.value_at(1) == b"value"
    assert judge.index == 1


def test_a_smaller_quorum_chooses_where_it_is_enough() -> None:
    judge = Choices(sized({"n1", "n2", "n3"}, elect=3, commit=1), by_number=False)
    judge.wrote("n2", StoredEntry(1, LOW, b"value"))
    assert judge.value_at(1) == b"value"


@pytest.mark.parametrize("last", ["the choice", "another value"])
def test_another_value_at_a_higher_ballot_than_the_choice_is_wrong(last: str) -> None:
    writes = [("n1", 1, LOW, b"value"), ("n3", 1, HIGH, b"other"), ("n2", 1, LOW, b"value")]
    if last == "another value":
        writes = [writes[0], writes[2], writes[1]]
    judge = chosen("paxos", *writes[:2])
    node, index, epoch, data = writes[2]
    with pytest.raises(Violation, match=r"entry 1 is chosen under .*; \['n3'\] hold another"):
        judge.wrote(node, StoredEntry(index, epoch, data))
    chosen("raft", *writes)


def test_other_values_at_lower_ballots_than_the_choice_are_right() -> None:
    judge = chosen(
        "paxos",
        ("n3", 1, LOW, b"other"),
        ("n1", 1, MIDDLE, b"value"),
        ("n2", 1, MIDDLE, b"value"),
        ("n3", 1, HIGH, b"value"),
    )
    assert judge.value_at(1) == b"value"


def test_a_second_choice_at_a_lower_ballot_is_wrong() -> None:
    judge = chosen(
        "paxos", ("n1", 1, HIGH, b"one"), ("n2", 1, HIGH, b"one"), ("n3", 1, LOW, b"other")
    )
    with pytest.raises(Violation, match=r"entry 1 is chosen under .* hold another"):
        judge.wrote("n2", StoredEntry(1, LOW, b"other"))


@pytest.mark.parametrize("agreement", ["raft", "paxos"])
def test_only_what_is_chosen_without_a_gap_is_committed(agreement: str) -> None:
    held = [(node, index, LOW, b"value") for index in (1, 2, 4) for node in ("n1", "n2")]
    judge = chosen(agreement, *held)
    assert judge.index == 2
    said: dict[str, list[Message]] = {
        "raft": [AppendEntries(1, 0, 0, 2), AppendEntries(1, 0, 0, 3)],
        "paxos": [Committed(LOW, 2), Heartbeat(LOW, 3, 0)],
    }
    right, wrong = said[agreement]
    judge.says("n1", right)
    judge.delivered("n1", 2)
    with pytest.raises(Violation, match="n1 calls entries to 3 committed"):
        judge.says("n1", wrong)
    with pytest.raises(Violation, match="n1 delivers entry 3"):
        judge.delivered("n1", 3)
