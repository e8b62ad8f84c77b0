"""Feeding a state machine: a thread of its own reads the delivered log by position.

Rules of this file:

1. The machine sees whole entries, in order, each once. A slow one delays no heartbeat and pins
   nothing in memory.
2. What `apply` raises stops the machine where it stood, and nothing else: appends and reads go on.
3. A call's record may be applied before its append is answered. Results of this node's own records
   are kept while a call waits for its offset, and no longer. Calls wait in the order of their
   appends, which is that of their offsets: so nobody comes later for a result below.
4. Every call is answered: with its result, with what its append ended with, or with the fact that
   its record is in the log and the machine stopped before it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from itertools import chain, starmap
from typing import TYPE_CHECKING, Any, NamedTuple

from replog import failpoints
from replog.errors import Busy, Closed, MachineStopped, StoreFailed
from replog.machine import apply_all
from replog.pending import Pending, fail_all, resolve_all
from replog.reading import records_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from replog.machine import Machine, Record
    from replog.reading import DeliveredLog, Item

CALLS_MAX = 1 << 20
"""Calls that may wait for their machine; beyond it `call` raises `Busy`."""
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


class Applier:
    """One machine, its thread and the calls that wait for it."""

    def __init__(self, node: str, machine: Machine, log: DeliveredLog) -> None:
        self._node = node
        self._machine = machine
        self._log = log
        self._lock = threading.Lock()
        self._offset = 0
        """The machine has taken every record below."""
        self._failure: BaseException | None = None
        """Why it takes no more."""
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
        if self._failure is None:
            return ""
        try:
            return repr(self._failure)
        except Exception:  # noqa: BLE001 - an application's error may not even have words
            return type(self._failure).__name__

    # -- calls ---------------------------------------------------------------------------------

    def call(self, append: Callable[[], Pending[int]]) -> Pending[Any]:
        """What the machine answers to the record that `append` appends.

        Raises `MachineStopped`, and whatever `append` raises.
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
            if offset < self._offset:
                ended.answered.append((answer, self._results.pop(offset)))
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

    # -- the machine's thread ------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while True:
                self._log.wait(self._offset).result()
                self._apply(self._log.items(self._offset))
        except BaseException as error:  # noqa: BLE001 - kept for whoever asks why it stopped
            self._end(error)

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
        # The list is the machine's from here on: it may empty it.
        base = records[0].offset
        failpoints.reach("machine: before apply")
        results = apply_all(self._machine, records)
        failpoints.reach("machine: after apply")
        self._applied(base, results, own)

    def _applied(self, base: int, results: Sequence[Any], own: Sequence[tuple[int, int]]) -> None:
        answered: list[tuple[Pending[Any], Any]] = []
        with self._lock:
            if self._calls or self._unplaced:
                for offset in chain.from_iterable(starmap(range, own)):
                    call = self._calls.pop(offset, None)
                    if call is not None:
                        answered.append((call, results[offset - base]))
                    elif self._unplaced:
                        self._results[offset] = results[offset - base]
            self._offset = end = base + len(results)
            ended = self._settle()
            answered += [(pending, None) for offset, pending in self._waiting if offset <= end]
            self._waiting = [item for item in self._waiting if item[0] > end]
        resolve_all(answered)
        ended.tell()

    def _end(self, error: BaseException) -> None:
        with self._lock:
            if self._failure is None:
                self._failure = error
            calls, self._calls = self._calls, {}
            waiting, self._waiting = self._waiting, []
        for offset, call in calls.items():
            fail_all((call,), self._stopped(offset))
        fail_all([pending for _, pending in waiting], self._stopped(None))
