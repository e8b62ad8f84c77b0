"""`replog replay` and `replog.replay`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

import replog
from raftlog import Raft
from replog.entry import DIGEST_START
from replog.errors import MachineStopped, OffsetOutOfRange, StoreInUse
from replog.log_reader import BATCH_RECORDS_MAX, LogReader
from replog.machine import Record
from replog.machines import KeyValue
from tests.cli.conftest import SECONDS, Run, make_compacted, make_log, state_at
from tests.each_agreement import make_agreement

MACHINES = """
class Count:
    def __init__(self):
        self.records = 0

    def apply(self, records):
        self.records += len(records)
        return range(len(records))

    def digest(self):
        return self.records.to_bytes(4, "big")


class Stops(Count):
    def apply(self, records):
        raise LookupError("no room for these")


class Silent:
    def apply(self, records):
        return [None] * len(records)


class NoMachine:
    pass


def broken():
    raise ZeroDivisionError("at the start")
"""


class Kept:
    """Keeps what it is fed with."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def apply(self, records: Sequence[Record]) -> Sequence[int]:
        self.records += records
        return range(len(records))


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A current directory with a module of machines."""
    folder = tmp_path / "application"
    folder.mkdir()
    (folder / "machines_of_mine.py").write_text(MACHINES, encoding="utf-8")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "machines_of_mine", raising=False)


def fill(directory: Path, sizes: Sequence[int], agreement: str = "raft") -> list[bytes]:
    """A closed log of one run for each of these sizes; its records."""
    records = [b"record %d" % number for number in range(sum(sizes))]
    start = 0
    with replog.open(directory, agreement=make_agreement(agreement)) as log:
        for size in sizes:
            log.append_many(records[start : start + size]).result(SECONDS)
            start += size
    return records


def test_without_a_machine_the_records_are_printed(
    run: Run, tmp_path: Path, agreement: str
) -> None:
    fill(tmp_path / "n1", [15], agreement)
    assert run("replay", tmp_path / "n1").stdout.splitlines() == [
        f"{number}\trecord {number}" for number in range(15)
    ]
    lines = run("replay", tmp_path / "n1", "--from", 3, "--to", 5, "--json").stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    assert [(row["offset"], row["data"]) for row in rows] == [(3, "record 3"), (4, "record 4")]


def test_a_machine_comes_to_the_state_it_had_in_the_node(
    run: Run, tmp_path: Path, agreement: str
) -> None:
    with replog.open(tmp_path / "n1", agreement=make_agreement(agreement)) as log:
        table = log.attach(KeyValue())
        for number in range(50):
            log.call(KeyValue.put(b"%d" % (number % 7), b"%d" % number)).result(SECONDS)
        log.applied().result(SECONDS)
        digest = table.digest()
    result = run("replay", tmp_path / "n1", "--machine", "replog.machines:KeyValue", "--json")
    assert result.exit_code == 0, result.output
    fields = json.loads(result.stdout)
    assert digest != KeyValue().digest()
    assert fields["digest"] == digest.hex()
    assert (fields["from"], fields["records"], fields["offset"]) == (0, 50, 50)
    with LogReader(tmp_path / "n1") as reader:
        assert reader.row(fields["index"]).base_offset == 49
        assert reader.digest(fields["index"]).hex() == fields["log_digest"]
    text = run("replay", tmp_path / "n1", "--machine", "replog.machines:KeyValue").stdout
    assert text.startswith("replayed 50 records at offsets 0 to 49 in ")
    assert f"digest of the machine: {digest.hex()}\n" in text
    assert f"digest of the log after entry {fields['index']}: {fields['log_digest']}\n" in text


@pytest.mark.usefixtures("machines")
def test_a_machine_of_the_current_directory(run: Run, tmp_path: Path) -> None:
    fill(tmp_path / "n1", [5, 5])
    result = run(
        "replay", tmp_path / "n1", "--from", 3, "--machine", "machines_of_mine:Count", "--json"
    )
    assert result.exit_code == 0, result.output
    assert "note: the machine starts empty at offset 3" in result.stderr
    fields = json.loads(result.stdout)
    assert (fields["from"], fields["offset"], fields["digest"]) == (3, 10, "00000007")
    result = run("replay", tmp_path / "n1", "--machine", "machines_of_mine:Silent", "--json")
    assert json.loads(result.stdout)["digest"] is None
    assert result.stderr == ""


@pytest.mark.usefixtures("machines")
def test_a_machine_that_raises_is_shown_with_the_offsets_and_the_traceback(
    run: Run, tmp_path: Path
) -> None:
    fill(tmp_path / "n1", [5, 5])
    name = "machines_of_mine:Stops"
    result = run("replay", tmp_path / "n1", "--from", 2, "--machine", name, "--json")
    assert result.exit_code == 1
    assert "MachineStopped: the machine stopped in records 2 to 9: LookupError(" in result.stderr
    assert 'machines_of_mine.py", line' in result.stderr
    assert json.loads(result.stdout)["error"] == "MachineStopped"


@pytest.mark.usefixtures("machines")
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("machines_of_mine", "'machines_of_mine' is not MODULE:FACTORY"),
        (":Count", "':Count' is not MODULE:FACTORY"),
        ("machines_of_yours:Count", "No module named 'machines_of_yours'"),
        ("machines_of_mine:Counts", "has no attribute 'Counts'"),
        ("machines_of_mine:broken", "ZeroDivisionError('at the start')"),
        ("machines_of_mine:NoMachine", "makes no machine: a NoMachine has no apply"),
    ],
)
def test_a_name_that_makes_no_machine_is_wrong_usage(
    run: Run, tmp_path: Path, name: str, says: str
) -> None:
    result = run("replay", make_log(tmp_path / "n1"), "--machine", name)
    assert result.exit_code == 2
    assert "replog replay: ConfigError: " in result.stderr
    assert says in result.stderr


def test_wrong_usage(run: Run, tmp_path: Path) -> None:
    directory = make_log(tmp_path / "n1", b"a")
    machine = ("--machine", "replog.machines:KeyValue")
    for arguments, says in (
        ((directory, "--from", 2, *machine), "offset 2 is out of range"),
        ((directory, "--to", 2, *machine), "offset 2 is out of range"),
        ((directory, "--to", 2), "offset 2 is out of range"),
        ((tmp_path / "none", *machine), "holds no store"),
    ):
        result = run("replay", *arguments)
        assert result.exit_code == 2
        assert says in result.stderr


def test_a_compacted_log_is_replayed_from_its_snapshot(
    run: Run, tmp_path: Path, agreement: str
) -> None:
    directory = make_compacted(tmp_path / "n1", make_agreement(agreement))
    machine = ("--machine", "replog.machines:KeyValue")
    for stop in (20, 23, 30):
        result = run("replay", directory, *machine, "--to", stop, "--json")
        assert result.exit_code == 0, result.output
        fields = json.loads(result.stdout)
        assert (fields["from"], fields["offset"], fields["records"]) == (20, stop, stop - 20)
        assert fields["digest"] == state_at(stop)
        with LogReader(directory) as reader:
            assert reader.digest(fields["index"]).hex() == fields["log_digest"]
            snapshot = reader.survey().snapshot
            assert snapshot is not None
            assert fields["snapshot_index"] == snapshot.snapshot.index
    text = run("replay", directory, *machine).stdout
    index = fields["snapshot_index"]
    assert text.startswith(f"began with the snapshot of entry {index}, the state at offset 20\n")
    assert f"digest of the machine: {state_at(30)}\n" in text


def test_what_is_compacted_and_in_no_snapshot_is_not_replayed(run: Run, tmp_path: Path) -> None:
    directory = make_compacted(tmp_path / "n1")
    machine = ("--machine", "replog.machines:KeyValue")
    for arguments, offset in (
        (("--to", 19, *machine), 0),
        (("--whole", *machine), 0),
        (("--from", 14, *machine), 14),
        (("--to", 10, *machine), 10),
        (("--whole",), 0),
    ):
        result = run("replay", directory, *arguments)
        assert result.exit_code == 2, result.output
        assert (
            f"offset {offset} is out of range: this log holds offsets 15 to 29; what lies below is "
            "compacted"
        ) in result.stderr
    result = run("replay", directory, "--whole", "--from", 15)
    assert (result.exit_code, "not both" in result.stderr) == (2, True)
    lines = run("replay", directory).stdout.splitlines()
    assert [int(line.partition("\t")[0]) for line in lines] == [*range(15, 30)]


def test_a_whole_log_is_replayed_from_its_snapshot_too_unless_asked(
    run: Run, tmp_path: Path
) -> None:
    with replog.open(tmp_path / "n1", agreement=Raft()) as log:
        log.attach(KeyValue())
        for number in range(5):
            log.call(KeyValue.put(b"%d" % (number % 7), b"%d" % number)).result(SECONDS)
        log.snapshot().result(SECONDS)
        log.call(KeyValue.put(b"5", b"5")).result(SECONDS)
    machine = ("--machine", "replog.machines:KeyValue", "--json")
    newest = json.loads(run("replay", tmp_path / "n1", *machine).stdout)
    whole = json.loads(run("replay", tmp_path / "n1", *machine, "--whole").stdout)
    early = json.loads(run("replay", tmp_path / "n1", *machine, "--to", 4).stdout)
    assert (newest["from"], newest["records"], newest["digest"]) == (5, 1, state_at(6))
    assert (whole["from"], whole["records"], whole["digest"]) == (0, 6, state_at(6))
    assert (early["from"], early["records"], early["digest"]) == (0, 4, state_at(4))
    assert (whole["snapshot_index"], early["snapshot_index"]) == (0, 0)
    assert newest["snapshot_index"] > 0
    # A machine that cannot be restored begins with the first record.
    assert replog.replay(tmp_path / "n1", Kept()).records == 6


# --- the library ----------------------------------------------------------------------------------


def test_every_range_of_a_log_of_many_runs_is_replayed_as_it_is(tmp_path: Path) -> None:
    records = fill(tmp_path / "n1", [1, 4, 2, 1, 3])
    for start in range(len(records) + 1):
        for stop in range(start, len(records) + 1):
            machine = Kept()
            replayed = replog.replay(tmp_path / "n1", machine, start, stop)
            assert [record.data for record in machine.records] == records[start:stop]
            assert [record.offset for record in machine.records] == [*range(start, stop)]
            assert replayed.records == stop - start
            assert replayed.offset == stop


def test_the_records_are_those_that_the_log_reads(tmp_path: Path, agreement: str) -> None:
    layer = make_agreement(agreement)
    with replog.open(tmp_path / "n1", agreement=layer) as log:
        for size in (1, 700, 2 * BATCH_RECORDS_MAX, 3):
            log.append_many([b"%d" % number for number in range(size)]).result(SECONDS)
        read = list(log.read())
    machine = Kept()
    told: list[tuple[int, int]] = []
    end = len(read)
    replayed = replog.replay(
        tmp_path / "n1", machine, progress=lambda *offsets: told.append(offsets)
    )
    assert machine.records == read
    assert set(map(type, machine.records)) == {Record}
    assert len(told) > 1
    assert told == sorted(told)
    assert told[-1] == (end, end)
    assert (replayed.records, replayed.offset, replayed.digest) == (end, end, None)
    assert replayed.seconds > 0


def test_the_digest_of_the_log_is_that_of_the_entry_reached(tmp_path: Path) -> None:
    fill(tmp_path / "n1", [2, 2])
    nothing = replog.replay(tmp_path / "n1", Kept(), 0, 0)
    assert (nothing.index, nothing.log_digest) == (0, DIGEST_START)
    one, two, three = (replog.replay(tmp_path / "n1", Kept(), 0, stop) for stop in (1, 2, 3))
    assert (one.index, one.log_digest) == (two.index, two.log_digest)
    assert three.index > two.index
    with LogReader(tmp_path / "n1") as reader:
        for replayed in (one, three):
            assert reader.digest(replayed.index) == replayed.log_digest
            assert replayed.log_digest != DIGEST_START


def test_an_empty_log_is_replayed(tmp_path: Path) -> None:
    machine = Kept()
    replayed = replog.replay(make_log(tmp_path / "n1"), machine)
    assert (replayed.records, replayed.offset, machine.records) == (0, 0, [])


def test_large_records_are_not_gathered(tmp_path: Path) -> None:
    fed: list[int] = []

    class Sizes(Kept):
        def apply(self, records: Sequence[Record]) -> Sequence[int]:
            fed.append(sum(len(record.data) for record in records))
            return range(len(records))

    with replog.open(tmp_path / "n1", agreement=Raft()) as log:
        for _ in range(6):
            log.append(bytes(600_000)).result(SECONDS)
    replog.replay(tmp_path / "n1", Sizes())
    assert sum(fed) == 3_600_000
    assert max(fed) == 1_200_000


def test_what_a_node_would_not_take_from_a_machine_ends_its_replay(tmp_path: Path) -> None:
    class Forgets(Kept):
        def apply(self, records: Sequence[Record]) -> Sequence[int]:
            return range(len(records) - 1)

    fill(tmp_path / "n1", [3])
    with pytest.raises(
        MachineStopped, match=r"records 0 to 2: .*2 results for 3 records"
    ) as caught:
        replog.replay(tmp_path / "n1", Forgets())
    assert type(caught.value.__cause__) is ValueError


def test_a_machine_that_refuses_its_snapshot_has_stopped(tmp_path: Path) -> None:
    class Refuses(KeyValue):
        def restore(self, pieces: Iterable[bytes]) -> None:
            raise LookupError(f"no such state: {b''.join(pieces)!r}")

    directory = make_compacted(tmp_path / "n1")
    with pytest.raises(
        MachineStopped, match=r"stopped in the snapshot of entry \d+: .*no such state"
    ):
        replog.replay(directory, Refuses())


def test_what_cannot_be_replayed(tmp_path: Path) -> None:
    fill(tmp_path / "n1", [3])
    with pytest.raises(OffsetOutOfRange):
        replog.replay(tmp_path / "n1", Kept(), 4)
    with pytest.raises(OffsetOutOfRange):
        replog.replay(tmp_path / "n1", Kept(), 0, 4)
    with replog.open(tmp_path / "n1", agreement=Raft()), pytest.raises(StoreInUse):
        replog.replay(tmp_path / "n1", Kept())
