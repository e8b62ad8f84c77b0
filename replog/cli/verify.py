"""`replog verify`: check a directory against itself."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from replog.cli.base import (
    Command,
    directories_argument,
    json_option,
    print_json,
)
from replog.cli.exits import FAILED_STATUS
from replog.cli.progress import bar_on_terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from replog.store.verify import VerifyReport


@click.command(cls=Command)
@directories_argument
@json_option
@click.pass_context
def verify(context: click.Context, *, directories: tuple[Path, ...], as_json: bool) -> None:
    """Check every byte of DIR...: checksums, epochs, offsets and the chain of digests.

    Nodes may be running meanwhile. Exits with 1 when something is wrong, and names it.
    """
    from replog.store.verify import verify_in_child

    whole = True
    for directory in directories:
        with _entries_bar(directory, shown=not as_json) as advance:
            report = verify_in_child(directory, advance)
        whole = whole and not report.faults
        if as_json:
            fields = {**report._asdict(), "digest": report.digest.hex()}
            print_json({"directory": str(directory), "whole": not report.faults, **fields})
        else:
            _print_report(directory, report)
    if not whole:
        context.exit(FAILED_STATUS)


def _print_report(directory: Path, report: VerifyReport) -> None:
    for fault in report.faults:
        click.echo(click.style(fault, fg="red"))
    verdict = f"{len(report.faults)} faults" if report.faults else "whole"
    text = f"{directory}: {verdict}; {report.records} records in {report.delivered} entries"
    if report.beyond:
        text += f", {report.beyond} entries beyond, not known committed"
    if report.pieces:
        text += f"; {report.pieces} pieces of snapshots"
    if report.digest:
        text += f"; digest {report.digest.hex()}"
    click.echo(text)


@contextmanager
def _entries_bar(directory: Path, *, shown: bool) -> Iterator[Callable[[int, int], None] | None]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with bar_on_terminal(*columns, shown=shown) as progress:
        if progress is None:
            yield None
            return
        task = progress.add_task(str(directory), total=None)

        def advance(checked: int, entries: int) -> None:
            progress.update(task, completed=checked, total=entries)

        yield advance
