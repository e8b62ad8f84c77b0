"""The other end of the control socket: one connection to one running node.

Rules of this file:

1. A connection lives once: when it ends, for whatever reason, everything open is answered here with
   an error that says what is known, and nothing is sent again to whoever comes next.
2. What had arrived before the end is still delivered.
3. Requests may be pipelined; a node answers each when it has its outcome.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import zmq
from zmq.utils.monitor import recv_monitor_message

from replog.control import words
from replog.control.words import Endpoint, NodeNotRunning, NodeSilent, Request
from replog.errors import OutcomeUnknown, ReplogError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

CONNECT_SECONDS_MAX = 5.0
CALL_SECONDS_MAX = 30.0
SNAPSHOT_SECONDS_MAX = 3600.0
"""A large state takes its time."""
NEVER_MS = 2**31 - 1
"""Between two attempts to connect: there is one."""
QUEUED_REQUESTS_MAX = 4096

_ENDINGS = (
    zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CONNECT_RETRIED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
)


class Reply(NamedTuple):
    """The answer to one request."""

    request_id: int
    value: Any
    """As `words` lists it; of an `append` that failed on its way, for the first records."""
    error: ReplogError | None


class KeptSnapshot(NamedTuple):
    """A snapshot that a node has kept."""

    index: int  # type: ignore[assignment]
    """Of its last entry."""
    offset: int
    """It stands for every record below."""
    size: int
    """Bytes of all pieces together."""
    pieces: int
    """0 for a snapshot without a state."""


class ControlClient:
    """A connection to the node that runs in a directory. One thread uses it."""

    def __init__(
        self, directory: str | os.PathLike[str], seconds_max: float = CONNECT_SECONDS_MAX
    ) -> None:
        """Raises `NodeNotRunning` when no node answers there."""
        self._directory = directory
        self._next_id = 1
        self._open: dict[int, Request] = {}
        self._replies: deque[Reply] = deque()
        self._ended = ""
        self._endpoint = Endpoint(directory)
        self._context = zmq.Context(1)
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.set(zmq.LINGER, 0)
        self._socket.set(zmq.SNDHWM, QUEUED_REQUESTS_MAX)
        self._socket.set(zmq.MAXMSGSIZE, words.MESSAGE_BYTES_MAX)
        self._socket.set(zmq.RECONNECT_IVL, NEVER_MS)
        self._monitor = self._socket.get_monitor_socket(_ENDINGS | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        try:
            self._connect(seconds_max)
        except BaseException:
            self.close()
            raise

    def _connect(self, seconds_max: float) -> None:
        self._socket.connect(self._endpoint.address)
        if not self._monitor.poll(int(seconds_max * 1000)):
            raise NodeSilent(
                f"the node in {self._directory} has not answered within {seconds_max} s: its "
                f"process may be paused"
            )
        event = recv_monitor_message(self._monitor)["event"]
        if event != zmq.EVENT_HANDSHAKE_SUCCEEDED:
            raise NodeNotRunning(f"no node runs in {self._directory}")

    @property
    def open_requests(self) -> int:
        """Requests that have no answer yet."""
        return len(self._open)

    @property
    def ended(self) -> bool:
        """Whether the connection is over: nothing can be asked any more."""
        return bool(self._ended)

    def register(self, poller: zmq.Poller) -> None:
        """Let `poller` wait for this connection."""
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._monitor, zmq.POLLIN)

    def submit(self, name: str, records: Sequence[bytes] = ()) -> int:
        """Send a request; its id. The answer comes with `replies`, also after the end.

        Raises `ConfigError` for a request beyond the limits of `words`.
        """
        request = Request(self._next_id, name, records)
        data = words.pack_request(request)
        self._next_id += 1
        self._open[request.request_id] = request
        if self._ended:
            self._fail_open()
        else:
            self._socket.send(data)
        return request.request_id

    def replies(self, timeout_ms: int = 0) -> list[Reply]:
        """What has been answered, waiting up to `timeout_ms` for a first answer."""
        if not self._replies:
            self._receive(timeout_ms)
        replies = list(self._replies)
        self._replies.clear()
        return replies

    def call(
        self, name: str, records: Sequence[bytes] = (), seconds_max: float = CALL_SECONDS_MAX
    ) -> Any:
        """Send a request and wait for its answer: the value. Other answers wait for `replies`.

        Raises the error that is answered, `TimeoutError` when nothing is within `seconds_max`,
        `NodeNotRunning` when the connection ends; of an append then `OutcomeUnknown`.
        """
        request_id = self.submit(name, records)
        give_up = time.monotonic() + seconds_max
        while True:
            for reply in self._replies:
                if reply.request_id == request_id:
                    self._replies.remove(reply)
                    if reply.error is not None:
                        raise reply.error
                    return reply.value
            left = give_up - time.monotonic()
            if left <= 0:
                raise TimeoutError(
                    f"the node in {self._directory} has not answered {name} within {seconds_max} s"
                )
            self._receive(int(left * 1000) + 1)

    def append(self, record: bytes, seconds_max: float = CALL_SECONDS_MAX) -> int:
        """Append one record; its offset. Raises as `call`."""
        ((offset, _),) = self.call(words.APPEND, [record], seconds_max)
        return int(offset)

    def append_many(self, records: Sequence[bytes], seconds_max: float = CALL_SECONDS_MAX) -> range:
        """Append records as one run; their offsets. Raises as `call`."""
        first, count = self.call(words.APPEND_MANY, records, seconds_max)
        return range(first, first + count)

    def barrier(self, seconds_max: float = CALL_SECONDS_MAX) -> None:
        """Wait until everything committed before can be read at this node. Raises as `call`."""
        self.call(words.BARRIER, (), seconds_max)

    def snapshot(self, seconds_max: float = SNAPSHOT_SECONDS_MAX) -> KeptSnapshot | None:
        """Let the node keep a snapshot now; the newest one then, None of an empty log. Raises as
        `call`."""
        value = self.call(words.SNAPSHOT, (), seconds_max)
        return None if value is None else KeptSnapshot(*value)

    def status(self, seconds_max: float = CALL_SECONDS_MAX) -> dict[str, Any]:
        """The node as it sees itself: the fields of `words.status_fields`. Raises as `call`."""
        fields: dict[str, Any] = self.call(words.STATUS, (), seconds_max)
        return fields

    def stop(self, seconds_max: float = CALL_SECONDS_MAX) -> None:
        """Stop the node and wait until it has let its directory go. Raises `TimeoutError`."""
        give_up = time.monotonic() + seconds_max
        self.call(words.STOP, (), seconds_max)
        while not self._ended:
            left = give_up - time.monotonic()
            if left <= 0:
                raise TimeoutError(
                    f"the node in {self._directory} has not stopped within {seconds_max} s"
                )
            self._receive(int(left * 1000) + 1)

    def close(self) -> None:
        """End the connection. Idempotent."""
        if self._socket.closed:
            return
        self._ended = self._ended or "the connection was closed"
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(0)
        self._context.term()
        self._endpoint.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _receive(self, timeout_ms: int) -> None:
        if self._ended:
            return
        poller = zmq.Poller()
        self.register(poller)
        ready = dict(poller.poll(timeout_ms))
        # The end first: what arrived before it is then there to be read.
        if self._monitor in ready:
            recv_monitor_message(self._monitor)
            self._ended = "its connection ended"
        while True:
            try:
                data = self._socket.recv(zmq.DONTWAIT)
            except zmq.Again:
                break
            request_id, error, value = words.parse_reply(data)
            self._open.pop(request_id, None)
            self._replies.append(Reply(request_id, value, error))
        if self._ended:
            self._fail_open()

    def _fail_open(self) -> None:
        for request in self._open.values():
            reason = f"the node in {self._directory} went away: {self._ended}"
            error = (
                OutcomeUnknown(f"{reason} while an append was in flight: it may be in the log")
                if request.name in words.APPENDS
                else NodeNotRunning(reason)
            )
            self._replies.append(Reply(request.request_id, None, error))
        self._open.clear()


def wait_for_any(clients: Iterable[ControlClient], timeout_ms: int) -> None:
    """Wait until one of these connections has something to read, at most `timeout_ms`."""
    poller = zmq.Poller()
    for client in clients:
        client.register(poller)
    poller.poll(timeout_ms)
