"""The words of the control socket, and where it lies.

A request is msgpack `[VERSION, request id, name, records]`, its answer msgpack `[VERSION, request
id, error, value]`, each one ZeroMQ frame. `error` is nil or `[class, message, appended]`.

    name          records   value
    append        many      [[first offset, count], ...]: each record by itself, in this order
    append_many   many      [first offset, count]: one run, all or nothing
    barrier       none      nil, once everything committed before can be read at this node
    snapshot      none      nil for an empty log, else [index, offset, size, pieces] of the newest
                            snapshot, once one as of now is on the disk
    status        none      a map, see `status_fields`
    stop          none      nil; the node then stops, and ends the connection when it has stopped

An `append` may come with both: a value for the first records, and the error that met the rest.
`appended` is true of an `OutcomeUnknown` when all of the rest is known to be in the log.

1. Every field is checked before anything is done, and every size has a limit.
2. Whoever may write to the directory may speak here: its mode is the only lock.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgpack

from replog import errors
from replog.errors import ConfigError, OutcomeUnknown, ReplogError
from replog.store.directory import CONTROL_SOCKET

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replog.replica.effects import Status

VERSION = 1
APPEND, APPEND_MANY, BARRIER = "append", "append_many", "barrier"
SNAPSHOT, STATUS, STOP = "snapshot", "status", "stop"
APPENDS = frozenset({APPEND, APPEND_MANY})
NAMES = APPENDS | {BARRIER, SNAPSHOT, STATUS, STOP}

MESSAGE_BYTES_MAX = 16 << 20
"""Of a request and of an answer; a larger one ends its connection."""
RECORDS_PER_REQUEST_MAX = 1 << 16
REQUEST_ID_MAX = (1 << 63) - 1
IPC_PATH_BYTES_MAX = 107
"""Of a Unix socket's path, without the NUL that ends it."""


class NodeNotRunning(ReplogError):
    """No node runs in this directory."""


class NodeSilent(NodeNotRunning):
    """A process holds the socket of this directory and does not answer: it may be paused."""


class Request(NamedTuple):
    """A checked request."""

    request_id: int
    """Chosen by the client, given back with the answer."""
    name: str
    records: Sequence[bytes]


class Endpoint:
    """The address of a directory's control socket; `close` it after the sockets that use it."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        """Raises `ConfigError` when the directory's path is too long, `NodeNotRunning` when there
        is no such directory."""
        root = Path(os.path.realpath(directory))
        self.path = str(root / CONTROL_SOCKET)
        self._descriptor = -1
        if len(os.fsencode(self.path)) <= IPC_PATH_BYTES_MAX and self.path.isascii():
            return
        # A long path is reached through a descriptor of its directory.
        if not Path("/proc/self/fd").is_dir():
            raise ConfigError(
                f"{self.path} is too long for a socket's path, which has at most "
                f"{IPC_PATH_BYTES_MAX} bytes: use a directory with a shorter path"
            )
        try:
            self._descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise NodeNotRunning(f"no node runs in {root}: {error.strerror}") from error
        self.path = f"/proc/self/fd/{self._descriptor}/{CONTROL_SOCKET}"

    @property
    def address(self) -> str:
        """For ZeroMQ."""
        return f"ipc://{self.path}"

    def close(self) -> None:
        """Free what a long path takes. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def pack_request(request: Request) -> bytes:
    """The bytes of a request. Raises `ConfigError` for one beyond the limits."""
    if len(request.records) > RECORDS_PER_REQUEST_MAX:
        raise ConfigError(
            f"{len(request.records)} records in a request, {RECORDS_PER_REQUEST_MAX} are allowed"
        )
    data: bytes = msgpack.packb((VERSION, *request))
    if len(data) > MESSAGE_BYTES_MAX:
        raise ConfigError(f"a request of {len(data)} bytes, {MESSAGE_BYTES_MAX} are allowed")
    return data


