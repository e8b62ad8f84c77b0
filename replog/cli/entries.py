"""One entry of a log, as the commands show it."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from replog.entry import Entry, Epoch
    from replog.store.interface import Delivered


def entry_fields(index: int, epoch: Epoch, entry: Entry, row: Delivered | None) -> dict[str, Any]:
    """For programs. `row` is None for an entry that is not delivered: its records have no offsets
    and may never have."""
    fields: dict[str, Any] = {
        "index": index,
        "epoch": [*epoch],
        "kind": entry.kind.name.lower(),
        "records": sum([run.count for run in entry.runs]),
        "bytes": len(entry.data),
        "timestamp_ms": entry.timestamp_ms,
        "runs": [
            {**run._asdict(), "delivered": row is not None and place in row.accepted}
            for place, run in enumerate(entry.runs)
        ],
        "delivered": None,
    }
    if row is not None:
        fields["delivered"] = {
            "offset": row.base_offset,
            "records": row.count,
            "timestamp_ms": row.timestamp_ms,
            "digest": row.digest.hex(),
        }
    return fields


def entry_text(fields: dict[str, Any]) -> str:
    """For people, in one line."""
    number, node = fields["epoch"]
    delivered, runs = fields["delivered"], fields["runs"]
    if delivered is None:
        place = "not delivered"
    elif delivered["records"]:
        first = delivered["offset"]
        place = f"offsets {first} to {first + delivered['records'] - 1}"
    else:
        place = f"no offset, before {delivered['offset']}"
    parts = [f"entry {fields['index']}", fields["kind"], f"epoch {number} of {node}", place]
    if runs:
        parts.append(f"{fields['records']} records in {len(runs)} runs")
    parts += [f"{fields['bytes']} bytes", moment_text(fields["timestamp_ms"])]
    return "  ".join(parts)


def producer_texts(fields: dict[str, Any]) -> Iterator[str]:
    """For people: a line for each producer that has runs in an entry."""
    by_producer = itemgetter("node", "life")
    for (node, life), group in groupby(sorted(fields["runs"], key=by_producer), by_producer):
        runs = list(group)
        count, size = (sum([run[name] for run in runs]) for name in ("count", "size"))
        text = (
            f"{count} records of {node} in life {life}, {len(runs)} runs from sequence "
            f"{runs[0]['first_sequence']}, {size} bytes"
        )
        skipped = len([run for run in runs if not run["delivered"]])
        yield f"{text}; {skipped} runs are not delivered" if skipped else text


def moment_text(timestamp_ms: int) -> str:
    """Milliseconds since 1970, for people."""
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC).isoformat(" ", "milliseconds")
