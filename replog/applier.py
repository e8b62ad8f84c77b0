"""Feeding a state machine: a thread of its own reads the delivered log by position.

Rules of this file:

1. The machine sees entries, in order, each once, or a snapshot that stands for them. A slow one
   delays no heartbeat and pins nothing in memory.
2. What `apply` raises stops the machine where it stood, and nothing else: appends and reads go on.
3. A call's record may be applied before its append is answered. Results of this node's own records
   are kept while a call waits for its offset, and no longer. Calls wait in the order of their
   appends, which is that of their offsets: so nobody comes later for a result below.
4. Every call is answered: with its result, with what its append ended with, or with the fact that
   its record is in the log and the machine stopped before it or caught up beyond it.
5. A snapshot is taken between two entries, at a position that is known exactly. What goes wrong
   with it stops nothing.
6. At an agreed offset the machine is asked for its digest, between two calls of `apply`, be it
   within an entry. What goes wrong with that stops nothing; that a majority's differs stops it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from itertools import chain, starmap
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

from replog import failpoints
from replog.comparing import Digests
from replog.entry import DIGEST_START
from replog.errors import (
    Busy,
    Closed,
    InvariantBroken,
    MachineStopped,
    OffsetOutOfRange,
    OutcomeUnknown,
    ReplogError,
    StoreFailed,
)
from replog.machine import apply_all
from replog.pending import Pending, fail_all, resolve, resolve_all
from replog.producers import Producers
from replog.reading import records_of
from replog.store.interface import Position

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from replog.comparing import Comparing
    from replog.keeping import Keeping
    from replog.machine import Machine, Record
    from replog.reading import DeliveredLog, Item
    from replog.retention import SnapshotEvery
    from replog.snapshot import Snapshot
    from replog.store.interface import StoredSnapshot

CALLS_MAX = 1 << 20
"""Calls that may wait for their machine; beyond it `call` raises `Busy`."""
SNAPSHOTS_WAITING_MAX = 64
"""Calls of `snapshot` that may wait for their machine."""
START = Position(0, 0, DIGEST_START, 0, {})
STOP_SECONDS_MAX = 30.0
"""How long `stop` waits for an `apply` under way."""


class _Ended(NamedTuple):
    """Calls that end: to be told once the lock is free, for whoever waits may call again."""

    answered: list[tuple[Pending[Any], Any]]
    failed: list[tuple[Pending[Any], BaseException]]

    def tell(self) -> None:
        resolve_all(self.answered)
        for answer, error in self.failed:
            fail_all((answer,), error)


class _Progress:
    """How far the machine has come, and how much of that is in no snapshot that was tried."""

    def __init__(self, position: Position) -> None:
        self._position = position
        self._producers = Producers(position.producers)
        self._records = 0
        self._bytes = 0

    def take(self, items: Sequence[Item]) -> None:
        """The machine has taken these. Entries without records, which are not among them, change no
        producer and no state: the position is that of the last entry with records."""
        for row, entry in items:
            for place in row.accepted:
                run = entry.runs[place]
                if not self._producers.accept(run):
                    raise InvariantBroken(f"entry {row.index} was delivered with a run too many")
                self._bytes += run.size
            self._records += row.count
        row = items[-1][0]
        end = row.end_offset
        self._position = Position(row.index, end, row.digest, row.timestamp_ms, {})

    def position(self) -> Position:
        """Of the machine's state."""
        return self._position._replace(producers=self._producers.snapshot())

    def is_due(self, every: SnapshotEvery) -> bool:
        """Whether so much has come since the last try."""
        return (every.records is not None and self._records >= every.records) or (
            every.bytes is not None and self._bytes >= every.bytes
        )

    def tried(self) -> None:
        """A snapshot is tried now."""
        self._records = self._bytes = 0


