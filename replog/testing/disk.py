"""The writer and reader threads of one simulated life.

Rules of this file:

1. One commit is under way at a time; it takes every batch queued so far (group commit), and what it
   writes is on the disk when it ends, not before.
2. A crash loses what is queued. The commit under way is lost or ends, and nobody is told which.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from replog.errors import StoreFailed
from replog.loads import carry_out
from replog.replica.effects import LoadEntries, LoadPart
from replog.store.rules import fold
from replog.testing.taking import damaged
from replog.testing.violation import Violation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from replog.replica.effects import Load
    from replog.store.interface import Batch
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
        loaded: Callable[[int, Any], None],
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

    def load(self, load_id: int, load: Load) -> None:
        """Read something, as the store is by then."""
        delay_ms = self._delay(self._world.weather.load_ms_max)
        self._world.schedule.after(delay_ms, self._read, load_id, load)

    def die(self) -> int:
        """The node crashes; how many batches are lost."""
        if self._dead:
            return 0
        self._dead = True
        lost = [*self._under_way, *self._queue]
        self._disk.failing = ""
        if self._under_way and self._world.chance(0.5):
            lost = self._queue
            self._write(reported=False)
        self._world.tally["installs lost"] += _installs([batch for _, batch in lost])
        self._store.close()
        return len(lost)

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
        installs = _installs([batch for _, batch in self._under_way])
        self._under_way = []
        if not self._effect():
            self._world.tally["installs that nobody was told of"] += installs
            return
        self._durable(last_id)
        if self._queue:
            self._begin()

    def _write(self, *, reported: bool) -> None:
        world, batches = self._world, [batch for _, batch in self._under_way]
        before, readers = self._disk.outline, dict(self._disk.readers)
        try:
            self._store.commit(batches)
        finally:
            if self._disk.outline is not before:
                self._judge(before, readers, batches)
                _judge_group(before, batches, self._disk)
        world.tally["commits"] += 1
        world.tally["commits of several batches"] += len(batches) > 1
        world.tally["commits that nobody was told of"] += not reported
        installs = _installs(batches)
        world.tally["installs that nobody was told of"] += installs and not reported
        world.trace.record(self._node, "commit", self._under_way[-1][0], len(batches), reported)

    def _judge(self, before: Outline, readers: Mapping[str, int], batches: Sequence[Batch]) -> None:
        """A commit has changed the disk, whether or not it says so."""
        checkers, promise = self._world.checkers, before.promise
        checkers.promises.stored(self._node, promise, self._disk.outline.promise)
        for batch in batches:
            for write in batch.writes:
                checkers.wrote(self._node, write)
        installs = _installs(batches)
        needed = _readers_at_drop(readers, batches)
        checkers.bases.committed(self._node, self._disk, before, needed, installs=installs)
        compacts = self._disk.base.index > before.base.index and not installs
        self._world.tally["compactions"] += compacts
        self._world.tally["installs"] += installs
        if self._disk.outline.promise != promise:
            self._promised()

    def _read(self, load_id: int, load: Load) -> None:
        if self._dead:
            return
        found = carry_out(self._store, load)
        if isinstance(load, LoadPart) and found and self._world.chance(self._world.weather.damage):
            self._world.tally["damaged parts"] += 1
            piece = self._store.piece(load.snapshot_id, load.number) or b""
            found = damaged(found, load.start, piece, self._world.random)
        self._world.tally["loads"] += 1
        if isinstance(load, LoadEntries):
            self._world.trace.record(self._node, "load", load.first, load.last, len(found))
        else:
            self._world.trace.record(self._node, "load", type(load).__name__)
        self._loaded(load_id, found)


def _readers_at_drop(readers: Mapping[str, int], batches: Sequence[Batch]) -> Mapping[str, int]:
    """What named readers had acknowledged when the last of these batches dropped anything."""
    known, at_drop = dict(readers), readers
    for batch in batches:
        for name, offset in (batch.readers or {}).items():
            if offset is None:
                known.pop(name, None)
            else:
                known[name] = offset
        if batch.compact_to is not None:
            at_drop = dict(known)
    return at_drop


def _installs(batches: Sequence[Batch]) -> bool:
    """Whether one of them begins the log anew behind a snapshot."""
    return any(write.install is not None for batch in batches for write in batch.writes)


def _judge_group(before: Outline, batches: Sequence[Batch], disk: MemoryDisk) -> None:
    """Nothing may be written behind the end of a log: memory forgets it, a real disk would not."""
    truncates = any(write.truncate_from is not None for batch in batches for write in batch.writes)
    if len(batches) > 1 and truncates and not any(batch.compact_to for batch in batches):
        changes, after = fold(before, batches, disk.row)
        if changes.appended and changes.appended[-1].index > after.last_index:
            raise Violation(
                f"a commit writes entry {changes.appended[-1].index} behind the end of the log, "
                f"{after.last_index}"
            )
