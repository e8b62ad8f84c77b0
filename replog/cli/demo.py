"""`replog demo`: see it work."""

from __future__ import annotations

from pathlib import Path

import click

from replog.agreements import DEFAULT_AGREEMENT, load_agreement
from replog.cli.base import Command, json_option
from replog.cli.exits import FAILED_STATUS


@click.command(cls=Command)
@click.option(
    "--input",
    "source",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Replicate the lines of this text. [default: the source of Python's standard library]",
)
@click.option(
    "--agreement",
    metavar="NAME",
    default=DEFAULT_AGREEMENT,
    show_default=True,
    help="The agreement layer: a name that is installed, or module:Class.",
)
@click.option(
    "--records",
    metavar="N",
    type=click.IntRange(min=1),
    help="How many records; the text is taken over and over. [default: a record for each line, "
    "200000 at most]",
)
@click.option(
    "--seconds-max",
    type=click.FloatRange(min=1),
    default=120.0,
    show_default=True,
    help="Give up after this long.",
)
@click.option(
    "--directory",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Put the nodes' directories here. [default: a temporary place on a disk]",
)
@click.option("--keep", is_flag=True, help="Keep the nodes' directories.")
@json_option
@click.pass_context
def demo(
    context: click.Context,
    *,
    source: Path | None,
    agreement: str,
    records: int | None,
    seconds_max: float,
    directory: Path | None,
    keep: bool,
    as_json: bool,
) -> None:
    """Run three nodes on this machine, kill the leader, and check that nothing was lost.

    All nodes append at once; the leader is killed with SIGKILL in the middle and restarted later.
    Then the three directories are compared with each other and with every acknowledgement, and one
    is replayed into a machine that must equal the live ones. Exits with 0 only if everything held.
    """
    from replog.demo.story import Plan, run_demo

    load_agreement(agreement)  # a wrong name is wrong usage, and not the nodes' trouble
    plan = Plan(source, agreement, records, seconds_max, directory, keep, as_json)
    if not run_demo(plan):
        context.exit(FAILED_STATUS)
