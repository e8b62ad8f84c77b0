"""Feeding a machine beside snapshots: where it begins, what it names, how it catches up, and that
every call is answered."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replog.applier import SNAPSHOTS_WAITING_MAX, Applier
from replog.errors import Busy, Closed, MachineStopped, OutcomeUnknown, ReplogError
from replog.machines import KeyValue
from replog.pending import Pending, resolve
from replog.retention import SnapshotEvery
from replog.snapshot import Snapshot
from replog.store.interface import Batch, Position, ProducerRow
from tests.node.stand_in import SECONDS, StandIn, Tape, two_runs
from tests.store.author import noop


@pytest.fixture
def node() -> Iterator[StandIn]:
    node = StandIn()
    yield node
    node.recent.end(Closed("the log is closed"))


@pytest.fixture
def tape() -> Iterator[Tape]:
    tape = Tape()
    yield tape
    tape.may_apply.set()


def ahead(node: StandIn, index: int, offset: int) -> Position:
    """Where another node is."""
    rows = {"n2": ProducerRow(3, offset)}
    node.sequences["n2"] = offset
    return Position(index, offset, bytes(range(16)), 7000, rows)


def got(pending: Pending[Any]) -> Any:
    return pending.result(SECONDS)


# --- where a machine begins -----------------------------------------------------------------------


def test_a_machine_begins_with_the_newest_snapshot_and_takes_what_comes_behind(
    node: StandIn, tape: Tape
) -> None:
    node.grow([b"a", b"b"])
    first = node.feed(tape)
    got(first.wait(2))
    kept = got(first.snapshot())
    node.grow([b"c"])
    later = Tape()
    second = node.feed(later)
    got(second.wait(3))
    assert (later.restored, later.data) == (1, [b"a", b"b", b"c"])
    assert [record.offset for record in later.taken] == [2]
    assert kept.position == Position(
        1, 2, node.store.digest(1) or b"", 5000, {"n2": ProducerRow(3, 2)}
    )


def test_a_snapshot_without_a_state_is_no_beginning(node: StandIn, tape: Tape) -> None:
    node.grow([b"a"])
    node.seal_header()
    applier = node.feed(tape)
    got(applier.wait(1))
    assert (tape.restored, tape.data) == (0, [b"a"])


def test_a_machine_that_needs_what_no_state_stands_for_stops_and_says_what_to_do(
    node: StandIn, tape: Tape
) -> None:
    node.grow([b"a"])
    node.grow([b"b"])
    node.compact(1)
    applier = node.feed(tape)
    with pytest.raises(MachineStopped, match=r"below offset 1 are compacted.*SnapshotEvery"):
        got(applier.wait(2))
    assert "while no machine was attached" in applier.failure
    assert tape.data == []


def test_nothing_is_kept_of_a_machine_that_has_taken_nothing(node: StandIn, tape: Tape) -> None:
    node.grow()
    assert got(node.feed(tape).snapshot()) is None
    assert node.keeping.newest() is None


def test_a_snapshot_that_is_replaced_while_it_is_read_makes_way_for_the_newer_one(
    node: StandIn, tape: Tape
) -> None:
    node.grow([b"old"])
    first = node.feed(tape)
    got(first.wait(1))
    old = got(first.snapshot())
    later = Tape()

    def replace() -> None:
        if node.store.position().index == 1:
            node.grow([b"new"])
            got(first.wait(2))
            got(first.snapshot())
            node.store.commit([Batch(dropped_snapshots=[old.index << 1])])

    later.before_restore = replace
    got(node.feed(later).wait(2))
    assert (later.data, later.restored, later.taken) == ([b"old", b"new"], 1, [])


def test_what_restore_raises_stops_the_machine(node: StandIn, tape: Tape) -> None:
    node.grow([b"a"])
    first = node.feed(tape)
    got(first.wait(1))
    got(first.snapshot())
    later = Tape()

    def fail() -> None:
        raise ValueError("another form")

    later.before_restore = fail
    with pytest.raises(MachineStopped, match="another form") as stopped:
        got(node.feed(later).wait(1))
    assert stopped.value.__cause__ is not None
    assert stopped.value.__cause__.__notes__ == ["in restore, of the snapshot of entry 1"]


# --- the position that a snapshot names -----------------------------------------------------------

RUNS = st.tuples(
    st.sampled_from(["n1", "n2"]),
    st.integers(1, 3),
    st.integers(0, 3),
    st.lists(st.binary(max_size=3), min_size=1, max_size=2),
)
ENTRIES = st.lists(
    st.just(noop()) | st.lists(RUNS, min_size=1, max_size=3).map(two_runs), max_size=12
)


@settings(deadline=None, max_examples=60)
@given(entries=ENTRIES, data=st.data())
def test_the_position_of_a_snapshot_is_that_of_the_log_after_its_last_entry(
    entries: list[bytes], data: st.DataObject
) -> None:
    """Repeated runs, gaps, later lives and entries without records among them."""
    asked = data.draw(st.lists(st.booleans(), min_size=len(entries), max_size=len(entries)))
    node = StandIn()
    positions = {}
    snapshots = []
    applier = node.feed(Tape())
    try:
        for entry, asks in zip(entries, asked, strict=True):
            node.grow_by(entry)
            position = node.store.position()
            positions[position.index] = position
            if asks:
                got(applier.wait(position.offset))
                snapshots.append((position.offset, got(applier.snapshot())))
    finally:
        node.recent.end(Closed("the log is closed"))
    for offset, kept in snapshots:
        if offset == 0:
            assert kept is None
        else:
            assert kept.position == positions[kept.index]
            assert kept.position.offset == offset


# --- catching up ----------------------------------------------------------------------------------


def test_a_slow_machine_goes_on_from_a_snapshot_when_the_log_is_replaced(
    node: StandIn, tape: Tape
) -> None:
    applier = node.feed(tape)
    tape.may_apply.clear()
    node.grow([b"a"])
    assert tape.applying.wait(SECONDS)
    node.grow([b"b"])
    node.install(ahead(node, 10, 5), [b"a\nb\nc\nd\ne\n"])
    node.grow([b"f"])
    tape.may_apply.set()
    got(applier.wait(6))
    assert tape.data == [b"a", b"b", b"c", b"d", b"e", b"f"]
    assert [record.offset for record in tape.taken] == [0, 5]
    kept = got(applier.snapshot())
    assert kept.position == node.store.position()
    assert kept.position.producers == {"n2": (3, 6)}


def test_a_machine_that_waits_is_woken_by_an_install(node: StandIn, tape: Tape) -> None:
    node.grow([b"a"])
    applier = node.feed(tape)
    got(applier.wait(1))
    waiting = applier.wait(5)
    node.install(ahead(node, 10, 5), [b"1\n2\n3\n4\n5\n"])
    got(waiting)
    assert tape.data == [b"1", b"2", b"3", b"4", b"5"]
    assert applier.offset == 5


def test_a_snapshot_without_a_state_from_another_node_stops_the_machine(
    node: StandIn, tape: Tape
) -> None:
    applier = node.feed(tape)
    position = ahead(node, 10, 5)
    batch = node.received(position, [])
    bare = batch.writes[0].install
    assert bare is not None
    bare = bare._replace(snapshot=bare.snapshot._replace(pieces=0))
    node.store.commit([Batch([batch.writes[0]._replace(install=bare)])])
    node.recent.install(position)
    with pytest.raises(MachineStopped, match="no snapshot here has a state"):
        got(applier.wait(5))


def test_calls_that_a_snapshot_skips_are_told_that_their_record_is_in_the_log(
    node: StandIn, tape: Tape
) -> None:
    applier = node.feed(tape)
    tape.may_apply.clear()
    node.grow([b"held"])
    assert tape.applying.wait(SECONDS)
    placed: Pending[int] = Pending()
    late: Pending[int] = Pending()
    behind: Pending[int] = Pending()
    calls = [
        applier.call(lambda one=one: one)  # type: ignore[misc]
        for one in (placed, late, behind)
    ]
    resolve(placed, 1)
    node.install(ahead(node, 10, 5), [b"x\n"])
    tape.may_apply.set()
    with pytest.raises(OutcomeUnknown, match="at offset 1") as unknown:
        got(calls[0])
    assert unknown.value.appended is True
    got(applier.wait(5))
    resolve(late, 2)
    with pytest.raises(OutcomeUnknown, match="at offset 2"):
        got(calls[1])
    resolve(behind, 5)
    node.grow([b"own"], node="n1")
    assert got(calls[2]) == 2  # the second record of the restored machine


# --- snapshots ------------------------------------------------------------------------------------


def test_what_a_snapshot_raises_is_the_calls_and_the_machine_goes_on(
    node: StandIn, tape: Tape
) -> None:
    def fail() -> None:
        raise ValueError("no state today")

    applier = node.feed(tape)
    node.grow([b"a"])
    got(applier.wait(1))
    tape.before_snapshot = fail
    with pytest.raises(ValueError, match="no state today"):
        got(applier.snapshot())
    assert "no state today" in applier.alarm
    assert node.dropped == [2]
    node.grow([b"b"])
    got(applier.wait(2))
    assert applier.failure == ""
    tape.before_snapshot = lambda: None
    assert got(applier.snapshot()).index == 2
    assert applier.alarm == ""


def taken(node: StandIn) -> int:
    newest = node.keeping.newest()
    return newest.snapshot.index if newest is not None else 0


@pytest.mark.parametrize(
    ("every", "indexes"),
    [
        (SnapshotEvery(records=3), [0, 0, 3, 3, 3, 6]),
        (SnapshotEvery(bytes=100), [0, 2, 2, 4, 4, 6]),
        (SnapshotEvery(records=3, bytes=1000), [0, 0, 3, 3, 3, 6]),
        (SnapshotEvery(records=1000, bytes=1), [1, 2, 3, 4, 5, 6]),
    ],
)
def test_snapshots_come_as_the_policy_says(
    node: StandIn, tape: Tape, every: SnapshotEvery, indexes: list[int]
) -> None:
    applier = node.feed(tape, every)
    seen = []
    for _ in range(6):
        got(applier.wait(node.grow([bytes(50)]).stop))
        settle(applier)
        seen.append(taken(node))
    assert seen == indexes


def settle(applier: Applier) -> None:
    """The machine's thread is done with what followed the last records: it waits again."""
    done = threading.Event()
    probe: Pending[Snapshot | None] = Pending()
    snapshot = applier._snapshot

    def answer(asked: Pending[Snapshot | None]) -> None:
        if asked is probe:
            done.set()
        else:
            snapshot(asked)

    applier._snapshot = answer  # type: ignore[method-assign,assignment]
    applier._wanted.put(probe)
    assert done.wait(SECONDS)
    applier._snapshot = snapshot  # type: ignore[method-assign]


