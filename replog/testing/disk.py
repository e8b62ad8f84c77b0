"""The writer and reader threads of one simulated life.

Rules of this file:

1. One commit is under way at a time; it takes every batch queued so far (group commit), and what it
   writes is on the disk when it ends, not before.
2. A crash loses what is queued. The commit under way is lost or ends, and nobody is told which.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replog.errors import StoreFailed
from replog.store.rules import fold
from replog.testing.violation import Violation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from replog.entry import Epoch
    from replog.replica.effects import Load
    from replog.store.interface import Batch, StoredEntry
    from replog.store.memory import MemoryDisk, MemoryStore
    from replog.store.rules import Outline
    from replog.testing.world import World


class DiskThreads:
    """Carries out batches and loads, and reports them, until the life ends."""

    def __init__(
        self,
        world: World,
        disk: MemoryDisk,
        store: MemoryStore,
        slowness: int,
        *,
        effect: Callable[[], bool],
        durable: Callable[[int], None],
        promised: Callable[[], None],
        loaded: Callable[[int, Sequence[StoredEntry]], None],
        failed: Callable[[StoreFailed], None],
    ) -> None:
        """`effect` is asked before and after each commit whether the node still lives."""
        self._world = world
        self._disk = disk
        self._store = store
        self._node = store.restore().identity.node
        self._slowness = slowness
        self._effect = effect
        self._durable = durable
        self._promised = promised
        self._loaded = loaded
        self._failed = failed
        self._queue: list[tuple[int, Batch]] = []
        self._under_way: list[tuple[int, Batch]] = []
        self._dead = False

    def queue(self, batch_id: int, batch: Batch) -> None:
        """Commit this batch after all that came before."""
        self._queue.append((batch_id, batch))
        if not self._under_way:
            self._begin()

    def load(self, load: Load) -> None:
        """Read entries, as the store is by then."""
        delay_ms = self._delay(self._world.weather.load_ms_max)
        self._world.schedule.after(delay_ms, self._read, load)

    def die(self) -> int:
        """The node crashes; how many batches are lost."""
        if self._dead:
            return 0
        self._dead = True
        lost = len(self._queue) + len(self._under_way)
        self._disk.failing = ""
        if self._under_way and self._world.chance(0.5):
            lost -= len(self._under_way)
            self._write(reported=False)
        self._store.close()
        return lost

    def finish(self, last: Batch) -> None:
        """The node closes: write whatever is queued, and this batch last."""
        self._dead = True
        self._queue.append((0, last))
        try:
            if self._under_way:
                self._write(reported=False)
            self._under_way = self._queue
            self._write(reported=False)
        except StoreFailed:
            self._world.tally["commits that failed on close"] += 1
        self._store.close()

    def _delay(self, most_ms: int) -> int:
        world, weather = self._world, self._world.weather
        delay_ms = world.below(most_ms * self._slowness + 1)
        if world.chance(weather.stall):
            delay_ms += world.below(weather.stall_ms_max)
            world.tally["disk stalls"] += 1
        return delay_ms

    def _begin(self) -> None:
        self._under_way, self._queue = self._queue, []
        delay_ms = self._delay(self._world.weather.commit_ms_max)
        self._world.schedule.after(delay_ms, self._end)

    def _end(self) -> None:
        if self._dead or not self._effect():
            return
        try:
            self._write(reported=True)
        except StoreFailed as error:
            self._under_way = []
            self._failed(error)
            return
        last_id = self._under_way[-1][0]
        self._under_way = []
        if not self._effect():
            return
        self._durable(last_id)
        if self._queue:
            self._begin()

    def _write(self, *, reported: bool) -> None:
        world, batches = self._world, [batch for _, batch in self._under_way]
        before = self._disk.outline
        try:
            self._store.commit(batches)
        finally:
            if self._disk.outline is not before:
                self._judge(before.promise, batches)
                _judge_group(before, batches)
        world.tally["commits"] += 1
        world.tally["commits of several batches"] += len(batches) > 1
        world.tally["commits that nobody was told of"] += not reported
        world.trace.record(self._node, "commit", self._under_way[-1][0], len(batches), reported)

    def _judge(self, promise: Epoch, batches: Sequence[Batch]) -> None:
        """A commit has changed the disk, whether or not it says so."""
        checkers = self._world.checkers
        checkers.promises.stored(self._node, promise, self._disk.outline.promise)
        for batch in batches:
            for write in batch.writes:
                checkers.wrote(self._node, write)
        if self._disk.outline.promise != promise:
            self._promised()

    def _read(self, load: Load) -> None:
        if self._dead:
            return
        entries = self._store.entries(load.first, load.last, load.bytes_max)
        self._world.tally["loads"] += 1
        self._world.trace.record(self._node, "load", load.first, load.last, len(entries))
        self._loaded(load.load_id, entries)


def _judge_group(before: Outline, batches: Sequence[Batch]) -> None:
    """Nothing may be written behind the end of a log: memory forgets it, a real disk would not."""
    if len(batches) > 1 and any(
        write.truncate_from is not None for batch in batches for write in batch.writes
    ):
        changes, after = fold(before, batches)
        if changes.appended and changes.appended[-1].index > after.last_index:
            raise Violation(
                f"a commit writes entry {changes.appended[-1].index} behind the end of the log, "
                f"{after.last_index}"
            )
