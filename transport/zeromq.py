"""The transport of real clusters: ZeroMQ over TCP.

One ROUTER is bound for what comes in. Two DEALERs per peer connect for what goes out, *control* and
*bulk*, so that a large entry never holds back a heartbeat; nothing is ever received on them.

1. Sockets are touched by the owner's thread only; `wake` touches a pipe.
2. Who sent a message is what its frame header says: a routing id only names a connection.
3. Messages queue only for a peer that is connected (IMMEDIATE), at most QUEUE_MESSAGES_MAX of them,
   and die with the connection: no burst of stale traffic after a partition.
4. A message is whole or absent. What breaks off in the middle is never continued by the next one.
5. The work of one `receive` is bounded, also against a message of endless parts.

The byte budget of a peer is its sender's: ZeroMQ bounds messages, not bytes.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Mapping, Sequence
from threading import get_ident
from types import MappingProxyType
from typing import Final

import zmq

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
from transport.wakeup import Wakeup

__all__ = ["LIBZMQ_VERSION_MIN", "ZeroMQTransport"]

LIBZMQ_VERSION_MIN: Final = (4, 3, 5)
"""Older ones have holes that an unauthenticated peer can reach (CVE-2019-13132, CVE-2020-15166)."""

QUEUE_MESSAGES_MAX: Final = 256
ZERO_COPY_BYTES_MIN: Final = 64 * 1024 + 1
"""Below, copying is cheaper than the message that gives a shared buffer back."""
HEARTBEAT_INTERVAL_MS: Final = 1000
HEARTBEAT_TIMEOUT_MS: Final = 3000
BULK_TIMEOUT_MS: Final = 30_000
"""A part of PART_BYTES_MAX needs that long at 4.5 Mbit/s, and nothing overtakes it on its link."""
RECONNECT_INTERVAL_MS: Final = 20
RECONNECT_INTERVAL_MS_MAX: Final = 500
CONNECT_TIMEOUT_MS: Final = 2000
HANDSHAKE_TIMEOUT_MS: Final = 2000
CLOSE_TIMEOUT_MS: Final = 800
WAIT_TIMEOUT_MS_MAX: Final = 2**31 - 1
DEALER_INBOUND_BYTES_MAX: Final = 1024
"""Room for the handshake: a peer has nothing to say on a link that is ours."""

_SEND: Final = int(zmq.DONTWAIT)
_SEND_MORE: Final = int(zmq.DONTWAIT | zmq.SNDMORE)
_RECEIVE: Final = int(zmq.DONTWAIT)

_Options = Mapping[int, int]

_COMMON_OPTIONS: Final[_Options] = {
    zmq.LINGER: 0,
    zmq.HANDSHAKE_IVL: HANDSHAKE_TIMEOUT_MS,
    zmq.HEARTBEAT_IVL: HEARTBEAT_INTERVAL_MS,
}
_ROUTER_OPTIONS: Final[_Options] = {
    **_COMMON_OPTIONS,
    zmq.RCVHWM: QUEUE_MESSAGES_MAX,
    zmq.MAXMSGSIZE: PART_BYTES_MAX,
    # A peer's answer queues behind the large part that it is sending. Its own end is stricter: it
    # hears our heartbeats meanwhile, whatever it is sending.
    zmq.HEARTBEAT_TIMEOUT: BULK_TIMEOUT_MS,
}
_DEALER_OPTIONS: Final[_Options] = {
    **_COMMON_OPTIONS,
    zmq.IMMEDIATE: 1,
    zmq.SNDHWM: QUEUE_MESSAGES_MAX,
    zmq.RCVHWM: 1,
    zmq.MAXMSGSIZE: DEALER_INBOUND_BYTES_MAX,
    zmq.HEARTBEAT_TIMEOUT: HEARTBEAT_TIMEOUT_MS,
    zmq.CONNECT_TIMEOUT: CONNECT_TIMEOUT_MS,
    zmq.RECONNECT_IVL: RECONNECT_INTERVAL_MS,
    zmq.RECONNECT_IVL_MAX: RECONNECT_INTERVAL_MS_MAX,
}
_CONTROL_OPTIONS: Final[_Options] = {**_DEALER_OPTIONS, zmq.HEARTBEAT_TTL: HEARTBEAT_TIMEOUT_MS}
_BULK_OPTIONS: Final[_Options] = {**_DEALER_OPTIONS, zmq.HEARTBEAT_TTL: BULK_TIMEOUT_MS}


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
        self._owner = Owner()
        self._addresses: dict[str, str] = {}
        self._control: dict[str, zmq.Socket[bytes]] = {}
        self._bulk: dict[str, zmq.Socket[bytes]] = {}
        self._skipping = False
        self._wakeup = Wakeup()
        self._context = zmq.Context(1)
        try:
            self._router = self._open(zmq.ROUTER, _ROUTER_OPTIONS, bound)
            self._bind(bound)
            for peer, peer_address in peers.items():
                self.set_peer(peer, peer_address)
        except BaseException:
            self.close()
            raise
        self._poller = zmq.Poller()
        self._poller.register(self._router, zmq.POLLIN)
        self._poller.register(self._wakeup.fd, zmq.POLLIN)

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
        socket = (self._bulk if bulk else self._control).get(to)
        if socket is None:
            self._drops["unknown_peer"] += 1
            return False
        send = socket.send
        unfinished = False
        try:
            self._begin(socket)
            if parts:
                unfinished = True
                send(header, _SEND_MORE)
                for part in parts[:-1]:
                    send(part, _SEND_MORE, copy=len(part) < ZERO_COPY_BYTES_MIN)
                unfinished = False
                send(parts[-1], _SEND, copy=len(parts[-1]) < ZERO_COPY_BYTES_MIN)
            else:
                send(header, _SEND)
        except zmq.Again:
            if unfinished:
                # The connection ended within the message: libzmq swallows it up to its last part.
                send(b"", _SEND)
            self._drops["refused"] += 1
            return False
        except BaseException:
            self._connect(to)
            raise
        return True

    def receive(self) -> list[Received]:
        """See `Transport.receive`."""
        if get_ident() != self._owner.ident:
            self._owner.claim()
        received: list[Received] = []
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
        ready = self._poller.poll(timeout)
        if ready and ready[-1][0] == self._wakeup.fd:
            self._wakeup.clear()

    def wake(self) -> None:
        """See `Transport.wake`."""
        if not self._owner.forked:
            self._wakeup.set()

    def set_peer(self, node: str, address: str) -> None:
        """See `Transport.set_peer`."""
        self._owner.permit()
        check_node(node)
        check_peer(address)
        if node == self._node:
            return
        self._gate.allow(node)
        if self._addresses.get(node) != address:
            self._addresses[node] = address
            self._connect(node)

    def remove_peer(self, node: str) -> None:
        """See `Transport.remove_peer`."""
        self._owner.permit()
        self._gate.disallow(node)
        self._addresses.pop(node, None)
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

    def _begin(self, socket: zmq.Socket[bytes]) -> None:
        """Write a message's first part. Raises zmq.Again if there is no connection, or no room."""
        try:
            socket.send(self._frame, _SEND_MORE)
        except zmq.Again:
            # A send looks for new room once in a millisecond only; polling looks now.
            if not socket.poll(0, zmq.POLLOUT):
                raise
            socket.send(self._frame, _SEND_MORE)

    def _read_message(self) -> Received | None:
        # Past its routing id a message has all its parts: none of these calls can find nothing.
        receive = self._router.recv
        frame = receive(_RECEIVE, copy=False)
        header = self._gate.admitted.get(frame.bytes) or self._gate.admit(frame.bytes)
        if header is None:
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
        return Received(header.sender, header.store_id, header.life, message.bytes, parts)

    def _skip(self, part: zmq.Frame) -> None:
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

    def _connect(self, node: str) -> None:
        self._disconnect(node)
        address = check_peer(self._addresses[node])
        for links, options in ((self._control, _CONTROL_OPTIONS), (self._bulk, _BULK_OPTIONS)):
            links[node] = self._open(zmq.DEALER, options, address)
            links[node].connect(str(address))

    def _disconnect(self, node: str) -> None:
        for links in (self._control, self._bulk):
            socket = links.pop(node, None)
            if socket is not None:
                socket.close()

    def _open(self, kind: int, options: _Options, address: Address) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = self._context.socket(kind)
        for option, value in options.items():
            socket.set(option, value)
        if address.is_ipv6:
            socket.set(zmq.IPV6, 1)
        return socket