def parse_request(data: bytes) -> Request:
    """Check a request. Raises `ConfigError` with what is wrong."""
    version, request_id, name, records = _unpack(data, RECORDS_PER_REQUEST_MAX)
    if version != VERSION:
        raise ConfigError(f"version {version!r} of the control socket is not known here")
    if type(request_id) is not int or not 0 <= request_id <= REQUEST_ID_MAX:
        raise ConfigError(f"{request_id!r} is no request id")
    if type(name) is not str or name not in NAMES:
        raise ConfigError(f"{name!r} is no request: use one of {', '.join(sorted(NAMES))}")
    if type(records) is not list or set(map(type, records)) - {bytes}:
        raise ConfigError(f"{name} comes with something else than an array of records")
    if bool(records) != (name in APPENDS):
        raise ConfigError(f"{name} comes with {len(records)} records")
    return Request(request_id, name, records)


def pack_reply(request_id: int, error: Exception | None, value: object) -> bytes:
    """The bytes of an answer."""
    packed = None
    if error is not None:
        appended = isinstance(error, OutcomeUnknown) and error.appended
        packed = (type(error).__name__, str(error), appended)
    data: bytes = msgpack.packb((VERSION, request_id, packed, value))
    return data


def parse_reply(data: bytes) -> tuple[int, ReplogError | None, Any]:
    """Request id, error and value of an answer. Raises `ConfigError` for anything else."""
    version, request_id, error, value = _unpack(data, 2 * RECORDS_PER_REQUEST_MAX)
    if version != VERSION or type(request_id) is not int:
        raise ConfigError(f"the node answers in version {version!r}, which is not known here")
    if error is None:
        return request_id, None, value
    if type(error) is not list or len(error) != 3:
        raise ConfigError("the node answers with an error that is none")
    return request_id, _named_error(str(error[0]), str(error[1]), appended=error[2] is True), value


def _named_error(name: str, message: str, *, appended: bool) -> ReplogError:
    """An error of the family by its class name; a `ReplogError` when it is not known here."""
    kind = getattr(errors, name, None)
    if kind is OutcomeUnknown:
        return OutcomeUnknown(message, appended=appended)
    if isinstance(kind, type) and issubclass(kind, ReplogError):
        try:
            return kind(message)
        except TypeError:  # made of more than a message
            pass
    return ReplogError(f"{name}: {message}")


def status_fields(status: Status) -> dict[str, object]:
    """A status as names and plain values, as it is answered and printed."""
    leadership = status.leadership
    return {
        "node": status.node,
        "agreement": status.agreement,
        "role": leadership.role,
        "leader": leadership.leader,
        "epoch": leadership.epoch.number,
        "introduced": status.introduced,
        "members": list(status.members),
        "life": status.life,
        "first_offset": status.first_offset,
        "end_offset": status.end_offset,
        "last_index": status.last_index,
        "commit_index": status.commit_index,
        "applied_index": status.applied_index,
        "digest": status.digest.hex(),
        "pending_records": status.pending_records,
        "drops": {cause: count for cause, count in sorted(status.drops.items()) if count},
        "alarm": status.alarm,
        "snapshot": None if status.snapshot is None else status.snapshot._asdict(),
        "transfer": status.transfer,
        "readers": dict(sorted(status.readers.items())),
        "machine": None if status.machine is None else status.machine._asdict(),
    }


def _unpack(data: bytes, array_length_max: int) -> list[Any]:
    try:
        fields = msgpack.unpackb(
            data,
            max_array_len=array_length_max,
            max_bin_len=MESSAGE_BYTES_MAX,
            max_str_len=MESSAGE_BYTES_MAX,
            max_map_len=array_length_max,
            max_ext_len=0,
        )
    except Exception as error:  # msgpack raises several unrelated classes for bad bytes
        raise ConfigError(f"a message on the control socket does not unpack: {error}") from error
    if type(fields) is not list or len(fields) != 4:
        raise ConfigError("a message on the control socket is not an array of four")
    return fields
