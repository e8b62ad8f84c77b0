"""All commands, and what they have in common: how they fail and how they print."""

from __future__ import annotations

import click
import rich as rich  # noqa: PLC0414 - says at once that the extra is missing

from replog import __version__
from replog.cli.append import append
from replog.cli.copying import backup, restore
from replog.cli.demo import demo
from replog.cli.diff import diff
from replog.cli.export import export_records, import_records
from replog.cli.inspect import inspect
from replog.cli.node import node
from replog.cli.replay import replay
from replog.cli.snapshot import snapshot
from replog.cli.status import status
from replog.cli.tail import tail
from replog.cli.verify import verify


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="replog")
def replog() -> None:
    """A durable log that several machines agree on.

    Exit status: 0 fine, 1 a check or the work itself failed, 2 wrong usage.
    """


for command in (
    demo,
    node,
    append,
    tail,
    status,
    verify,
    inspect,
    replay,
    diff,
    export_records,
    import_records,
    snapshot,
    backup,
    restore,
):
    replog.add_command(command)
