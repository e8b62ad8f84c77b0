"""Whether the directories hold everything that was acknowledged, once, everywhere alike.

What must hold, read from the directories and the ledgers:

1. All nodes hold the same records at the same offsets, and the same digest after the last entry
   that all of them have: behind it, one that stopped later may have the first of a leadership.
2. Offsets have no gap.
3. Every acknowledged record is there exactly once, at its acknowledged offset.
4. No record is there that was never submitted, or was refused; one whose outcome is unknown is
   there at most once.
5. Each node's records are there in the order they were submitted in.

What a log has compacted is gone: there the digest speaks for the nodes, and nothing for the
ledgers.
"""

from __future__ import annotations

from contextlib import ExitStack
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

from replog.demo.feeder import REFUSED, UNKNOWN, origin_of
from replog.errors import StoreError
from replog.log_reader import LogReader
from replog.reading import records_of

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from replog.demo.feeder import Ledger
    from replog.entry import Entry
    from replog.store.interface import Delivered

FAULTS_MAX = 20


class NodeAudit(NamedTuple):
    """What one node's directory holds."""

    records: int
    entries: int
    digest: str


class AuditReport(NamedTuple):
    """What an audit found; all is well when `faults` is empty."""

    nodes: Mapping[str, NodeAudit]
    acknowledged: int
    """Records acknowledged and found."""
    unknown_found: int
    """Records whose outcome the ledgers do not know, found in the log."""
    unknown_missing: int
    """And not found."""
    faults: tuple[str, ...]
    compacted: int = 0
    """Records acknowledged at offsets that a node has compacted: not looked for."""


class Journal:
    """What one node's ledger expects, and how far the walk through the log has come with it."""

    def __init__(self, ledger: Ledger, first_offset: int) -> None:
        self.ledger = ledger
        self.outcomes: array[int] = ledger.outcomes()
        self.compacted = len([offset for offset in self.outcomes if 0 <= offset < first_offset])
        self.next_sequence = 0
        self.acknowledged = 0
        self.unknown = 0

    def check(self, offset: int, sequence: int, data: bytes) -> str:
        """Look at one record of this node, in log order; the fault, or nothing."""
        name = self.ledger.node
        if not 0 <= sequence < self.ledger.submitted:
            return f"offset {offset} holds {data[:40]!r}, which was never appended"
        if data != self.ledger.record(sequence):
            return f"offset {offset}: record {sequence} of {name} has other bytes than it had"
        if sequence < self.next_sequence:
            return f"offset {offset}: record {sequence} of {name} is there twice or out of order"
        self.next_sequence = sequence + 1
        expected = self.outcomes[sequence]
        if expected == offset:
            self.acknowledged += 1
        elif expected == UNKNOWN:
            self.unknown += 1
        elif expected == REFUSED:
            return f"offset {offset}: record {sequence} of {name} was refused, and is in the log"
        else:
            return f"offset {offset}: record {sequence} of {name} was acknowledged at {expected}"
        return ""

    def missing(self) -> Iterator[str]:
        """At the end: what was acknowledged and did not come."""
        lost = self.ledger.acknowledged - self.compacted - self.acknowledged
        if lost:
            yield f"{lost} acknowledged records of {self.ledger.node} are not where they should be"


def audit(directories: Mapping[str, Path], ledgers: Sequence[Ledger]) -> AuditReport:
    """Compare the directories of stopped nodes with each other and with the ledgers.

    Raises `StoreError` for a directory that cannot be read, or compared with the others.
    """
    faults: list[str] = []
    nodes: dict[str, NodeAudit] = {}
    with ExitStack() as opened:
        logs = []
        readers = {node: opened.enter_context(LogReader(at)) for node, at in directories.items()}
        positions = {node: reader.position() for node, reader in readers.items()}
        bases = [reader.base() for reader in readers.values()]
        first_offset = max([base.offset for base in bases])
        journals = {ledger.node: Journal(ledger, first_offset) for ledger in ledgers}
        common_index = min([position.index for position in positions.values()])
        if common_index < max([base.index for base in bases]):
            raise StoreError(f"a node stopped at entry {common_index}, which another has compacted")
        for node, reader in readers.items():
            records, digest = positions[node].offset, reader.digest(common_index)
            nodes[node] = NodeAudit(records, positions[node].index, digest.hex())
            logs.append(reader.entries(first_offset, records))
        if len({(node.records, node.digest) for node in nodes.values()}) != 1:
            faults.append(f"the nodes differ in length or digest: {nodes}")
        for found in _compared(list(nodes), logs, journals, first_offset):
            faults.append(found)
            if len(faults) == FAULTS_MAX:
                break
    for journal in journals.values():
        faults += journal.missing()
    unknown = sum([journal.outcomes.count(UNKNOWN) for journal in journals.values()])
    found_unknown = sum([journal.unknown for journal in journals.values()])
    return AuditReport(
        nodes,
        sum([journal.acknowledged for journal in journals.values()]),
        found_unknown,
        unknown - found_unknown,
        tuple(faults),
        sum([journal.compacted for journal in journals.values()]),
    )


def _compared(
    nodes: Sequence[str],
    logs: Sequence[Iterator[tuple[Delivered, Entry]]],
    journals: Mapping[str, Journal],
    offset: int,
) -> Iterator[str]:
    """The faults met in a walk through all logs side by side, from this offset on."""
    for rows in zip_longest(*logs):
        for node, row in zip(nodes, rows, strict=True):
            if row != rows[0]:
                yield f"{node} and {nodes[0]} differ from offset {offset} on"
        if len(set(rows)) > 1:
            return
        for record in records_of(*rows[0]):
            if record.offset != offset:
                yield f"offset {offset} is missing: the next record is at {record.offset}"
            offset = record.offset + 1
            name, sequence = origin_of(record.data) or ("", 0)
            journal = journals.get(name)
            if journal is None:
                yield f"offset {record.offset} holds {record.data[:40]!r}, which nobody appended"
            elif fault := journal.check(record.offset, sequence, record.data):
                yield fault
