"""`replog replay`: the records in a directory, printed or fed to a state machine."""

from __future__ import annotations

import sys
import traceback
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from replog.cli.base import Command, directory_argument, json_option, print_json, print_text
from replog.cli.progress import offsets_bar
from replog.cli.tail import tail
from replog.errors import ConfigError, MachineStopped

if TYPE_CHECKING:
    from replog.machine import Applies
    from replog.replaying import Replayed


@click.command(cls=Command)
@directory_argument
@click.option("--from", "start", type=click.IntRange(min=0), default=0, help="From this offset on.")
@click.option("--to", "stop", type=click.IntRange(min=0), help="Up to this offset, without it.")
@click.option(
    "--machine",
    metavar="MODULE:FACTORY",
    help="Feed the records to what FACTORY() makes, as replog.machines:KeyValue. Modules of the "
    "current directory are found too.",
)
@json_option
@click.pass_context
def replay(
    context: click.Context,
    *,
    directory: Path,
    start: int,
    stop: int | None,
    machine: str | None,
    as_json: bool,
) -> None:
    """Print the records of the log in DIR, or feed a state machine with them and print its digest.

    The node may be running; nothing is asked of it. Exits with 1 when the machine raises.
    """
    if machine is None:
        shown = {"directory": directory, "start": start, "stop": stop, "as_json": as_json}
        context.invoke(tail, **shown)
        return
    import replog

    made = load_machine(machine)
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
        print_json({"from": start, **replayed._asdict(), **hexadecimal})
    else:
        print_text(_text(start, replayed))


def load_machine(name: str) -> Applies:
    """What the factory of this name, `module:factory`, makes. Raises `ConfigError`."""
    module, colon, factory = name.partition(":")
    if not (module and colon and factory):
        raise ConfigError(f"{name!r} is not MODULE:FACTORY, as in replog.machines:KeyValue")
    current = str(Path.cwd())
    if current not in sys.path:
        sys.path.insert(0, current)
    try:
        machine: Any = attrgetter(factory)(import_module(module))()
    except (Exception, SystemExit) as error:  # whatever the module of an application may raise
        raise ConfigError(f"machine {name!r} cannot be made: {error!r}") from error
    if not callable(getattr(machine, "apply", None)):
        raise ConfigError(f"{name!r} makes no machine: a {type(machine).__name__} has no apply")
    made: Applies = machine
    return made


def _text(start: int, replayed: Replayed) -> str:
    count, seconds = replayed.records, replayed.seconds
    range_text = f"offsets {start} to {replayed.offset - 1}" if count else "no offset"
    rate_text = f"in {seconds:.2f} s ({count / max(seconds, 0.001):,.0f} a second)"
    lines = [f"replayed {count} records at {range_text} {rate_text}"]
    if replayed.digest is not None:
        lines.append(f"digest of the machine: {replayed.digest.hex()}")
    lines.append(f"digest of the log after entry {replayed.index}: {replayed.log_digest.hex()}")
    return "\n".join(lines)
