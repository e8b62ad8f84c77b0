"""The story of `replog demo`: three nodes, one text, and a leader that is killed in the middle.

1. All three nodes append at once, each its third of the lines, many in flight: commands that put a
   line under a key, with which every node feeds a machine.
2. The leader is killed with SIGKILL while its appends are in flight; the others go on through the
   takeover.
3. The killed node is restarted, catches up and appends what is left of its third.
4. All nodes stop, and an audit of their directories says whether anything was lost.
5. One directory is replayed into an empty machine: it must come to what the live ones came to.
"""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, NamedTuple

from replog.control import wait_for_any
from replog.demo.audit import audit
from replog.demo.cluster import NAMES, ClusterFailed, LocalCluster
from replog.demo.feeder import RECORDS_PER_REQUEST, REQUESTS_OPEN_MAX, Feeder, Ledger
from replog.demo.machines import MACHINE, LiveMachine, compare_replay, shown
from replog.demo.stage import JsonStage, Row, Stage, TextStage
from replog.demo.text import Text, file_system, read_text, temporary_directory
from replog.errors import ConfigError, ReplogError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from replog.demo.audit import AuditReport
    from replog.demo.cluster import Member
    from replog.demo.machines import ReplayReport

RECORDS_DEFAULT = 200_000
RECORDS_MIN = 6 * REQUESTS_OPEN_MAX * RECORDS_PER_REQUEST
"""With fewer there is no middle in which to kill."""
KILL_AT = 0.40
"""The part of all records at which the leader is killed."""
HELD_BACK = 0.50
"""The part of its records that no node submits before the leader is killed: else nothing may be
left to be appended after it."""
RESTART_AFTER = 0.20
"""The part of all records that the others append before it is restarted."""
LEAD_RECORDS_MAX = 2 * REQUESTS_OPEN_MAX * RECORDS_PER_REQUEST
"""How far a node's appends may run ahead of those of the slowest: all take part to the end."""
TURN_MS = 20
NODE_OPTIONS = ("--json", f"--machine={MACHINE}")


class Plan(NamedTuple):
    """What a demo is asked for."""

    source: Path | None
    """A file of lines; None: the running Python's standard library."""
    agreement: str
    records: int | None
    """The text is taken over and over until there are so many. None: as many as the text has lines,
    200,000 at most."""
    seconds_max: float
    directory: Path | None
    """Empty or missing; None: a temporary one."""
    keep: bool
    """Keep the directories of the nodes."""
    as_json: bool


class Takeover(NamedTuple):
    """What happened when the leader was killed."""

    killed: str
    leader: str
    milliseconds: float
    """From the kill to the first acknowledgement of a record appended after it."""
    unknown: int
    """Records in flight at the killed node."""


def run_demo(plan: Plan) -> bool:
    """Run the demo and show it; whether everything held.

    Raises `ConfigError` for a plan that cannot be followed.
    """
    text = read_text(plan.source, plan.records or RECORDS_DEFAULT)
    records = plan.records or len(text)
    if records < RECORDS_MIN:
        raise ConfigError(f"{records} records are too few for a demo: {RECORDS_MIN} are needed")
    if plan.directory is not None and plan.directory.exists() and any(plan.directory.iterdir()):
        raise ConfigError(f"{plan.directory} is not empty: name a new directory")
    root = plan.directory or temporary_directory()
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{root} cannot be made: {error.strerror}") from error
    held = False
    with JsonStage() if plan.as_json else TextStage() as stage:
        try:
            options = dict.fromkeys(NAMES, NODE_OPTIONS)
            with LocalCluster(root, agreement=plan.agreement, options=options) as cluster:
                held = Story(stage, cluster, text, records, plan.seconds_max).run(root)
        except ReplogError as error:
            stage.say("failed", f"FAILED: {error}", error=type(error).__name__, message=str(error))
        finally:
            if plan.keep or not held:
                stage.say("kept", f"the nodes' directories are in {root}", directory=str(root))
            else:
                shutil.rmtree(root)
    return held


