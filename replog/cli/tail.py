"""`replog tail`: the records in a directory, also of a running node."""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import TYPE_CHECKING

import click

from replog.cli.base import Command, directory_argument, json_option
from replog.cli.formats import pack_json
from replog.errors import OffsetOutOfRange
from replog.reading import read_range

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from replog.log_reader import LogReader
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
        first, end = reader.bounds()
        for bound in (start, stop):
            if bound is not None and not (first <= bound and (follow or bound <= end)):
                raise OffsetOutOfRange(bound, first, end)
        if start is None:
            newest = partial(_newest, reader, 10 if count is None else count, stop)
            records = read_range(newest, reader.records, None, None)
            start = end = _print(records, render, newest()[1])
        while True:
            if start < end:
                upto = end if stop is None else min(end, stop)
                start = _print(reader.records(start, upto), render, upto)
            if not follow or (stop is not None and start >= stop):
                return
            while (end := reader.position().offset) <= start:
                time.sleep(POLL_SECONDS)


def _newest(reader: LogReader, count: int, stop: int | None) -> tuple[int, int]:
    """Where so many records up to `stop` begin and end, as far as they are left by now. Raises
    `OffsetOutOfRange`."""
    first, end = reader.bounds()
    if stop is not None and stop < first:
        raise OffsetOutOfRange(stop, first, end)
    last = end if stop is None else min(stop, end)
    return max(first, last - count), last


def _print(records: Iterable[Record], render: Callable[[Record], bytes], end: int) -> int:
    """The offset after the last record; `end` when there is none."""
    output = sys.stdout.buffer
    lines: list[bytes] = []
    for record in records:
        end = record.offset + 1
        lines.append(render(record))
        if len(lines) == CHUNK_RECORDS:
            output.write(b"".join(lines))
            lines.clear()
    output.write(b"".join(lines))
    output.flush()
    return end


def _text(record: Record) -> bytes:
    text = record.data.decode("utf-8", "backslashreplace").translate(CONTROL_CHARACTERS)
    return f"{record.offset}\t{text}\n".encode()


def _raw(record: Record) -> bytes:
    return record.data + b"\n"


def _json(record: Record) -> bytes:
    return pack_json((record,))
