"""What one run is made of, drawn from its seed (swarm testing).

Every run leaves many faults out and exaggerates others, so that each is met alone and beside every
other.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from replog.config import KIB, MIB, Limits
from replog.retention import Retention

if TYPE_CHECKING:
    from collections.abc import Callable
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

LEFT_BEHIND = "left behind"
"""A node is down or cut off for so long that the others drop what it lacks."""
PROFILE_STRIKES = ("isolated new leader", "unheard leader")
"""In runs of some profiles alone, see `PROFILES`: a leader is cut off once in each leadership, or
hears the others and is not heard."""

RARE_STRIKES = ("bridge", "chain", "star", "wiped disk")
"""Beside the others in few runs: links that leave the nodes connected in part, and the loss of all
data of one node, once in a run."""

DOOM_EFFECTS_MAX = 30
"""A doomed node crashes before it has so many more effects."""
INSTALL_EFFECTS_MAX = 8
"""And one that installs a snapshot: around the commit of that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """Faults that are always in the air. A probability is of a frame, unless it says of
    what."""

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
    doomed_giver: float = 0.0
    """Of a node that crashes soon after it has sent a part of a snapshot."""
    doomed_taker: float = 0.0
    """Of a node that crashes soon after it has asked for one."""
    doomed_installer: float = 0.0
    """Of a node that crashes soon after it has begun to write an install."""
    damage: float = 0.0
    """Of a part of a snapshot that is not what was kept."""
    slowness_max: int = 1
    """Each disk is slower by a factor drawn from 1 to this."""
    slow_link: float = 0.0
    """Of a link that is slow, in its one direction: every frame takes longer, by a time between
    half of `slow_link_ms_max` and all of it."""
    slow_link_ms_max: int = 600


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
    """How long the safety phase lasts, from time 0."""
    request_ms_mean: int = 25
    """Between two requests of the clients."""
    record_bytes_max: int = 40
    barriers_per_10_requests: int = 2
    restart_all: bool = False
    """All nodes crash at the end of the safety phase."""
    settle_ms_max: int = 20_000
    """How soon after the last fault everything must be done; each open append adds to it."""
    rest_ms: int = 0
    """How long the cluster is watched after that."""
    retention: Retention | None = None
    """None: everything is kept."""
    snapshot_ms_mean: int = 0
    """Between two snapshots of a node's state; 0: there is no state, and a header is enough."""
    readers_ms_mean: int = 0
    """Between two words of the named readers of a node; 0: there are none."""
    drift_max: float = 0.0
    """Each node's clock is faster or slower than time by a share of up to this."""
    requests_kept: tuple[int, ...] | None = None
    """The clients put only these of their requests, which count from 1; None: all."""
    strikes_kept: tuple[int, ...] | None = None
    """Only these of the strikes happen, which count from 1; None: all."""

    def __post_init__(self) -> None:
        unknown = set(self.strikes).difference(
            STRIKES, PROFILE_STRIKES, RARE_STRIKES, (LEFT_BEHIND,)
        )
        if unknown:
            raise ValueError(f"no strike is called {sorted(unknown)}")


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
    leaves the other runs as they are."""
    rare = [strike for strike in RARE_STRIKES if random.random() < 0.1]
    drift_max = random.choice((0.001, 0.02, 0.1)) if random.random() < 0.2 else 0.0
    plan = replace(plan, strikes=(*plan.strikes, *rare), drift_max=drift_max)
    chosen = random.random()
    for share, profile in PROFILES:
        if chosen < share:
            return profile(plan, random)
        chosen -= share
    return _with_compaction(plan, random) if random.random() < 0.25 else plan


def _with_compaction(plan: Plan, random: Random) -> Plan:
    """The log is not kept for long, snapshots come in small pieces, and nodes fall far behind. In
    fairer weather, and with fewer strikes: else too little gets into a log to be dropped."""
    bounds: dict[str, int] = random.choice(
        ({"records_max": 3}, {"records_max": 15}, {"bytes_max": 800}, {"age_ms_max": 100})
    )
    limits = replace(
        plan.limits,
        piece_bytes_max=random.choice((100, 700, 1 * MIB)),
        part_bytes_max=random.choice((30, 300, 256 * KIB)),
        retry_ms=random.choice((30, plan.limits.retry_ms)),
    )
    weather = replace(
        plan.weather,
        loss=min(plan.weather.loss, 0.1),
        delay_ms_max=random.choice((0, 5, 20)),
        doomed_leader=plan.weather.doomed_leader * 0.3,
        slowness_max=min(plan.weather.slowness_max, 4),
        doomed_giver=_sometimes(random, 0.2),
        doomed_taker=_sometimes(random, 0.2),
        doomed_installer=random.choice((0.0, 0.0, 0.4, 0.9)),
        damage=_sometimes(random, 0.3),
    )
    return replace(
        plan,
        nodes=random.choices((1, 2, 3, 5), (2, 3, 83, 12))[0],
        limits=limits,
        weather=weather,
        strikes=(*plan.strikes[: random.choice((0, 2, 4))], *[LEFT_BEHIND] * 3),
        strike_ms_mean=random.choice((300, 600)),
        strike_length_ms_max=random.choice((100, 500)),
        start_ms_max=0,
        trouble_ms=random.randint(1200, 2800),
        request_ms_mean=random.choice((10, 20, 30)),
        retention=Retention(**bounds, readers_records_max=random.choice((10, 30))),
        snapshot_ms_mean=random.choice((0, 30, 80, 200)),
        readers_ms_mean=random.choice((0, 0, 30, 200)),
    )


def _sometimes(random: Random, most: float) -> float:
    """Drawn from 0 to this in two of five runs, 0 in the others."""
    return random.uniform(0, most) if random.random() < 0.4 else 0.0


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
    return Weather(
        loss=_sometimes(random, 0.3),
        duplication=_sometimes(random, 0.5),
        reordering=_sometimes(random, 1.0),
        delay_ms_max=random.choice((0, 5, 5, 20, 60)),
        long_delay=_sometimes(random, 0.02),
        refusal=_sometimes(random, 0.3),
        holds=random.random() < 0.5,
        commit_ms_max=random.choice((0, 3, 3, 20)),
        stall=_sometimes(random, 0.03),
        doomed_leader=_sometimes(random, 1.0),
        doomed_voter=_sometimes(random, 0.4),
        slowness_max=random.choice((1, 1, 4, 20)),
    )


def _young_leaders(plan: Plan, random: Random) -> Plan:
    """Each leader is cut off soon after it was elected, and entries travel one by one: what a
    leadership leaves behind is half done, and lies on few nodes."""
    return replace(
        plan,
        nodes=3,
        limits=replace(plan.limits, message_bytes_max=1),
        weather=Weather(delay_ms_max=random.choice((10, 30, 60)), commit_ms_max=3),
        strikes=("isolated new leader",),
        strike_ms_mean=random.choice((40, 100)),
        strike_length_ms_max=random.choice((100, 400)),
        trouble_ms=random.randint(4000, 8000),
        request_ms_mean=80,
        restart_all=False,
    )


def _unheard_leaders(plan: Plan, random: Random) -> Plan:
    """Links that are slow in one direction, and leaders whom the others do not hear: old answers
    reach a leader whose successor it does not know."""
    return replace(
        plan,
        nodes=3,
        weather=Weather(
            delay_ms_max=random.choice((3, 10)),
            slow_link=random.choice((0.15, 0.25)),
            slow_link_ms_max=1000,
        ),
        strikes=("unheard leader", *random.choice(((), ("isolated leader",)))),
        strike_ms_mean=1000,
        strike_length_ms_max=random.choice((200, 500)),
        trouble_ms=random.randint(4000, 8000),
        request_ms_mean=30,
        barriers_per_10_requests=random.choice((2, 6)),
        restart_all=False,
    )


def _short_lives(plan: Plan, random: Random) -> Plan:
    """Slow links, many barriers, and nodes that come back sooner than an answer to what they asked
    in the life before."""
    return replace(
        plan,
        nodes=3,
        weather=Weather(
            delay_ms_max=random.choice((3, 10)),
            slow_link=0.3,
            slow_link_ms_max=random.choice((150, 300, 600)),
        ),
        strikes=("crash", *random.choice(((), ("close",), ("cut",)))),
        strike_ms_mean=random.choice((100, 200)),
        strike_length_ms_max=random.choice((30, 100)),
        trouble_ms=random.randint(3000, 5000),
        request_ms_mean=10,
        barriers_per_10_requests=6,
        restart_all=False,
    )


def _stalled_disks(plan: Plan, random: Random) -> Plan:
    """Commits that take longer than an election, and leaders that are cut off while their writes
    wait: entries are replaced before they are on the disk."""
    return replace(
        plan,
        nodes=random.choice((3, 3, 5)),
        limits=replace(plan.limits, entry_bytes_max=random.choice((1, 100))),
        weather=Weather(
            loss=random.choice((0.0, 0.1)),
            holds=random.random() < 0.5,
            commit_ms_max=random.choice((3, 20)),
            stall=random.choice((0.03, 0.1)),
            stall_ms_max=random.choice((600, 1200)),
        ),
        strikes=("isolated leader", *random.choice(((), ("broken link",), ("partition",)))),
        strike_ms_mean=random.choice((200, 400)),
        strike_length_ms_max=random.choice((30, 100, 300)),
        trouble_ms=random.randint(2000, 4000),
        request_ms_mean=20,
        restart_all=False,
    )


PROFILES: tuple[tuple[float, Callable[[Plan, Random], Plan]], ...] = (
    (0.06, _young_leaders),
    (0.06, _unheard_leaders),
    (0.03, _short_lives),
    (0.06, _stalled_disks),
)
"""Faults that are dangerous together and seldom drawn together, and the share of the runs that each
makes."""
