"""One simulated run: a cluster of real replicas in virtual time, made from one seed.

First the safety phase: nodes start, clients append, faults strike, checkers watch every turn. Then
the liveness phase: all faults end, every node runs, and within `settle_ms_max`, and some more for
each open append, every node must have delivered the same log, with everything acknowledged that was
appended in a life that still lasts.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from replog.codec import Codec
from replog.store.memory import MemoryDisk
from replog.store.opening import STORE_ID_BYTES
from replog.testing.checkers import Checkers
from replog.testing.clients import Clients
from replog.testing.host import Host
from replog.testing.machines import Machines, Workload
from replog.testing.network import Frame, Network
from replog.testing.plan import CALM, Plan, draw_plan, with_rarities
from replog.testing.schedule import Schedule
from replog.testing.strikes import Strikes
from replog.testing.trace import Trace
from replog.testing.violation import Violation
from replog.testing.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from replog.agreement import Agreement
    from replog.testing.linearizability import Operation

SNAPSHOT_MS_MEAN = 400
"""Where machines are fed and the log is not kept."""
SETTLE_MS_PER_APPEND = 100
"""Added to the time in which a cluster must settle: limits of a few bytes and a slow disk make each
append an entry, and each entry a round trip, of its own."""


class SimulationFailure(Exception):
    """A run broke a rule, did not settle, or a node failed; the message says how to repeat it."""

    def __init__(self, seed: int, now: int, reason: str, kind: str, repeat: str) -> None:
        """`repeat` tells how to have it again."""
        self.seed = seed
        self.reason = reason
        self.kind = kind
        """Who noticed: the class of the fault and the function that raised it."""
        super().__init__(f"seed {seed} at {now} ms: {reason}\nrepeat: {repeat}")


class Outcome(NamedTuple):
    """A run that broke no rule."""

    seed: int
    digest: str
    """Of the whole trace: equal for equal runs."""
    virtual_ms: int
    tally: Mapping[str, int]
    """How often each thing happened."""


class Simulation:
    """One run; `run` carries it out."""

    def __init__(
        self,
        seed: int,
        agreement: Agreement,
        plan: Plan | None = None,
        write: Callable[[str], object] | None = None,
        *,
        nodes: int | None = None,
        workload: Workload | None = None,
        as_drawn: bool = False,
    ) -> None:
        """The plan is drawn from the seed unless given; `nodes` is then that many. `write` takes
        the lines of the trace. With a `workload` every node feeds a state machine. A given plan
        `as_drawn` makes the run that it would make if the seed had drawn it."""
        self.seed = seed
        random = Random(seed)
        self._workload = workload
        self._as_drawn = as_drawn or plan is None
        self._repeat = "the same Simulation of this seed, from its own program"
        if plan is None:
            plan = with_rarities(draw_plan(random), Random(-1 - seed))
            if nodes is None and workload is None:
                self._repeat = (
                    f"python -m replog.testing --agreement {agreement.name} --seed {seed} --shrink"
                )
        elif as_drawn:
            draw_plan(random)  # whatever chance decides next is as it is after drawing
        if nodes is not None:
            plan = replace(plan, nodes=nodes)
        machines = None if workload is None else Machines(workload, random)
        if machines is not None:
            plan = _for_machines(plan, machines)
        names = [f"n{number}" for number in range(1, plan.nodes + 1)]
        disks = {node: MemoryDisk(random.randbytes(STORE_ID_BYTES)) for node in names}
        self.world = _make_world(agreement, plan, random, disks, machines, write)
        self.network = Network(self.world, self._arrive)
        self.hosts = {node: Host(self.world, self.network, node, disks[node]) for node in names}
        everyone = list(self.hosts.values())
        self.clients = Clients(self.world, everyone)
        self.strikes = Strikes(self.world, everyone, self.network)

    @property
    def history(self) -> Sequence[Operation[Any, Any]]:
        """Every command and query of a run with a workload, in the order of their answers; after
        `run` also those that were never answered."""
        return () if self.world.machines is None else self.world.machines.history

    def again(self, plan: Plan, write: Callable[[str], object] | None = None) -> Simulation:
        """A run like this one, under another plan; the same plan makes the same run, unless the
        workload remembers."""
        return Simulation(
            self.seed,
            self.world.agreement,
            plan,
            write,
            workload=self._workload,
            as_drawn=self._as_drawn,
        )

    def run(self) -> Outcome:
        """Both phases. Raises `SimulationFailure`."""
        world = self.world
        try:
            self.trouble()
            self.settle()
        except OSError:
            raise  # nobody reads the trace any more
        except Exception as error:
            reason = str(error) if isinstance(error, Violation) else f"{error!r}"
            raise SimulationFailure(
                self.seed, world.schedule.now, reason, _kind(error), self._repeat
            ) from error
        if world.machines is not None:
            world.machines.end()
        world.tally["leader changes"] = world.checkers.leaders.changes
        world.tally["frames"] = self.network.frames
        world.tally["events"] = world.trace.events
        return Outcome(self.seed, world.trace.digest, world.schedule.now, world.tally)

    def trouble(self) -> None:
        """The safety phase."""
        world = self.world
        for host in world.random.sample(list(self.hosts.values()), len(self.hosts)):
            world.schedule.at(world.below(world.plan.start_ms_max + 1), host.start)
        self.clients.begin()
        self.strikes.begin()
        world.schedule.run(world.plan.trouble_ms)

    def settle(self) -> None:
        """The liveness phase. Raises `Violation` when the cluster does not settle in time."""
        world = self.world
        self.clients.stop()
        self.strikes.relieve()
        world.weather = CALM
        hosts = [host for node, host in self.hosts.items() if node not in world.expected_to_stop]
        for host in hosts:
            if world.plan.restart_all:
                host.crash("all crash")
            host.start()
        for host in hosts:
            self.clients.append(host, 2, whole=False)
            host.barrier()
        open_appends = sum([len(host.tickets) for host in hosts])
        deadline = world.schedule.now + world.plan.settle_ms_max
        deadline += open_appends * SETTLE_MS_PER_APPEND
        if not world.schedule.run(deadline, lambda: all(map(self._is_done, hosts))):
            raise Violation("not settled: " + "; ".join([self._unsettled(host) for host in hosts]))
        changes = world.checkers.leaders.changes
        world.schedule.run(world.schedule.now + world.plan.rest_ms)
        if world.checkers.leaders.changes > changes:
            raise Violation("the leader changes while nothing happens")
        for host in hosts:
            self._inspect(host)

    def _arrive(self, frame: Frame) -> None:
        self.hosts[frame.to].arrive(frame)

    def _is_done(self, host: Host) -> bool:
        history = self.world.checkers.history
        return (
            not host.tickets
            and not host.barriers
            and history.applied[host.node] == history.last_index
            and host.disk.outline.position.index == history.last_index
        )

    def _unsettled(self, host: Host) -> str:
        history = self.world.checkers.history
        return (
            f"{host.node} delivered {history.applied[host.node]} of {history.last_index} entries, "
            f"wrote {host.disk.outline.position.index}, awaits {len(host.tickets)} appends and "
            f"{len(host.barriers)} barriers"
        )

    def _inspect(self, host: Host) -> None:
        """What is on the disk at the end is what was delivered, and nobody has raised an alarm."""
        history, disk = self.world.checkers.history, host.disk
        for index in range(disk.outline.base.index + 1, history.last_index + 1):
            entry = disk.entry(index)
            if index <= disk.outline.position.index and disk.row(index) != history.rows[index - 1]:
                raise Violation(f"the disk of {host.node} holds another row of entry {index}")
            if entry is None or entry.data != history.entry(index):
                raise Violation(f"the disk of {host.node} holds other bytes of entry {index}")
        if host.replica is None:
            raise Violation(f"{host.node} does not run at the end")
        status = host.replica.status(Counter())
        if status.alarm:
            raise Violation(f"{host.node} raises an alarm: {status.alarm}")
        if status.pending_records:
            raise Violation(f"{host.node} still counts {status.pending_records} records as open")


def simulate(
    seed: int, agreement: Agreement, write: Callable[[str], object] | None = None
) -> Outcome:
    """Carry out the run of this seed. Raises `SimulationFailure`."""
    return Simulation(seed, agreement, write=write).run()


def _make_world(  # noqa: PLR0917 - what a run is made of
    agreement: Agreement,
    plan: Plan,
    random: Random,
    disks: Mapping[str, MemoryDisk],
    machines: Machines | None,
    write: Callable[[str], object] | None,
) -> World:
    membership = agreement.membership(set(disks))
    schedule = Schedule()
    codec = Codec(agreement.messages)
    tally: Counter[str] = Counter()
    return World(
        agreement=agreement,
        membership=membership,
        plan=plan,
        weather=plan.weather,
        random=random,
        schedule=schedule,
        codec=codec,
        trace=Trace(schedule, _describe(codec), write),
        tally=tally,
        checkers=Checkers(
            membership.quorums,
            disks,
            tally,
            by_number=agreement.epoch_is_its_number,
            silence_ms_max=_silence_ms_max(agreement),
            retention=plan.retention,
            with_state=plan.snapshot_ms_mean > 0,
            damage=plan.weather.damage > 0,
        ),
        machines=machines,
    )


def _for_machines(plan: Plan, machines: Machines) -> Plan:
    """What the log drops, a snapshot of the machine must hold."""
    if not machines.keep_snapshots:
        return replace(plan, retention=None, snapshot_ms_mean=0)
    if plan.retention is not None and not plan.snapshot_ms_mean:
        return replace(plan, snapshot_ms_mean=SNAPSHOT_MS_MEAN)
    return plan


def _silence_ms_max(agreement: Agreement) -> int | None:
    """Twice as long as its leaders wait for answers, if its settings say how long that is."""
    timeout_ms: int | None = getattr(agreement, "election_timeout_ms_max", None)
    return None if timeout_ms is None else 2 * timeout_ms


def _kind(error: BaseException) -> str:
    """The class of an error, and the function that raised it."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    raised_by = last.tb_frame.f_code.co_qualname if last is not None else "nobody"
    return f"{type(error).__name__} of {raised_by}"


def _describe(codec: Codec) -> Callable[[bytes], str]:
    def describe(header: bytes) -> str:
        message, refs = codec.decode(header)
        entries = f" with {refs[0].index} to {refs[-1].index}" if refs else ""
        return f"{message}{entries}"

    return describe
