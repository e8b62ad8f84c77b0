"""The audit finds what it is there to find: each kind of fault, in logs made up for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

import replog
from raftlog import Raft
from replog.demo.audit import AuditReport, audit
from replog.demo.feeder import REFUSED, UNKNOWN, Ledger
from replog.errors import Closed, OutcomeUnknown

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
    records[2] += b"."


def append_what_nobody_did(ledgers: Ledgers, records: list[bytes]) -> None:
    records.append(b"from nowhere")


def append_what_was_never_submitted(ledgers: Ledgers, records: list[bytes]) -> None:
    records.append(ledgers["n2"].record(4))


def append_what_was_refused(ledgers: Ledgers, records: list[bytes]) -> None:
    ledgers["n2"].submitted = 5
    ledgers["n2"].settle(range(4, 5), [], Closed("not in the log"))
    records.append(ledgers["n2"].record(4))


def acknowledge_another_offset(ledgers: Ledgers, records: list[bytes]) -> None:
    ledgers["n1"].ranges[0] = ledgers["n1"].ranges[0]._replace(first_offset=1)


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
