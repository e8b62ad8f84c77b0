"""One simulated node: its disk, and the lives of the real replica on it, one after another.

Rules of this file:

1. A turn is what the real node does: reports of the disk, sends they released, frames, appends,
   `tick` when due, one `step`, and then its effects in the node's order.
2. A crash may fall between any two effects: what was sent is under way, what was not written is
   lost.
3. What a replica delivers is judged when it says so, also if it crashes before telling anybody.
"""

from __future__ import annotations

from math import ceil
from random import Random
from typing import TYPE_CHECKING, Any

from replog.entry import pack_run
from replog.errors import IdentityRefused
from replog.membership import cluster_id
from replog.replica.catchup import CompactionPolicy
from replog.replica.replica import Replica
from replog.store.memory import MemoryDisk, MemoryStore
from replog.testing.checkers import AppendTicket
from replog.testing.disk import DiskThreads
from replog.testing.keeper import Keeper
from replog.testing.network import Frame
from replog.testing.plan import DOOM_EFFECTS_MAX, INSTALL_EFFECTS_MAX
from replog.testing.violation import Violation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from replog.replica.effects import Completion, Effects, Outgoing, Ticket
    from replog.testing.machines import Fed
    from replog.testing.network import Network
    from replog.testing.world import World

    Input = Callable[[Replica, int], None]

UNIX_MS = 1_700_000_000_000
"""What the wall clocks show at virtual time 0."""
INBOX_FRAMES_MAX = 1024
QUICK_RESTART_MS = 30


class Cut(Exception):
    """The node crashes before its next effect."""


