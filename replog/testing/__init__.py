"""A deterministic simulator: whole clusters of real replicas in virtual time, one seed each.

`simulate(seed, Raft())` runs one cluster through faults and checks it; `python -m replog.testing
--seeds 500` runs many. The same seed gives the same run, event by event.

`Simulation(seed, Raft(), workload=Workload(machine=..., command=...)).run()` does so with an
application's own state machine on every node. `replog.testing.linearizability` judges the history;
`python -m replog.testing.exploration` tries every order of events in a small scope.
"""

from __future__ import annotations

from replog.testing.machines import Workload as Workload
from replog.testing.plan import Plan as Plan
from replog.testing.plan import Weather as Weather
from replog.testing.simulation import Outcome as Outcome
from replog.testing.simulation import Simulation as Simulation
from replog.testing.simulation import SimulationFailure as SimulationFailure
from replog.testing.simulation import simulate as simulate
