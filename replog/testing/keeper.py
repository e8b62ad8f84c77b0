"""What one simulated node does beside agreeing: it keeps its state, and serves named readers.

Rules of this file:

1. One snapshot is taken at a time, in pieces, as by the thread of a machine.
2. What a named reader was told to be stored is on the disk, unless it was changed since.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from replog.messages import FetchPiece, OfferSnapshot, SnapshotPart
from replog.replica.effects import LoadDroppable
from replog.snapshot import index_of_snapshot
from replog.testing.taking import PieceTicket, SealTicket, Taking, state_at, state_of
from replog.testing.violation import Violation

if TYPE_CHECKING:
    from collections.abc import Callable

    from replog.agreement import Message
    from replog.replica.effects import Load, Ticket
    from replog.replica.replica import Replica
    from replog.snapshot import Snapshot
    from replog.store.memory import MemoryDisk, MemoryStore
    from replog.testing.machines import Fed
    from replog.testing.world import World

    Ask = Callable[[Callable[[Replica, int], None]], None]

READERS = ("r1", "r2")
FORGETS = 0.1
"""How often a reader is forgotten instead of going on."""
GIVING_MS = 300
"""So long after it has sent a part of a snapshot, a node counts as giving one."""
PIN_JUDGED_MS = 5_000
"""For so long after an offer its snapshot is surely held; the pin itself lapses later."""


class ReaderTicket(NamedTuple):
    """Comes back when a named reader's offset is stored."""

    name: str
    place: int
    """Among all that was ever said of this reader in this life."""


