"""`python -m replog.testing.connectivity`: what a partly connected cluster still does, how soon.

A calm simulated cluster elects a leader and takes appends; then links are cut for long. The first
three patterns are those of H. Ng, S. Haridi and P. Carbone, "Omni-Paxos: Breaking the Barriers of
Partial Connectivity", EuroSys 2023.

Rules of this file:

1. Before the cut, appends go on at every node; after it, at the nodes that reach an electing quorum
   both ways. What is measured was submitted in the millisecond of the cut, or later.
2. `NEVER` means that none of it was acknowledged within `PATIENCE_MS`.
3. Every run ends healed and settled under all checkers of the simulator: a cluster that stood still
   has kept what it acknowledged, and goes on. A run that does not ends the command.

Exit codes: 0 measured, 1 a rule was broken, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from itertools import permutations
from math import inf
from statistics import median_high
from typing import TYPE_CHECKING, NamedTuple

from replog.agreements import installed_agreements, load_agreement
from replog.errors import ConfigError
from replog.testing.network import links_but
from replog.testing.plan import Plan
from replog.testing.simulation import Simulation
from replog.testing.violation import Violation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from replog.agreement import Agreement
    from replog.testing.host import Host
    from replog.testing.network import Link

CALM_PLAN = Plan()
WARM_UP_RECORDS = 30
"""Delivered before anything is cut."""
WARM_UP_MS_MAX = 20_000
PHASE_MS_MAX = 200
"""The cut falls at a moment drawn from so many, anywhere between two heartbeats and appends."""
BEHIND_ENTRIES = 10
"""What a hub that is behind lacks."""
APPEND_MS = 10
"""A node whose appends are all acknowledged is given another one so often; before the cut."""
APPEND_MS_AFTER = 200
"""After it: the first one decides, the others keep the log growing."""
STABLE_MS = 10_000
"""Leaders are counted for so long after the cut."""
PATIENCE_MS = 20_000
NEVER = inf

LEADER, HUB = 0, 1
"""Places in a pattern; all other nodes come after them."""


class Pattern(NamedTuple):
    """Which links stay, once there is a leader."""

    name: str
    nodes: int
    stays: Callable[[int, int], bool]
    """Whether the link from one place to another stays, in this direction."""
    hub_is_behind: bool = False
    """The hub lacks committed entries: it was cut off for a while before."""


PATTERNS = (
    Pattern("quorum loss", 5, lambda sender, to: HUB in {sender, to}),
    Pattern(
        "constrained election",
        5,
        lambda sender, to: HUB in {sender, to} and LEADER not in {sender, to},
        hub_is_behind=True,
    ),
    Pattern("chained", 3, lambda sender, to: HUB in {sender, to}),
    Pattern("leader is not heard", 5, lambda sender, _: sender != LEADER),
    Pattern("leader hears nobody", 5, lambda _, to: to != LEADER),
    Pattern("isolated leader", 5, lambda sender, to: LEADER not in {sender, to}),
)


class Measured(NamedTuple):
    """One run. Times in virtual milliseconds from the cut."""

    first_append_ms: float
    """Until the first append was acknowledged; `NEVER` if none was."""
    last_change_ms: int
    """Until the last change of leader within `STABLE_MS`; 0 without one."""
    changes: int
    """How often a new leadership began within `STABLE_MS`."""
    served: int
    """Of the nodes that reach a quorum, those on which an append was acknowledged."""
    connected: int
    """Nodes that reach a quorum."""


class ConnectivityFailure(Exception):
    """A run broke a rule or did not settle; the message says how to repeat it."""


class Row(NamedTuple):
    """All runs of one pattern under one agreement."""

    pattern: str
    agreement: str
    runs: Sequence[Measured]

    @property
    def live(self) -> int:
        """Runs in which an append was acknowledged."""
        return sum(run.first_append_ms < NEVER for run in self.runs)


class Feed:
    """A client that keeps one append open on each of its nodes."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._hosts: Sequence[Host] = list(simulation.hosts.values())
        self._period_ms = APPEND_MS
        self._asked: dict[Host, set[int]] = {}
        """The first appends since the cut: their tickets."""

    def begin(self) -> None:
        """Append, now and from now on, wherever nothing is open."""
        self._simulation.world.schedule.after(self._period_ms, self.begin)
        for host in self._hosts:
            if host.replica is not None and not host.tickets:
                self._simulation.clients.append(host, 1, whole=False)

    def move(self, hosts: Sequence[Host]) -> None:
        """From now on append on these nodes; on each at once, whatever is open there."""
        self._hosts = hosts
        self._period_ms = APPEND_MS_AFTER
        for host in hosts:
            before = set(host.tickets)
            self._simulation.clients.append(host, 1, whole=False)
            self._asked[host] = host.tickets - before

    @property
    def served(self) -> int:
        """How many nodes have acknowledged an append submitted since they were moved to."""
        return sum(not tickets <= host.tickets for host, tickets in self._asked.items())


