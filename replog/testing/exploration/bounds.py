"""What an exploration may spend on the way to any one state."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

BITS = 4
"""Each bound takes so many in the number of a state."""
BOUND_MAX = (1 << BITS) - 1


class Act(Enum):
    """What can happen to one member."""

    DELIVER = "takes a message"
    PERSIST = "its disk completes the next write"
    PROPOSE = "an application appends at this leader"
    TIME_OUT = "it does not lead, and its timer passes"
    BEAT = "it leads, and its timer passes"
    LAPSE = "time passes, and its leader is not heard, but its timer has not passed yet"
    LOSE = "its host reports that entries for a peer did not leave, true or not"
    CRASH = "it forgets all but its disk, and starts again"


class Bounds(NamedTuple):
    """How often each of these may happen before a state is reached; deliveries and writes are not
    counted. Each is at most `BOUND_MAX`."""

    timeouts: int = 2
    """So many epochs, at most."""
    beats: int = 0
    proposals: int = 1
    crashes: int = 1
    lapses: int = 1
    losses: int = 0

    @property
    def packed(self) -> int:
        """All of them in one number."""
        return sum(bound << BITS * place for place, bound in enumerate(self))


_COUNTED = (Act.TIME_OUT, Act.BEAT, Act.PROPOSE, Act.CRASH, Act.LAPSE, Act.LOSE)
SHIFT = {act: BITS * place for place, act in enumerate(_COUNTED)}
"""Where in `Bounds.packed` each counted act stands."""