class Keeper:
    """One life's snapshots and named readers."""

    def __init__(
        self,
        world: World,
        node: str,
        replica: Replica,
        *,
        disk: MemoryDisk,
        store: MemoryStore,
        ask: Ask,
        machine: Callable[[], Fed | None],
    ) -> None:
        """`ask` puts an input into the next turn; `machine` is the one that this life feeds."""
        self._world = world
        self._node = node
        self._disk = disk
        self._store = store
        self._replica = replica
        self._ask = ask
        self._machine = machine
        self._over = False
        self._taking: Taking | None = None
        """The snapshot that is being kept."""
        self._said: defaultdict[str, list[int | None]] = defaultdict(list)
        """Of each reader."""
        self._fetched: tuple[str, int] | None = None
        """From whom a snapshot is taken, and which."""
        self._gave_at = -GIVING_MS
        self._pinned: dict[str, tuple[int, int]] = {}
        """Of each node that takes a snapshot of this one, the last entry of that, and when it was
        offered or a part of it sent."""
        self._await(world.plan.snapshot_ms_mean, self._take)
        self._await(world.plan.readers_ms_mean, self._read)

    def end(self) -> None:
        """The life ends."""
        self._over = True
        catchup = self._replica.catchup
        self._world.tally["takers ended"] += bool(catchup.receiving.status())
        self._world.tally["givers ended"] += self.gives

    @property
    def gives(self) -> bool:
        """Whether somebody takes a snapshot of this node."""
        return self._world.schedule.now - self._gave_at < GIVING_MS

    def _await(self, mean_ms: int, action: Callable[[], None]) -> None:
        if mean_ms:
            delay_ms = 1 + self._world.interval_ms(mean_ms)
            self._world.schedule.after(delay_ms, self._act, mean_ms, action)

    def _act(self, mean_ms: int, action: Callable[[], None]) -> None:
        if not self._over:
            self._await(mean_ms, action)
            action()

    def stored(self, ticket: Ticket) -> None:
        """Something that was asked for is on the disk."""
        if isinstance(ticket, ReaderTicket):
            self._judge_reader(ticket)
        elif isinstance(ticket, SealTicket):
            self._world.tally["snapshots taken"] += 1
            self._world.trace.record(self._node, "sealed", ticket.taking.stored.snapshot.index)
            self._taking = None
        elif isinstance(ticket, PieceTicket):
            taking = ticket.taking
            taking.missing -= 1
            if not taking.missing:
                seal = SealTicket(taking)
                self._ask(lambda replica, _: replica.catchup.seal(taking.stored, seal))

    def _take(self) -> None:
        """Keep the state of now, unless another is being kept."""
        world, catchup = self._world, self._replica.catchup
        if self._taking is not None or catchup.is_installing:
            return
        position = catchup.position
        if position.index <= catchup.snapshots.newest_index:
            return
        fed = self._machine()
        machine: Any = fed.machine if fed is not None else None
        state = machine.snapshot() if machine is not None else state_at(position)
        taking = Taking(position, state, world.membership, world.plan.limits)
        self._taking = taking
        world.trace.record(self._node, "snapshot", position.index, taking.missing)

        def stage(replica: Replica, _: int) -> None:
            for piece in taking.pieces:
                replica.catchup.snapshots.stage(piece, PieceTicket(taking))

        self._ask(stage)

    # -- named readers -------------------------------------------------------------------------

    def _read(self) -> None:
        """One of the readers begins, goes on or is forgotten."""
        name = self._world.random.choice(READERS)
        draw = self._world.random.random()

        def say(replica: Replica, _: int) -> None:
            catchup = replica.catchup
            offset: int | None
            if name not in catchup.readers.offsets:
                offset = catchup.readers.begin(name)
            elif draw < FORGETS:
                offset = None
            else:
                offset = catchup.readers.offsets[name]
                offset += int(draw * max(0, catchup.position.offset - offset))
            self._world.tally["words of readers"] += 1
            self._world.trace.record(self._node, "reader", name, offset)
            self._said[name].append(offset)
            ticket = ReaderTicket(name, len(self._said[name]) - 1)
            catchup.readers.acknowledge(name, offset, ticket)

        self._ask(say)

    def _judge_reader(self, ticket: ReaderTicket) -> None:
        found = self._disk.readers.get(ticket.name)
        said = self._said[ticket.name][ticket.place :]
        if found not in said:
            raise Violation(f"{self._node} has {found} stored of a reader that said {said}")

    # -- snapshots of others -------------------------------------------------------------------

    def leaves(self, to: str, message: Message) -> str:
        """A message leaves; what it makes of this node: a giver, a taker, or nothing."""
        tally = self._world.tally
        if isinstance(message, SnapshotPart):
            tally["parts sent"] += 1
            self._gave_at = self._world.schedule.now
            self._pinned[to] = index_of_snapshot(message.snapshot_id), self._gave_at
            return "doomed giver"
        if isinstance(message, OfferSnapshot):
            tally["snapshots offered"] += 1
            index = index_of_snapshot(message.snapshot_id)
            if self._pinned.get(to, (0, 0))[0] != index:
                self._pinned[to] = index, self._world.schedule.now
        elif isinstance(message, FetchPiece):
            tally["parts asked for"] += 1
            before, self._fetched = self._fetched, (to, message.snapshot_id)
            tally["transfers begun"] += before != self._fetched
            tally["transfers replaced"] += before is not None and before != self._fetched
            return "doomed taker"
        return ""

    def judge_look(self, load: Load) -> None:
        """What may be dropped is looked for: nothing that somebody needs behind a snapshot."""
        if not isinstance(load, LoadDroppable):
            return
        since = self._world.schedule.now - PIN_JUDGED_MS
        for peer, (index, at) in self._pinned.items():
            if at > since and load.index_max > index:
                raise Violation(
                    f"{self._node} may drop entries to {load.index_max}; {peer} takes a snapshot "
                    f"of entry {index} and needs what follows"
                )

    def judge_install(self, snapshot: Snapshot) -> Fed | None:
        """What is installed is what the log led to; the machine made of it, if there are such."""
        world, stored = self._world, self._store.snapshot()
        world.tally["snapshots installed"] += 1
        world.trace.record(self._node, "installed", snapshot.index, snapshot.pieces)
        world.checkers.history.installed(self._node, snapshot.position)
        world.checkers.bases.tells(self._node, snapshot.position.offset)
        self._fetched = None
        if stored is None or stored.snapshot != snapshot:
            raise Violation(f"{self._node} installs a snapshot that is not its newest")
        if not snapshot.pieces:
            return None
        state = state_of(self._store, stored)
        if world.machines is not None:
            return world.machines.restored(state, snapshot.index)
        if b"".join(state) != b"".join(state_at(snapshot.position)):
            raise Violation(f"{self._node} installs another state than that of {snapshot.index}")
        return None
