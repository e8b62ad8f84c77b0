"""`replog tail`: the records in a directory, also of a running node."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from replog.cli.base import Command, directory_argument, json_option
from replog.cli.formats import pack_json
from replog.errors import OffsetOutOfRange

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from replog.machine import Record

POLL_SECONDS = 0.01
"""How often a live directory is looked at: one short read, about 20 microseconds."""
CHUNK_RECORDS = 4096

CONTROL_CHARACTERS = {code: f"\\x{code:02x}" for code in (*range(9), *range(10, 32), 127)}
"""Shown as they are written: a record must not steer the terminal."""


@click.command(cls=Command)
@directory_argument
@click.option("-n", "count", type=click.IntRange(min=0), help="The last records. [default: 10]")
@click.option("--from", "start", type=click.IntRange(min=0), help="From this offset on.")
@click.option("--to", "stop", type=click.IntRange(min=0), help="Up to this offset, without it.")
@click.option("--follow", "-f", is_flag=True, help="Go on with new records as they come.")
@click.option("--raw", is_flag=True, help="Print the records' bytes alone, each with a newline.")
@json_option
def tail(
    *,
    directory: Path,
    count: int | None,
    start: int | None,
    stop: int | None,
    follow: bool,
    raw: bool,
    as_json: bool,
) -> None:
    """Print records of the log in DIR. Its node may be running; nothing is asked of it.

    Shown is what the node has delivered: what is committed for certain.
    """
    from replog.log_reader import LogReader

    if count is not None and start is not None:
        raise click.UsageError("give -n or --from, not both")
    if raw and as_json:
        raise click.UsageError("give --raw or --json, not both")
    render = _raw if raw else _json if as_json else _text
    with LogReader(directory) as reader:
        first, end = reader.first_offset, reader.position().offset
        if start is None:
            last = end if stop is None else min(stop, end)
            start = max(first, last - (10 if count is None else count))
        for bound in (start, stop):
            if bound is not None and not (first <= bound and (follow or bound <= end)):
                raise OffsetOutOfRange(bound, first, end)
        while True:
            if start < end:
                upto = end if stop is None else min(end, stop)
                _print(reader.records(start, upto), render)
                start = end
            if not follow or (stop is not None and start >= stop):
                return
            while (end := reader.position().offset) <= start:
                time.sleep(POLL_SECONDS)


def _print(records: Iterable[Record], render: Callable[[Record], bytes]) -> None:
    output = sys.stdout.buffer
    lines: list[bytes] = []
    for record in records:
        lines.append(render(record))
        if len(lines) == CHUNK_RECORDS:
            output.write(b"".join(lines))
            lines.clear()
    output.write(b"".join(lines))
    output.flush()


def _text(record: Record) -> bytes:
    text = record.data.decode("utf-8", "backslashreplace").translate(CONTROL_CHARACTERS)
    return f"{record.offset}\t{text}\n".encode()


def _raw(record: Record) -> bytes:
    return record.data + b"\n"


def _json(record: Record) -> bytes:
    return pack_json((record,))
