"""The simulated network: frames between nodes, and everything that may happen to them.

Rules of this file:

1. A channel (from, to, bulk or control) keeps its order, but for frames that the weather lets
   overtake, and those under way when their link is cut: held back, they come after later ones.
2. A frame belongs to the life that sent it and reaches whichever life runs when it arrives.
3. At most `HIGH_WATER_MARK` frames of a channel are under way, and a cut link holds back at most
   as many; more are lost.
"""

from __future__ import annotations

from collections import Counter, deque
from itertools import permutations
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from replog.testing.world import World

    Link = tuple[str, str]

HIGH_WATER_MARK = 256


class Frame(NamedTuple):
    """One message on its way, with the identity in its frame header."""

    number: int
    sender: str
    store_id: bytes
    life: int
    to: str
    header: bytes
    parts: Sequence[bytes]
    bulk: bool


def links_but(nodes: Sequence[str], stays: Callable[[int, int], bool]) -> list[Link]:
    """All links between these, each in its one direction, but those that stay from one place in the
    sequence to another."""
    return [
        (nodes[one], nodes[other])
        for one, other in permutations(range(len(nodes)), 2)
        if not stays(one, other)
    ]


class Network:
    """Links between nodes."""

    def __init__(self, world: World, arrive: Callable[[Frame], None]) -> None:
        """`arrive` takes each frame that gets through."""
        self._world = world
        self._arrive = arrive
        self._cut: Counter[Link] = Counter()
        """How many partitions cut each link."""
        self._held: dict[Link, deque[Frame]] = {}
        self._slowness_ms: dict[Link, int] = {}
        """By how much longer a frame takes on each link; drawn when the first one is sent."""
        self._latest: dict[tuple[str, str, bool], int] = {}
        """When the latest frame of a channel arrives."""
        self._under_way: Counter[tuple[str, str, bool]] = Counter()
        self.frames = 0

    def cut(self, links: Iterable[Link]) -> None:
        """Let nothing through these links, each in its one direction."""
        self._cut.update(links)

    def heal(self, links: Iterable[Link]) -> None:
        """End one `cut` of these links."""
        for link in links:
            self._cut[link] -= 1
            if not self._cut[link]:
                for frame in self._held.pop(link, ()):
                    self._launch(frame)

    def send(self, frame: Frame) -> bool:
        """Put a frame on its way; False when the transport refuses it. Silence tells nothing."""
        world = self._world
        self.frames += 1
        crc = 0
        for part in frame.parts:
            crc = crc32(part, crc)
        if frame.bulk and world.chance(world.weather.refusal):
            world.tally["refusals"] += 1
            world.trace.record(frame.sender, "refuse", frame.number, frame.to, frame.header, crc)
            return False
        world.trace.record(frame.sender, "send", frame.number, frame.to, frame.header, crc)
        if not self._stopped_by_cut(frame):
            self._launch(frame)
            if world.chance(world.weather.duplication):
                world.tally["duplicates"] += 1
                world.trace.record(frame.sender, "duplicate", frame.number)
                self._launch(frame)
        return True

    def _stopped_by_cut(self, frame: Frame) -> bool:
        link = frame.sender, frame.to
        if not self._cut[link]:
            return False
        held = self._held.setdefault(link, deque())
        if self._world.weather.holds and len(held) < HIGH_WATER_MARK:
            held.append(frame)
            self._world.tally["frames held back"] += 1
            self._world.trace.record(frame.sender, "hold", frame.number)
        else:
            self._drop(frame, "cut link")
        return True

    def _launch(self, frame: Frame) -> None:
        world, weather = self._world, self._world.weather
        channel = frame.sender, frame.to, frame.bulk
        if world.chance(weather.loss):
            self._drop(frame, "loss")
            return
        if self._under_way[channel] >= HIGH_WATER_MARK:
            self._drop(frame, "high-water mark")
            return
        time = world.schedule.now + world.below(weather.delay_ms_max + 1)
        if weather.slow_link:
            time += self._extra_ms(frame.sender, frame.to)
        if world.chance(weather.long_delay):
            world.tally["long delays"] += 1
            time += world.below(weather.long_delay_ms_max)
        latest = self._latest.get(channel, 0)
        if time < latest and world.chance(weather.reordering):
            world.tally["reordered"] += 1
        else:
            time = self._latest[channel] = max(time, latest)
        self._under_way[channel] += 1
        world.schedule.at(time, self._land, channel, frame)

    def _extra_ms(self, sender: str, to: str) -> int:
        """By how much longer a frame takes on this link than on others."""
        link, world = (sender, to), self._world
        if link not in self._slowness_ms:
            is_slow = world.chance(world.weather.slow_link)
            most_ms = world.weather.slow_link_ms_max if is_slow else 0
            self._slowness_ms[link] = most_ms - world.below(most_ms >> 1)
        return self._slowness_ms[link]

    def _land(self, channel: tuple[str, str, bool], frame: Frame) -> None:
        self._under_way[channel] -= 1
        if not self._stopped_by_cut(frame):
            self._arrive(frame)

    def _drop(self, frame: Frame, cause: str) -> None:
        self._world.tally["drops"] += 1
        self._world.trace.record(frame.sender, "drop", frame.number, cause)
