"""Giving a snapshot: offered to a node that lacks what is dropped here, and pulled by it.

Rules of this file:

1. A snapshot is offered once it is whole and on the disk, and never before.
2. Whoever takes a snapshot pulls it, part by part: a sender remembers nothing of it but a pin,
   which lapses by itself.
3. What lies above a pinned snapshot is not compacted, for whoever took it needs that next.
4. An offer is made when the core asks for one, and never else. A follower in Raft tells its leader
   that it has what was installed; that is true of this term's leader only because the offer
   answered a refusal in this term (figure 8: an older leader may lack what is committed since).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from replog.messages import FetchPiece, OfferSnapshot, SnapshotPart
from replog.replica.effects import LoadPart
from replog.snapshot import encode_snapshot
from replog.store.interface import StoredSnapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from replog.agreement import Message
    from replog.replica.effects import PartOfPiece
    from replog.replica.loads import Loads
    from replog.replica.snapshots import Snapshots

    Post = Callable[[str, Message, Sequence[bytes]], None]

PIN_MS = 10_000
"""A snapshot that nobody asks for a part of for so long is let go."""
TAKING_MS_MAX = 1000
"""Who asks for no part for so long has what it wanted, or has given up."""
PINS_MS_MAX = 3_600_000
"""And however often somebody asks: an hour after it was first offered to that node."""


class _Pin(NamedTuple):
    """Somebody takes a snapshot."""

    stored: StoredSnapshot
    first_offered: int
    until: int


class Giving:
    """Whoever takes a snapshot of this node."""

    def __init__(
        self, snapshots: Snapshots, loads: Loads, *, part_bytes_max: int, post: Post
    ) -> None:
        self._snapshots = snapshots
        self._loads = loads
        self._part_bytes_max = part_bytes_max
        self._post = post
        self._pins: dict[str, _Pin] = {}
        """By node."""

    @property
    def pinned_index(self) -> int | None:
        """Entries above this one are needed behind a snapshot that somebody takes."""
        return min([pin.stored.snapshot.index for pin in self._pins.values()], default=None)

    def offer(self, now: int, peer: str) -> None:
        """A node that lacks what is compacted here: name what it can have instead, and go on
        naming that while it is taking it."""
        stored = self._snapshots.durable_newest
        if stored is None:
            return
        pin = self._pins.get(peer)
        if pin is not None and now < pin.until - PIN_MS + TAKING_MS_MAX:
            stored = pin.stored
        elif pin is None or pin.stored is not stored:
            self._pins[peer] = _Pin(stored, now, now + PIN_MS)
        header = encode_snapshot(stored.snapshot)
        self._post(peer, OfferSnapshot(stored.snapshot_id), [header])

    def fetched(self, now: int, sender: str, fetch: FetchPiece) -> None:
        """Somebody wants a part. Of what is not offered (any more) nothing is said, not even by a
        new offer: see rule 4."""
        pin = self._pins.get(sender)
        if pin is None or pin.stored.snapshot_id != fetch.snapshot_id:
            return
        self._pins[sender] = pin._replace(until=now + PIN_MS)
        load = LoadPart(*fetch, self._part_bytes_max)
        self._loads.ask(load, lambda _, part: self._give(sender, fetch, part))

    def _give(self, to: str, fetch: FetchPiece, part: PartOfPiece | None) -> None:
        if part is not None:
            message = SnapshotPart(*fetch, part.piece_size, part.piece_crc)
            self._post(to, message, [part.data])

    @property
    def deadline(self) -> int | None:
        """When `let_go` is due."""
        return min([pin.until for pin in self._pins.values()]) if self._pins else None

    def let_go(self, now: int) -> None:
        """Forget the pins that have lapsed, and drop the snapshots that nobody needs by that."""
        for peer, pin in list(self._pins.items()):
            if now >= min(pin.until, pin.first_offered + PINS_MS_MAX):
                del self._pins[peer]
        self._snapshots.let_go({pin.stored.snapshot_id for pin in self._pins.values()})
