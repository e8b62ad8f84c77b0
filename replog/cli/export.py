"""`replog export` and `replog import`: records out of a log, and into one."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from replog.agreements import DEFAULT_AGREEMENT, load_agreement
from replog.cli.append import append_all
from replog.cli.base import (
    Command,
    agreement_option,
    cluster_option,
    directory_argument,
    json_option,
    print_json,
    print_text,
)
from replog.cli.formats import FORMATS, NotARecord
from replog.cli.owner import stored_owner
from replog.cli.progress import offsets_bar
from replog.control.words import APPEND_MANY
from replog.errors import ConfigError
from replog.store.directory import is_marked

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

RUN_BYTES_MAX = 256 << 10
"""Of records appended as one run, beyond a single record."""
RUN_RECORDS_MAX = 4096

format_option = click.option(
    "--format",
    "form",
    type=click.Choice(list(FORMATS)),
    default="jsonl",
    show_default=True,
    help="Lines of JSON, or a stream of msgpack arrays.",
)


@click.command("export", cls=Command)
@directory_argument
@click.option("--from", "start", type=click.IntRange(min=0), help="From this offset on.")
@click.option("--to", "stop", type=click.IntRange(min=0), help="Up to this offset, without it.")
@format_option
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write. [default: standard output]",
)
@json_option
def export_records(
    *,
    directory: Path,
    start: int | None,
    stop: int | None,
    form: str,
    output: Path | None,
    as_json: bool,
) -> None:
    """Write the records of the log in DIR to a file. The node may be running.

    Of each: its offset, its timestamp_ms and its data, which is what `replog import` appends.
    Without --from it begins with the first record that is left.
    """
    from replog.log_reader import LogReader

    if as_json and output is None:
        raise click.UsageError("give -o FILE with --json: standard output is for one of the two")
    if output is not None and directory.resolve() in output.resolve().parents:
        raise ConfigError(f"{output} lies in the log's own directory")
    began = time.monotonic()
    with LogReader(directory) as reader:
        batches = reader.batches(start, stop)
        left, end = reader.bounds()
        first = offset = left if start is None else start
        size = 0
        with (
            open_output(output) as file,
            offsets_bar(start, shown=output is not None and not as_json) as advance,
        ):
            for batch in batches:
                if not size:
                    first = batch[0].offset
                size += file.write(FORMATS[form].pack(batch))
                offset = batch[-1].offset + 1
                if advance is not None:
                    advance(offset, end if stop is None else stop)
            file.flush()
    seconds = time.monotonic() - began
    count = offset - first
    if as_json:
        fields = {"records": count, "from": first, "to": offset, "bytes": size}
        print_json({**fields, "seconds": round(seconds, 3)})
    elif output is not None:
        rate = count / max(seconds, 0.001)
        print_text(
            f"exported {count} records, {size} bytes, in {seconds:.2f} s ({rate:,.0f} a second)"
        )


def open_output(path: Path | None) -> AbstractContextManager[BinaryIO]:
    """The file of this name, emptied; standard output, which is left open, for None."""
    return nullcontext(sys.stdout.buffer) if path is None else path.open("wb")


@click.command("import", cls=Command)
@directory_argument
@click.argument("file", type=click.File("rb"), default="-")
@format_option
@agreement_option
@cluster_option
@json_option
def import_records(
    *,
    directory: Path,
    file: BinaryIO,
    form: str,
    agreement: str | None,
    cluster: str,
    as_json: bool,
) -> None:
    """Append the records of FILE, or of standard input, as `replog export` wrote them.

    They go through the node that runs in DIR; where none runs, a log of one node is opened, and
    made if DIR is empty. Offsets and timestamps are those of that log.
    """
    make_log(directory, agreement, cluster)
    requests = runs(FORMATS[form].unpack(file))
    append_all(directory, cluster, file, requests, APPEND_MANY, as_json=as_json)


def make_log(directory: Path, agreement: str | None, cluster: str) -> None:
    """Make an empty log of one node unless there is a log.

    Raises `ConfigError` for a log under another agreement than the one asked for.
    """
    import replog

    if not is_marked(directory):
        layer = load_agreement(agreement or DEFAULT_AGREEMENT)
        replog.open(directory, agreement=layer, cluster=cluster).close()
    elif agreement is not None:
        owner = stored_owner(directory)
        if owner is not None and owner[0].agreement != load_agreement(agreement).name:
            raise ConfigError(f"the log in {directory} is kept by {owner[0].agreement}")


def runs(records: Iterable[tuple[bytes, int]]) -> Iterator[tuple[list[bytes], int]]:
    """Records gathered into runs, each with the bytes that it took in the file.

    Raises `NotARecord` behind the run with everything before the fault.
    """
    run: list[bytes] = []
    run_bytes = file_bytes = 0
    fault: NotARecord | None = None
    try:
        for data, size in records:
            if run and (run_bytes + len(data) > RUN_BYTES_MAX or len(run) == RUN_RECORDS_MAX):
                yield run, file_bytes
                run, run_bytes, file_bytes = [], 0, 0
            run.append(data)
            run_bytes += len(data)
            file_bytes += size
    except NotARecord as error:
        fault = error
    if run:
        yield run, file_bytes
    if fault is not None:
        raise fault
