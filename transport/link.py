"""One channel to one peer: a DEALER that only sends.

1. Messages queue only while the peer is connected (IMMEDIATE), at most QUEUE_MESSAGES_MAX of them,
   and die with the connection: no burst of stale traffic after a partition.
2. A message is whole or absent: what breaks off in the middle is not continued by the next one.
3. A link recovers from whatever once answered at its address. libzmq connects again after a failed
   connection, but gives up for ever after bytes that are not its protocol.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Final

import zmq

from transport.address import Address

__all__ = [
    "BULK",
    "BULK_TIMEOUT_MS",
    "COMMON",
    "CONTROL",
    "QUEUE_MESSAGES_MAX",
    "Link",
    "Options",
    "open_socket",
]

QUEUE_MESSAGES_MAX: Final = 256
ZERO_COPY_BYTES_MIN: Final = 64 * 1024 + 1
"""Below, copying is cheaper than the message that gives a shared buffer back."""
HEARTBEAT_INTERVAL_MS: Final = 1000
HEARTBEAT_TIMEOUT_MS: Final = 3000
BULK_TIMEOUT_MS: Final = 30_000
"""How long one part may take: nothing overtakes it on its connection, no heartbeat either."""
RECONNECT_INTERVAL_MS: Final = 20
RECONNECT_INTERVAL_MS_MAX: Final = 500
CONNECT_TIMEOUT_MS: Final = 2000
HANDSHAKE_TIMEOUT_MS: Final = 2000
REDIAL_INTERVAL_MS: Final = 5000
"""A link that refused everything for so long is made anew: longer than connecting may take."""
INBOUND_BYTES_MAX: Final = 1024
"""Enough for handshakes and heartbeats: a peer has nothing else to say on this connection."""

Options = Mapping[int, int]

COMMON: Final[Options] = {
    zmq.LINGER: 0,
    zmq.HANDSHAKE_IVL: HANDSHAKE_TIMEOUT_MS,
}
_DEALER: Final[Options] = {
    **COMMON,
    zmq.HEARTBEAT_IVL: HEARTBEAT_INTERVAL_MS,
    zmq.IMMEDIATE: 1,
    zmq.SNDHWM: QUEUE_MESSAGES_MAX,
    zmq.RCVHWM: 1,
    zmq.MAXMSGSIZE: INBOUND_BYTES_MAX,
    # What the peer answers to a heartbeat has nothing to wait for: it sends nothing else.
    zmq.HEARTBEAT_TIMEOUT: HEARTBEAT_TIMEOUT_MS,
    zmq.CONNECT_TIMEOUT: CONNECT_TIMEOUT_MS,
    zmq.RECONNECT_IVL: RECONNECT_INTERVAL_MS,
    zmq.RECONNECT_IVL_MAX: RECONNECT_INTERVAL_MS_MAX,
}
# The time to live is how long the peer's end keeps a connection that brings nothing whole.
CONTROL: Final[Options] = {**_DEALER, zmq.HEARTBEAT_TTL: HEARTBEAT_TIMEOUT_MS}
BULK: Final[Options] = {**_DEALER, zmq.HEARTBEAT_TTL: BULK_TIMEOUT_MS}

_SEND: Final = int(zmq.DONTWAIT)
_SEND_MORE: Final = int(zmq.DONTWAIT | zmq.SNDMORE)


class Link:
    """Sends to one address. Connects in the background, again and again."""

    __slots__ = ("_context", "_options", "_refused_since_seconds", "_socket", "address")

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], address: Address, options: Options
    ) -> None:
        """Begin to connect, with the options CONTROL or BULK."""
        self.address = address
        self._context = context
        self._options = options
        self._dial()

    def send(self, frame: bytes, header: bytes, parts: Sequence[bytes]) -> bool:
        """Queue one message. False if there is no connection, or no room. Never blocks."""
        send = self._socket.send
        unfinished = False
        try:
            try:
                send(frame, _SEND_MORE)
            except zmq.Again:
                # A send looks for new room once in a millisecond only; polling looks now.
                if not self._socket.poll(0, zmq.POLLOUT):
                    raise
                send(frame, _SEND_MORE)
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
            self._refused()
            return False
        except BaseException:
            self.close()
            self._dial()
            raise
        self._refused_since_seconds = 0.0
        return True

    def close(self) -> None:
        """Drop what is queued. Idempotent."""
        self._socket.close()

    def _refused(self) -> None:
        now = monotonic()
        if not self._refused_since_seconds:
            self._refused_since_seconds = now
        elif now - self._refused_since_seconds > REDIAL_INTERVAL_MS / 1000:
            self.close()
            self._dial()

    def _dial(self) -> None:
        self._refused_since_seconds = 0.0
        self._socket: zmq.Socket[bytes] = open_socket(
            self._context, zmq.DEALER, self._options, self.address
        )
        self._socket.connect(str(self.address))


def open_socket(
    context: zmq.Context[zmq.Socket[bytes]], kind: int, options: Options, address: Address
) -> zmq.Socket[bytes]:
    """Return a socket with `options` that can speak to, or at, `address`."""
    opened: zmq.Socket[bytes] = context.socket(kind)
    for option, value in options.items():
        opened.set(option, value)
    if address.is_ipv6:
        opened.set(zmq.IPV6, 1)
    return opened
