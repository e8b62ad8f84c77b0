"""`replog append`: lines as records, through the running node or into the directory itself."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from replog.agreements import load_agreement
from replog.cli.base import (
    Command,
    cluster_option,
    directory_argument,
    json_option,
    print_json,
    print_text,
)
from replog.cli.owner import running_node, stored_owner
from replog.cli.progress import bar_on_terminal
from replog.config import Limits
from replog.control.words import APPEND, APPEND_MANY
from replog.errors import (
    ConfigError,
    NotAppended,
    OutcomeUnknown,
    ReplogError,
    TooLarge,
    WrongStore,
)
from replog.membership import BACKUP_CLUSTER_ID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from replog.control import ControlClient, Reply
    from replog.log import ReplicatedLog

CHUNK_BYTES = 256 << 10
"""Read at once; what an `append` of many lines takes at most."""
LINES_PER_REQUEST_MAX = 1000
REQUESTS_OPEN_MAX = 16
LINE_BYTES_MAX = Limits().record_bytes_max
ANSWER_SECONDS_MAX = 60.0
"""Without any answer for that long, the cluster has no majority."""


@dataclass(slots=True)
class Tally:
    """What is known of the lines so far."""

    records: int = 0
    first_offset: int | None = None
    last_offset: int | None = None
    refused: int = 0
    """Lines that are certainly not in the log, of those submitted."""
    unplaced: int = 0
    """Lines that are in the log, at offsets that the node cannot tell."""
    submitted: int = 0
    counts: dict[int, int] = field(default_factory=dict)
    """Lines of each open request."""
    error: BaseException | None = None
    began: float = field(default_factory=time.monotonic)

    def take(self, client: ControlClient, *, wait: bool) -> None:
        """Count what has been answered; with `wait`, at least one answer. Raises `TimeoutError`."""
        replies = client.replies(int(ANSWER_SECONDS_MAX * 1000) if wait else 0)
        if wait and not replies:
            raise TimeoutError(
                f"no append was answered within {ANSWER_SECONDS_MAX} s: does a majority of the "
                f"members run?"
            )
        for reply in replies:
            self._count(reply)

    def _count(self, reply: Reply) -> None:
        value = reply.value or []
        appended = 0
        for first, count in [value] if value and type(value[0]) is int else value:
            appended += count
            self.first_offset = first if self.first_offset is None else self.first_offset
            self.last_offset = first + count - 1
        self.records += appended
        missing = self.counts.pop(reply.request_id) - appended
        if reply.error is not None:
            self.error = self.error or reply.error
            if isinstance(reply.error, NotAppended):
                self.refused += missing
            elif isinstance(reply.error, OutcomeUnknown) and reply.error.appended:
                self.unplaced += missing

    @property
    def unknown(self) -> int:
        """Lines that may or may not be in the log."""
        return self.submitted - self.records - self.refused - self.unplaced

    def fields(self) -> dict[str, Any]:
        """For programs."""
        return {
            "records": self.records,
            "first_offset": self.first_offset,
            "last_offset": self.last_offset,
            "refused": self.refused,
            "unplaced": self.unplaced,
            "unknown": self.unknown,
            "seconds": round(time.monotonic() - self.began, 3),
        }

    def text(self) -> str:
        """For people."""
        seconds = time.monotonic() - self.began
        text = f"appended {self.records} records"
        if self.records:
            text += f" at offsets {self.first_offset} to {self.last_offset}"
        text += f" in {seconds:.2f} s ({self.records / max(seconds, 0.001):,.0f} a second)"
        if self.refused:
            text += f"; {self.refused} are not in the log"
        if self.unplaced:
            text += f"; {self.unplaced} are in the log at offsets that are not known"
        if self.unknown:
            text += f"; {self.unknown} may or may not be in the log"
        return text


@click.command(cls=Command)
@directory_argument
@click.argument("file", type=click.File("rb"), default="-")
@click.option(
    "--batch",
    metavar="N",
    type=click.IntRange(1, 1 << 16),
    help="Append N lines at a time as one run: all or nothing, at consecutive offsets.",
)
@cluster_option
@json_option
def append(
    *, directory: Path, file: BinaryIO, batch: int | None, cluster: str, as_json: bool
) -> None:
    """Append the lines of FILE, or of standard input, as records, without their newlines.

    They go through the node that runs in DIR. Where none runs, a log of one node is opened here.
    """
    requests = ((lines, sum(map(len, lines)) + len(lines)) for lines in _requests(file, batch))
    append_all(
        directory, cluster, file, requests, APPEND_MANY if batch else APPEND, as_json=as_json
    )


def append_all(
    directory: Path,
    cluster: str,
    file: BinaryIO,
    requests: Iterable[tuple[list[bytes], int]],
    name: str,
    *,
    as_json: bool,
) -> None:
    """Carry out these requests, each with the bytes it took in the file, and tell what became of
    them. Raises what the first that failed ended with."""
    tally = Tally()
    with (
        _connected_node(directory, cluster) as client,
        _bytes_bar(file, shown=not as_json) as advance,
    ):
        try:
            try:
                for records, size in requests:
                    _submit(client, tally, records, name)
                    advance(tally.records, size)
                    if tally.error is not None:
                        break
            finally:
                while client.open_requests:
                    tally.take(client, wait=True)
        except (ReplogError, TimeoutError, KeyboardInterrupt) as error:
            tally.error = tally.error or error
    if as_json:
        print_json(tally.fields())
    else:
        print_text(tally.text())
    if tally.error is not None:
        raise tally.error


def _submit(client: ControlClient, tally: Tally, lines: list[bytes], name: str) -> None:
    tally.counts[client.submit(name, lines)] = len(lines)
    tally.submitted += len(lines)
    while client.open_requests >= REQUESTS_OPEN_MAX:
        tally.take(client, wait=True)
    tally.take(client, wait=False)


@contextmanager
def _connected_node(directory: Path, cluster: str) -> Iterator[ControlClient]:
    """The node that runs in the directory, or one that runs here for as long as it is needed."""
    from replog.control import ControlClient, ControlServer

    running = running_node(directory)
    if running is not None:
        with running as client:
            yield client
        return
    with open_alone(directory, cluster) as log:
        server = ControlServer(log, directory, lambda: None)
        try:
            with ControlClient(directory) as client:
                yield client
        finally:
            log.close()
            server.close()


def open_alone(directory: Path, cluster: str) -> ReplicatedLog:
    """The log of one node in this directory, where none runs.

    Raises `WrongStore` when there is none or it is a backup, `ConfigError` for a member of a larger
    cluster.
    """
    import replog

    owner = stored_owner(directory)
    if owner is None:
        raise WrongStore(f"{directory} holds no store, and no node runs there")
    identity, membership = owner
    if membership.voters != {identity.node} and identity.cluster_id != BACKUP_CLUSTER_ID:
        raise ConfigError(
            f"{directory} belongs to {identity.node}, one of {len(membership.voters)} members, and "
            f"no node runs there: start it with `replog node`"
        )
    return replog.open(
        directory,
        agreement=load_agreement(identity.agreement),
        node=identity.node,
        cluster=cluster,
    )


def read_lines(file: BinaryIO) -> Iterator[list[bytes]]:
    """Lines without their newlines, as many at a time as come in one read.

    Raises `TooLarge` for a line that no record can hold.
    """
    # A pipe gives what is there: a line is not held back until there are more.
    read = getattr(file, "read1", file.read)
    rest = b""
    while chunk := read(CHUNK_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in (*lines, rest):
            if len(line) > LINE_BYTES_MAX:
                raise TooLarge(f"a line of more than {LINE_BYTES_MAX} bytes: no record can hold it")
        if lines:
            yield lines
    if rest:
        yield [rest]


def _requests(file: BinaryIO, batch: int | None) -> Iterator[list[bytes]]:
    size = batch or LINES_PER_REQUEST_MAX
    waiting: list[bytes] = []
    for lines in read_lines(file):
        waiting += lines
        while len(waiting) >= size:
            yield waiting[:size]
            del waiting[:size]
        if batch is None and waiting:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


@contextmanager
def _bytes_bar(file: BinaryIO, *, shown: bool) -> Iterator[Callable[[int, int], None]]:
    """Calls with (records appended so far, bytes read just now) move a bar on the terminal."""
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.fields[records]} records"),
        BarColumn(),
        TextColumn("{task.fields[rate]:.0f} a second"),
        TimeElapsedColumn(),
    )
    with bar_on_terminal(*columns, shown=shown) as progress:
        if progress is None:
            yield lambda _records, _bytes: None
            return
        began = time.monotonic()
        path = Path(str(getattr(file, "name", "")))
        total = path.stat().st_size if path.is_file() else None
        task = progress.add_task("", total=total, records=0, rate=0.0)

        def advance(records: int, size: int) -> None:
            rate = records / max(time.monotonic() - began, 0.001)
            progress.update(task, advance=size, records=records, rate=rate)

        yield advance
