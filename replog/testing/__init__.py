"""A deterministic simulator: whole clusters of real replicas in virtual time, one seed each.

`simulate(seed, Raft())` runs one cluster through faults and checks it; `python -m replog.testing
--seeds 500` runs many. The same seed gives the same run, event by event.
"""

from __future__ import annotations

from replog.testing.plan import Plan as Plan
from replog.testing.plan import Weather as Weather
from replog.testing.simulation import Outcome as Outcome
from replog.testing.simulation import Simulation as Simulation
from replog.testing.simulation import SimulationFailure as SimulationFailure
from replog.testing.simulation import simulate as simulate
