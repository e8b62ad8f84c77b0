"""The audit finds what it is there to find: each kind of fault, in logs made up for it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

import replog
from raftlog import Raft
from replog import Record
from replog.demo.audit import AuditReport, audit
from replog.demo.feeder import KEYS, REFUSED, UNKNOWN, Ledger, origin_of
from replog.demo.machines import LiveMachine, compare_replay
from replog.demo.text import read_text
from replog.errors import Closed, OutcomeUnknown
from replog.machines import KeyValue
from tests.cli.conftest import compact

LINES = [b"first", b"second", b"third"]
NODES = ("n1", "n2", "n3")
Ledgers = Mapping[str, Ledger]


def write(directory: Path, records: Sequence[bytes]) -> Path:
    with replog.open(directory, agreement=Raft()) as log:
        log.append_many(list(records)).result(10)
    return directory


def submitted(count: int) -> Ledgers:
    """Ledgers of two producers, each with so many records submitted."""
    ledgers = {node: Ledger(node, LINES) for node in ("n1", "n2")}
    for ledger in ledgers.values():
        ledger.submitted = count
    return ledgers


def sound() -> tuple[Ledgers, list[bytes]]:
    """n1's records 0 to 3 at offsets 0 to 3, n2's at 4 to 7, all acknowledged."""
    ledgers = submitted(4)
    ledgers["n1"].settle(range(4), [(0, 4)], None)
    ledgers["n2"].settle(range(4), [(4, 4)], None)
    records = [ledger.record(number) for ledger in ledgers.values() for number in range(4)]
    return ledgers, records


def audited(root: Path, ledgers: Ledgers, records: Sequence[bytes]) -> AuditReport:
    """The audit of three directories that all hold these records."""
    first = write(root / "n1", records)
    for node in NODES[1:]:
        shutil.copytree(first, root / node)
    return audit({node: root / node for node in NODES}, list(ledgers.values()))


def test_a_sound_log_has_no_faults(tmp_path: Path) -> None:
    report = audited(tmp_path, *sound())
    assert report.faults == ()
    assert (report.acknowledged, report.unknown_found, report.unknown_missing) == (8, 0, 0)
    assert [node.records for node in report.nodes.values()] == [8, 8, 8]


Spoil = Callable[[Ledgers, list[bytes]], None]


def lose_a_record(ledgers: Ledgers, records: list[bytes]) -> None:
    del records[7]


def move_a_record(ledgers: Ledgers, records: list[bytes]) -> None:
    records.insert(4, records.pop(0))


def double_a_record(ledgers: Ledgers, records: list[bytes]) -> None:
    records.append(records[7])


def change_the_bytes(ledgers: Ledgers, records: list[bytes]) -> None:
    records[2] = records[2][:-1] + b"?"


def append_what_nobody_did(ledgers: Ledgers, records: list[bytes]) -> None:
    records.append(b"from nowhere")


def append_what_was_never_submitted(ledgers: Ledgers, records: list[bytes]) -> None:
    records.append(ledgers["n2"].record(4))


def append_what_was_refused(ledgers: Ledgers, records: list[bytes]) -> None:
    ledgers["n2"].submitted = 5
    ledgers["n2"].settle(range(4, 5), [], Closed("not in the log"))
    records.append(ledgers["n2"].record(4))


def acknowledge_another_offset(ledgers: Ledgers, records: list[bytes]) -> None:
    ledgers["n1"].settle(range(1), [(1, 1)], None)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lose_a_record, "1 acknowledged records of n2 are not where they should be"),
        (move_a_record, "record 0 of n1 is there twice or out of order"),
        (double_a_record, "offset 8: record 3 of n2 is there twice or out of order"),
        (change_the_bytes, "offset 2: record 2 of n1 has other bytes than it had"),
        (append_what_nobody_did, "offset 8 holds b'from nowhere', which nobody appended"),
        (append_what_was_never_submitted, "which was never appended"),
        (append_what_was_refused, "offset 8: record 4 of n2 was refused, and is in the log"),
        (acknowledge_another_offset, "offset 0: record 0 of n1 was acknowledged at 1"),
    ],
)
def test_each_fault_is_found(spoil: Spoil, says: str, tmp_path: Path) -> None:
    ledgers, records = sound()
    spoil(ledgers, records)
    assert says in "\n".join(audited(tmp_path, ledgers, records).faults)


def test_nodes_that_hold_different_records_are_found(tmp_path: Path) -> None:
    ledgers, records = sound()
    for node in NODES:
        write(tmp_path / node, records if node != "n3" else [*records[:-1], b"n2:0000003 other"])
    report = audit({node: tmp_path / node for node in NODES}, list(ledgers.values()))
    assert "the nodes differ in length or digest" in report.faults[0]
    assert any("n3 and n1 differ from offset 0 on" in fault for fault in report.faults)


def test_a_node_that_holds_less_is_found(tmp_path: Path) -> None:
    ledgers, records = sound()
    audited(tmp_path, ledgers, records)
    shutil.rmtree(tmp_path / "n2")
    shutil.copytree(tmp_path / "n1", tmp_path / "n2")
    with replog.open(tmp_path / "n2", agreement=Raft()) as log:
        log.append(b"n2:0000004 more").result(10)
    report = audit({node: tmp_path / node for node in NODES}, list(ledgers.values()))
    assert "the nodes differ in length or digest" in report.faults[0]
    assert any("n2 and n1 differ from offset 8 on" in fault for fault in report.faults)


def test_records_of_unknown_outcome_may_be_there_once_or_not(tmp_path: Path) -> None:
    ledgers, records = sound()
    ledgers["n1"].submitted = 7
    ledgers["n1"].settle(range(4, 7), [], OutcomeUnknown("in flight"))
    report = audited(tmp_path, ledgers, [*records, ledgers["n1"].record(5)])
    assert report.faults == ()
    assert (report.acknowledged, report.unknown_found, report.unknown_missing) == (8, 1, 2)


def test_a_ledger_knows_each_outcome() -> None:
    ledger = Ledger("n1", LINES, submitted=9)
    ledger.settle(range(3), [(10, 2), (20, 1)], None)
    ledger.settle(range(3, 6), [(21, 1)], Closed("not in the log"))
    ledger.settle(range(6, 8), [(30, 1)], OutcomeUnknown("in flight"))
    expected = [10, 11, 20, 21, REFUSED, REFUSED, 30, UNKNOWN, UNKNOWN]
    assert list(ledger.outcomes()) == expected
    assert ledger.acknowledged == 5
    assert ledger.last_acknowledged == 6


def test_a_record_is_a_command_that_says_whose_it_is() -> None:
    ledger = Ledger("n1", LINES)
    machine = KeyValue()
    numbers = (0, 1, KEYS, 12_345_678)
    records = [Record(at, ledger.record(number), 0) for at, number in enumerate(numbers)]
    assert machine.apply(records) == [None, None, b"n1:0000000 first", None]
    assert dict(machine.items())[b"0"] == b"n1:%07d %s" % (KEYS, LINES[KEYS % 3])
    assert [origin_of(record.data) for record in records] == [("n1", n) for n in numbers]


@pytest.mark.parametrize(
    "data", [b"", b"from nowhere", KeyValue.delete(b"0"), KeyValue.put(b"0", b"n1:x y")]
)
def test_a_record_of_nobody_is_told_apart(data: bytes) -> None:
    assert origin_of(data) is None


def test_a_ledger_takes_eight_bytes_for_each_record() -> None:
    ledger = Ledger("n1", LINES, submitted=100_000)
    for place in range(0, 100_000, 2):
        ledger.settle(range(place, place + 2), [(3 * place, 1), (3 * place + 2, 1)], None)
    outcomes = ledger.outcomes()
    assert len(outcomes) * outcomes.itemsize == 800_000
    assert sys.getsizeof(outcomes) < 1_000_000


def test_what_is_compacted_is_not_looked_for_and_the_rest_is(tmp_path: Path) -> None:
    ledgers = submitted(4)
    ledgers["n1"].settle(range(4), [(0, 4)], None)
    ledgers["n2"].settle(range(4), [(4, 4)], None)
    with replog.open(tmp_path / "n1", agreement=Raft()) as log:
        for ledger in ledgers.values():
            log.append_many([ledger.record(number) for number in range(4)]).result(10)
        log.snapshot().result(10)
    for node in NODES[1:]:
        shutil.copytree(tmp_path / "n1", tmp_path / node)
    compact(tmp_path / "n2", 4)
    directories = {node: tmp_path / node for node in NODES}
    report = audit(directories, list(ledgers.values()))
    assert report.faults == ()
    assert (report.acknowledged, report.compacted) == (4, 4)
    ledgers["n2"].settle(range(3, 4), [(8, 1)], None)
    assert (
        "record 3 of n2 was acknowledged at 8"
        in audit(directories, list(ledgers.values())).faults[0]
    )


@pytest.mark.parametrize(
    ("lines", "shares"),
    [
        (7, [[b"0", b"3", b"6"], [b"1", b"4"], [b"2", b"5"]]),
        (2, [[b"0", b"1"], [b"0", b"1"], [b"0", b"1"]]),
    ],
)
def test_a_text_is_shared_out(lines: int, shares: list[list[bytes]], tmp_path: Path) -> None:
    source = tmp_path / "text"
    source.write_bytes(b"".join([b"%d\r\n" % number for number in range(9)]))
    text = read_text(source, lines)
    assert [text[number] for number in range(len(text))] == [b"%d" % n for n in range(lines)]
    for place, share in enumerate(shares):
        part = text.share(place, 3)
        assert [part[number] for number in range(len(part))] == share


def test_a_machine_that_came_elsewhere_than_the_replay_is_found(tmp_path: Path) -> None:
    _, records = sound()
    directory = write(tmp_path / "n1", records)
    machine = KeyValue()
    machine.apply([Record(at, data, 0) for at, data in enumerate(records)])
    digest = machine.digest().hex()
    live = dict.fromkeys(NODES, LiveMachine(len(records), digest))
    report = compare_replay("n1", directory, live)
    assert (report.faults, report.digest, report.keys) == ((), digest, 4)
    for wrong in (LiveMachine(7, digest), LiveMachine(8, "00" * 16), LiveMachine(8, None)):
        (fault,) = compare_replay("n1", directory, {**live, "n3": wrong}).faults
        assert fault.startswith("the machine of n3 came to digest")
