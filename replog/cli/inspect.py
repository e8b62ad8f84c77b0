"""`replog inspect`: what a directory holds, as it is written down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from replog.cli.base import Command, directory_argument, json_option, print_json, print_text
from replog.cli.entries import entry_fields, entry_text, moment_text
from replog.membership import BACKUP_CLUSTER_ID
from replog.store.epochs import count_entries

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from replog.log_reader import LogReader
    from replog.store.interface import StoredSnapshot

EPOCHS_SHOWN_MAX = 10

Range = tuple[int, int | None]


def parse_range(
    _context: click.Context, _option: click.Parameter, value: str | None
) -> Range | None:
    """`FROM:TO`, both optional: (first index, index after the last)."""
    if value is None:
        return None
    first, colon, stop = value.partition(":")
    if not colon or not all(not bound or bound.isdecimal() for bound in (first, stop)):
        raise click.BadParameter(f"{value!r} is not FROM:TO, as in 1:100")
    return int(first or 1), int(stop) if stop else None


@click.command(cls=Command)
@directory_argument
@click.option(
    "--entries",
    "indexes",
    metavar="FROM:TO",
    callback=parse_range,
    help="List the entries from index FROM up to TO, without it; either may be left out.",
)
@json_option
def inspect(*, directory: Path, indexes: Range | None, as_json: bool) -> None:
    """Show whose directory DIR is, what its node has promised and delivered, and its sizes.

    The node may be running. Nothing is checked beyond what is read: that is for `replog verify`.
    """
    from replog.log_reader import LogReader

    with LogReader(directory) as reader:
        if indexes is None:
            fields = store_fields(directory, reader)
            if as_json:
                print_json(fields)
            else:
                print_text("\n".join(_lines(fields)))
            return
        for entry in list_entries(reader, *indexes):
            if as_json:
                print_json(entry)
            else:
                print_text(entry_text(entry))


def list_entries(reader: LogReader, start: int, stop: int | None) -> Iterator[dict[str, Any]]:
    """Entries by index, committed or not, for programs."""
    delivered_to = reader.position().index
    stop = reader.last_index + 1 if stop is None else stop
    for stored, entry in reader.stored_entries(start, stop):
        row = reader.row(stored.index) if stored.index <= delivered_to else None
        yield entry_fields(stored.index, stored.epoch, entry, row)


def store_fields(directory: Path, reader: LogReader) -> dict[str, Any]:
    """What is written down besides the entries, for programs."""
    identity, quorums = reader.identity, reader.membership.quorums
    found = reader.survey()
    position, base = found.position, found.base
    entries = count_entries(found.epochs, found.last_index)
    return {
        "directory": str(directory),
        "cluster_id": identity.cluster_id.hex(),
        "backup": identity.cluster_id == BACKUP_CLUSTER_ID,
        "node": identity.node,
        "agreement": identity.agreement,
        "store_id": identity.store_id.hex(),
        "life": identity.life,
        "introduced": found.introduced,
        "members": sorted(quorums.voters),
        "quorums": {"elect": quorums.elect, "commit": quorums.commit},
        "eras": [
            {
                "agreement": found.era.agreement,
                "members": sorted(found.era.membership.voters),
                "first_index": found.era.first_index,
            }
        ],
        "promise": [*found.promise],
        "epochs": [[index, *epoch] for index, epoch in found.epochs],
        "base": {
            "index": base.index,
            "epoch": [*base.epoch],
            "offset": base.offset,
            "digest": base.digest.hex(),
            "timestamp_ms": base.timestamp_ms,
        },
        "first_offset": base.offset,
        "entries": entries,
        "last_index": found.last_index,
        "position": {
            "index": position.index,
            "offset": position.offset,
            "digest": position.digest.hex(),
            "timestamp_ms": position.timestamp_ms,
        },
        "beyond": entries - (position.index - base.index),
        "snapshot": snapshot_fields(found.snapshot),
        "readers": reader_fields(found.readers, position.offset),
        "producers": {node: row._asdict() for node, row in sorted(position.producers.items())},
        "peers": {
            node: {"store_id": peer.store_id.hex(), "life": peer.life}
            for node, peer in sorted(found.peers.items())
        },
        "tables": {name: size._asdict() for name, size in found.tables.items()},
        "map_bytes": found.map_bytes,
        "used_bytes": found.used_bytes,
        "file_bytes": found.file_bytes,
    }


def snapshot_fields(stored: StoredSnapshot | None) -> dict[str, int] | None:
    """The newest whole snapshot, for programs."""
    if stored is None:
        return None
    snapshot = stored.snapshot
    return {
        "index": snapshot.index,
        "offset": snapshot.position.offset,
        "size": snapshot.size,
        "pieces": snapshot.pieces,
    }


def reader_fields(readers: Mapping[str, int], end_offset: int) -> dict[str, dict[str, int]]:
    """Named readers, for programs: what each has acknowledged, and by how much it lags."""
    return {
        name: {"offset": offset, "lag": end_offset - offset}
        for name, offset in sorted(readers.items())
    }


def _lines(fields: dict[str, Any]) -> Iterator[str]:
    """For people: a name, and beside it what there is to say."""
    for name, lines in _blocks(fields).items():
        for place, line in enumerate(lines or ["none"]):
            yield f"{'' if place else name:13}{line}"


def _blocks(fields: dict[str, Any]) -> dict[str, list[str]]:
    quorums, position = fields["quorums"], fields["position"]
    members = ", ".join(fields["members"])
    takes_part = fields["introduced"] or fields["backup"]
    waits = "" if takes_part else "; waits for the other members of its first start"
    beyond = f"; {fields['beyond']} beyond, not known committed" if fields["beyond"] else ""
    moment_ms = position["timestamp_ms"]
    live_bytes = sum(size["bytes"] for size in fields["tables"].values())
    sizes = (
        f"{live_bytes} bytes in use, in a file of {fields['used_bytes']} that may grow to "
        f"{fields['map_bytes']}"
    )
    cluster = "none: this is a backup" if fields["backup"] else fields["cluster_id"]
    return {
        "directory": [fields["directory"]],
        "cluster": [cluster],
        "node": [f"{fields['node']}, life {fields['life']}{waits}"],
        "store": [fields["store_id"]],
        "agreement": [
            f"{era['agreement']}, from entry {era['first_index']} on" for era in fields["eras"]
        ],
        "members": [f"{members}; {quorums['elect']} elect, {quorums['commit']} commit"],
        "promise": [_epoch_text(*fields["promise"])],
        "epochs": _epoch_lines(fields["epochs"]),
        "delivered": [f"{position['offset']} records in {position['index']} entries{beyond}"],
        "kept": _kept_lines(fields["base"], position["offset"]),
        "snapshot": _snapshot_lines(fields["snapshot"]),
        "readers": [
            f"{name} has acknowledged up to offset {row['offset']}, {row['lag']} records behind"
            for name, row in fields["readers"].items()
        ],
        "digest": [position["digest"]],
        "last record": [moment_text(moment_ms)] if moment_ms else [],
        "producers": [
            f"{name} in life {row['life']}, next sequence {row['next_sequence']}"
            for name, row in fields["producers"].items()
        ],
        "peers": [
            f"{name} in life {row['life']}, store {row['store_id']}"
            for name, row in fields["peers"].items()
        ],
        "tables": [
            f"{name:10}{row['rows']:>12} rows{row['bytes']:>16} bytes"
            for name, row in fields["tables"].items()
        ],
        "file": [sizes],
    }


def _kept_lines(base: dict[str, Any], end_offset: int) -> list[str]:
    if not base["index"]:
        return ["everything"]
    count, offset = end_offset - base["offset"], base["offset"]
    return [f"{count} records from offset {offset} on; compacted to entry {base['index']}"]


def _snapshot_lines(snapshot: dict[str, int] | None) -> list[str]:
    if snapshot is None:
        return []
    state = f"{snapshot['size']} bytes in {snapshot['pieces']} pieces"
    state = state if snapshot["pieces"] else "without a state"
    return [f"of entry {snapshot['index']}, at offset {snapshot['offset']}; {state}"]


def _epoch_lines(epochs: list[list[Any]]) -> list[str]:
    hidden = max(0, len(epochs) - EPOCHS_SHOWN_MAX)
    shown = [f"from entry {first}: {_epoch_text(*epoch)}" for first, *epoch in epochs[hidden:]]
    return [f"{hidden} earlier ones", *shown] if hidden else shown


def _epoch_text(number: int, node: str) -> str:
    """A Raft promise may name nobody, a gap has no epoch at all."""
    return f"epoch {number} of {node}" if node else f"epoch {number}" if number else "none"
