"""The node's end of the control socket.

Rules of this file:

1. The server's thread alone touches the socket; outcomes come to it through a queue and a wake-up.
2. Appends of one connection reach the log in the order they were sent in.
3. Bytes taken in and not yet answered are bounded: beyond the bound the socket is not read, and who
   sends more waits.
4. Every request that names itself is answered, with a value, an error of the family, or both.
5. A socket file that a killed node left behind is replaced: who may open the directory was decided
   by its lock before.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import zmq

from replog.control import words
from replog.control.words import Endpoint, Request
from replog.errors import ConfigError, OutcomeUnknown, ReplogError
from transport.wakeup import Wakeup

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from replog.log import ReplicatedLog
    from replog.pending import Pending
    from replog.snapshot import Snapshot

OPEN_BYTES_MAX = 32 << 20
"""Bytes of requests taken in and not answered. Half of what a log lets wait by default."""
RECORD_COST_BYTES = 64
"""What a record that waits is counted with beside its bytes."""
QUEUED_ANSWERS_MAX = 4096
"""For one connection; what a client does not read beyond that is lost to it."""
REQUESTS_PER_TURN_MAX = 64
CLOSE_SECONDS_MAX = 2.0
LINGER_MS = 500


class _Answer(NamedTuple):
    """An answer to come."""

    client: bytes
    request: Request
    size: int
    pendings: Sequence[Pending[Any]]
    refused: Exception | None
    """What kept the records behind the pendings out of the log."""


class ControlServer:
    """Serves a log's control socket on a thread of its own."""

    def __init__(
        self, log: ReplicatedLog, directory: str | os.PathLike[str], on_stop: Callable[[], object]
    ) -> None:
        """Bind the socket in the log's own directory. `on_stop` is called, on the server's thread,
        when somebody asks the node to stop.

        Raises `ConfigError` when the socket cannot be bound.
        """
        self._log = log
        self._on_stop = on_stop
        self._open_bytes = 0
        self._closing = False
        self._settled: deque[_Answer] = deque()
        self._endpoint = Endpoint(directory)
        self._wakeup = Wakeup()
        self._context = zmq.Context(1)
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.set(zmq.LINGER, 0)
        self._socket.set(zmq.MAXMSGSIZE, words.MESSAGE_BYTES_MAX)
        self._socket.set(zmq.SNDHWM, QUEUED_ANSWERS_MAX)
        try:
            self._socket.bind(self._endpoint.address)
            Path(self._endpoint.path).chmod(0o600)
        except (OSError, zmq.ZMQError) as error:
            self._free()
            raise ConfigError(f"{self._endpoint.path} cannot be bound: {error}") from error
        self._answers_only = zmq.Poller()
        self._everything = zmq.Poller()
        self._answers_only.register(self._wakeup.fd, zmq.POLLIN)
        self._everything.register(self._wakeup.fd, zmq.POLLIN)
        self._everything.register(self._socket, zmq.POLLIN)
        self._thread = threading.Thread(target=self._run, name="replog-control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer what is open, wait for it at most CLOSE_SECONDS_MAX, and end.

        Close the log first: then everything open has its outcome.
        """
        self._closing = True
        self._wakeup.set()
        self._thread.join()
        self._free()

    def _free(self) -> None:
        self._socket.close()
        self._context.term()
        self._wakeup.close()
        self._endpoint.close()

    # -- the server's thread -------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing:
            is_full = self._open_bytes > OPEN_BYTES_MAX
            ready = dict((self._answers_only if is_full else self._everything).poll())
            self._turn(ready)
        self._socket.set(zmq.LINGER, LINGER_MS)
        give_up = time.monotonic() + CLOSE_SECONDS_MAX
        while self._open_bytes and (left := give_up - time.monotonic()) > 0:
            self._turn(dict(self._answers_only.poll(int(left * 1000) + 1)))

    def _turn(self, ready: dict[Any, int]) -> None:
        if self._wakeup.fd in ready:
            self._wakeup.clear()
        while self._settled:
            self._send_answer(self._settled.popleft())
        if self._socket in ready:
            self._take_requests()

    def _take_requests(self) -> None:
        for _ in range(REQUESTS_PER_TURN_MAX):
            try:
                client, *frames = self._socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            try:
                if len(frames) != 1:
                    raise ConfigError(f"a request of {len(frames)} frames, one is allowed")
                request = words.parse_request(frames[0])
            except ConfigError as error:
                self._send(client, words.pack_reply(0, error, None))
                continue
            self._carry_out(client, request)
            if self._open_bytes > OPEN_BYTES_MAX:
                return

    def _carry_out(self, client: bytes, request: Request) -> None:
        pendings: list[Pending[Any]] = []
        refused: Exception | None = None
        value: object = None
        try:
            match request.name:
                case words.APPEND:
                    for record in request.records:
                        pendings.append(self._log.append(record))  # noqa: PERF401 - keeps these
                case words.APPEND_MANY:
                    pendings.append(self._log.append_many(request.records))
                case words.BARRIER:
                    pendings.append(self._log.barrier())
                case words.SNAPSHOT:
                    pendings.append(self._log.snapshot())
                case words.STATUS:
                    value = words.status_fields(self._log.status())
                case words.STOP:
                    self._on_stop()
        except (ReplogError, TimeoutError) as error:
            refused = error
        if not pendings:
            self._send(client, words.pack_reply(request.request_id, refused, value))
            return
        size = sum(map(len, request.records)) + RECORD_COST_BYTES * (1 + len(request.records))
        self._open_bytes += size
        answer = _Answer(client, request, size, pendings, refused)
        # Outcomes come in order: with the last one all are there, or about to be.
        pendings[-1].add_done_callback(lambda _: self._settle(answer))

    def _settle(self, answer: _Answer) -> None:
        self._settled.append(answer)
        self._wakeup.set()

    def _send_answer(self, answer: _Answer) -> None:
        self._open_bytes -= answer.size
        outcomes: list[Any] = []
        error = answer.refused
        for pending in answer.pendings:
            try:
                outcomes.append(pending.result(CLOSE_SECONDS_MAX))
            except Exception as failure:  # noqa: BLE001 - a machine may have raised it
                error = failure
                break
        if isinstance(error, OutcomeUnknown) and error.appended:
            rest = answer.pendings[len(outcomes) :]
            if answer.refused is not None or not all(map(_is_appended, rest)):
                error = OutcomeUnknown(str(error))
        value: object = None
        if answer.request.name == words.APPEND:
            value = offset_ranges(outcomes)
        elif answer.request.name == words.APPEND_MANY and outcomes:
            value = (outcomes[0].start, len(outcomes[0]))
        elif answer.request.name == words.SNAPSHOT and outcomes and outcomes[0] is not None:
            kept: Snapshot = outcomes[0]
            value = (kept.index, kept.position.offset, kept.size, kept.pieces)
        self._send(answer.client, words.pack_reply(answer.request.request_id, error, value))

    def _send(self, client: bytes, reply: bytes) -> None:
        # A ROUTER drops what goes to a client that has left: nobody waits for it.
        self._socket.send_multipart((client, reply), zmq.DONTWAIT)


def _is_appended(pending: Pending[Any]) -> bool:
    """Whether what was appended is known to be in the log."""
    try:
        pending.result(CLOSE_SECONDS_MAX)
    except OutcomeUnknown as error:
        return error.appended
    except Exception:  # noqa: BLE001 - as above
        return False
    return True


def offset_ranges(offsets: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending offsets as (first, count) of each stretch without a gap."""
    if offsets and offsets[-1] - offsets[0] == len(offsets) - 1:
        return [(offsets[0], len(offsets))]
    ranges: list[tuple[int, int]] = []
    for offset in offsets:
        if ranges and sum(ranges[-1]) == offset:
            ranges[-1] = (ranges[-1][0], ranges[-1][1] + 1)
        else:
            ranges.append((offset, 1))
    return ranges
