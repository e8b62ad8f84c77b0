"""What a transport owes its owner.

1. One thread, the owner, calls everything but `wake`. Whoever calls `receive` or `wait` first
   becomes the owner.
2. Nothing but `wait` blocks, and no peer's fault raises: it is dropped and counted by cause.
3. Loss, duplication and reordering are allowed, but a message arrives whole or not at all.
4. A wake-up is never lost: `wake`, called at any time, ends the current `wait` or the next one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol

__all__ = [
    "DROP_CAUSES",
    "RECEIVE_MESSAGES_MAX",
    "AddressInUse",
    "BadAddress",
    "InsecureAddress",
    "Received",
    "Transport",
    "TransportError",
]

RECEIVE_MESSAGES_MAX: Final = 256
"""Messages that one `receive` reads at most, the dropped ones included."""

DROP_CAUSES: Final = (
    "refused",  # sending: no connection to the peer, or its queue is full
    "unknown_peer",  # sending: no such peer
    "malformed",  # receiving: the frame header does not decode, or no message header follows
    "version",  # receiving: another frame version
    "agreement",  # receiving: another agreement layer
    "cluster",  # receiving: another cluster
    "sender",  # receiving: from a node that is no peer, or in this node's own name
    "parts",  # receiving: more entry parts than a message may have
    "oversize",  # receiving: a message header beyond its limit
)
"""Every cause under which `Transport.drops` counts."""


class TransportError(Exception):
    """A transport was misused or could not be set up. The message says what to do about it."""


class BadAddress(TransportError):
    """An address that cannot be parsed, bound or connected to."""


class AddressInUse(TransportError):
    """The address to bind is taken."""


class InsecureAddress(TransportError):
    """Other machines can reach the address to bind, and `plaintext=True` was not said."""


class Received(NamedTuple):
    """A message that passed the gate: a peer of this cluster sent it; its content is unchecked."""

    sender: str
    """The peer's node id."""
    store_id: bytes
    """The id of the peer's store, 16 bytes."""
    life: int
    """The peer's life. Lives of one node are ordered."""
    header: bytes
    """The message header, opaque, at most `frames.HEADER_BYTES_MAX` bytes."""
    parts: list[bytes]
    """Opaque, at most `frames.ENTRY_PARTS_MAX` of at most `frames.PART_BYTES_MAX` bytes."""


class Transport(Protocol):
    """Carries messages between a node and its peers, over two channels per peer."""

    @property
    def drops(self) -> Mapping[str, int]:
        """Messages dropped so far, by cause: a live view. Its keys are always `DROP_CAUSES`."""
        ...

    def send(self, to: str, header: bytes, parts: Sequence[bytes], *, bulk: bool) -> bool:
        """Offer one message to a peer, on its bulk or its control channel. Never blocks.

        True means that it is on its way, and may still be lost. False means that it was refused and
        counted: the peer is unknown, not connected, or its queue is full. A channel keeps the order
        of what it carries; the two are not ordered against each other.

        Raises ValueError for a message beyond the limits of `frames`, TransportError on a thread
        that is not the owner and after `close`.
        """
        ...

    def receive(self) -> list[Received]:
        """Return what has arrived, at most RECEIVE_MESSAGES_MAX messages. Never blocks.

        An empty list does not say that nothing is left (all that was read may have been dropped);
        `wait` knows. Raises TransportError as `send`.
        """
        ...

    def wait(self, timeout_ms: int | None) -> None:
        """Block until something has arrived, `wake` was called, or the time is over.

        None waits for ever; 0 or less does not block. Consumes the wake-ups that came before it
        returns. Raises TransportError as `send`.
        """
        ...

    def wake(self) -> None:
        """End the current `wait`, or the next one. Any thread, any time; after `close`, nothing."""
        ...

    def set_peer(self, node: str, address: str) -> None:
        """Send to this node and receive from it. A changed address ends the old connections.

        A node is never its own peer: naming it has no effect. Raises BadAddress, ValueError for a
        bad node id, TransportError as `send`.
        """
        ...

    def remove_peer(self, node: str) -> None:
        """Neither send to this node nor receive from it. Unknown nodes are ignored."""
        ...

    def close(self) -> None:
        """Free everything in less than a second, dropping what is queued. Idempotent.

        The owner calls it, or any thread once the owner's thread has ended.
        """
        ...
