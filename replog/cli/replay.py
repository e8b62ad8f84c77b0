"""`replog replay`: the records in a directory, printed or fed to a state machine."""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING

import click

from replog.cli.base import Command, directory_argument, json_option, print_json, print_text
from replog.cli.machine import METAVAR, load_applies
from replog.cli.progress import offsets_bar
from replog.cli.tail import tail
from replog.errors import MachineStopped

if TYPE_CHECKING:
    from pathlib import Path

    from replog.replaying import Replayed


@click.command(cls=Command)
@directory_argument
@click.option(
    "--from",
    "start",
    type=click.IntRange(min=0),
    help="From this offset on. [default: for a machine, its newest snapshot before the end]",
)
@click.option("--whole", is_flag=True, help="From the first record of all on.")
@click.option("--to", "stop", type=click.IntRange(min=0), help="Up to this offset, without it.")
@click.option(
    "--machine",
    metavar=METAVAR,
    help="Feed the records to what FACTORY() makes, as replog.machines:KeyValue. Modules of the "
    "current directory are found too.",
)
@json_option
@click.pass_context
def replay(
    context: click.Context,
    *,
    directory: Path,
    start: int | None,
    whole: bool,
    stop: int | None,
    machine: str | None,
    as_json: bool,
) -> None:
    """Print the records of the log in DIR, or feed a state machine with them and print its digest.

    With --to the machine comes to its state at that offset. The node may be running; nothing is
    asked of it. Exits with 1 when the machine raises.
    """
    if whole and start is not None:
        raise click.UsageError("give --whole or --from, not both")
    start = 0 if whole else start
    if machine is None:
        count = sys.maxsize if start is None else None
        shown = {"directory": directory, "count": count, "start": start, "stop": stop}
        context.invoke(tail, **shown, as_json=as_json)
        return
    import replog

    made = load_applies(machine)
    if start:
        click.echo(f"note: the machine starts empty at offset {start}", err=True)
    try:
        with offsets_bar(start, shown=not as_json) as advance:
            replayed = replog.replay(directory, made, start, stop, advance)
    except MachineStopped as error:
        traceback.print_exception(error.__cause__)
        raise
    if as_json:
        digest = None if replayed.digest is None else replayed.digest.hex()
        hexadecimal = {"digest": digest, "log_digest": replayed.log_digest.hex()}
        fields = {**replayed._asdict(), **hexadecimal}
        print_json({"from": fields.pop("start"), **fields})
    else:
        print_text(_text(replayed))


def _text(replayed: Replayed) -> str:
    count, seconds, start = replayed.records, replayed.seconds, replayed.start
    range_text = f"offsets {start} to {replayed.offset - 1}" if count else "no offset"
    rate_text = f"in {seconds:.2f} s ({count / max(seconds, 0.001):,.0f} a second)"
    lines = []
    if replayed.snapshot_index:
        lines.append(
            f"began with the snapshot of entry {replayed.snapshot_index}, the state at offset "
            f"{start}"
        )
    lines.append(f"replayed {count} records at {range_text} {rate_text}")
    if replayed.digest is not None:
        lines.append(f"digest of the machine: {replayed.digest.hex()}")
    lines.append(f"digest of the log after entry {replayed.index}: {replayed.log_digest.hex()}")
    return "\n".join(lines)
