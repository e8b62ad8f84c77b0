"""All states of a cluster: members, mail, and what the members have shown, each as a number.

Rules of this file:

1. A message stays where it was sent to, for ever. So it may arrive late, or twice, or out of order;
   and one that never arrives is a lost one. No step is needed for any of these.
2. More mail allows whatever less mail does. So an event that changes nothing but the mail of others
   need not be chosen: it happens as soon as it can. And one that changes nothing never happens.
3. A state is one number: two seats are equal only if all is equal that lies behind them. No state
   is ever taken for another.

A *seat* is a member with its mail. What happens at a seat is computed once, in however many states
of the cluster it can happen; a step of the cluster then looks up and adds.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence, Set
from types import MappingProxyType
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from replog.errors import ConfigError
from replog.testing.exploration.bounds import BOUND_MAX, SHIFT, Act, Bounds
from replog.testing.exploration.member import Event, Facts, Image, Member, Packet, Stage, Step
from replog.testing.exploration.past import Past
from replog.testing.violation import Violation

if TYPE_CHECKING:
    from replog.agreement import Agreement

SEAT_BITS = 28
SEAT_MASK = (1 << SEAT_BITS) - 1
PAST_BITS = 20
PAST_MASK = (1 << PAST_BITS) - 1

Thing = TypeVar("Thing", bound=Hashable)


class Table(Generic[Thing]):
    """Numbers things, from 0, in the order in which they are met."""

    def __init__(self, numbers_max: int = SEAT_MASK) -> None:
        self.things: list[Thing] = []
        self._numbers: dict[Thing, int] = {}
        self._numbers_max = numbers_max

    def number(self, thing: Thing) -> int:
        """The number of a thing, always the same. Raises `OverflowError` when there are no more."""
        number = self._numbers.setdefault(thing, len(self.things))
        if number == len(self.things):
            if number > self._numbers_max:
                raise OverflowError(f"more than {number} of a kind: make the bounds smaller")
            self.things.append(thing)
        return number


Posts = tuple[tuple[int, int], ...]
"""(member, packet) by their numbers: what is put into whose mail."""


class Seat(NamedTuple):
    """A member with everything that was ever sent to it."""

    member: int
    mail: tuple[int, ...]
    """Packets, ascending."""


class Reaction(NamedTuple):
    """What an event makes of a member."""

    member: int
    posts: Posts
    breach: str = ""
    """The rule that it breaks."""


class Move(NamedTuple):
    """Something that can happen at a seat, and changes its member."""

    event: int
    price: int
    """Subtracted from the state: what it takes of a bound."""
    shift: int
    """Where that bound stands in the state; -1 when it takes of none."""
    seat: int
    posts: Posts
    disk_changes: bool
    facts: int
    """What the member shows now; -1: the same as before."""
    breach: str


class Successor(NamedTuple):
    """What one step makes of a state."""

    node: int
    event: int
    state: int
    breach: str


class Cluster:
    """The states of one cluster, and the steps between them.

    `cut` names pairs of nodes whose messages to each other are all lost; `only` names, for an act,
    the nodes to which alone it happens. Both make less of a cluster possible, and the rest deeper.
    """

    def __init__(
        self,
        agreement: Agreement,
        names: Sequence[str] = ("n1", "n2", "n3"),
        *,
        entries_per_packet_max: int = 64,
        cut: Collection[Set[str]] = (),
        only: Mapping[Act, Collection[str]] = MappingProxyType({}),
    ) -> None:
        self._cut = cut
        self._only = only
        self.names = tuple(names)
        self.stage = Stage(agreement, names, entries_per_packet_max)
        self.events: Table[Event] = Table()
        self._places = {name: place for place, name in enumerate(names)}
        self._packets: Table[Packet] = Table()
        self._members: Table[Member] = Table()
        self._facts: Table[Facts] = Table()
        self._disks: Table[Image] = Table()
        self._seats: Table[Seat] = Table()
        self._pasts: Table[Past] = Table(PAST_MASK)
        self._facts_of: list[int] = []
        self._disk_of: list[int] = []
        self._reactions: dict[tuple[int, int], Reaction | None] = {}
        self._moves: dict[int, list[Move]] = {}
        self._posted: dict[tuple[int, int], tuple[int, Posts]] = {}
        self._then: dict[tuple[int, int], tuple[int, str]] = {}
        self._sound: set[tuple[int, ...]] = set()
        self._past_shift = SEAT_BITS * len(self.names)
        self._bounds_shift = self._past_shift + PAST_BITS

    def state(self, disks: Mapping[str, Image], bounds: Bounds) -> int:
        """Every member has just started from its disk, and nothing is under way. Raises
        `ConfigError` for bounds that are out of range."""
        past = Past()
        seats: list[int] = []
        for name in self.names:
            step = self.stage.start(name, disks.get(name, Image()))
            past = past.then(step.facts, by_number=self.stage.by_number)
            seats.append(self._seats.number(Seat(self._member(step), ())))
        return self._pack(seats, self._pasts.number(past), bounds)

    def calm(self, state: int, bounds: Bounds) -> int:
        """The same members, and nothing is under way. Raises `ConfigError` as `state` does."""
        seats = [
            self._seats.number(Seat(self._seats.things[seat].member, ()))
            for seat in self._unpack(state)
        ]
        return self._pack(seats, state >> self._past_shift & PAST_MASK, bounds)

    def members(self, state: int) -> list[Member]:
        """The members in this state."""
        seats = [self._seats.things[seat] for seat in self._unpack(state)]
        return [self._members.things[seat.member] for seat in seats]

    def leaders(self, state: int) -> int:
        """How many leaderships there have been up to this state."""
        return len(self._pasts.things[state >> self._past_shift & PAST_MASK].leaders)

    @property
    def committed_max(self) -> int:
        """How many entries were committed in any state met so far."""
        return max([len(past.committed) for past in self._pasts.things], default=0)

    def successors(self, state: int) -> Iterator[Successor]:
        """What can happen next."""
        seats = self._unpack(state)
        past = state >> self._past_shift & PAST_MASK
        rest = state >> self._past_shift << self._past_shift
        for node, seat in enumerate(seats):
            moves = self._moves.get(seat)
            if moves is None:
                moves = self._moves[seat] = self._moves_of(node, self._seats.things[seat])
            for move in moves:
                event, price, shift, after, posts, disk_changes, facts, breach = move
                if shift >= 0 and not state >> shift & BOUND_MAX:
                    continue
                if breach:
                    yield Successor(node, event, state, breach)
                    continue
                now = seats.copy()
                now[node] = after
                if posts:
                    self._post(now, posts)
                new = rest - price
                later = past
                if facts >= 0:
                    later, breach = self._past_then(past, facts)
                    new += (later - past) << self._past_shift
                if disk_changes or later != past:
                    breach = breach or self._disks_breach(now, later)
                for place, number in enumerate(now):
                    new += number << SEAT_BITS * place
                yield Successor(node, event, new, breach)

    # --- numbers ----------------------------------------------------------------------------------

    def _pack(self, seats: Sequence[int], past: int, bounds: Bounds) -> int:
        if any(not 0 <= bound <= BOUND_MAX for bound in bounds):
            raise ConfigError(f"each of {bounds} must be from 0 to {BOUND_MAX}")
        state = past << self._past_shift | bounds.packed << self._bounds_shift
        return state + sum(seat << SEAT_BITS * place for place, seat in enumerate(seats))

    def _unpack(self, state: int) -> list[int]:
        return [state >> SEAT_BITS * place & SEAT_MASK for place in range(len(self.names))]

    def _member(self, step: Step) -> int:
        number = self._members.number(step.member)
        if number == len(self._facts_of):
            self._facts_of.append(self._facts.number(step.facts))
            self._disk_of.append(self._disks.number(step.member.disk))
        return number

    # --- one seat ---------------------------------------------------------------------------------

    def _moves_of(self, node: int, seat: Seat) -> list[Move]:
        """Everything that can happen at a seat and changes its member."""
        member = seat.member
        events = [self.events.number(event) for event in self._chances(node, seat)]
        moves: list[Move] = []
        for event in events:
            reaction = self._reaction(node, member, event)
            if reaction is None or (reaction.member == member and not reaction.breach):
                continue
            after = reaction.member
            bound = SHIFT.get(self.events.things[event].act, -1)
            shift = -1 if bound < 0 else bound + self._bounds_shift
            posts = reaction.posts + self._answers(node, after, seat.mail)
            shows = self._facts_of[after]
            moves.append(
                Move(
                    event,
                    0 if shift < 0 else 1 << shift,
                    shift,
                    self._seats.number(Seat(after, seat.mail)),
                    tuple(dict.fromkeys(posts)),
                    self._disk_of[after] != self._disk_of[member],
                    -1 if shows == self._facts_of[member] else shows,
                    reaction.breach,
                )
            )
        return moves

    def _chances(self, node: int, seat: Seat) -> Iterator[Event]:
        for packet in seat.mail:
            yield Event(Act.DELIVER, self._packets.things[packet])
        name = self.names[node]
        for act in (Act.PERSIST, Act.PROPOSE, Act.TIME_OUT, Act.BEAT, Act.LAPSE, Act.CRASH):
            if name in self._only.get(act, self.names):
                yield Event(act)
        if name in self._only.get(Act.LOSE, self.names):
            yield from [Event(Act.LOSE, peer=peer) for peer in self.names if peer != name]

    def _answers(self, node: int, member: int, mail: tuple[int, ...]) -> Posts:
        """What a member answers to its mail without being changed by it."""
        posts: Posts = ()
        for packet in mail:
            event = self.events.number(Event(Act.DELIVER, self._packets.things[packet]))
            reaction = self._reaction(node, member, event)
            if reaction is not None and reaction.member == member:
                posts += reaction.posts
        return posts

    def _reaction(self, node: int, member: int, event: int) -> Reaction | None:
        key = member, event
        if key not in self._reactions:
            self._reactions[key] = self._react(node, member, event)
        return self._reactions[key]

    def _react(self, node: int, member: int, event: int) -> Reaction | None:
        thing = self.events.things[event]
        try:
            step = self.stage.step(self.names[node], self._members.things[member], thing)
        except Exception as error:  # noqa: BLE001 - whatever a core raises, it must not
            return Reaction(member, (), f"{type(error).__name__}: {error}")
        if step is None:
            return None
        posts = [
            (self._places[packet.target], self._packets.number(packet))
            for packet in step.packets
            if {packet.source, packet.target} not in self._cut
        ]
        return Reaction(self._member(step), tuple(posts))

    # --- all of them ------------------------------------------------------------------------------

    def _post(self, seats: list[int], posts: Posts) -> None:
        """Put packets into the mail, and the answers to them that change nobody, and so on."""
        waiting = list(posts)
        for place, packet in waiting:
            key = seats[place], packet
            found = self._posted.get(key)
            if found is None:
                found = self._posted[key] = self._posted_to(place, *key)
            seats[place] = found[0]
            waiting += found[1]

    def _posted_to(self, node: int, number: int, packet: int) -> tuple[int, Posts]:
        seat = self._seats.things[number]
        if packet in seat.mail:
            return number, ()
        mail = tuple(sorted((*seat.mail, packet)))
        answers = self._answers(node, seat.member, (packet,))
        return self._seats.number(Seat(seat.member, mail)), answers

    def _past_then(self, past: int, facts: int) -> tuple[int, str]:
        key = past, facts
        found = self._then.get(key)
        if found is None:
            try:
                later = self._pasts.things[past].then(
                    self._facts.things[facts], by_number=self.stage.by_number
                )
                found = self._pasts.number(later), ""
            except Violation as violation:
                found = past, str(violation)
            self._then[key] = found
        return found

    def _disks_breach(self, seats: Sequence[int], past: int) -> str:
        things, disk_of = self._seats.things, self._disk_of
        disks = [disk_of[things[seat].member] for seat in seats]
        key = (past, *disks)
        if key not in self._sound:
            images = [self._disks.things[disk] for disk in disks]
            try:
                self._pasts.things[past].check_disks(
                    dict(zip(self.names, images, strict=True)), self.stage.membership.quorums
                )
            except Violation as violation:
                return str(violation)
            self._sound.add(key)
        return ""
