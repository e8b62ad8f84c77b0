"""Feeding a state machine: a thread of its own reads the delivered log by position.

Rules of this file:

1. The machine sees whole entries, in order, each once. A slow one delays no heartbeat and pins
   nothing in memory.
2. What `apply` raises stops the machine where it stood, and nothing else: appends and reads go on.
3. A call's record may be applied before its append is answered. Results of this node's own records
   are kept while a call waits for its offset, and no longer.
4. Every call is answered: with its result, with what its append ended with, or with the fact that
   its record is in the log and the machine stopped before it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from replog import failpoints
from replog.errors import Closed, MachineStopped
from replog.machine import apply_all
from replog.pending import Pending, fail_all, resolve_all
from replog.reading import records_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from replog.machine import Machine, Record
    from replog.reading import DeliveredLog, Item

STOP_SECONDS_MAX = 30.0
"""How long `stop` waits for an `apply` under way."""


class Applier:
    """One machine, its thread and the calls that wait for it."""

    def __init__(self, node: str, machine: Machine, log: DeliveredLog) -> None:
        self._node = node
        self._machine = machine
        self._log = log
        self._lock = threading.Lock()
        self._offset = 0
        """The machine has taken every record below."""
        self._failure: Exception | None = None
        """Why it takes no more."""
        self._unplaced = 0
        """Calls whose offset is not known yet."""
        self._results: dict[int, Any] = {}
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
    def failure(self) -> Exception | None:
        """Why the machine takes no more records; None while it does."""
        return self._failure

    # -- calls ---------------------------------------------------------------------------------

    def call(self, append: Callable[[], Pending[int]]) -> Pending[Any]:
        """What the machine answers to the record that `append` appends.

        Raises `MachineStopped`, and whatever `append` raises.
        """
        answer: Pending[Any] = Pending()
        with self._lock:
            if self._failure is not None:
                raise self._stopped(None)
            self._unplaced += 1
        try:
            appended = append()
        except BaseException:
            self._place(None, answer)
            raise
        appended.add_done_callback(lambda done: self._answer(done, answer))
        return answer

    def wait(self, offset: int) -> Pending[None]:
        """Resolved once the machine has taken every record below `offset`."""
        pending: Pending[None] = Pending()
        with self._lock:
            failure = self._failure
            if failure is None and self._offset < offset:
                self._waiting.append((offset, pending))
                return pending
        if self._offset < offset:
            fail_all((pending,), self._stopped(None))
        else:
            resolve_all(((pending, None),))
        return pending

    def _answer(self, appended: Pending[int], answer: Pending[Any]) -> None:
        try:
            offset = appended.result(0)
        except BaseException as error:  # noqa: BLE001 - the caller's, whatever it is
            self._place(None, answer)
            fail_all((answer,), error)
        else:
            self._place(offset, answer)

    def _place(self, offset: int | None, answer: Pending[Any]) -> None:
        """The append of a call has ended: at this offset, or without one."""
        with self._lock:
            self._unplaced -= 1
            applied = offset is not None and offset < self._offset
            stopped = offset is not None and not applied and self._failure is not None
            if offset is not None and not applied and not stopped:
                self._calls[offset] = answer
            result = self._results.pop(offset, None) if offset is not None and applied else None
            self._forget_results(offset)
        if applied:
            resolve_all(((answer, result),))
        elif stopped:
            fail_all((answer,), self._stopped(offset))

    def _forget_results(self, offset: int | None) -> None:
        """Appends of one node end in the order of their offsets: nobody will ask below this one."""
        if not self._unplaced:
            self._results.clear()
        while offset is not None and self._results and next(iter(self._results)) < offset:
            del self._results[next(iter(self._results))]

    def _stopped(self, offset: int | None) -> MachineStopped:
        fate = "" if offset is None else f"; the record is in the log at offset {offset}"
        reason = f"the machine of {self._node} stopped at offset {self._offset}: {self._failure!r}"
        error = MachineStopped(reason + fate, offset)
        error.__cause__ = self._failure
        return error

    # -- the machine's thread ------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while True:
                self._log.wait(self._offset).result()
                self._apply(self._log.items(self._offset))
        except Exception as error:  # noqa: BLE001 - kept for whoever asks why the machine stopped
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
        failpoints.reach("machine: before apply")
        results = apply_all(self._machine, records)
        failpoints.reach("machine: after apply")
        self._applied(records[0].offset, results, own)

    def _applied(self, base: int, results: Sequence[Any], own: Sequence[tuple[int, int]]) -> None:
        answered: list[tuple[Pending[Any], Any]] = []
        with self._lock:
            if self._calls or self._unplaced:
                for offset in [offset for first, end in own for offset in range(first, end)]:
                    call = self._calls.pop(offset, None)
                    if call is not None:
                        answered.append((call, results[offset - base]))
                    elif self._unplaced:
                        self._results[offset] = results[offset - base]
            self._offset = end = base + len(results)
            if self._waiting:
                answered += [(pending, None) for offset, pending in self._waiting if offset <= end]
                self._waiting = [item for item in self._waiting if item[0] > end]
        if answered:
            resolve_all(answered)

    def _end(self, error: Exception) -> None:
        with self._lock:
            if self._failure is None:
                self._failure = error
            calls, self._calls = self._calls, {}
            waiting, self._waiting = self._waiting, []
        for offset, call in calls.items():
            fail_all((call,), self._stopped(offset))
        fail_all([pending for _, pending in waiting], self._stopped(None))
