"""The threads that move bytes between replica, store, transport and clock. They decide nothing.

Rules of this file:

1. The node's thread owns the replica and the transport; it never touches the disk.
2. The writer's thread commits batches, in order, as many as wait in one transaction.
3. The loader's thread reads what the replica asks for.
4. The first fault of any thread stops the node: every waiter then learns its outcome truthfully,
   and nothing more is sent or acknowledged.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from replog import failpoints
from replog.disk_room import disk_room
from replog.errors import Closed, InvariantBroken, OutcomeUnknown, ReplogError
from replog.inbox import Inbox, Records, disk_full, end_error, end_reason
from replog.loads import carry_out
from replog.pending import Pending, fail_all, resolve, resolve_all, resolve_offsets
from replog.snapshot import NotKept

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from replog.config import Limits
    from replog.recent import Recent
    from replog.replica.effects import Completion, Effects, Load, Outgoing
    from replog.replica.replica import Replica
    from replog.snapshot import Snapshot
    from replog.store.interface import Batch, Store, StoredPiece, StoredSnapshot
    from transport.interface import Transport

    T = TypeVar("T")

BATCHES_PER_COMMIT_MAX = 256
STOP_SECONDS_MAX = 30.0
"""How long `stop` waits for a commit under way."""

Numbered = tuple[int, "Batch"]


def now_ms() -> int:
    """Monotonic time, for every deadline."""
    return time.monotonic_ns() // 1_000_000


class Writer:
    """The writer's thread: group commit."""

    def __init__(self, name: str, store: Store, report: Callable[[Any], None]) -> None:
        self._store = store
        self._report = report
        self._queue: SimpleQueue[Numbered | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"{name}-writer", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def put(self, batch: Numbered) -> None:
        """Commit this batch after those before it."""
        self._queue.put(batch)

    def stop(self) -> None:
        """Commit what waits and end."""
        self._queue.put(None)
        if self._thread.ident is not None:
            self._thread.join(STOP_SECONDS_MAX)

    def _run(self) -> None:
        try:
            while (group := self._next_group()) is not None:
                failpoints.reach("writer: before a commit")
                self._store.commit([batch for _, batch in group])
                failpoints.reach("writer: after a commit")
                self._report(group[-1][0])
        except BaseException as error:  # noqa: BLE001 - whatever it is, the node must hear of it
            self._report(error)

    def _next_group(self) -> list[Numbered] | None:
        group: list[Numbered] = []
        item = self._queue.get()
        try:
            while item is not None and len(group) < BATCHES_PER_COMMIT_MAX:
                group.append(item)
                item = self._queue.get_nowait()
        except Empty:
            return group
        if item is None:
            if not group:
                return None
            self._queue.put(None)
        else:
            group.append(item)
        return group


class Loader:
    """The loader's thread: reads from the store. Started by the first load."""

    def __init__(self, name: str, store: Store, report: Callable[[Any], None]) -> None:
        self._store = store
        self._report = report
        self._queue: SimpleQueue[tuple[int, Load] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"{name}-loader", daemon=True)

    def put(self, load: tuple[int, Load]) -> None:
        """Carry this out."""
        if self._thread.ident is None:
            self._thread.start()
        self._queue.put(load)

    def stop(self) -> None:
        """End after the read under way."""
        self._queue.put(None)
        if self._thread.ident is not None:
            self._thread.join(STOP_SECONDS_MAX)

    def _run(self) -> None:
        try:
            while (numbered := self._queue.get()) is not None:
                load_id, load = numbered
                self._report((load_id, carry_out(self._store, load)))
        except BaseException as error:  # noqa: BLE001 - whatever it is, the node must hear of it
            self._report(error)


class Node:
    """One running member."""

    def __init__(
        self,
        replica: Replica,
        store: Store,
        transport: Transport,
        recent: Recent,
        limits: Limits,
    ) -> None:
        self.inbox = Inbox(limits.pending_bytes_max, transport.wake)
        self.failure: BaseException | None = None
        self.id = replica.node
        self._replica = replica
        self._store = store
        self._transport = transport
        self._recent = recent
        self._stop_machine: Callable[[str], object] = _no_machine
        self._map_bytes_max = limits.map_bytes_max
        self._reports: deque[int | tuple[int, Any] | BaseException] = deque()
        self._positions: deque[tuple[int, int]] = deque()
        """(batch id, index up to which its rows reach)."""
        self._stopping = False
        self._measure_disk()
        name = f"replog-{replica.node}"
        self._writer = Writer(name, store, self._report)
        self._loader = Loader(name, store, self._report)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to take part."""
        self._writer.start()
        self._thread.start()

    def stop(self) -> None:
        """Stop, write the position, and close store and transport. Idempotent, any thread but the
        node's own."""
        self._stopping = True
        self._transport.wake()
        self._thread.join(STOP_SECONDS_MAX)
        if self._thread.is_alive():
            raise ReplogError(
                f"the node did not stop within {STOP_SECONDS_MAX} s: its disk may hang; the "
                f"process can be killed, nothing acknowledged is lost"
            )

    def is_own_thread(self) -> bool:
        """Whether the caller runs on the node's thread (in a done callback)."""
        return threading.current_thread() is self._thread

    # -- the node's thread ---------------------------------------------------------------------

    def _report(self, what: int | tuple[int, Any] | BaseException) -> None:
        self._reports.append(what)
        self._transport.wake()

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._turn()
        except BaseException as error:  # noqa: BLE001 - kept for whoever asks why the node stopped
            self.failure = error
        self._finish()

    def _turn(self) -> None:
        replica = self._replica
        self._wait()
        now = now_ms()
        if self._reports:
            while self._reports:
                self._take_report(now, self._reports.popleft())
            self._send(replica.released())
        for received in self._transport.receive():
            replica.receive(now, *received)
        if self.inbox.disk_was_short or self._replica.disk_is_full:
            self._measure_disk()  # who read for long may be gone, and no commit comes of that
        self._take_inbox()
        deadline = replica.deadline
        if deadline is not None and now >= deadline:
            replica.tick(now)
        self._carry_out(replica.step(now, time.time_ns() // 1_000_000))

    def _wait(self) -> None:
        deadline = self._replica.deadline
        timeout = None if deadline is None else max(0, deadline - now_ms())
        self.inbox.sleeping = True
        if self.inbox.has_items or self._reports or self._stopping:
            timeout = 0
        self._transport.wait(timeout)
        self.inbox.sleeping = False

    def _take_report(self, now: int, report: int | tuple[int, Any] | BaseException) -> None:
        if isinstance(report, BaseException):
            raise report
        if isinstance(report, tuple):
            self._replica.loaded(now, *report)
            return
        self._replica.durable(now, report)
        through = 0
        while self._positions and self._positions[0][0] <= report:
            through = self._positions.popleft()[1]
        if through:
            self._recent.drop(through)
        self._measure_disk()

    def _measure_disk(self) -> None:
        newest = self._replica.catchup.snapshots.newest
        snapshot_bytes = newest.snapshot.size if newest is not None else 0
        store = self._store
        room = disk_room(store.usage(), self._map_bytes_max, snapshot_bytes, store.is_held_back)
        self.inbox.set_disk_bytes_free(room.appends)
        self._replica.set_disk_room(room)

    def _take_inbox(self) -> None:
        if not self.inbox.has_items:
            return
        groups, requests = self.inbox.take()
        for group in groups:
            if isinstance(group, Records):
                self._replica.submit_records(*group)
            else:
                self._replica.submit_run(*group)
        for run, pending in requests:
            run(pending)

    def _carry_out(self, effects: Effects) -> None:
        if effects.installed is not None:
            failpoints.reach("node: before an install is told")
            self._recent.install(effects.installed.position)
            self._skip(effects)
        if effects.first_offset is not None:
            self._recent.begin_at(effects.first_offset)
        if effects.delivered:
            self._recent.add(effects.delivered)
        self._answer(effects.completions)
        self._send(effects.sends)
        if effects.batch is not None:
            failpoints.reach("node: before a batch is queued")
            if effects.batch[1].compact_to is not None:
                failpoints.reach("node: before a step of compaction is queued")
            if any(write.install is not None for write in effects.batch[1].writes):
                failpoints.reach("node: before an install is queued")
            position = effects.batch[1].position
            if position is not None:
                self._positions.append((effects.batch[0], position.index))
            self._writer.put(effects.batch)
        for load in effects.loads:
            self._loader.put(load)
        for stored in effects.stored:
            resolve(stored.ticket, stored.result)
        if effects.barriers:
            resolve_all([(pending, None) for pending in effects.barriers])
        if effects.machine_verdict:
            self._stop_machine(effects.machine_verdict)
        failpoints.reach("node: after a step")

    def _answer(self, completions: Sequence[Completion]) -> None:
        if not completions:
            return
        failpoints.reach("node: before answers")
        for completion in completions:
            self._complete(completion)
        failpoints.reach("node: after answers")

    def _send(self, messages: Sequence[Outgoing]) -> None:
        for to, header, parts, bulk in messages:
            failpoints.reach("node: before a send")
            if not self._transport.send(to, header, parts, bulk=bulk) and bulk:
                self._replica.lost(to)
            failpoints.reach("node: after a send")

    def _complete(self, completion: Completion) -> None:
        tickets: Any = completion.tickets
        base, count = completion.base_offset, completion.count
        if completion.whole:
            resolve(tickets[0], range(base, base + count))
        else:
            resolve_offsets(tickets, base)
        self.inbox.finished(len(tickets), completion.size)

    def _skip(self, effects: Effects) -> None:
        """Records of this node that a snapshot stands for."""
        for completion in effects.skipped:
            error = OutcomeUnknown(
                "the record is in the log, but this node learnt of it by a snapshot and cannot "
                "tell its offset",
                appended=True,
            )
            fail_all(completion.tickets, error)
            self.inbox.finished(len(completion.tickets), completion.size)

    # -- requests ------------------------------------------------------------------------------

    def barrier(self, pending: Pending[Any]) -> None:
        """On the node's thread: resolve once everything committed before now is delivered here."""
        self._replica.barrier(pending)

    def stage(self, piece: StoredPiece) -> Pending[None]:
        """Any thread: write one piece of a snapshot; resolved once it is stored, or will not be
        because a newer snapshot has come. Ends in `Busy` when the disk has no room for it."""
        snapshots = self._replica.catchup.snapshots

        def stage(pending: Pending[Any]) -> None:
            self._measure_disk()
            if snapshots.has_room_for(len(piece.data)):
                snapshots.stage(piece, pending)
            else:
                fail_all((pending,), disk_full(snapshots.disk_bytes_free))

        return self.inbox.request(stage)

    def seal(self, stored: StoredSnapshot) -> Pending[Snapshot]:
        """Any thread: this snapshot, of which all pieces are stored, becomes the newest; resolved
        with what is the newest then. Its epoch and membership are filled in. Ends with `NotKept`
        for one whose header is too large."""
        return self._sealing(lambda pending: self._replica.catchup.seal(stored, pending))

    def snapshot_header(self) -> Pending[Snapshot | None]:
        """Any thread: a snapshot of the log without a state, as of now. Where states are kept, the
        newest there is instead. None of an empty log, and where there is none."""
        return self._sealing(self._replica.catchup.seal_header)

    def _sealing(self, seal: Callable[[Pending[Any]], None]) -> Pending[Any]:
        """Have the node's thread seal a snapshot, of which a fault of the header is the caller's
        alone."""

        def run(pending: Pending[Any]) -> None:
            try:
                seal(pending)
            except NotKept as error:
                fail_all((pending,), error)

        return self.inbox.request(run)

    def drop_snapshot(self, snapshot_id: int) -> Pending[None]:
        """Any thread: remove what is stored of a snapshot that was not sealed."""
        return self._ask(lambda: self._replica.catchup.snapshots.drop(snapshot_id))

    def attach_machine(self) -> Pending[None]:
        """Any thread: from here on only snapshots of the machine let anything go."""
        return self._ask(self._replica.catchup.attach_machine)

    def watch_machine(self, stop: Callable[[str], object]) -> None:
        """Any thread, once: call this on the node's thread, with the reason, when the machine
        differs from a majority's."""
        self._stop_machine = stop

    def compare_machine(self, offset: int, digest: bytes) -> None:
        """Any thread: this node's machine has this digest when it has taken every record below this
        offset."""
        self._ask(lambda: self._replica.machines.taken(offset, digest))

    def begin_reader(self, name: str) -> Pending[int]:
        """Any thread: where a named reader begins, once the log is kept for it from there on."""
        if not self.is_own_thread():
            return self._ask(lambda: self._replica.catchup.readers.begin(name))
        # In a done callback, which may wait for the answer: it has to come at once.
        self.inbox.check_open()
        pending: Pending[int] = Pending()
        resolve(pending, self._replica.catchup.readers.begin(name))
        return pending

    def acknowledge(self, name: str, offset: int | None) -> Pending[None]:
        """Any thread: a named reader needs nothing below `offset`; None: it is no more. Resolved
        once that is stored."""
        return self.inbox.request(
            lambda pending: self._replica.catchup.readers.acknowledge(name, offset, pending)
        )

    def _ask(self, action: Callable[[], T]) -> Pending[T]:
        """Any thread: have the node's thread call this; resolved with what it returns."""
        return self.inbox.request(lambda pending: resolve(pending, action()))

    def status(self, pending: Pending[Any]) -> None:
        """On the node's thread: resolve with the node's status."""
        status = self._replica.status(Counter(self._transport.drops))
        if self._replica.disk_is_full:
            full = f"appends are refused: {disk_full(self.inbox.disk_bytes_free)}"
            status = status._replace(alarm="; ".join(filter(None, (status.alarm, full))))
        resolve(pending, status)

    # -- the end -------------------------------------------------------------------------------

    def _finish(self) -> None:
        self.inbox.close(self.failure)
        for step in (self._stop_writing, self._close_store, self._close_transport):
            try:
                step()
            except BaseException as error:  # noqa: BLE001 - the other steps count all the same
                self.failure = self.failure or error
        self._fail_waiters(self.failure)

    def _stop_writing(self) -> None:
        try:
            failpoints.reach("close: before the last position")
            if self.failure is None:
                self._writer.put((0, self._replica.final_batch()))
        finally:
            self._writer.stop()
            self._loader.stop()
        for report in self._reports:
            if isinstance(report, BaseException):
                raise report

    def _close_store(self) -> None:
        try:
            failpoints.reach("close: before the store closes")
        finally:
            self._store.close()

    def _close_transport(self) -> None:
        try:
            failpoints.reach("close: before the transport closes")
        finally:
            self._transport.close()

    def _fail_waiters(self, failure: BaseException | None) -> None:
        groups, requests = self.inbox.take()
        unsequenced, open_ones, barriers = self._replica.drain()
        for group in groups:
            unsequenced += group.tickets if isinstance(group, Records) else [group.ticket]
        reason = end_reason(failure)
        refused = Closed(f"{reason}; the record is not in the log")
        unknown = OutcomeUnknown(
            f"{reason} while the record was in flight: it may or may not be in the log; read the "
            f"log from where you know it, or append it again only if a double does no harm"
        )
        stopped = end_error(failure)
        refused.__cause__ = unknown.__cause__ = failure
        waiting: Any = (unsequenced, open_ones, [*barriers, *[pending for _, pending in requests]])
        for pendings, error in zip(waiting, (refused, unknown, stopped), strict=True):
            fail_all(pendings, error)
        self._recent.end(stopped)


def _no_machine(reason: str) -> None:
    raise InvariantBroken(f"a machine must stop, but none is attached: {reason}")
