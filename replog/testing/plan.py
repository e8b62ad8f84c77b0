"""What one run is made of, drawn from its seed (swarm testing).

Every run leaves many faults out and exaggerates others, so that each is met alone and beside every
other.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from replog.config import KIB, MIB, Limits

if TYPE_CHECKING:
    from random import Random

STRIKES = (
    "crash",
    "cut",
    "crash all",
    "close",
    "disk failure",
    "disk full",
    "pause",
    "isolated leader",
    "partition",
    "one-way partition",
    "broken link",
    "clock jump",
)
"""What may strike a node, or the links between nodes, at a random moment; see `strikes`."""

RARE_STRIKES = ("bridge", "chain", "star", "wiped disk")
"""Beside the others in few runs: links that leave the nodes connected in part, and the loss of all
data of one node, once in a run."""

DOOM_EFFECTS_MAX = 30
"""A doomed node crashes before it has so many more effects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """Faults that are always in the air. Probabilities are per frame, or per commit."""

    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    """Of a frame that may overtake those before it; all others of a channel stay in order."""
    delay_ms_max: int = 5
    long_delay: float = 0.0
    long_delay_ms_max: int = 3000
    refusal: float = 0.0
    """Of a bulk frame that the sender's transport does not take."""
    holds: bool = False
    """A cut link keeps its frames until it is healed, instead of losing them."""
    commit_ms_max: int = 3
    load_ms_max: int = 3
    stall: float = 0.0
    """Of a commit or load that takes up to `stall_ms_max`."""
    stall_ms_max: int = 2000
    doomed_leader: float = 0.0
    """Of a new leader that crashes soon: takeovers are the delicate moments of a protocol."""
    doomed_voter: float = 0.0
    """Of a node that crashes soon after a new promise is on its disk."""
    slowness_max: int = 1
    """Each disk is slower by a factor drawn from 1 to this."""


CALM = Weather()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run: the cluster, what strikes it, and what is asked of it. Times in milliseconds."""

    nodes: int = 3
    limits: Limits = field(default_factory=Limits)
    weather: Weather = CALM
    strikes: tuple[str, ...] = ()
    strike_ms_mean: int = 500
    strike_length_ms_max: int = 1000
    """How long a node is down, paused or out of disk, and a link cut, unless struck again."""
    start_ms_max: int = 300
    """The nodes start, in random order, within this."""
    trouble_ms: int = 3000
    """How long the safety phase lasts, from the first start on."""
    request_ms_mean: int = 25
    """Between two requests of the clients."""
    record_bytes_max: int = 40
    restart_all: bool = False
    """All nodes crash at the end of the safety phase."""
    settle_ms_max: int = 20_000
    """How soon after the last fault everything must be done."""
    rest_ms: int = 0
    """How long the cluster is watched after that."""
    drift_max: float = 0.0
    """Each node's clock is faster or slower than time by a share of up to this."""
    requests_kept: tuple[int, ...] | None = None
    """The clients put only these of their requests, which count from 1; None: all."""
    strikes_kept: tuple[int, ...] | None = None
    """Only these of the strikes happen, which count from 1; None: all."""


def is_kept(number: int, kept: tuple[int, ...] | None) -> bool:
    """Whether the request or strike of this number is not left out."""
    return kept is None or number in kept


def draw_plan(random: Random) -> Plan:
    """The plan of a seed."""
    return Plan(
        nodes=random.choices((1, 2, 3, 5), (6, 8, 74, 12))[0],
        limits=_draw_limits(random),
        weather=_draw_weather(random),
        strikes=tuple([strike for strike in STRIKES if random.random() < 0.4]),
        strike_ms_mean=random.choice((150, 400, 800)),
        strike_length_ms_max=random.choice((100, 500, 1000, 2500)),
        start_ms_max=random.choice((0, 300, 1000)),
        trouble_ms=random.randint(800, 3500),
        request_ms_mean=random.choice((8, 20, 60)),
        record_bytes_max=random.choice((20, 40, 40, 400)),
        restart_all=random.random() < 0.5,
        rest_ms=1300 if random.random() < 0.1 else 0,
    )


def with_rarities(plan: Plan, random: Random) -> Plan:
    """The plan with what few runs have beside it. Apart from `draw_plan`, so that a new rarity
    leaves the other runs as they were."""
    rare = [strike for strike in RARE_STRIKES if random.random() < 0.1]
    drift_max = random.choice((0.001, 0.02, 0.1)) if random.random() < 0.2 else 0.0
    return replace(plan, strikes=(*plan.strikes, *rare), drift_max=drift_max)


def _draw_limits(random: Random) -> Limits:
    """Mostly small ones: what is bounded is met at its bound."""
    return replace(
        Limits(),
        entry_bytes_max=random.choice((100, 1000, 1 * MIB)),
        message_bytes_max=random.choice((300, 4000, 2 * MIB)),
        window_bytes_max=random.choice((1, 2 * KIB, 64 * MIB)),
        forward_bytes_max=random.choice((200, 4000, 4 * MIB)),
        forward_runs_max=random.choice((1, 3, 64)),
    )


def _draw_weather(random: Random) -> Weather:
    def sometimes(most: float) -> float:
        return random.uniform(0, most) if random.random() < 0.4 else 0.0

    return Weather(
        loss=sometimes(0.3),
        duplication=sometimes(0.5),
        reordering=sometimes(1.0),
        delay_ms_max=random.choice((0, 5, 5, 20, 60)),
        long_delay=sometimes(0.02),
        refusal=sometimes(0.3),
        holds=random.random() < 0.5,
        commit_ms_max=random.choice((0, 3, 3, 20)),
        stall=sometimes(0.03),
        doomed_leader=sometimes(1.0),
        doomed_voter=sometimes(0.4),
        slowness_max=random.choice((1, 1, 4, 20)),
    )