class Applier:
    """One machine, its thread and the calls that wait for it."""

    def __init__(
        self,
        node: str,
        machine: Machine,
        log: DeliveredLog,
        *,
        keeping: Keeping,
        every: SnapshotEvery | None,
        begun: Pending[None],
        comparing: Comparing | None = None,
    ) -> None:
        """`begun` is resolved once nothing is compacted that the machine may need; `every` says
        when a snapshot is taken unasked, None of `comparing` that the machine is not compared."""
        self._node = node
        self._machine = machine
        self._log = log
        self._keeping = keeping
        self._every = every
        self._begun = begun
        self._lock = threading.Lock()
        self._progress = _Progress(START)
        """Of the machine's thread alone, as is `_digests`."""
        self._digests = Digests(machine, comparing)
        self._offset = 0
        """The machine has taken every record below."""
        self._failure: BaseException | None = None
        """Why it takes no more."""
        self._snapshot_failure = ""
        """Why its last snapshot is not there."""
        self._wanted: SimpleQueue[Pending[Snapshot | None] | BaseException | None] = SimpleQueue()
        """Snapshots that were asked for; None: look at the log; an error: why to stop."""
        self._unplaced: deque[tuple[Pending[int], Pending[Any]]] = deque()
        """Calls whose offset is not known yet, in the order of their appends: (append, answer)."""
        self._results: OrderedDict[int, Any] = OrderedDict()
        """Of own records that were applied while there are such, by offset, ascending."""
        self._calls: dict[int, Pending[Any]] = {}
        """By offset: not applied yet."""
        self._waiting: list[tuple[int, Pending[None]]] = []
        self._thread = threading.Thread(
            target=self._run, name=f"replog-{node}-machine", daemon=True
        )

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """The log is closed: end after the `apply` under way, for which this waits a while."""
        if threading.current_thread() is not self._thread:
            self._thread.join(STOP_SECONDS_MAX)
        self._end(Closed("the log is closed"))

    @property
    def offset(self) -> int:
        """The machine has taken every record below this one."""
        return self._offset

    @property
    def failure(self) -> str:
        """Why the machine takes no more records; empty while it does."""
        return "" if self._failure is None else _in_words(self._failure)

    @property
    def alarm(self) -> str:
        """What is wrong with the machine's snapshots or digests; empty when nothing is."""
        alarms = []
        if self._snapshot_failure:
            alarms.append(f"the last snapshot of the machine failed: {self._snapshot_failure}")
        if self._digests.failure:
            alarms.append(
                f"the machine is not compared: its digest failed: {self._digests.failure}"
            )
        return "; ".join(alarms)

    # -- calls ---------------------------------------------------------------------------------

    def call(self, append: Callable[[], Pending[int]]) -> Pending[Any]:
        """What the machine answers to the record that `append` appends.

        Raises `MachineStopped`, `Busy` when `CALLS_MAX` wait already, and whatever `append` raises.
        """
        answer: Pending[Any] = Pending()
        with self._lock:
            if self._failure is not None:
                raise self._stopped(None)
            if len(self._calls) + len(self._unplaced) >= CALLS_MAX:
                raise Busy(f"{CALLS_MAX} calls wait for the machine: await log.applied() first")
            # Under the lock, so that the calls stand here in the order of their offsets.
            appended = append()
            self._unplaced.append((appended, answer))
        appended.add_done_callback(lambda _: self._place())
        return answer

    def wait(self, offset: int) -> Pending[None]:
        """Resolved once the machine has taken every record below `offset`."""
        pending: Pending[None] = Pending()
        with self._lock:
            applied = offset <= self._offset
            if not applied and self._failure is None:
                self._waiting.append((offset, pending))
                return pending
        if applied:
            resolve_all(((pending, None),))
        else:
            fail_all((pending,), self._stopped(None))
        return pending

    def snapshot(self) -> Pending[Snapshot | None]:
        """A snapshot of the state that the machine has come to when it gets there; None when it has
        taken no record yet.

        Raises `MachineStopped`, and `Busy` when `SNAPSHOTS_WAITING_MAX` are asked for already.
        """
        pending: Pending[Snapshot | None] = Pending()
        with self._lock:
            if self._failure is not None:
                raise self._stopped(None)
            if self._wanted.qsize() >= SNAPSHOTS_WAITING_MAX:
                raise Busy(f"{SNAPSHOTS_WAITING_MAX} snapshots are asked for: await one of them")
            self._wanted.put(pending)
        return pending

    def differs(self, reason: str) -> None:
        """Any thread: the machine's state is not that of a majority: it takes no more records."""
        self._wanted.put(ReplogError(reason))

    def _place(self) -> None:
        with self._lock:
            ended = self._settle()
        ended.tell()

    def _settle(self) -> _Ended:
        """With the lock held: take out the calls whose append has ended, in their order."""
        ended = _Ended([], [])
        while self._unplaced and self._unplaced[0][0].done():
            appended, answer = self._unplaced.popleft()
            try:
                offset = appended.result(0)
            except BaseException as error:  # noqa: BLE001 - the caller's, whatever it is
                ended.failed.append((answer, error))
                continue
            if offset in self._results:
                ended.answered.append((answer, self._results.pop(offset)))
            elif offset < self._offset:
                ended.failed.append((answer, self._skipped(offset)))
            elif self._failure is not None:
                ended.failed.append((answer, self._stopped(offset)))
            else:
                self._calls[offset] = answer
            # Appends of one node end in the order of their offsets: nobody asks below this one.
            while self._results and next(iter(self._results)) < offset:
                self._results.popitem(last=False)
        if not self._unplaced:
            self._results.clear()
        return ended

    def disown(self) -> None:
        """In a forked child, where no machine runs: every call raises. Takes no lock, for a thread
        that is not here may hold it for ever."""
        self._lock = threading.Lock()
        self._failure = StoreFailed("this log was opened before this process was forked")
        self._calls, self._waiting = {}, []
        self._unplaced.clear()

    def _stopped(self, offset: int | None) -> MachineStopped:
        fate = "" if offset is None else f"; the record is in the log at offset {offset}"
        reason = f"the machine of {self._node} stopped at offset {self._offset}: {self.failure}"
        error = MachineStopped(reason + fate, offset)
        error.__cause__ = self._failure
        return error

    def _skipped(self, offset: int) -> OutcomeUnknown:
        return OutcomeUnknown(
            f"the record is in the log at offset {offset}; the machine of {self._node} has caught "
            f"up beyond it by a snapshot, and does not know what it answered",
            appended=True,
        )

    # -- the machine's thread ------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._begun.result()
            newest = self._keeping.newest()
            if newest is not None and newest.snapshot.pieces:
                self._restore(newest)
            while True:
                self._turn()
        except BaseException as error:  # noqa: BLE001 - kept for whoever asks why it stopped
            self._end(error)

    def _turn(self) -> None:
        """Wait for more records, and take them; meanwhile, snapshots."""
        more = self._log.wait(self._offset)
        more.add_done_callback(lambda _: self._wanted.put(None))
        while (wanted := self._wanted.get()) is not None:
            if isinstance(wanted, BaseException):
                raise wanted
            self._snapshot(wanted)
        more.result()
        try:
            items = self._log.items(self._offset)
        except OffsetOutOfRange as gone:
            self._catch_up(gone)
            return
        self._apply(items)
        if self._every is not None and self._progress.is_due(self._every):
            newest = self._keeping.newest()
            if newest is None or newest.snapshot.index < self._progress.position().index:
                self._snapshot(Pending())

    def _apply(self, items: Sequence[Item]) -> None:
        records: list[Record] = []
        own: list[tuple[int, int]] = []
        """(first offset, offset after the last) of what this node appended."""
        for row, entry in items:
            start = row.base_offset
            for place in row.accepted:
                run = entry.runs[place]
                if run.node == self._node:
                    own.append((start, start + run.count))
                start += run.count
            records += records_of(row, entry)
        base, end = records[0].offset, records[-1].offset + 1
        while base < end:
            due = self._digests.next_offset(base)
            stop = end if due is None else min(due, end)
            part, records = records[: stop - base], records[stop - base :]
            failpoints.reach("machine: before apply")
            results = apply_all(self._machine, part)
            failpoints.reach("machine: after apply")
            if stop == end:
                self._progress.take(items)
            self._applied(base, results, own)
            if stop == due:
                self._digests.take(stop)
            base = stop

    def _catch_up(self, gone: OffsetOutOfRange) -> None:
        newest = self._keeping.newest()
        first = gone.first_offset
        if newest is None or not newest.snapshot.pieces or newest.snapshot.position.offset < first:
            raise ReplogError(
                f"the records below offset {first} are compacted, and no snapshot here has a state "
                f"that stands for them: they went, here or on the member from which this one "
                f"caught up, while no machine was attached. Open every member with "
                f"snapshots=SnapshotEvery(...) from the first time on, and attach the machine"
            ) from gone
        self._restore(newest)

    def _restore(self, stored: StoredSnapshot) -> None:
        while True:
            try:
                failpoints.reach("machine: before restore")
                self._machine.restore(self._keeping.pieces(stored))
                failpoints.reach("machine: after restore")
                break
            except BaseException as error:
                newest = self._keeping.newest()
                if (
                    newest is None
                    or newest.snapshot_id == stored.snapshot_id
                    or not newest.snapshot.pieces
                ):
                    error.add_note(f"in restore, of the snapshot of entry {stored.snapshot.index}")
                    raise
                # A newer one has taken its place meanwhile, and its pieces are gone.
                stored = newest
        position = stored.snapshot.position
        self._progress = _Progress(position)
        with self._lock:
            skipped = {at: call for at, call in self._calls.items() if at < position.offset}
            for at in skipped:
                del self._calls[at]
            ended = self._reach(position.offset)
        ended.failed.extend([(call, self._skipped(at)) for at, call in skipped.items()])
        ended.tell()

    def _snapshot(self, pending: Pending[Snapshot | None]) -> None:
        position = self._progress.position()
        self._progress.tried()
        try:
            kept = self._keeping.keep(position, self._drawn()) if position.index else None
        except BaseException as error:  # noqa: BLE001 - the call's, whatever it is
            self._snapshot_failure = _in_words(error)
            fail_all((pending,), error)
        else:
            self._snapshot_failure = ""
            resolve(pending, kept)

    def _drawn(self) -> Iterator[bytes]:
        """The machine's state. Nothing is asked of the machine when nobody takes it."""
        yield from self._machine.snapshot()

    def _applied(self, base: int, results: Sequence[Any], own: Sequence[tuple[int, int]]) -> None:
        answered: list[tuple[Pending[Any], Any]] = []
        with self._lock:
            if self._calls or self._unplaced:
                end = base + len(results)
                parts = [(max(first, base), min(stop, end)) for first, stop in own]
                for offset in chain.from_iterable(starmap(range, parts)):
                    call = self._calls.pop(offset, None)
                    if call is not None:
                        answered.append((call, results[offset - base]))
                    elif self._unplaced:
                        self._results[offset] = results[offset - base]
            ended = self._reach(base + len(results))
        resolve_all(answered)
        ended.tell()

    def _reach(self, offset: int) -> _Ended:
        """With the lock held: the machine has come to this offset; who waits for that."""
        self._offset = offset
        ended = self._settle()
        passed = [(pending, None) for at, pending in self._waiting if at <= offset]
        ended.answered.extend(passed)
        self._waiting = [item for item in self._waiting if item[0] > offset]
        return ended

    def _end(self, error: BaseException) -> None:
        with self._lock:
            if self._failure is None:
                self._failure = error
            calls, self._calls = self._calls, {}
            waiting, self._waiting = self._waiting, []
        for offset, call in calls.items():
            fail_all((call,), self._stopped(offset))
        fail_all([pending for _, pending in waiting], self._stopped(None))
        fail_all(self._take_wanted(), self._stopped(None))
        self._wanted.put(None)  # for a thread that is late: it finds that the log has ended

    def _take_wanted(self) -> list[Pending[Snapshot | None]]:
        wanted: list[Pending[Snapshot | None]] = []
        while True:
            try:
                pending = self._wanted.get_nowait()
            except Empty:
                return wanted
            if pending is not None and not isinstance(pending, BaseException):
                wanted.append(pending)


def _in_words(error: BaseException) -> str:
    try:
        return repr(error)
    except Exception:  # noqa: BLE001 - an application's error may not even have words
        return type(error).__name__
