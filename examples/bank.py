"""An application's own state machine, run through simulated crashes, partitions and losses."""

from __future__ import annotations

import json
from random import Random

from raftlog import Raft
from replog.testing import Simulation, Workload


class Bank:
    """Accounts between which money moves; a transfer that would overdraw one is refused."""

    def __init__(self):
        self.accounts = dict.fromkeys("abc", 100)

    def apply(self, records):
        return [self.transfer(*json.loads(record.data)) for record in records]

    def transfer(self, source, target, amount):
        if accepted := self.accounts[source] >= amount:
            self.accounts[source] -= amount
            self.accounts[target] += amount
        return accepted

    def digest(self):
        return json.dumps(self.accounts, sort_keys=True).encode()


def command(random: Random) -> bytes:
    return json.dumps([random.choice("abc"), random.choice("abc"), random.randint(1, 80)]).encode()


for seed in range(30):
    Simulation(seed, Raft(), workload=Workload(machine=Bank, command=command)).run()
print("30 clusters under faults: the banks of all nodes are the same, entry by entry")
