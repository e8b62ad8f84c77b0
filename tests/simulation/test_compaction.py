"""What is dropped under faults is in a snapshot, and the judge of that can tell when it is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from paxoslog.messages import Promise
from replog.agreements import load_agreement
from replog.entry import Epoch, Kind, make_entry
from replog.machine import Record
from replog.machines import KeyValue
from replog.membership import Membership
from replog.quorum import majorities
from replog.replica.delivery import Delivery
from replog.retention import Retention
from replog.snapshot import Base, Position, Snapshot, StateDigest
from replog.store.interface import StoredEntry, StoredSnapshot, StoredWrite
from replog.store.memory import MemoryDisk
from replog.store.rules import EMPTY, Outline
from replog.testing import Simulation, Workload
from replog.testing.bases import Bases
from replog.testing.checkers import Contents, History
from replog.testing.choices import Choices
from replog.testing.promises import Ballots
from replog.testing.simulation import SimulationFailure
from replog.testing.violation import Violation

AGREEMENTS = ("raft", "paxos")
THREE = majorities({"n1", "n2", "n3"})
EPOCH = Epoch(1, "n1")
ENTRIES = 10
SEEDS = 8
PIECE = b"a piece"


# --- runs -----------------------------------------------------------------------------------------


def put(random: Random) -> bytes:
    return KeyValue.put(b"key %d" % random.randrange(20), random.randbytes(8))


@pytest.mark.parametrize("agreement", AGREEMENTS)
def test_snapshot_and_suffix_make_the_state_of_the_whole_log(agreement: str) -> None:
    tally: Counter[str] = Counter()
    runs = seed = 0
    while runs < SEEDS:
        workload = Workload(machine=KeyValue, command=put)
        simulation = Simulation(seed, load_agreement(agreement), workload=workload)
        seed += 1
        if simulation.world.plan.retention is None:
            continue
        runs += 1
        tally.update(simulation.run().tally)
        whole = KeyValue()
        for offset, data in enumerate(simulation.world.checkers.history.records):
            whole.apply([Record(offset, data.partition(b" ")[2], 0)])
        for host in simulation.hosts.values():
            if host.node not in simulation.world.expected_to_stop:
                assert host._fed is not None
                assert host._fed.machine.digest() == whole.digest()
    assert tally["compactions"] > 5 * SEEDS
    assert tally["snapshots installed"] >= 2


def test_a_state_that_is_not_that_of_its_entry_is_found() -> None:
    class Forgetful(KeyValue):
        def snapshot(self):
            yield from KeyValue().snapshot()

    workload = Workload(machine=Forgetful, command=put)
    with pytest.raises(SimulationFailure, match="a machine restored from a snapshot of entry"):
        run_all(range(100), workload)


def run_all(seeds: range, workload: Workload) -> None:
    for seed in seeds:
        Simulation(seed, load_agreement("raft"), workload=workload).run()


# --- the judge of bases ---------------------------------------------------------------------------


class Case:
    """A disk that is about to drop five of ten delivered entries of one record each."""

    def __init__(self) -> None:
        history, contents = History(), Contents()
        self.positions = [EMPTY.position]
        delivery = Delivery(EMPTY.position)
        history.applied["n1"] = 0
        for index in range(1, ENTRIES + 1):
            entry = make_entry(Kind.NOOP, (), (), index)
            row = delivery.deliver(index, entry)
            history.delivered("n1", row, entry)
            contents.wrote("n1", StoredEntry(index, EPOCH, entry.data))
            self.positions.append(delivery.position())
        self.judge = Bases(
            history,
            contents,
            Retention(records_max=1, readers_records_max=3),
            by_number=True,
            with_state=True,
        )
        self.judge.begins("n1", 0)
        self.disk = MemoryDisk(b"store id")
        self.before = EMPTY._replace(last_index=ENTRIES, position=self.positions[ENTRIES])
        self.readers: dict[str, int] = {}

    def snapshot(self, index: int) -> StoredSnapshot:
        digest = StateDigest()
        digest.add(PIECE)
        self.disk.pieces[index << 1, 1] = PIECE
        membership = Membership(THREE)
        snapshot = Snapshot(self.positions[index], EPOCH, membership, 1, len(PIECE), digest.value())
        return StoredSnapshot(index << 1, snapshot)

    def base(self, index: int) -> Base:
        position = self.positions[index]
        return Base(index, EPOCH, position.offset, position.digest, position.timestamp_ms)

    def commit(self, outline: Outline) -> None:
        self.disk.outline = outline
        self.judge.committed("n1", self.disk, self.before, self.readers, installs=False)
        self.before = outline

    def after(self, **changes: Any) -> Outline:
        right = {"base": self.base(5), "snapshot": self.snapshot(8)}
        return self.before._replace(**{**right, **changes})


def test_a_log_that_is_dropped_behind_its_snapshot_is_right() -> None:
    case = Case()
    case.commit(case.after())
    case.commit(case.after(base=case.base(8)))


def test_a_base_that_falls_is_wrong() -> None:
    case = Case()
    case.commit(case.after())
    with pytest.raises(Violation, match="the base of n1 falls"):
        case.commit(case.after(base=case.base(4)))


def test_a_snapshot_that_falls_is_wrong() -> None:
    case = Case()
    case.commit(case.after())
    with pytest.raises(Violation, match="the newest snapshot of n1 falls"):
        case.commit(case.after(snapshot=case.snapshot(7)))


def wrong_epoch(case: Case) -> Outline:
    return case.after(base=case.base(5)._replace(epoch=Epoch(2, "n2")))


def wrong_digest(case: Case) -> Outline:
    return case.after(base=case.base(5)._replace(digest=b"another"))


def lacks_a_piece(case: Case) -> Outline:
    outline = case.after()
    case.disk.pieces.clear()
    return outline


def damaged(case: Case) -> Outline:
    outline = case.after()
    case.disk.pieces[16, 1] = b"another"
    return outline


def without_state(case: Case) -> Outline:
    snapshot = case.snapshot(8)
    header = snapshot.snapshot._replace(pieces=0, size=0, state_digest=StateDigest().value())
    return case.after(snapshot=snapshot._replace(snapshot=header))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda case: case.after(base=case.base(9)), "n1 has dropped all to entry 9"),
        (lambda case: case.after(snapshot=None), "n1 has dropped all to entry 5"),
        (lambda case: case.after(position=case.positions[7]), "it has delivered 7"),
        (wrong_epoch, "n1 gives entry 5 the epoch"),
        (wrong_digest, "n1 begins behind"),
        (lacks_a_piece, "lacks piece 1"),
        (damaged, "whose pieces are not what was kept"),
        (without_state, "n1 keeps no state with its snapshot of entry 8"),
    ],
)
def test_each_other_fault_of_a_base_is_found(change: Callable[[Case], Outline], says: str) -> None:
    case = Case()
    with pytest.raises(Violation, match=says):
        case.commit(change(case))


class Offsets(Case):
    """As if each entry held one record."""

    def base(self, index: int) -> Base:
        return super().base(index)._replace(offset=index)

    def __init__(self) -> None:
        super().__init__()
        self.positions = [
            position._replace(offset=index) for index, position in enumerate(self.positions)
        ]
        self.before = self.before._replace(position=self.positions[ENTRIES])
        rows = self.judge._history.rows
        rows[:] = [row._replace(base_offset=row.index - 1, count=1) for row in rows]
        self.judge.tells("n1", 5)


@pytest.mark.parametrize(("needed", "is_right"), [(4, False), (8, True)])
def test_what_a_named_reader_needs_is_not_dropped(needed: int, is_right: bool) -> None:
    case = Offsets()
    case.judge.tells("n1", 8)
    case.readers = {"slow": needed, "fast": 9}
    outline = case.after(base=case.base(8))
    if is_right:
        case.commit(outline)
    else:
        with pytest.raises(Violation, match="a reader needs 4"):
            case.commit(outline)


def test_beyond_its_bound_a_named_reader_loses_it() -> None:
    case = Offsets()
    case.judge.tells("n1", 7)
    case.readers = {"slow": 0}
    case.commit(case.after(base=case.base(7)))
    case.judge.tells("n1", 8)
    outline = case.after(base=case.base(8))
    with pytest.raises(Violation, match="beyond the bound"):
        case.commit(outline)


def test_readers_are_told_before_anything_is_dropped() -> None:
    case = Offsets()
    with pytest.raises(Violation, match="its readers know of 5"):
        case.commit(case.after(base=case.base(6)))
    with pytest.raises(Violation, match="the first offset of n1 falls from 5 to 4"):
        case.judge.tells("n1", 4)


# --- a promise and a snapshot ---------------------------------------------------------------------


@pytest.mark.parametrize(("commit_index", "is_right"), [(8, True), (7, False)])
def test_a_promise_tells_what_a_snapshot_stands_for(commit_index: int, is_right: bool) -> None:
    ballot = Epoch(3, "n3")
    disk = MemoryDisk(b"store id")
    disk.outline = disk.outline._replace(promise=ballot)
    judge = Ballots({"n2": disk}, Choices(THREE, by_number=False))
    judge.wrote("n2", StoredWrite(Epoch(1, "n1")))
    judge.wrote("n2", StoredWrite(install=Case().snapshot(8)))
    judge.wrote("n2", StoredWrite(ballot))
    promise = Promise(ballot, commit_index, (), ())
    if is_right:
        judge.leaves("n2", "n3", promise)
    else:
        with pytest.raises(Violation, match="a snapshot stands for entry 8"):
            judge.leaves("n2", "n3", promise)


def test_a_life_that_begins_with_other_producers_is_found() -> None:
    case = Case()
    history = case.judge._history
    history.started("n1", case.positions[4])
    strange = Position(*case.positions[4][:4], {"n9": (1, 1)})  # type: ignore[dict-item]
    with pytest.raises(Violation, match="others know"):
        history.started("n1", strange)
