"""Who a peer is: each node id is bound to the store id it first showed.

Rules of this file:

1. A store that is fresh takes no part (no vote, promise, acknowledgement or campaign) until a
   majority of the other bootstrap members have durably bound its store id. So a wiped disk
   can never vote twice: the members that bound the old store id refuse the new one.
2. A frame of another store id, or of an earlier life, is dropped and answered with `Refused`.
3. A node that is refused by its own store id and life stops.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replog.errors import IdentityRefused
from replog.messages import Meet, Met, Refused
from replog.quorum import majority
from replog.store.interface import Identity, Peer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MEET_INTERVAL_MS = 50


class Introduction:
    """The identities this node has bound, and its own introduction to the others."""

    def __init__(
        self, identity: Identity, others: Sequence[str], peers: Mapping[str, Peer], *, done: bool
    ) -> None:
        self._identity = identity
        self._others = others
        self._peers = dict(peers)
        self._changed: dict[str, Peer] = {}
        self._met: set[str] = set()
        self.done = done or not others
        self.newly_done = self.done and not done
        self.deadline: int | None = None if self.done else 0

    def admit(self, sender: str, store_id: bytes, life: int) -> Refused | None:
        """Check a frame's identity, binding it at first sight; the refusal to send, if any."""
        bound = self._peers.get(sender)
        if bound is not None and bound.store_id == store_id and bound.life == life:
            return None
        if bound is not None and bound.store_id != store_id:
            return Refused(
                store_id,
                life,
                f"{sender} shows store {store_id.hex()}, but {self._identity.node} remembers it by "
                f"store {bound.store_id.hex()}: {sender} lost its data or runs in a wrong place",
            )
        if bound is not None and bound.life > life:
            return Refused(
                store_id,
                life,
                f"{sender} runs its life {life}, but {self._identity.node} has heard its life "
                f"{bound.life}: a later process runs on a copy of its directory",
            )
        self._peers[sender] = self._changed[sender] = Peer(store_id, life)
        return None

    @property
    def has_changes(self) -> bool:
        """Whether a binding waits to be written."""
        return bool(self._changed)

    def take_changes(self) -> dict[str, Peer] | None:
        """Bindings to be written since the last call."""
        if not self._changed:
            return None
        changed, self._changed = self._changed, {}
        return changed

    def meetings(self, now: int) -> list[tuple[str, Meet]]:
        """Introductions to send now."""
        if self.done or (self.deadline is not None and now < self.deadline):
            return []
        self.deadline = now + MEET_INTERVAL_MS
        waiting = [other for other in self._others if other not in self._met]
        return [(other, Meet(self._identity.store_id)) for other in waiting]

    def met(self, sender: str, message: Met) -> None:
        """A member has bound this store id (or an earlier one: then it says nothing)."""
        if self.done or message.store_id != self._identity.store_id:
            return
        self._met.add(sender)
        if len(self._met) >= majority(len(self._others)):
            self.done = self.newly_done = True
            self.deadline = None

    def take_newly_done(self) -> bool:
        """Whether the introduction ended since the last call: to be written."""
        newly_done, self.newly_done = self.newly_done, False
        return newly_done

    def refused(self, sender: str, message: Refused) -> None:
        """A member refuses this node. Raises `IdentityRefused` unless it means another life."""
        if (message.store_id, message.life) == (self._identity.store_id, self._identity.life):
            raise IdentityRefused(
                f"{sender} refuses this node: {message.reason}. If the data is lost for good, the "
                f"node must come back under a new node id; if the directory was merely misplaced, "
                f"open the right one"
            )
