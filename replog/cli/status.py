"""`replog status`: what the nodes in some directories see of themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from replog.cli.base import Command, directories_argument, json_option, print_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

ANSWER_SECONDS_MAX = 2.0
WIDTH = 120
"""Columns where there is no terminal to ask."""


@click.command(cls=Command)
@directories_argument
@json_option
def status(*, directories: tuple[Path, ...], as_json: bool) -> None:
    """Show the nodes in DIR...: running ones as they see themselves, stopped ones from disk."""
    rows = []
    for directory in directories:
        fields = {"directory": str(directory), **_status_of(directory)}
        if as_json:
            print_json(fields)
        rows.append(fields)
    if not as_json:
        _print_table(rows)


def _status_of(directory: Path) -> dict[str, Any]:
    from replog.control import ControlClient, NodeNotRunning, NodeSilent
    from replog.log_reader import LogReader

    try:
        with ControlClient(directory, ANSWER_SECONDS_MAX) as client:
            return {"state": "running", **client.status(ANSWER_SECONDS_MAX)}
    except NodeNotRunning as error:
        state = "silent" if isinstance(error, NodeSilent) else "stopped"
    with LogReader(directory) as reader:
        found = reader.survey()
        position, kept = found.position, found.snapshot
        return {
            "state": state,
            "node": reader.identity.node,
            "agreement": reader.identity.agreement,
            "members": sorted(reader.membership.voters),
            "life": reader.identity.life,
            "first_offset": found.base.offset,
            "end_offset": position.offset,
            "last_index": found.last_index,
            "applied_index": position.index,
            "digest": position.digest.hex(),
            "snapshot": kept
            and {
                "index": kept.snapshot.index,
                "offset": kept.snapshot.position.offset,
                "size": kept.snapshot.size,
            },
            "readers": dict(sorted(found.readers.items())),
        }


def _offset_text(row: dict[str, Any], name: str) -> str:
    """Of a machine, or a snapshot: it stands for every record below this offset."""
    return str(row[name]["offset"]) if row.get(name) else ""


def kept_lines(row: dict[str, Any]) -> Iterator[str]:
    """For people: what a node is about to keep, and whom it keeps records for."""
    if row.get("transfer"):
        yield f"{row['node']} takes a snapshot of another node: {row['transfer']}"
    for name, offset in row["readers"].items():
        lag = row["end_offset"] - offset
        yield f"{row['node']}: reader {name} is at offset {offset}, {lag} records behind"


def _print_table(rows: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("node", "role", "leader"):
        table.add_column(title)
    titles = ("first", "records", "entries", "committed", "applied", "waiting")
    for title in ("epoch", *titles, "snapshot", "machine"):
        table.add_column(title, justify="right")
    table.add_column("digest")
    for row in rows:
        names = ("first_offset", "end_offset", "last_index", "commit_index", "applied_index")
        numbers = [str(row.get(name, "")) for name in ("epoch", *names, "pending_records")]
        numbers += [_offset_text(row, name) for name in ("snapshot", "machine")]
        role = row.get("role", row["state"])
        table.add_row(
            row["node"],
            role,
            row.get("leader") or "",
            *numbers,
            row["digest"][:8],
            style="green" if role == "leader" else "dim" if row["state"] != "running" else None,
        )
    console = Console()
    console = console if console.is_terminal else Console(width=WIDTH)
    console.print(table)
    for row in rows:
        for line in kept_lines(row):
            console.print(line)
        if row.get("alarm"):
            console.print(f"{row['node']}: ALARM: {row['alarm']}", style="red")
        machine = row.get("machine")
        if machine and machine["failure"]:
            console.print(
                f"{row['node']}: the machine stopped at offset {machine['offset']}: "
                f"{machine['failure']}",
                style="red",
            )
        if row.get("introduced") is False:
            console.print(f"{row['node']} waits for the other members of its first start")