def test_a_policy_tries_again_after_the_next_interval(node: StandIn, tape: Tape) -> None:
    tries = []

    def fail_once() -> None:
        tries.append(len(tape.data))
        if len(tries) == 1:
            raise ValueError("not yet")

    tape.before_snapshot = fail_once
    applier = node.feed(tape, SnapshotEvery(records=2))
    for _ in range(4):
        got(applier.wait(node.grow([b"x"]).stop))
        settle(applier)
    assert tries == [2, 4]
    assert (taken(node), applier.alarm, applier.failure) == (4, "", "")


def test_a_header_above_the_machine_is_no_alarm_for_the_policy(node: StandIn, tape: Tape) -> None:
    for _ in range(3):
        node.grow([b"x"])
    node.seal_header()
    applier = node.feed(tape, SnapshotEvery(records=1))
    got(applier.wait(3))
    settle(applier)
    assert applier.alarm == ""
    with pytest.raises(ReplogError, match="without a state"):
        got(applier.snapshot())
    got(applier.wait(node.grow([b"x"]).stop))
    settle(applier)
    assert (taken(node), applier.alarm) == (4, "")


def test_snapshots_that_wait_are_bounded_and_all_are_answered(node: StandIn, tape: Tape) -> None:
    applier = node.feed(tape)
    tape.may_apply.clear()
    node.grow([b"a"])
    assert tape.applying.wait(SECONDS)
    waiting = [applier.snapshot() for _ in range(SNAPSHOTS_WAITING_MAX)]
    with pytest.raises(Busy):
        applier.snapshot()
    tape.may_apply.set()
    assert {got(one).index for one in waiting} == {1}


def test_a_snapshot_that_waits_when_the_log_ends_is_told(node: StandIn, tape: Tape) -> None:
    applier = node.feed(tape)
    tape.may_apply.clear()
    node.grow([b"a"])
    assert tape.applying.wait(SECONDS)

    def fail() -> None:
        raise KeyboardInterrupt

    tape.before_snapshot = fail
    first, second = applier.snapshot(), applier.snapshot()
    node.recent.end(Closed("the log is closed"))
    tape.may_apply.set()
    for waiting in (first, second):
        with pytest.raises((MachineStopped, KeyboardInterrupt)):
            got(waiting)
    applier.stop()
    with pytest.raises(MachineStopped, match="is closed"):
        applier.snapshot()


def test_a_real_machine_goes_through_a_snapshot_unchanged(node: StandIn) -> None:
    commands = [KeyValue.put(b"%d" % n, bytes(n)) for n in range(300)]
    first, second = KeyValue(), KeyValue()
    applier = node.feed(first)
    node.grow(commands)
    got(applier.wait(300))
    got(applier.snapshot())
    again = node.feed(second)
    got(again.wait(300))
    assert second.digest() == first.digest()
    assert len(second.items()) == 300
