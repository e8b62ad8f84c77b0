"""The transport of real clusters: ZeroMQ over TCP.

One ROUTER is bound for what comes in. Two DEALERs per peer connect for what goes out, *control* and
*bulk*, so that a large entry never holds back a heartbeat; nothing is ever received on them.

1. Only the owner's thread touches sockets; `wake` touches a pipe.
2. Who sent a message is what its frame header says: a routing id only names a connection.
3. The work of one `receive` is bounded, also against a message of endless parts.
4. A stranger can cost this node time and memory within the limits below, and nothing else.

ZeroMQ bounds messages, not bytes: the byte budget of a peer is kept by who sends to it.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Mapping, Sequence
from threading import get_ident
from types import MappingProxyType
from typing import Any, Final

import zmq

from transport import link
from transport.address import Address, check_bind, check_peer, resolve_bind
from transport.frames import (
    ENTRY_PARTS_MAX,
    HEADER_BYTES_MAX,
    MESSAGE_PARTS_MAX,
    PART_BYTES_MAX,
    FrameGate,
    FrameHeader,
    check_message,
    check_node,
    new_drops,
)
from transport.interface import RECEIVE_MESSAGES_MAX, AddressInUse, BadAddress, Received
from transport.owner import Owner
from transport.wakeup import WAIT_TIMEOUT_MS_MAX, Wakeup

__all__ = ["LIBZMQ_VERSION_MIN", "ZeroMQTransport", "require_libzmq"]

LIBZMQ_VERSION_MIN: Final = (4, 3, 5)
"""Older ones have holes that strangers can reach (CVE-2019-13132, CVE-2020-15166)."""
CLOSE_TIMEOUT_MS: Final = 800
KEEPALIVE_SECONDS: Final = 10

_RECEIVE: Final = int(zmq.DONTWAIT)
_ROUTER: Final[link.Options] = {
    **link.COMMON,
    zmq.RCVHWM: link.QUEUE_MESSAGES_MAX,
    zmq.MAXMSGSIZE: PART_BYTES_MAX,
    # No heartbeats from this end: libzmq (4.3.5) ends the process when one is due on a connection
    # that broke while its messages waited to be received. A peer's heartbeats come with a time to
    # live; a connection on which the last of them was lost is left to the system.
    zmq.TCP_KEEPALIVE: 1,
    zmq.TCP_KEEPALIVE_IDLE: KEEPALIVE_SECONDS,
    zmq.TCP_KEEPALIVE_INTVL: KEEPALIVE_SECONDS,
    zmq.TCP_KEEPALIVE_CNT: 3,
}


def require_libzmq(version: tuple[int, int, int]) -> None:
    """Raise ImportError for a libzmq that is not safe to listen with."""
    if version < LIBZMQ_VERSION_MIN:
        found, needed = (".".join(map(str, v)) for v in (version, LIBZMQ_VERSION_MIN))
        raise ImportError(f"libzmq {found} is too old, {needed} is needed: upgrade pyzmq")


require_libzmq(zmq.zmq_version_info())


class ZeroMQTransport:
    """A `transport.interface.Transport` over TCP."""

    def __init__(
        self,
        *,
        node: str,
        address: str,
        peers: Mapping[str, str],
        header: FrameHeader,
        plaintext: bool = False,
    ) -> None:
        """Bind `address` and begin to connect to `peers`, a mapping of node ids to addresses.

        `header` goes out with every message; its sender is `node`. Port 0 lets the system choose.

        Raises AddressInUse, BadAddress, InsecureAddress when other machines can reach `address` and
        `plaintext` is not True, FrameError for a bad header, ValueError for a bad node id.
        """
        check_node(node)
        if header.sender != node:
            raise ValueError(f"the frame header's sender is {header.sender!r}, not {node!r}")
        bound = check_bind(address, plaintext=plaintext)
        self._node = node
        self._frame = header.encode()
        self._drops = new_drops()
        self._gate = FrameGate(header, self._drops)
        self._control: dict[str, link.Link] = {}
        self._bulk: dict[str, link.Link] = {}
        self._skipping = False
        self._owner = Owner()
        self._wakeup = Wakeup()
        self._context = zmq.Context(1)
        try:
            self._router = link.open_socket(self._context, zmq.ROUTER, _ROUTER, bound)
            self._bind(bound)
            for peer, peer_address in peers.items():
                self.set_peer(peer, peer_address)
        except BaseException:
            self.close()
            raise
        # Plain integers, and no `zmq.Poller`: its enumerations cost more than the poll.
        self._polled: list[Any] = [
            (self._router, int(zmq.POLLIN)),
            (self._wakeup.fd, int(zmq.POLLIN)),
        ]
        self._readable = True
        """Whether the last `wait` found anything to receive."""

    @property
    def address(self) -> str:
        """The address that is bound, with its port."""
        return self._address

    @property
    def drops(self) -> Mapping[str, int]:
        """See `Transport.drops`.

        A part beyond PART_BYTES_MAX is not among them: libzmq ends the connection that brings one.
        """
        return MappingProxyType(self._drops)

    def send(self, to: str, header: bytes, parts: Sequence[bytes], *, bulk: bool) -> bool:
        """See `Transport.send`."""
        if get_ident() != self._owner.ident:
            self._owner.permit()
        check_message(header, parts)
        channel = (self._bulk if bulk else self._control).get(to)
        if channel is None:
            self._drops["unknown_peer"] += 1
            return False
        if not channel.send(self._frame, header, parts):
            self._drops["refused"] += 1
            return False
        return True

    def receive(self) -> list[Received]:
        """See `Transport.receive`."""
        if get_ident() != self._owner.ident:
            self._owner.claim()
        received: list[Received] = []
        if not self._readable:
            return received
        if self._skipping and not self._skip_rest():
            return received
        receive = self._router.recv
        try:
            for _ in range(RECEIVE_MESSAGES_MAX):
                receive(_RECEIVE)  # the routing id
                message = self._read_message()
                if message is not None:
                    received.append(message)
                elif self._skipping:
                    break
        except zmq.Again:
            pass
        return received

    def wait(self, timeout_ms: int | None) -> None:
        """See `Transport.wait`."""
        if get_ident() != self._owner.ident:
            self._owner.claim()
        timeout = -1 if timeout_ms is None else min(max(timeout_ms, 0), WAIT_TIMEOUT_MS_MAX)
        self._readable = False
        for source, _ in zmq.zmq_poll(self._polled, timeout):
            if source is self._router:
                self._readable = True
            else:
                self._wakeup.clear()

    def wake(self) -> None:
        """See `Transport.wake`."""
        if not self._owner.forked:
            self._wakeup.set()

    def set_peer(self, node: str, address: str) -> None:
        """See `Transport.set_peer`."""
        self._owner.permit()
        check_node(node)
        parsed = check_peer(address)
        if node == self._node:
            return
        self._gate.allow(node)
        if node in self._control and self._control[node].address == parsed:
            return
        self._disconnect(node)
        self._control[node] = link.Link(self._context, parsed, link.CONTROL)
        self._bulk[node] = link.Link(self._context, parsed, link.BULK)

    def remove_peer(self, node: str) -> None:
        """See `Transport.remove_peer`."""
        self._owner.permit()
        self._gate.disallow(node)
        self._disconnect(node)

    def close(self) -> None:
        """See `Transport.close`. Does nothing in a forked child: the sockets are its parent's."""
        if self._owner.closed or self._owner.forked:
            return
        self._owner.close()
        self._wakeup.close()
        # Looking up a peer's host name may hold up libzmq's own thread, and nothing interrupts it:
        # another thread waits for its end, and this one waits a limited time.
        ending = threading.Thread(target=self._context.destroy, name="transport-end", daemon=True)
        ending.start()
        ending.join(CLOSE_TIMEOUT_MS / 1000)

    def _read_message(self) -> Received | None:
        # Past its routing id a message has all its parts: none of these calls can find nothing.
        receive = self._router.recv
        frame = receive(_RECEIVE, copy=False)
        peer = self._gate.admitted.get(frame.bytes) or self._gate.admit(frame.bytes)
        if peer is None:
            self._skip(frame)
            return None
        if not frame.more:
            self._drops["malformed"] += 1
            return None
        message = receive(_RECEIVE, copy=False)
        if len(message) > HEADER_BYTES_MAX:
            self._drops["oversize"] += 1
            self._skip(message)
            return None
        parts: list[bytes] = []
        last = message
        while last.more:
            last = receive(_RECEIVE, copy=False)
            if len(parts) == ENTRY_PARTS_MAX:
                self._drops["parts"] += 1
                self._skip(last)
                return None
            parts.append(last.bytes)
        return Received(peer.sender, peer.store_id, peer.life, message.bytes, parts)

    def _skip(self, part: zmq.Frame) -> None:
        """Read past what follows this part of a refused message."""
        self._skipping = bool(part.more)
        self._skip_rest()

    def _skip_rest(self) -> bool:
        """Read past the rest of a refused message. False if some of it is left for another turn."""
        for _ in range(MESSAGE_PARTS_MAX):
            if not self._skipping:
                break
            self._skipping = bool(self._router.recv(_RECEIVE, copy=False).more)
        return not self._skipping

    def _bind(self, address: Address) -> None:
        try:
            self._router.bind(str(resolve_bind(address)))
        except zmq.ZMQError as error:
            if error.errno == errno.EADDRINUSE:
                raise AddressInUse(
                    f"{address} is taken: stop the process that listens there, or use another port"
                ) from error
            raise BadAddress(
                f"{address} cannot be bound ({error.strerror}): use an address of this machine"
            ) from error
        self._address = self._router.get_string(zmq.LAST_ENDPOINT).rstrip("\0")

    def _disconnect(self, node: str) -> None:
        for links in (self._control, self._bulk):
            gone = links.pop(node, None)
            if gone is not None:
                gone.close()