class Host:
    """One node of the cluster."""

    def __init__(self, world: World, network: Network, node: str, disk: MemoryDisk) -> None:
        self.node = node
        self.disk = disk
        self.replica: Replica | None = None
        """The present life; None between two."""
        self.life = 0
        """Counts lives, from 1."""
        self.stopped_by: Exception | None = None
        """What made the node stop itself."""
        self.clock_skew_ms = 0
        """How far its wall clock is ahead."""
        self.paused_until = 0
        self.effects = 0
        """How many effects were carried out in all lives."""
        self.cut_at = 0
        """Crash before the effect of this number; 0: never."""
        self.tickets: set[int] = set()
        """Appends of the present life that are not acknowledged."""
        self.barriers: set[int] = set()
        """Barriers of the present life that do not hold yet."""
        self._world = world
        self._network = network
        self._slowness = 1 + world.below(world.plan.weather.slowness_max)
        drift_max = world.plan.drift_max
        self._rate = 1 + world.random.uniform(-drift_max, drift_max) if drift_max else 1
        """How fast its monotonic clock runs."""
        self._threads: DiskThreads | None = None
        self._fed: Fed | None = None
        """The machine of the present life, if the run has one."""
        self._keeper: Keeper | None = None
        """Of the present life."""
        self._signature = (node, b"", 0)
        """Of each frame of the present life: sender, store id, life."""
        self._wake_at: int | None = None
        self._frames: list[Frame] = []
        self._requests: list[Input] = []
        """Appends and barriers since the last turn."""
        self._reports: list[Input] = []
        """What the disk and the transport have reported since the last turn."""

    # -- lives ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin a life on what the disk holds; nothing when one is under way."""
        if self.replica is not None:
            return
        world = self._world
        store = MemoryStore(
            self.disk,
            node=self.node,
            cluster_id=cluster_id(world.agreement.name, world.membership),
            agreement=world.agreement.name,
            membership=world.membership,
            unix_ms=self._wall_ms(),
        )
        restoration = store.restore()
        world.checkers.history.started(self.node, restoration.position)
        world.checkers.bases.begins(self.node, restoration.base.offset)
        self.life += 1
        world.tally["restarts"] += self.life > 1
        found = (restoration.position.offset, restoration.position.index, restoration.last_index)
        world.trace.record(self.node, "start", self.life, *found)
        self._threads = DiskThreads(
            world,
            self.disk,
            store,
            1 if world.weather is not world.plan.weather else self._slowness,
            effect=self._survives_effect,
            durable=self._durable,
            promised=lambda: self._may_be_doomed("doomed voter", world.weather.doomed_voter),
            loaded=self._loaded,
            failed=self._stop,
        )
        random = Random(world.random.getrandbits(64))
        self.replica = Replica(
            world.agreement,
            restoration,
            world.plan.limits,
            self._clock_ms(),
            random,
            policy=CompactionPolicy(
                world.plan.retention, with_state=world.plan.snapshot_ms_mean > 0
            ),
        )
        self._keeper = Keeper(
            world,
            self.node,
            self.replica,
            disk=self.disk,
            store=store,
            ask=self._ask,
            machine=lambda: self._fed,
        )
        self._signature = (self.node, self.disk.store_id, restoration.identity.life)
        if world.machines is not None:
            self._fed = world.machines.begin_life(store, self.disk)
        self._wake(world.schedule.now)

    def crash(self, why: str) -> None:
        """End the present life, if any: memory and everything unsynced are lost."""
        if self.replica is None or self._threads is None:
            return
        lost = self._threads.die()
        self._world.tally["crashes"] += 1
        self._world.tally["unsynced batches lost"] += lost
        self._world.trace.record(self.node, "crash", why, lost)
        self._end_life()

    def close(self) -> None:
        """End the present life, if any, in good order: what was decided is written, and every open
        append gets its answer."""
        replica = self.replica
        if replica is None or self._threads is None:
            return
        for request in self._requests:
            request(replica, self._clock_ms())
        self._threads.finish(replica.final_batch())
        refused, unknown, others = replica.drain()
        barriers = [number for number in others if isinstance(number, int)]
        self._world.trace.record(self.node, "close", len(refused), len(unknown), len(barriers))
        self._world.checkers.acknowledgements.refused(refused)
        tickets = [
            ticket.number for ticket in (*refused, *unknown) if isinstance(ticket, AppendTicket)
        ]
        if sorted(tickets) != sorted(self.tickets) or set(barriers) != self.barriers:
            raise Violation(f"{self.node} closes and leaves appends or barriers without an answer")
        self._end_life()

    def _end_life(self) -> None:
        if self._keeper is not None:
            self._keeper.end()
        self.replica = self._keeper = None
        self.cut_at = self.paused_until = 0
        self._wake_at = None
        for things in (self._frames, self._requests, self._reports, self.tickets, self.barriers):
            things.clear()

    def _stop(self, error: Exception) -> None:
        """The node stops itself."""
        self.stopped_by = error
        self._world.trace.record(self.node, "stop", type(error).__name__)
        self.crash("stopped itself")

    # -- inputs --------------------------------------------------------------------------------

    def arrive(self, frame: Frame) -> None:
        """A frame has come through the network."""
        if self.replica is None or len(self._frames) >= INBOX_FRAMES_MAX:
            self._world.tally["drops"] += 1
            self._world.trace.record(self.node, "drop", frame.number, "nobody takes it")
            return
        self._world.trace.record(self.node, "arrive", frame.number, frame.sender)
        self._frames.append(frame)
        self._wake(self._world.schedule.now)

    def append_records(self, tickets: Sequence[AppendTicket]) -> None:
        """Single appends."""
        records = [ticket.payloads[0] for ticket in tickets]
        size = sum(map(len, records))
        self._submit(
            tickets, lambda replica, _: replica.submit_records(records, list(tickets), size)
        )

    def append_run(self, ticket: AppendTicket) -> None:
        """One run, all or nothing."""
        body, count = pack_run(ticket.payloads), len(ticket.payloads)
        self._submit([ticket], lambda replica, _: replica.submit_run(body, count, ticket))

    def barrier(self) -> None:
        """A barrier."""
        number = self._world.checkers.barriers.asked()
        self._world.tally["barriers asked"] += 1
        self._world.trace.record(self.node, "barrier", number)
        self.barriers.add(number)
        if self._world.machines is not None:
            self._world.machines.asked(number, self._world.schedule.now)
        self._put_in(self._requests, lambda replica, _: replica.barrier(number))

    def _submit(self, tickets: Sequence[AppendTicket], append: Input) -> None:
        now = self._world.schedule.now
        payloads = [payload for ticket in tickets for payload in ticket.payloads]
        self._world.checkers.history.submitted.update(payloads)
        self._world.tally["submitted"] += len(payloads)
        self._world.trace.record(
            self.node, "submit", len(payloads), payloads[0].decode("ascii", "backslashreplace")
        )
        self._world.checkers.acknowledgements.submitted(tickets)
        self.tickets.update([ticket.number for ticket in tickets])
        if self._world.machines is not None:
            for ticket in tickets:
                command = ticket.payloads[0].partition(b" ")[2]
                self._world.machines.called(ticket.number, self.node, command, now)
        self._put_in(self._requests, append)

    def _durable(self, batch_id: int) -> None:
        self._put_in(self._reports, lambda replica, now: replica.durable(now, batch_id))

    def _loaded(self, load_id: int, found: Any) -> None:
        self._put_in(self._reports, lambda replica, now: replica.loaded(now, load_id, found))

    def _ask(self, request: Input) -> None:
        self._put_in(self._requests, request)

    def _put_in(self, inputs: list[Input], put_in: Input) -> None:
        inputs.append(put_in)
        self._wake(self._world.schedule.now)

    # -- turns ---------------------------------------------------------------------------------

    def pause(self, duration_ms: int) -> None:
        """No turn for a while."""
        self.paused_until = self._world.schedule.now + duration_ms

    def _clock_ms(self) -> int:
        """What its monotonic clock shows."""
        return int(self._world.schedule.now * self._rate)

    def _wall_ms(self) -> int:
        return UNIX_MS + self._world.schedule.now + self.clock_skew_ms

    def _wake(self, time: int) -> None:
        if self._wake_at is None or time < self._wake_at:
            self._wake_at = time
            self._world.schedule.at(time, self._turn, self.life, time)

    def _turn(self, life: int, time: int) -> None:
        replica = self.replica
        if replica is None or life != self.life or time != self._wake_at:
            return  # what woke it has been dealt with, or was another life's
        self._wake_at = None
        if self._world.schedule.now < self.paused_until:
            self._wake(self.paused_until)
            return
        now = self._clock_ms()
        try:
            self._take_inputs(replica, now)
            effects = replica.step(now, self._wall_ms())
            self._judge(replica, effects)
            self._carry_out(replica, effects)
        except Cut:
            self._cut()
            return
        except IdentityRefused as error:
            if self.node not in self._world.expected_to_stop:
                raise
            self._stop(error)
            return
        deadline = replica.deadline
        if deadline is not None:
            if deadline <= now:
                raise Violation(f"{self.node} has stepped and is still due since {deadline}")
            self._wake(max(ceil(deadline / self._rate), self._world.schedule.now + 1))

    def _take_inputs(self, replica: Replica, now: int) -> None:
        reports, self._reports = self._reports, []
        frames, self._frames = self._frames, []
        requests, self._requests = self._requests, []
        if reports:
            for report in reports:
                report(replica, now)
            self._send(replica, replica.released())
        for frame in frames:
            self._world.checkers.stewards.heard(self.node, frame.sender, self._world.schedule.now)
            parts = list(frame.parts)
            replica.receive(now, frame.sender, frame.store_id, frame.life, frame.header, parts)
        for request in requests:
            request(replica, now)
        deadline = replica.deadline
        if deadline is not None and now >= deadline:
            replica.tick(now)

    def _judge(self, replica: Replica, effects: Effects) -> None:
        checkers = self._world.checkers
        checkers.manners.blames(self.node, replica.faults, replica.last_fault)
        if effects.first_offset is not None:
            checkers.bases.tells(self.node, effects.first_offset)
        if effects.installed is not None and self._keeper is not None:
            self._fed = self._keeper.judge_install(effects.installed) or self._fed
        for row, entry in effects.delivered:
            checkers.delivered(self.node, row, entry)
            if self._fed is not None and self._world.machines is not None:
                self._world.machines.deliver(self._fed, row, entry)
        if not replica.leads:
            return
        epoch = replica.leadership.epoch
        checkers.stewards.leads(self.node, self.life, epoch, self._world.schedule.now)
        if checkers.leaders.leads(self.node, self.life, epoch):
            self._world.trace.record(self.node, "lead", *epoch)
            self._may_be_doomed("doomed leader", self._world.weather.doomed_leader)

    def _carry_out(self, replica: Replica, effects: Effects) -> None:
        world, threads = self._world, self._threads
        for completion in effects.skipped:
            self._skip(completion)
        for row, _ in effects.delivered:
            world.trace.record(self.node, "deliver", row.index, row.base_offset, row.count)
        for completion in effects.completions:
            self._effect()
            self._acknowledge(completion)
        self._send(replica, effects.sends)
        if threads is not None:
            if effects.batch is not None:
                self._effect()
                threads.queue(*effects.batch)
                if any(write.install is not None for write in effects.batch[1].writes):
                    probability = world.weather.doomed_installer
                    self._may_be_doomed("doomed installer", probability, INSTALL_EFFECTS_MAX)
            for load_id, load in effects.loads:
                if self._keeper is not None:
                    self._keeper.judge_look(load)
                threads.load(load_id, load)
        for stored in effects.stored:
            self._effect()
            if self._keeper is not None:
                self._keeper.stored(stored.ticket)
        for barrier in effects.barriers:
            self._effect()
            self._pass(barrier)

    def _send(self, replica: Replica, messages: Sequence[Outgoing]) -> None:
        world = self._world
        for outgoing in messages:
            self._effect()
            message, _ = world.codec.decode(outgoing.header)
            world.checkers.leaves(self.node, outgoing.to, message)
            doom = self._keeper.leaves(outgoing.to, message) if self._keeper is not None else ""
            if doom:
                self._may_be_doomed(doom, getattr(world.weather, doom.replace(" ", "_")))
            sender, store_id, life = self._signature
            frame = Frame(self._network.frames, sender, store_id, life, *outgoing)
            if not self._network.send(frame):
                replica.lost(outgoing.to)

    def _acknowledge(self, completion: Completion) -> None:
        world = self._world
        judge = world.checkers.acknowledgements
        offset = completion.base_offset
        for ticket in judge.acknowledged(self.node, self.life, completion):
            self.tickets.remove(ticket.number)
            if self._fed is not None and world.machines is not None:
                result = self._fed.results[offset]
                world.machines.answered(ticket.number, result, world.schedule.now)
            offset += len(ticket.payloads)
        world.tally["acknowledged"] += completion.count
        world.trace.record(self.node, "acknowledge", completion.base_offset, completion.count)

    def _skip(self, completion: Completion) -> None:
        """A snapshot stands for these: they are in the log, and nobody says where."""
        world = self._world
        for ticket in world.checkers.acknowledgements.skipped(self.node, self.life, completion):
            self.tickets.remove(ticket.number)
        world.tally["skipped"] += completion.count
        world.trace.record(self.node, "skip", completion.count)

    def _pass(self, barrier: Ticket) -> None:
        world = self._world
        if not isinstance(barrier, int) or barrier not in self.barriers:
            raise Violation(f"{self.node} passes {barrier}, which was not asked for")
        world.checkers.barriers.passed(self.node, barrier)
        if self._fed is not None and world.machines is not None:
            world.machines.passed(barrier, self.node, self._fed, world.schedule.now)
        self.barriers.remove(barrier)
        world.tally["barriers passed"] += 1
        world.trace.record(self.node, "pass", barrier)

    # -- effects -------------------------------------------------------------------------------

    def _may_be_doomed(
        self, what: str, probability: float, effects_max: int = DOOM_EFFECTS_MAX
    ) -> None:
        if self._world.chance(probability):
            self._world.record_fault(self.node, what)
            self.cut_at = self.effects + 1 + self._world.below(effects_max)

    def _cut(self) -> None:
        """Crash here; come back at once or after a while."""
        world = self._world
        self.crash("cut between two effects")
        down_ms_max = QUICK_RESTART_MS if world.chance(0.5) else world.plan.strike_length_ms_max
        world.schedule.after(world.below(down_ms_max), self.start)

    def _effect(self) -> None:
        self.effects += 1
        if self.effects == self.cut_at:
            raise Cut

    def _survives_effect(self) -> bool:
        try:
            self._effect()
        except Cut:
            self._cut()
            return False
        return True
