"""Replay: a persisted log, fed to a state machine as fast as it can take it.

Rule of this file: a machine is held to what a node holds it to. Records come in their order, each
once, one result is asked for each, and what `apply` raises ends it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from replog.entry import DIGEST_START
from replog.errors import MachineStopped
from replog.log_reader import LogReader
from replog.machine import apply_all

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from os import PathLike

    from replog.machine import Applies, Record

    Progress = Callable[[int, int], None]
    """Called with the offset reached so far and the offset where the replay ends."""


class Replayed(NamedTuple):
    """What a replay came to."""

    records: int
    """How many the machine took."""
    offset: int
    """The offset after the last of them."""
    seconds: float
    digest: bytes | None
    """The machine's; None when it has no `digest`."""
    index: int  # type: ignore[assignment]
    """Of the entry that holds the record before `offset`; 0 for none."""
    log_digest: bytes
    """The log's own after that entry: equal on every node of the cluster."""


def replay(
    directory: str | PathLike[str],
    machine: Applies,
    start: int = 0,
    stop: int | None = None,
    progress: Progress | None = None,
) -> Replayed:
    """Feed the records from offset `start` up to, not including, `stop` (default: the end as of
    now) to `machine`, as written down in the directory of a node. The node may be running in
    another process; nothing is asked of it. Memory stays flat however long the log is.

    The machine is taken as it is: one that replays from a later offset than 0 must come with the
    state before it, see `Machine.restore`.

    Raises `MachineStopped` when `apply` raises (its `__cause__`) or does not give one result for
    each record, `OffsetOutOfRange`, `Corruption` for damaged data, `WrongStore` where there is no
    log, and `StoreInUse` for a log that is open in this process (`ReplicatedLog.attach` it there).
    """
    began = time.perf_counter()
    with LogReader(directory) as reader:
        end = reader.position().offset if stop is None else stop
        offset = start
        for batch in reader.batches(start, end):
            count = len(batch)  # before the machine may empty it
            _apply(machine, batch)
            offset += count
            if progress is not None:
                progress(offset, end)
        seconds = time.perf_counter() - began
        index, log_digest = _entry_before(reader, offset)
    digest = getattr(machine, "digest", None)
    return Replayed(
        records=offset - start,
        offset=offset,
        seconds=seconds,
        digest=None if digest is None else digest(),
        index=index,
        log_digest=log_digest,
    )


def _apply(machine: Applies, records: Sequence[Record]) -> None:
    first, count = records[0].offset, len(records)
    try:
        apply_all(machine, records)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: it must not look like a replay that is done
        raise MachineStopped(
            f"the machine stopped in records {first} to {first + count - 1}: {error!r}"
        ) from error


def _entry_before(reader: LogReader, offset: int) -> tuple[int, bytes]:
    """Index of the entry with the record before `offset`, and the log's digest after it."""
    for row, _ in reader.entries(offset - 1, offset) if offset else ():
        return row.index, row.digest
    return 0, DIGEST_START
