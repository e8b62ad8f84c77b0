"""Two hundred rounds in which a node falls behind what the others drop, and comes back.

In each round one node goes down, the others are killed and restarted in turn, append, keep their
state and drop the log beyond where the first one is; that one returns, takes a snapshot and catches
up. Givers, takers and installers crash at random meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

import pytest

from replog.agreements import load_agreement
from replog.config import Limits
from replog.machine import Record
from replog.machines import KeyValue
from replog.retention import Retention
from replog.testing import Plan, Simulation, Weather, Workload
from replog.testing.host import Host

AGREEMENTS = ("raft", "paxos")
SEEDS = range(8)
ROUNDS = 25
KEPT_RECORDS = 8
STEP_MS = 20
PATIENCE_MS = 30_000
PLAN = Plan(
    limits=Limits(piece_bytes_max=300, part_bytes_max=200, retry_ms=50),
    weather=Weather(
        loss=0.02,
        duplication=0.05,
        damage=0.02,
        doomed_giver=0.03,
        doomed_taker=0.03,
        doomed_installer=0.3,
    ),
    request_ms_mean=1_000_000,
    trouble_ms=500,
    start_ms_max=0,
    retention=Retention(records_max=KEPT_RECORDS),
    snapshot_ms_mean=40,
)


def put(random: Random) -> bytes:
    return KeyValue.put(b"key %d" % random.randrange(40), random.randbytes(20))


class Rounds:
    """One cluster, led through rounds."""

    def __init__(self, agreement: str, seed: int) -> None:
        workload = Workload(machine=KeyValue, command=put)
        self.simulation = Simulation(seed, load_agreement(agreement), PLAN, workload=workload)
        self.world = self.simulation.world
        self.hosts = list(self.simulation.hosts.values())
        self.simulation.trouble()

    def until(self, condition: Callable[[], bool], what: str) -> None:
        give_up = self.world.schedule.now + PATIENCE_MS
        while not condition():
            assert self.world.schedule.now < give_up, f"{what} takes longer than {PATIENCE_MS} ms"
            self.world.schedule.run(self.world.schedule.now + STEP_MS)

    def append(self, hosts: list[Host], count: int) -> None:
        for host in hosts:
            if host.replica is not None and len(host.tickets) < count:
                self.simulation.clients.append(host, count, whole=False)

    def is_led(self) -> bool:
        return any(host.replica is not None and host.replica.leads for host in self.hosts)

    def round(self) -> None:
        laggard, *others = self.world.random.sample(self.hosts, len(self.hosts))
        self.until(lambda: laggard.replica is not None, "the return of a node that was cut")
        laggard.crash("left behind")
        for other in others:
            other.crash("killed")
            self.world.schedule.run(self.world.schedule.now + STEP_MS)
            other.start()
        self.until(self.is_led, "an election")

        def have_dropped_what_it_lacks() -> bool:
            laggard.crash("left behind")  # a restart of an earlier crash may still come
            self.append(others, 2)
            last_index = laggard.disk.outline.last_index
            return all(other.disk.base.index > last_index for other in others)

        self.until(have_dropped_what_it_lacks, "compaction")
        base_index = laggard.disk.base.index
        installed = self.world.tally["installs"]
        end = self.world.checkers.history.last_index
        laggard.start()

        def has_caught_up() -> bool:
            self.append(others, 1)
            return all(host.disk.outline.position.index >= end for host in self.hosts)

        self.until(has_caught_up, "catching up")
        assert laggard.disk.base.index > base_index
        assert self.world.tally["installs"] > installed


@cache
def rounds_of(agreement: str, seed: int) -> Counter[str]:
    rounds = Rounds(agreement, seed)
    for _ in range(ROUNDS):
        rounds.round()
    rounds.simulation.settle()
    assert_whole(rounds)
    return rounds.world.tally


def assert_whole(rounds: Rounds) -> None:
    """Snapshot and what follows it make the state of the whole log, on every node."""
    history = rounds.world.checkers.history
    replayed: Any = KeyValue()
    for offset, data in enumerate(history.records):
        replayed.apply([Record(offset, data.partition(b" ")[2], 0)])
    for host in rounds.hosts:
        assert host._fed is not None
        assert host._fed.machine.digest() == replayed.digest()
        assert host.disk.outline.position.offset == len(history.records)
        kept = len(history.records) - host.disk.base.offset
        assert kept < len(history.records) / 4, "the log was not dropped"


@pytest.mark.parametrize("agreement", AGREEMENTS)
@pytest.mark.parametrize("seed", SEEDS)
def test_rounds_lose_nothing(agreement: str, seed: int) -> None:
    tally = rounds_of(agreement, seed)
    assert tally["installs"] >= ROUNDS
    assert tally["records"] > 10 * ROUNDS


@pytest.mark.parametrize("agreement", AGREEMENTS)
def test_there_are_two_hundred_rounds_with_every_interruption(agreement: str) -> None:
    assert len(SEEDS) * ROUNDS == 200
    tally = sum([rounds_of(agreement, seed) for seed in SEEDS], Counter())
    interruptions = (
        *("doomed giver", "doomed taker", "doomed installer", "damaged parts", "duplicates"),
        *("transfers replaced", "installs lost", "installs that nobody was told of"),
    )
    assert not [what for what in interruptions if not tally[what]]
