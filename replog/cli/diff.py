"""`replog diff`: whether two directories hold the same log, and where they part.

Rules of this file:

1. The digest after an entry covers everything up to it. So equal digests are equal logs, also where
   they are compacted; the first difference is found by halving, and nothing else of the logs is
   read.
2. Compared is what both nodes have delivered: what lies beyond is not known to be committed.
3. A difference where one of the logs is compacted is not looked for: it is said that it lies there.
   Logs of which one ends before the other begins cannot be compared.
"""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from replog.cli.base import (
    Command,
    directory_type,
    json_option,
    print_json,
    print_text,
)
from replog.cli.entries import entry_fields, entry_text, producer_texts
from replog.cli.exits import FAILED_STATUS
from replog.entry import DIGEST_START
from replog.errors import ConfigError, EntryCompacted, OffsetOutOfRange, ReplogError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from replog.log_reader import LogReader
    from replog.machine import Record

FIRST_BYTES = 48
"""Shown of a record."""


@click.command(cls=Command)
@click.argument("first", metavar="DIR1", type=directory_type)
@click.argument("second", metavar="DIR2", type=directory_type)
@json_option
@click.pass_context
def diff(context: click.Context, *, first: Path, second: Path, as_json: bool) -> None:
    """Compare the logs in DIR1 and DIR2: what their nodes have delivered. Both may be running.

    Exits with 1 when they differ, and shows the first entry that does. A log that is the beginning
    of the other one does not. Where a log is compacted its entries count and cannot be shown.
    """
    from replog.log_reader import LogReader

    if first.resolve() == second.resolve():
        raise ConfigError(f"{first} and {second} are the same directory")
    with LogReader(first) as left, LogReader(second) as right:
        fields = _compare_while_compacting(left, right)
    fields = {"directories": [str(first), str(second)], **fields}
    if as_json:
        print_json(fields)
    else:
        print_text("\n".join(_lines(fields)))
    if fields["difference"] is not None:
        context.exit(FAILED_STATUS)


def _compare_while_compacting(left: LogReader, right: LogReader) -> dict[str, Any]:
    """`compare`, from anew whenever a running node has compacted what was to be compared."""
    while True:
        try:
            return compare(left, right)
        except (EntryCompacted, OffsetOutOfRange):
            continue


def compare(left: LogReader, right: LogReader) -> dict[str, Any]:
    """What two logs have in common, and the first difference, for programs.

    Raises `ReplogError` for logs that cannot be compared, `EntryCompacted` or `OffsetOutOfRange`
    when a node compacts meanwhile.
    """
    positions = left.position(), right.position()
    bases = left.base().index, right.base().index
    common, first = min(position.index for position in positions), max(bases)
    if common < first:
        raise ReplogError(
            f"one log ends with entry {common}, and the other begins behind entry {first}: they "
            "cannot be compared"
        )
    index = first_difference(left.digest, right.digest, first, common)
    difference: dict[str, Any] | None = None
    if index is not None and index <= first:
        # Nothing is known to be equal, nor which entry differs.
        common = 0
        difference = {"index": None, "at_or_below": first, "entries": []}
    elif index is not None:
        common = index - 1
        difference = {"index": index, "entries": _entries_at(index, left, right)}
    return {
        "nodes": [reader.identity.node for reader in (left, right)],
        "clusters": [reader.identity.cluster_id.hex() for reader in (left, right)],
        "entries": [position.index for position in positions],
        "records": [position.offset for position in positions],
        "compacted": [*bases],
        "common_entries": common,
        "common_digest": (left.digest(common) if common >= bases[0] else DIGEST_START).hex(),
        "difference": difference,
    }


def first_difference(
    left: Callable[[int], bytes], right: Callable[[int], bytes], first: int, last: int
) -> int | None:
    """The lowest index from `first` to `last` with different digests after it; None for none."""
    if left(last) == right(last):
        return None
    if left(first) != right(first):
        return first
    equal, different = first, last
    while different - equal > 1:
        middle = (equal + different) >> 1
        if left(middle) == right(middle):
            equal = middle
        else:
            different = middle
    return different


def _entries_at(index: int, left: LogReader, right: LogReader) -> list[dict[str, Any]]:
    """The entries of both logs at this index, each with its first record that the other lacks."""
    both = []
    records: list[Record | None] = [None, None]
    pairs = zip_longest(_records_at(index, left), _records_at(index, right))
    for pair in pairs:
        if pair[0] is None or pair[1] is None or pair[0].data != pair[1].data:
            records = [*pair]
            break
    for reader, record in zip((left, right), records, strict=True):
        stored, entry = reader.entry(index)
        fields = entry_fields(index, stored.epoch, entry, reader.row(index))
        fields["differs"] = None
        if record is not None:
            start = record.data[:FIRST_BYTES].hex()
            fields["differs"] = {"offset": record.offset, "bytes": len(record.data), "start": start}
        both.append(fields)
    return both


def _records_at(index: int, reader: LogReader) -> Iterator[Record]:
    row = reader.row(index)
    return reader.records(row.base_offset, row.base_offset + row.count)


def _lines(fields: dict[str, Any]) -> Iterator[str]:
    """For people."""
    first, second = fields["directories"]
    if fields["clusters"][0] != fields["clusters"][1]:
        yield "these are logs of different clusters: {} and {}".format(*fields["clusters"])
    common, digest = fields["common_entries"], f"digest {fields['common_digest']}"
    entries, records = fields["entries"], fields["records"]
    difference = fields["difference"]
    if difference is not None and difference["index"] is None:
        yield (
            f"different: in entry {difference['at_or_below']} or before it, where one of them is "
            "compacted"
        )
    elif difference is not None:
        before = f"; the {common} before it are equal, {digest}" if common else ""
        yield f"different: entry {difference['index']} is the first that differs{before}"
        for directory, entry in zip((first, second), difference["entries"], strict=True):
            yield f"{directory}: {entry_text(entry)}"
            yield from [f"    {text}" for text in producer_texts(entry)]
            if entry["differs"] is not None:
                yield f"    {_record_text(entry['differs'])}"
    elif entries[0] == entries[1]:
        yield f"equal: both hold {records[0]} records in {common} entries, {digest}"
    else:
        shorter, longer = (0, 1) if entries[0] < entries[1] else (1, 0)
        names = (first, second)
        yield (
            f"no difference: {names[shorter]} holds the first {common} of the {entries[longer]} "
            f"entries of {names[longer]}, {records[shorter]} of its {records[longer]} records; "
            f"{digest}"
        )


def _record_text(record: dict[str, Any]) -> str:
    start = bytes.fromhex(record["start"])
    more = "..." if record["bytes"] > len(start) else ""
    return f"differs at offset {record['offset']}: {record['bytes']} bytes, {start!r}{more}"
