"""An application's own state machine, run through simulated crashes, partitions and losses."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from raftlog import Raft
from replog.testing import Simulation, Workload


class Bank:
    def __init__(self) -> None:
        self.accounts = dict.fromkeys("abc", 100)

    def apply(self, records: Any) -> list[bool]:
        return [self.transfer(*json.loads(record.data)) for record in records]

    def transfer(self, source: str, target: str, amount: int) -> bool:
        if accepted := self.accounts[source] >= amount:
            self.accounts[source] -= amount
            self.accounts[target] += amount
        return accepted

    def digest(self) -> bytes:
        return json.dumps(self.accounts, sort_keys=True).encode()


def command(random: Random) -> bytes:
    return json.dumps([*random.choices("abc", k=2), random.randint(1, 80)]).encode()


for seed in range(30):
    Simulation(seed, Raft(), workload=Workload(machine=Bank, command=command)).run()
print("30 clusters under faults: the banks of all nodes are the same, entry by entry")
