"""Replay: a persisted log, fed to a state machine as fast as it can take it.

Rules of this file:

1. A machine is held to what a node holds it to. Records come in their order, each once, one result
   is asked for each, and what `apply` raises ends it.
2. It begins as it would in a node: with the newest snapshot of a machine that is not beyond the
   end, else with the first record. So the log may be compacted, and its end an offset of the past.
"""

from __future__ import annotations

import time
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from replog.errors import MachineStopped, OffsetOutOfRange, ReplogError, StoreError
from replog.log_reader import LogReader
from replog.machine import apply_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
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
    start: int
    """The offset of the first record, or where it would be."""
    snapshot_index: int = 0
    """Of the entry up to which the machine began with a snapshot; 0 when it began as it was."""


def replay(
    directory: str | PathLike[str],
    machine: Applies,
    start: int | None = None,
    stop: int | None = None,
    progress: Progress | None = None,
) -> Replayed:
    """Feed the records up to, not including, offset `stop` (default: the end as of now) to
    `machine`, as written down in the directory of a node: so it comes to the state at that offset.
    The node may be running in another process; nothing is asked of it. Memory stays flat however
    long the log is.

    A machine that has a `restore` begins with the newest snapshot of a machine at or below `stop`,
    if there is one; else the records come from the first of all. With `start` they come from there
    on, and the machine is taken as it is: for a later offset than 0 it must come with the state
    before it.

    Raises `MachineStopped` when `apply` or `restore` raises (its `__cause__`) or does not give one
    result for each record, `OffsetOutOfRange`, also when records are compacted that no snapshot
    stands for, `Corruption` for damaged data and from a `restore` that finds its snapshot so,
    `WrongStore` where there is no log, and `StoreInUse` for a log that is open in this process
    (`ReplicatedLog.attach` it there).
    """
    began = time.perf_counter()
    with LogReader(directory) as reader:
        end, index, log_digest, begin, snapshot_index, batches = _start(
            reader, machine, start, stop
        )
        offset = begin
        if progress is not None:
            progress(offset, end)
        for batch in batches:
            count = len(batch)  # before the machine may empty it
            _apply(machine, batch)
            offset += count
            if progress is not None:
                progress(offset, end)
        seconds = time.perf_counter() - began
    digest = getattr(machine, "digest", None)
    return Replayed(
        records=offset - begin,
        offset=offset,
        seconds=seconds,
        digest=None if digest is None else digest(),
        index=index,
        log_digest=log_digest,
        start=begin,
        snapshot_index=snapshot_index,
    )


class _Replaced(ReplogError):
    """The snapshot to begin with went while it was read, and only one beyond the end is there."""


class _Started(NamedTuple):
    """What a replay goes through."""

    end: int
    index: int  # type: ignore[assignment]
    """Of the entry before the end."""
    log_digest: bytes
    begin: int
    snapshot_index: int
    batches: Iterator[list[Record]]
    """The first of them is read."""


def _start(reader: LogReader, machine: Applies, start: int | None, stop: int | None) -> _Started:
    """Rule 2, from anew where the node compacts what was to come first."""
    while True:
        end = reader.position().offset if stop is None else stop
        for bound in (end,) if start is None else (start, end):
            reader.check_bound(bound)
        index, log_digest = _entry_before(reader, end)
        try:
            begin, snapshot_index = start or 0, 0
            if start is None:
                begin, snapshot_index = _begin(reader, machine, end)
        except _Replaced:
            if stop is not None:
                raise
            continue
        try:
            batches = reader.batches(begin, end)
            first = next(batches, None)
        except OffsetOutOfRange:
            if start is not None:
                raise
            continue
        if first is not None:
            batches = chain([first], batches)
        return _Started(end, index, log_digest, begin, snapshot_index, batches)


def _begin(reader: LogReader, machine: Applies, end: int) -> tuple[int, int]:
    """Rule 2: the offset that the machine goes on from, and the index of the snapshot's entry."""
    restore = getattr(machine, "restore", None)
    stored = reader.snapshot_before(end) if restore is not None else None
    while restore is not None and stored is not None:
        snapshot = stored.snapshot
        try:
            restore(reader.state(stored))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            newer = reader.snapshot_before(end)
            if newer is None:
                raise _Replaced(
                    f"the node has replaced the snapshot of entry {snapshot.index} meanwhile by "
                    f"one beyond offset {end}: replay up to a later offset"
                ) from error
            if newer.snapshot_id != stored.snapshot_id:
                stored = newer  # the node has put it in the place of that one meanwhile
                continue
            if isinstance(error, StoreError):
                raise
            raise MachineStopped(
                f"the machine stopped in the snapshot of entry {snapshot.index}: {error!r}"
            ) from error
        return snapshot.position.offset, snapshot.index
    first = reader.first_offset
    if first:
        raise OffsetOutOfRange(0, first, reader.position().offset)
    return 0, 0


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
    """Index of the entry with the record before `offset`, and the log's digest after it; those of
    the last entry that is gone when that record is."""
    base = reader.base()
    if offset > base.offset:
        for row, _ in reader.entries(offset - 1, offset):
            return row.index, row.digest
    return base.index, base.digest
