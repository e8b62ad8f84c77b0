"""What all pieces of one simulated run share."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from replog.agreement import Agreement
    from replog.codec import Codec
    from replog.membership import Membership
    from replog.testing.checkers import Checkers
    from replog.testing.machines import Machines
    from replog.testing.plan import Plan, Weather
    from replog.testing.schedule import Schedule
    from replog.testing.trace import Trace


@dataclass(slots=True)
class World:
    """One run."""

    agreement: Agreement
    membership: Membership
    plan: Plan
    weather: Weather
    """The plan's, until the simulator calms it."""
    random: Random
    """The only source of chance, seeded."""
    schedule: Schedule
    codec: Codec
    trace: Trace
    tally: Counter[str]
    """What happened, by name."""
    checkers: Checkers
    machines: Machines | None = None
    """What every node feeds, if the run has a workload."""
    expected_to_stop: frozenset[str] = frozenset()
    """Nodes that the others must refuse; any other node that stops itself is a failure."""

    def chance(self, probability: float) -> bool:
        """Whether something of this probability happens now."""
        return probability > 0 and self.random.random() < probability

    def below(self, limit: int) -> int:
        """An integer from 0 to below `limit`; 0 for a limit of 0."""
        return int(self.random.random() * limit)

    def interval_ms(self, mean_ms: int) -> int:
        """Drawn: how long until the next of what comes every `mean_ms` on average."""
        return int(self.random.expovariate(1 / mean_ms))

    def record_fault(self, node: str, what: str, *details: object) -> None:
        """Record a fault."""
        self.tally[what] += 1
        self.trace.record(node, "fault", what, *details)