class Trial:
    """One pattern, one agreement, one seed; `run` carries it out."""

    def __init__(self, seed: int, agreement: Agreement, pattern: Pattern) -> None:
        self._pattern = pattern
        self._simulation = Simulation(seed, agreement, replace(CALM_PLAN, nodes=pattern.nodes))
        self._feed = Feed(self._simulation)
        self._cut_at = 0
        self._first_append_ms = NEVER
        self._changes_before = self._changes = 0
        self._last_change_ms = 0

    @property
    def now(self) -> int:
        """Virtual milliseconds since the start."""
        return self._simulation.world.schedule.now

    def run(self) -> Measured:
        """Raises `Violation`, or whatever a node raised."""
        simulation, pattern, feed = self._simulation, self._pattern, self._feed
        schedule = simulation.world.schedule
        self._warm_up()
        places = self._places()
        if pattern.hub_is_behind:
            self._leave_behind(places[HUB])
        if self._leader() != places[LEADER]:
            raise Violation("another node has come to lead before the cut")
        cut = links_but(places, pattern.stays)
        simulation.network.cut(cut)
        clients = self._reaching_a_quorum(cut)
        feed.move(clients)
        self._cut_at = schedule.now
        self._changes_before = simulation.world.checkers.leaders.changes
        schedule.run(self._cut_at + STABLE_MS, self._observe)
        if not feed.served:
            schedule.run(self._cut_at + PATIENCE_MS, self._observe_append)
        served = feed.served
        simulation.network.heal(cut)
        feed.move(())
        simulation.settle()
        return Measured(
            self._first_append_ms, self._last_change_ms, self._changes, served, len(clients)
        )

    def _warm_up(self) -> None:
        """Start all nodes; wait for a leader and some appends, then for a moment."""
        world = self._simulation.world
        for host in self._simulation.hosts.values():
            world.schedule.at(world.below(world.plan.start_ms_max + 1), host.start)
        self._feed.begin()
        history = world.checkers.history
        self._await("no leader", lambda: len(history.records) >= WARM_UP_RECORDS)
        world.schedule.run(world.schedule.now + world.below(PHASE_MS_MAX))

    def _places(self) -> list[str]:
        """Which node takes which place."""
        leader = self._leader()
        others = [node for node in self._simulation.hosts if node != leader]
        return [leader, *self._simulation.world.random.sample(others, len(others))]

    def _leader(self) -> str:
        """The node that leads. Raises `Violation` unless there is exactly one."""
        hosts = self._simulation.hosts.values()
        leaders = [host.node for host in hosts if host.replica is not None and host.replica.leads]
        if len(leaders) != 1:
            raise Violation(f"{len(leaders)} nodes lead in a calm cluster")
        return leaders[0]

    def _leave_behind(self, hub: str) -> None:
        """Let entries be committed that this node lacks."""
        network, history = self._simulation.network, self._simulation.world.checkers.history
        links = [link for link in permutations(self._simulation.hosts, 2) if hub in link]
        network.cut(links)
        end = history.last_index + BEHIND_ENTRIES
        self._await("the others stop", lambda: history.last_index >= end)
        network.heal(links)

    def _await(self, otherwise: str, finished: Callable[[], bool]) -> None:
        schedule = self._simulation.world.schedule
        if not schedule.run(schedule.now + WARM_UP_MS_MAX, finished):
            raise Violation(f"{otherwise} within {WARM_UP_MS_MAX} ms of calm")

    def _reaching_a_quorum(self, cut: Sequence[Link]) -> list[Host]:
        """The nodes that reach an electing quorum, themselves included, both ways."""
        hosts = self._simulation.hosts
        can_elect = self._simulation.world.membership.quorums.can_elect
        lost = {*cut, *[(to, sender) for sender, to in cut]}
        return [
            host
            for node, host in hosts.items()
            if can_elect({other for other in hosts if (node, other) not in lost})
        ]

    def _observe(self) -> bool:
        """Called after every action."""
        changes = self._simulation.world.checkers.leaders.changes - self._changes_before
        if changes != self._changes:
            self._changes = changes
            self._last_change_ms = self.now - self._cut_at
        self._observe_append()
        return False

    def _observe_append(self) -> bool:
        if self._first_append_ms == NEVER and self._feed.served:
            self._first_append_ms = self.now - self._cut_at
        return self._first_append_ms < NEVER


