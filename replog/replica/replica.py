"""One member's whole behaviour, pure: core, producers, delivery, reads and forwarding in one.

Rules of this file:

1. A replica is a function of its inputs: messages, time, appends, barriers, durable and loaded
   reports. `step` returns everything it wants done. No clock, socket, file or thread.
2. One step makes at most one batch; batches are committed in the order of their ids.
3. A message that promises something leaves only after the batch that holds the last write issued
   before it is durable.
4. Delivery follows the commit index, not the own disk.
5. A peer's fault is dropped and counted. Any other exception stops the node.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from replog.agreement import EntryRef, Meta, Restored
from replog.codec import Codec
from replog.disk_room import UNBOUNDED, DiskRoom
from replog.entry import Kind, Run, make_entry, parse_entry
from replog.errors import InvariantBroken, PeerFault
from replog.messages import TRUNK_MESSAGES
from replog.replica.catchup import KEEP_EVERYTHING, Catchup, CompactionPolicy
from replog.replica.comparison import Comparison
from replog.replica.delivery import Delivery
from replog.replica.effects import Completion, Effects, Outgoing, Status, Ticket
from replog.replica.intake import Intake
from replog.replica.introduction import Introduction
from replog.replica.loading import Loading
from replog.replica.machines import MachineComparison
from replog.replica.origin import Origin
from replog.replica.outbox import Outbox
from replog.replica.reads import Reads
from replog.replica.trunk import Parts, Trunk
from replog.replica.window import Window
from replog.store.interface import Batch, StoredEntry, StoredWrite

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from replog.agreement import Agreement, Leadership, Ready, Send, Write
    from replog.config import Limits
    from replog.entry import Entry
    from replog.replica.effects import Stored
    from replog.snapshot import Snapshot
    from replog.store.interface import Delivered, Restoration, StoredSnapshot

ROUNDS_PER_STEP_MAX = 64
"""Bounds the work of one step."""
UNWRITTEN_ROWS_MAX = 256
"""Delivered entries whose rows wait for `position_delay_ms`; more go with the next batch."""


class Replica:
    """One member. The host calls inputs as they come, then `step` once per turn."""

    def __init__(
        self,
        agreement: Agreement,
        restoration: Restoration,
        limits: Limits,
        now: int,
        random: Random,
        *,
        policy: CompactionPolicy = KEEP_EVERYTHING,
    ) -> None:
        identity, membership = restoration.identity, restoration.membership
        self.node = identity.node
        self.faults: Counter[str] = Counter()
        self.last_fault = ""
        """The latest fault of a peer, for whoever looks into it."""
        self._disk_room = UNBOUNDED
        self._identity = identity
        self._membership = membership
        self._limits = limits
        self._core = agreement.core(identity.node, _restored(restoration), now, random)
        self._codec = Codec(agreement.messages)
        self._outbox = Outbox(self._codec, agreement.control_messages)
        self._window = Window(limits.window_bytes_max, restoration.tail)
        self._delivery = Delivery(restoration.position)
        self.catchup = Catchup(
            restoration,
            self._core,
            self._delivery,
            policy=policy,
            limits=limits,
            post=self._outbox.post,
        )
        """Snapshots, compaction and named readers: the host speaks to this part itself."""
        self._loading = Loading(
            self._core, self._window, limits, self.catchup.loads, self._outbox.send
        )
        self._origin = Origin(identity.node, identity.life, limits)
        self._intake = Intake(limits)
        self._reads = Reads(identity.node, identity.life, self._core, limits.retry_ms)
        self._comparison = Comparison(identity.node, membership)
        self.machines = MachineComparison(identity.node, membership)
        self._introduction = Introduction(
            identity,
            membership.others(identity.node),
            restoration.peers,
            done=restoration.introduced,
        )
        self._trunk = self._make_trunk()
        self._leadership = self._core.leadership
        self._commit_index = restoration.position.index
        self._position_deadline: int | None = None
        self._delivered: list[tuple[Delivered, Entry]] = []
        self._completions: list[Completion] = []
        self._stored: list[Stored] = []
        self._installed: Snapshot | None = None
        self._skipped: list[Completion] = []

    def _make_trunk(self) -> Trunk:
        return Trunk(
            Parts(
                identity=self._identity,
                core=self._core,
                delivery=self._delivery,
                origin=self._origin,
                intake=self._intake,
                reads=self._reads,
                comparison=self._comparison,
                machines=self.machines,
                introduction=self._introduction,
                catchup=self.catchup,
                outbox=self._outbox,
            )
        )

    # -- inputs --------------------------------------------------------------------------------

    def receive(  # noqa: PLR0917 - the fields of a frame
        self, now: int, sender: str, store_id: bytes, life: int, header: bytes, parts: list[bytes]
    ) -> None:
        """A frame of another member. A peer's fault is dropped and counted under its class."""
        refusal = self._introduction.admit(sender, store_id, life)
        if refusal is not None:
            self.faults["identity"] += 1
            self._outbox.post(sender, refusal)
            return
        try:
            message, refs = self._codec.decode(header)
            if isinstance(message, TRUNK_MESSAGES):
                self._trunk.receive(now, sender, life, message, parts)
            elif not self._introduction.done:
                self.faults["not introduced"] += 1
            elif parts and self._disk_room.entries <= 0:
                self.faults["disk full"] += 1
            else:
                self._core.receive(now, sender, message, self._arrived(refs, parts))
        except PeerFault as fault:
            self.faults["peer fault"] += 1
            self.last_fault = f"{sender}: {fault}"

    def set_disk_room(self, room: DiskRoom) -> None:
        """Tell what the disk may take more."""
        self._disk_room = room
        self.catchup.snapshots.disk_bytes_free = room.snapshots

    @property
    def disk_is_full(self) -> bool:
        """Whether no more records are proposed."""
        return self._disk_room.appends <= 0

    def tick(self, now: int) -> None:
        """Time has passed; due at `deadline`."""
        if self._introduction.done:
            self._core.tick(now)

    def submit_records(self, records: list[bytes], tickets: list[Ticket], size: int) -> None:
        """Append single records of `size` bytes together; each ticket comes back completed."""
        self._origin.submit_records(records, tickets, size)

    def submit_run(self, body: bytes, count: int, ticket: Ticket) -> None:
        """Append one packed run of `count` records, all or nothing."""
        self._origin.submit_run(body, count, ticket)

    def barrier(self, ticket: Ticket) -> None:
        """Ask for a barrier; its ticket comes back once it holds."""
        self._reads.barrier(ticket)

    def durable(self, now: int, batch_id: int) -> None:
        """Every batch up to this id is on disk."""
        write_id = self._outbox.durable(batch_id)
        if write_id:
            self._core.durable(now, write_id)
        told, installed = self.catchup.durable(now, batch_id)
        self._stored += told
        if installed is not None:
            self._finish_install(installed)

    def released(self) -> list[Outgoing]:
        """What may leave without waiting for the step: what the disk held back, first of all."""
        return self._outbox.take_sends()

    def loaded(self, now: int, load_id: int, result: Any) -> None:
        """What a load of this number wanted (`replog.loads`)."""
        self.catchup.loads.answer(now, load_id, result)

    def lost(self, to: str) -> None:
        """A bulk message to this peer was refused by the transport."""
        self._core.lost(to)

    @property
    def deadline(self) -> int | None:
        """When the next `tick` and `step` are due at the latest; None: only on input."""
        first = self._position_deadline
        for deadline in (
            self._core.deadline if self._introduction.done else self._introduction.deadline,
            self._origin.deadline,
            self._reads.deadline,
            self._comparison.deadline,
            self.catchup.deadline,
        ):
            if deadline is not None and (first is None or deadline < first):
                first = deadline
        return first

    # -- one step ------------------------------------------------------------------------------

    def step(self, now: int, wall_ms: int) -> Effects:
        """Everything wanted since the last step. `wall_ms` becomes the time of new entries."""
        if self._introduction.done:
            self._drive(now, wall_ms)
        else:
            for other, meeting in self._introduction.meetings(now):
                self._outbox.post(other, meeting)
        self._window.settle()
        questions = self._comparison.questions(now, self._delivery)
        for to, message in (*questions, *self.machines.take_messages()):
            self._outbox.post(to, message)
        self.catchup.turn(now, wall_ms)
        batch = self._take_batch(now)
        if self._window.is_full:
            settled = self._outbox.settled_index(self._core.last_index)
            self._window.evict(min(self._delivery.index, settled))
        barriers = self._reads.passed(0 if self.catchup.is_installing else self._delivery.index)
        effects = Effects(
            self._outbox.take_sends(),
            batch,
            self.catchup.loads.take(),
            self._delivered,
            self._completions,
            barriers,
            self._stored,
            self._installed,
            self._skipped,
            self.catchup.take_first_offset(),
            self.machines.take_verdict(),
        )
        self._delivered, self._completions = [], []
        self._stored, self._installed, self._skipped = [], None, []
        return effects

    def _drive(self, now: int, wall_ms: int) -> None:
        core = self._core
        for _ in range(ROUNDS_PER_STEP_MAX):
            leadership = core.leadership
            if leadership != self._leadership:
                self._watch_leadership(now, leadership)
            if self._delivery.index < self._commit_index and not self.catchup.is_installing:
                self._deliver(now)
            if self.leads:
                self._propose(wall_ms)
            if self._reads.wants(now):
                for to, request in self._reads.requests(now, leadership.leader):
                    self._outbox.post(to, request)
            if not core.has_ready():
                break
            self._take_ready(now, core.ready())
        for to, forward, bodies in self._origin.forwards(now):
            self._outbox.post(to, forward, bodies)

    def _watch_leadership(self, now: int, after: Leadership) -> None:
        before, self._leadership = self._leadership, after
        if (after.leader, after.epoch.number) != (before.leader, before.epoch.number):
            self._intake.close()
            self._loading.give_up()
            self._origin.follow(after.leader)
            self._reads.ask_again()
        self._comparison.schedule(now, self._delivery, leads=self.leads)

    @property
    def leadership(self) -> Leadership:
        """Who leads, as the core sees it now."""
        return self._core.leadership

    @property
    def leads(self) -> bool:
        """Whether this node leads, as it sees it."""
        return self._leadership.leader == self.node

    def _propose(self, wall_ms: int) -> None:
        if not (self._intake.is_open or self._establish(wall_ms)) or self.disk_is_full:
            return
        while self._intake.has_work(self._origin) and not self._gathers():
            if not self._core.has_room:
                return
            taken = self._intake.fill(self._origin)
            if not taken:
                return
            runs, bodies = zip(*taken, strict=True)
            if not self._propose_entry(Kind.RECORDS, runs, bodies, wall_ms):
                raise InvariantBroken("the core of a leader with room refused an entry")

    def _establish(self, wall_ms: int) -> bool:
        """Offer the no-ops that begin a leadership; whether its first entry is delivered."""
        while not self._leadership.first_index:
            if not self._propose_entry(Kind.NOOP, (), (), wall_ms):
                return False
            self._leadership = self._core.leadership
        if self._delivery.index < self._leadership.first_index or self.catchup.is_installing:
            return False
        self._intake.open(self._delivery.producers)
        self._origin.rewind()
        self._trunk.announce_expected()
        return True

    def _gathers(self) -> bool:
        """Group commit: while a write of entries is under way, what arrives shares the next one."""
        return self._outbox.entries_under_way and not self._intake.fills_entry(self._origin)

    def _propose_entry(
        self, kind: Kind, runs: Sequence[Run], bodies: Sequence[bytes], wall_ms: int
    ) -> bool:
        entry = make_entry(kind, runs, bodies, wall_ms)
        ref = self._core.propose(kind, len(entry.data))
        if ref is None:
            return False
        self._window.stage(ref, entry)
        return True

    def _take_ready(self, now: int, ready: Ready) -> None:
        for write in ready.writes:
            self._take_write(write)
        for send in ready.sends:
            self._take_send(send)
        for state in ready.reads:
            answer = self._reads.confirmed(state)
            if answer is not None:
                self._outbox.post(*answer)
        for token in ready.reads_failed:
            self._reads.failed(token)
        for peer in ready.snapshots_for:
            self.catchup.giving.offer(now, peer)
        if ready.commit_index < self._commit_index:
            raise InvariantBroken(f"{self._commit_index} was committed, now {ready.commit_index}")
        self._commit_index = ready.commit_index

    def _take_write(self, write: Write) -> None:
        if write.truncate_from is not None:
            if write.truncate_from <= self._delivery.index:
                raise InvariantBroken(f"the core truncates from {write.truncate_from}, delivered")
            self._window.truncate(write.truncate_from)
        install = self._begin_install(write.install) if write.install is not None else None
        entries = [
            StoredEntry(wanted.index, wanted.epoch, self._window.write(wanted).data)
            for wanted in write.entries
        ]
        stored = StoredWrite(write.promise, write.truncate_from, install, entries)
        self._outbox.write(write.write_id, stored)

    def _take_send(self, send: Send) -> None:
        if send.entries:
            self._loading.fill(send)
        else:
            self._outbox.send(send, ())

    # -- delivery ------------------------------------------------------------------------------

    def _deliver(self, now: int) -> None:
        delivery = self._delivery
        while delivery.index < self._commit_index:
            index = delivery.index + 1
            entry = self._window.at(index)
            if entry is None:
                raise InvariantBroken(f"entry {index} is committed, but its bytes are not here")
            row = delivery.deliver(index, entry)
            self._delivered.append((row, entry))
            self._complete(now, row, entry)
            self.catchup.delivered(now, row.count, len(entry.data))
        if delivery.unwritten and self._position_deadline is None:
            self._position_deadline = now + self._limits.position_delay_ms
        self._comparison.schedule(now, delivery, leads=self.leads)

    def _complete(self, now: int, row: Delivered, entry: Entry) -> None:
        offset = row.base_offset
        for place in row.accepted:
            run = entry.runs[place]
            if run.node == self.node and self._origin.is_own(run.life):
                self._completions.append(self._origin.delivered(now, run, offset))
            offset += run.count

    def _begin_install(self, index: int) -> StoredSnapshot:
        """A snapshot takes the place of everything up to this index, once that is stored."""
        stored = self.catchup.begin_install(index)
        self._delivery.install(stored.snapshot.position)
        self._position_deadline = None
        self._window.drop(index)
        return stored

    def _finish_install(self, snapshot: Snapshot) -> None:
        self._installed = snapshot
        row = snapshot.position.producers.get(self.node)
        if row is not None:
            self._skipped += self._origin.install(row)

    # -- batches and messages ------------------------------------------------------------------

    def _take_batch(self, now: int) -> tuple[int, Batch] | None:
        peers = self._introduction.take_changes()
        introduced = self._introduction.take_newly_done()
        due = self._position_deadline is not None and now >= self._position_deadline
        due = due or self._delivery.unwritten >= UNWRITTEN_ROWS_MAX
        due = due or self.catchup.wants_position
        more = self.catchup.wants_batch
        if not (self._outbox.has_writes or peers or introduced or due or more):
            return None
        rows: list[Delivered] = []
        position = None
        if due:
            rows, position = self._delivery.take_rows()
            self._position_deadline = None
        batch_id, writes = self._outbox.issue()
        batch = Batch(writes, rows, position, peers, introduced)
        return batch_id, self.catchup.fill(batch_id, batch)

    def final_batch(self) -> Batch:
        """On close: the position that no batch has carried yet."""
        rows, position = self._delivery.take_rows()
        return Batch((), rows, position)

    def drain(self) -> tuple[list[Ticket], list[Ticket], list[Ticket]]:
        """At the end: tickets of records certainly not in the log, of records whose outcome is
        open, and of barriers."""
        unsequenced, open_ones = self._origin.drain()
        for completion in self._completions:  # of a step that did not end
            open_ones += completion.tickets
        return unsequenced, open_ones, self._reads.drain() + self.catchup.drain()

    def _arrived(self, refs: Sequence[EntryRef], parts: Sequence[bytes]) -> list[Meta]:
        """Stage the entries beside a message; what the core sees of them."""
        if len(refs) != len(parts):
            raise PeerFault(f"{len(parts)} parts for {len(refs)} entries")
        entries = [parse_entry(part) for part in parts]
        for ref, entry in zip(refs, entries, strict=True):
            self._window.stage(ref, entry)
        return [
            Meta(ref.index, ref.epoch, entry.kind, len(entry.data))
            for ref, entry in zip(refs, entries, strict=True)
        ]

    # -- what others may see -------------------------------------------------------------------

    def status(self, drops: Counter[str]) -> Status:
        """The node as it sees itself; `drops` are the transport's."""
        delivery = self._delivery
        return Status(
            node=self.node,
            agreement=self._identity.agreement,
            life=self._identity.life,
            leadership=self._core.leadership,
            introduced=self._introduction.done,
            last_index=self._core.last_index,
            commit_index=self._commit_index,
            applied_index=delivery.index,
            first_offset=self.catchup.first_offset,
            end_offset=delivery.offset,
            digest=delivery.digest,
            producers=delivery.producers.snapshot(),
            members=sorted(self._membership.voters),
            pending_records=self._origin.pending_records,
            drops=self.faults + drops + Counter({"disk too slow": self._outbox.lost_count}),
            alarm="; ".join(
                filter(None, (self._comparison.alarm, self.machines.alarm, self.catchup.alarm))
            ),
            snapshot=self.catchup.snapshots.status(),
            transfer=self.catchup.receiving.status(),
            readers=self.catchup.readers.offsets,
        )


def _restored(restoration: Restoration) -> Restored:
    """What the core starts from."""
    return Restored(
        promise=restoration.promise,
        epochs=restoration.epochs,
        last_index=restoration.last_index,
        base=EntryRef(restoration.base.index, restoration.base.epoch),
        commit_index=restoration.position.index,
        membership=restoration.membership,
        accepted=tuple([EntryRef(stored.index, stored.epoch) for stored in restoration.tail]),
    )