class Story:
    """One run through the demo."""

    def __init__(
        self, stage: Stage, cluster: LocalCluster, text: Text, records: int, seconds_max: float
    ) -> None:
        """`cluster` is not started yet, and runs its nodes with `NODE_OPTIONS` or the like."""
        self._stage = stage
        self._cluster = cluster
        self._seconds_max = seconds_max
        self._give_up = time.monotonic() + seconds_max
        self._records = records
        nodes = len(cluster.members)
        self._feeders = {
            name: Feeder(Ledger(name, text.share(place, nodes)), len(range(place, records, nodes)))
            for place, name in enumerate(cluster.members)
        }
        self._is_down = ""
        self._holds_back = True

    def run(self, root: Path) -> bool:
        """The whole story; whether everything held. Raises `ClusterFailed`."""
        self._start(root)
        began = time.monotonic()
        self._until(lambda: self._done >= KILL_AT * self._records, "appending")
        takeover = self._kill_the_leader()
        before = self._done
        wanted = before + RESTART_AFTER * self._records
        self._until(
            lambda: self._done >= wanted or all(f.has_finished for f in self._feeding()),
            "appending without the killed node",
        )
        self._restart(takeover.killed)
        everyone = self._feeders.values()
        self._until(lambda: all(feeder.has_finished for feeder in everyone), "appending the rest")
        rate = self._done / (time.monotonic() - began)
        self._say("appended", f"{self._done:,} records are acknowledged", records=self._done)
        self._stop()
        directories = {member.name: member.directory for member in self._cluster}
        ledgers = [feeder.ledger for feeder in everyone]
        report = audit(directories, ledgers)
        replayed = compare_replay(takeover.killed, directories[takeover.killed], self._live())
        self._tell_of_replay(replayed)
        self._show(report, replayed, takeover, rate)
        return not (report.faults or replayed.faults)

    # -- scenes --------------------------------------------------------------------------------

    def _start(self, root: Path) -> None:
        disk = file_system(root)
        self._say(
            "start",
            f"three nodes on this machine, {self._records:,} records, directories in {root}"
            + (f" ({disk})" if disk else ""),
            directory=str(root),
            file_system=disk,
            records=self._records,
        )
        self._cluster.start()
        leader = self._cluster.leader()
        for member in self._cluster:
            self._feeders[member.name].client = member.client
        self._say("leader", f"{leader.name} leads; all three append", leader=leader.name)

    def _kill_the_leader(self) -> Takeover:
        victim = self._cluster[self._cluster.leader().name]
        feeder = self._feeders[victim.name]
        self._holds_back = False
        # In the middle of its stream, not between two requests.
        for _ in range(REQUESTS_OPEN_MAX):
            feeder.submit()
        marks = {name: other.ledger.submitted for name, other in self._feeders.items()}
        killed_at = time.monotonic()
        victim.kill()
        self._is_down = victim.name
        for other in self._feeders.values():
            if other is not feeder:
                marks[other.node] = other.ledger.submitted
                other.submit()
        unknown = feeder.disconnect()
        self._say(
            "killed",
            f"{victim.name}, the leader, was killed with SIGKILL at "
            f"{self._done / self._records:.0%}; {unknown} of its appends were in flight",
            node=victim.name,
            in_flight=unknown,
        )

        def has_taken_over() -> bool:
            return any(
                other.ledger.last_acknowledged >= marks[other.node] for other in self._feeding()
            )

        self._until(has_taken_over, "waiting for another leader")
        milliseconds = (time.monotonic() - killed_at) * 1000
        leader = self._cluster.leader()
        self._say(
            "takeover",
            f"{leader.name} leads now: {milliseconds:.0f} ms from the kill to the first record "
            f"appended after it and acknowledged",
            leader=leader.name,
            milliseconds=round(milliseconds, 1),
        )
        return Takeover(victim.name, leader.name, milliseconds, unknown)

    def _restart(self, name: str) -> None:
        member = self._cluster[name]
        behind = self._done
        member.start()
        self._until(lambda: member.try_to_connect() is not None, f"the restart of {name}")
        self._feeders[name].client = member.client
        self._is_down = ""
        self._say("restarted", f"{name} is back and appends what is left of its third", node=name)
        self._until(lambda: self._offset(name) >= behind, f"waiting until {name} has caught up")
        self._say("caught up", f"{name} has caught up with what it missed", node=name)

    def _stop(self) -> None:
        self._cluster.wait_until(
            self._cluster.is_even, "the nodes are not even", self._give_up - time.monotonic()
        )
        self._cluster.wait_until(
            self._cluster.is_applied,
            "the machines have not taken all records",
            self._give_up - time.monotonic(),
        )
        self._cluster.stop()
        self._say(
            "stopped", "all nodes have the same log and have stopped; comparing what is on disk"
        )

    def _live(self) -> dict[str, LiveMachine]:
        """What the nodes' machines came to."""
        live = {}
        for member in self._cluster:
            machine = member.last_event("stopped").get("machine")
            if machine is None:
                raise ClusterFailed(member.said("stopped without a word on its machine"))
            live[member.name] = LiveMachine(machine["offset"], machine["digest"])
        return live

    def _tell_of_replay(self, replayed: ReplayReport) -> None:
        equal = not replayed.faults
        self._say(
            "replayed",
            f"replayed {replayed.records:,} records of {replayed.node} into an empty machine in "
            f"{replayed.seconds:.2f} s ({replayed.rate:,.0f} a second)",
            node=replayed.node,
            records=replayed.records,
            replay_seconds=round(replayed.seconds, 3),
            records_per_second=round(replayed.rate),
        )
        self._say(
            "machines",
            f"digest {shown(replayed.digest)}, of {replayed.keys:,} keys, "
            + ("equals the three live ones" if equal else "DIFFERS from a live one"),
            digest=replayed.digest,
            keys=replayed.keys,
            equal=equal,
        )

    def _show(
        self, report: AuditReport, replayed: ReplayReport, takeover: Takeover, rate: float
    ) -> None:
        rows = []
        for name, node in report.nodes.items():
            ledger = self._feeders[name].ledger
            numbers = (node.records, node.entries, ledger.submitted, ledger.acknowledged)
            fate = "killed, restarted" if name == takeover.killed else ""
            rows.append((name, node.digest[:16], *[f"{number:,}" for number in numbers], fate))
        head = ("node", "digest", "records", "entries", "appended here", "acknowledged", "")
        self._stage.table(head, rows)
        faults = report.faults + replayed.faults
        for fault in faults:
            self._say("fault", f"FAULT: {fault}", message=fault)
        found, missing = report.unknown_found, report.unknown_missing
        flight = f"{takeover.unknown:,}: {found:,} are in the log, {missing:,} are not"
        held = not faults
        verdict = "everything held" if held else "NOT EVERYTHING HELD"
        results = (
            ("acknowledged", f"{report.acknowledged:,} records, each there once, at its offset"),
            ("on all nodes", "same records, same order, same digest; each node's order kept"),
            ("replay", f"{replayed.rate:,.0f} records a second, to the live machines' state"),
            ("in flight at the kill", flight),
            ("takeover", f"{takeover.milliseconds:.0f} ms from the kill to the next append done"),
            ("rate", f"{rate:,.0f} records a second, kill and restart included"),
        )
        self._stage.table(("result", verdict), results if held else results[3:])
        self._stage.tell(
            "result",
            held=held,
            acknowledged=report.acknowledged,
            unknown_found=found,
            unknown_missing=missing,
            takeover_milliseconds=round(takeover.milliseconds, 1),
            records_per_second=round(rate),
            nodes={name: node._asdict() for name, node in report.nodes.items()},
        )

    # -- turns ---------------------------------------------------------------------------------

    @property
    def _done(self) -> int:
        """Records acknowledged."""
        return sum([feeder.ledger.acknowledged for feeder in self._feeders.values()])

    def _feeding(self) -> list[Feeder]:
        return [feeder for feeder in self._feeders.values() if feeder.client is not None]

    def _offset(self, name: str) -> int:
        status = self._feeders[name].status
        return int(status["end_offset"]) if status else 0

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        while not condition():
            if time.monotonic() > self._give_up:
                raise ClusterFailed(f"{what} was not over after {self._seconds_max} s in all")
            self._turn()

    def _turn(self) -> None:
        feeding = self._feeding()
        slowest = min(
            [feeder.ledger.submitted for feeder in feeding if not feeder.has_submitted_all],
            default=0,
        )
        for feeder in feeding:
            if feeder.client is not None and feeder.client.ended:
                raise ClusterFailed(self._cluster[feeder.node].said("has gone away"))
            limit = slowest + LEAD_RECORDS_MAX
            if self._holds_back:
                limit = min(limit, int((feeder.total or 0) * (1 - HELD_BACK)))
            feeder.turn(limit)
        self._stage.update([self._row(member) for member in self._cluster])
        wait_for_any([f.client for f in feeding if f.client is not None], TURN_MS)

    def _row(self, member: Member) -> Row:
        feeder = self._feeders[member.name]
        state = "killed" if member.name == self._is_down else "starting"
        if feeder.status is not None:
            role = feeder.status["role"]
            state = "LEADER" if role == "leader" else role
        return Row(member.name, state, feeder.ledger.acknowledged, feeder.total or 0)

    def _say(self, event: str, text: str, **fields: object) -> None:
        self._stage.say(event, text, **fields)