def measure(seed: int, agreement: Agreement, pattern: Pattern) -> Measured:
    """Carry out one run. Raises `ConnectivityFailure`."""
    trial = Trial(seed, agreement, pattern)
    try:
        return trial.run()
    except Exception as error:
        reason = str(error) if isinstance(error, Violation) else repr(error)
        raise ConnectivityFailure(
            f"{pattern.name} under {agreement.name}, seed {seed} at {trial.now} ms: {reason}\n"
            f"repeat: python -m replog.testing.connectivity --agreement {agreement.name} "
            f"--first {seed} --seeds 1"
        ) from error


def measure_all(seeds: Sequence[int], agreement: Agreement, pattern: Pattern) -> Row:
    """One run of each seed. Raises `ConnectivityFailure`."""
    runs = [measure(seed, agreement, pattern) for seed in seeds]
    return Row(pattern.name, agreement.name, runs)


# --- the command ----------------------------------------------------------------------------------

COLUMNS = "{:<22}{:<11}{:>9}{:>8}{:>14}{:>14}{:>11}"
HEADINGS = ("pattern", "agreement", "live", "served", "first append", "last change", "changes")
LEGEND = """\
live: runs in which an append submitted after the cut was acknowledged within {patience} s
served: nodes on which one was, of those that reach a quorum; the run with the fewest
first append, last change: virtual ms from the cut to the first acknowledgement, and to the last
change of leader within {stable} s; changes: how many of these. Each as median / maximum.
"""


def main() -> int:
    """Carry out the command; its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m replog.testing.connectivity",
        description="Cut links of simulated clusters; measure whether and when they go on.",
    )
    parser.add_argument("--agreement", help="which agreement (default: each that is installed)")
    parser.add_argument("--seeds", type=int, default=50, help="how many of each (default: 50)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (default: 0)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    arguments = parser.parse_args()
    if arguments.seeds < 1:
        parser.error("--seeds is at least 1")
    try:
        names = [arguments.agreement] if arguments.agreement else installed_agreements()
        agreements = [load_agreement(name) for name in names]
    except ConfigError as error:
        parser.error(str(error))
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    write = _write_json if arguments.json else _write_line
    if not arguments.json:
        sys.stdout.write(COLUMNS.format(*HEADINGS) + "\n")
    try:
        for pattern in PATTERNS:
            for agreement in agreements:
                write(measure_all(seeds, agreement, pattern))
    except ConnectivityFailure as failure:
        sys.stderr.write(f"{failure}\n")
        return 1
    if not arguments.json:
        legend = LEGEND.format(patience=PATIENCE_MS // 1000, stable=STABLE_MS // 1000)
        sys.stdout.write(f"\n{legend}")
    return 0


def _write_line(row: Row) -> None:
    least = min(row.runs, key=lambda run: run.served)
    cells = (
        row.pattern,
        row.agreement,
        f"{row.live} of {len(row.runs)}",
        f"{least.served} of {least.connected}",
        _middle_and_most([run.first_append_ms for run in row.runs]),
        _middle_and_most([run.last_change_ms for run in row.runs]),
        _middle_and_most([run.changes for run in row.runs]),
    )
    sys.stdout.write(COLUMNS.format(*cells).rstrip() + "\n")
    sys.stdout.flush()


def _write_json(row: Row) -> None:
    cells: dict[str, object] = {
        "pattern": row.pattern,
        "agreement": row.agreement,
        "seeds": len(row.runs),
        "live": row.live,
        "connected": row.runs[0].connected,
        "served_min": min(run.served for run in row.runs),
    }
    for name in ("first_append_ms", "last_change_ms", "changes"):
        values = [getattr(run, name) for run in row.runs]
        for of, value in (("median", median_high(values)), ("max", max(values))):
            cells[f"{name}_{of}"] = None if value == NEVER else value
    sys.stdout.write(json.dumps(cells) + "\n")
    sys.stdout.flush()


def _middle_and_most(values: Sequence[float]) -> str:
    """The median (of an even number: the higher one) and the maximum."""
    middle, most = median_high(values), max(values)
    return f"{_text(middle)} / {_text(most)}"


def _text(value: float) -> str:
    return "never" if value == NEVER else str(value)


if __name__ == "__main__":
    sys.exit(main())
