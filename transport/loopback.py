"""The transport contract inside one process, with faults on demand.

1. Between nodes passes what `transport.zeromq` would put on the wire, through the same gate.
2. A node's inbox holds INBOX_MESSAGES_MAX messages; a full one refuses.
3. A cut or a loss is silent, as in a network: the sender is told True.
"""

from __future__ import annotations

import select
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import Final

from transport.address import check_peer
from transport.frames import FrameGate, FrameHeader, check_message, check_node, new_drops
from transport.interface import RECEIVE_MESSAGES_MAX, AddressInUse, Received
from transport.owner import Owner
from transport.wakeup import WAIT_TIMEOUT_MS_MAX, Wakeup

__all__ = ["LoopbackNetwork", "LoopbackTransport"]

INBOX_MESSAGES_MAX: Final = 4096

_Message = tuple[bytes, bytes, list[bytes]]
_Carry = Callable[[str, _Message], bool]


class LoopbackNetwork:
    """Nodes of one process that reach each other by node id. Any thread may use it."""

    def __init__(self, *, loss: float = 0.0, random: Random | None = None) -> None:
        """Lose each message with probability `loss`, drawn from `random`, by default seeded with 0.

        Raises ValueError unless `loss` is from 0 to 1.
        """
        if not 0.0 <= loss <= 1.0:
            raise ValueError(f"loss is a probability, not {loss}")
        self._lock = threading.Lock()
        self._loss = loss
        self._random = Random(0) if random is None else random
        self._inboxes: dict[str, _Inbox] = {}
        self._cuts: set[tuple[str, str]] = set()
        self._lost_count = 0

    @property
    def lost_count(self) -> int:
        """Messages swallowed so far by losses and cuts."""
        return self._lost_count

    def attach(
        self, node: str, header: FrameHeader, peers: Iterable[str] = ()
    ) -> LoopbackTransport:
        """Return the transport of `node`, whose peers are `peers` and those that `set_peer` adds.

        `header` goes out with every message; its sender is `node`. A node may attach again once its
        transport is closed.

        Raises AddressInUse before that, FrameError for a bad header, ValueError for a bad node id.
        """
        inbox = _Inbox()

        def carry(to: str, message: _Message) -> bool:
            return self._carry(node, to, message)

        def detach() -> None:
            with self._lock:
                del self._inboxes[node]

        transport = LoopbackTransport(node, header, peers, inbox=inbox, carry=carry, detach=detach)
        with self._lock:
            if node in self._inboxes:
                raise AddressInUse(f"{node} is attached: close its transport first")
            self._inboxes[node] = inbox
        return transport

    def cut(self, sender: str, receiver: str) -> None:
        """Lose, until `heal`, what `sender` sends to `receiver`; not what comes the other way."""
        with self._lock:
            self._cuts.add((sender, receiver))

    def heal(self) -> None:
        """End every cut."""
        with self._lock:
            self._cuts.clear()

    def _carry(self, sender: str, receiver: str, message: _Message) -> bool:
        with self._lock:
            inbox = self._inboxes.get(receiver)
            if inbox is None:
                return False
            cut = (sender, receiver) in self._cuts
            if cut or (self._loss > 0.0 and self._random.random() < self._loss):
                self._lost_count += 1
                return True
        return inbox.put(message)


class LoopbackTransport:
    """A `transport.interface.Transport` inside one process. `LoopbackNetwork.attach` makes one."""

    def __init__(
        self,
        node: str,
        header: FrameHeader,
        peers: Iterable[str],
        *,
        inbox: _Inbox,
        carry: _Carry,
        detach: Callable[[], None],
    ) -> None:
        check_node(node)
        if header.sender != node:
            raise ValueError(f"the frame header's sender is {header.sender!r}, not {node!r}")
        self._node = node
        self._frame = header.encode()
        self._drops = new_drops()
        self._gate = FrameGate(header, self._drops)
        self._owner = Owner()
        self._peers: set[str] = set()
        self._inbox = inbox
        self._carry = carry
        self._detach = detach
        for peer in peers:
            self._add_peer(peer)

    @property
    def drops(self) -> Mapping[str, int]:
        """See `Transport.drops`."""
        return MappingProxyType(self._drops)

    def send(self, to: str, header: bytes, parts: Sequence[bytes], *, bulk: bool) -> bool:
        """See `Transport.send`. Both channels are one here."""
        self._owner.permit()
        check_message(header, parts)
        if to not in self._peers:
            self._drops["unknown_peer"] += 1
            return False
        if not self._carry(to, (self._frame, header, list(parts))):
            self._drops["refused"] += 1
            return False
        return True

    def receive(self) -> list[Received]:
        """See `Transport.receive`."""
        self._owner.claim()
        received: list[Received] = []
        for frame, header, parts in self._inbox.take(RECEIVE_MESSAGES_MAX):
            peer = self._gate.admitted.get(frame) or self._gate.admit(frame)
            if peer is not None:
                received.append(Received(peer.sender, peer.store_id, peer.life, header, parts))
        return received

    def wait(self, timeout_ms: int | None) -> None:
        """See `Transport.wait`."""
        self._owner.claim()
        waited = None if timeout_ms is None else min(max(timeout_ms, 0), WAIT_TIMEOUT_MS_MAX)
        self._inbox.wait(waited)

    def wake(self) -> None:
        """See `Transport.wake`."""
        if not self._owner.forked:
            self._inbox.wake()

    def set_peer(self, node: str, address: str) -> None:
        """See `Transport.set_peer`. The address is checked, not used."""
        self._owner.permit()
        check_peer(address)
        self._add_peer(node)

    def remove_peer(self, node: str) -> None:
        """See `Transport.remove_peer`."""
        self._owner.permit()
        self._gate.disallow(node)
        self._peers.discard(node)

    def close(self) -> None:
        """See `Transport.close`."""
        if self._owner.closed or self._owner.forked:
            return
        self._owner.close()
        self._detach()
        self._inbox.close()

    def _add_peer(self, node: str) -> None:
        check_node(node)
        if node != self._node:
            self._peers.add(node)
            self._gate.allow(node)


class _Inbox:
    """What has arrived for one node, and its wake-up."""

    def __init__(self) -> None:
        self._messages: deque[_Message] = deque()
        self._lock = threading.Lock()
        self._closed = False
        self._wakeup = Wakeup()
        self._poll = select.poll()
        self._poll.register(self._wakeup.fd, select.POLLIN)

    def put(self, message: _Message) -> bool:
        with self._lock:
            if self._closed or len(self._messages) >= INBOX_MESSAGES_MAX:
                return False
            self._messages.append(message)
        self._wakeup.set()
        return True

    def take(self, count_max: int) -> list[_Message]:
        with self._lock:
            count = min(len(self._messages), count_max)
            return [self._messages.popleft() for _ in range(count)]

    def wait(self, timeout_ms: int | None) -> None:
        if self._poll.poll(0 if self._messages else timeout_ms):
            self._wakeup.clear()

    def wake(self) -> None:
        self._wakeup.set()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._messages.clear()
        self._wakeup.close()
