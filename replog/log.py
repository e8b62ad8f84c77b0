"""`ReplicatedLog`: what applications hold, and `open`, where everything is put together."""

from __future__ import annotations

import atexit
import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

import transport as transport_package
from replog.applier import Applier
from replog.comparing import Comparing
from replog.config import Limits
from replog.disk_room import map_bytes
from replog.entry import RECORDS_PER_RUN_MAX, check_node_id, pack_run
from replog.errors import ConfigError, OffsetOutOfRange, ReplogError, TooLarge
from replog.keeping import Keeping
from replog.membership import cluster_id
from replog.named_reader import NamedReader, Readers
from replog.node import Node, now_ms
from replog.reading import DeliveredLog, Follower, read_range
from replog.recent import Recent
from replog.replica import catchup
from replog.replica.effects import MachineStatus
from replog.replica.replica import Replica
from replog.retention import Retention, SnapshotEvery
from replog.store.directory import check_may_begin
from transport.frames import FRAME_VERSION, FrameHeader
from transport.interface import Transport, TransportError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from os import PathLike

    from replog.agreement import Agreement
    from replog.machine import Machine, Record
    from replog.pending import Pending
    from replog.replica.effects import Status
    from replog.snapshot import Snapshot
    from replog.store.interface import Identity, Store

    M = TypeVar("M", bound=Machine)

__all__ = ["ConnectTransport", "ReplicatedLog", "Transport", "open"]

ConnectTransport = Callable[[FrameHeader, Mapping[str, str]], Transport]
"""Makes the transport of a node from its frame header and the members' addresses."""
STATUS_SECONDS_MAX = 10.0

if getattr(transport_package, "TRANSPORT_MARKER", None) != "replog.transport/1":
    raise ImportError(
        f"{transport_package.__file__} hides the package `transport` of replog: rename that file"
    )


class ReplicatedLog:
    """A durable log that several machines agree on. Any thread, any event loop.

    Made by `replog.open`. Every call that waits returns a `Pending`: await it in a coroutine, or
    call its `result` in a thread. Use it as a context manager, plain or async, or `close` it.
    """

    def __init__(
        self,
        node: Node,
        delivered: DeliveredLog,
        *,
        readers: Readers,
        keeping: Keeping,
        snapshots: SnapshotEvery | None,
        limits: Limits,
    ) -> None:
        self._node = node
        self._inbox = node.inbox
        self._delivered = delivered
        self._readers = readers
        self._keeping = keeping
        self._snapshots = snapshots
        self._limits = limits
        self._attaching = threading.Lock()
        self._applier: Applier | None = None

    # -- appending -----------------------------------------------------------------------------

    def append(self, record: bytes) -> Pending[int]:
        """Append one record, exactly once; its offset, once a quorum of disks holds it.

        Works on every node, leader or not. Raises `TypeError` for anything but bytes, `TooLarge`,
        `Busy` and `Closed`: the record is then certainly not in the log. The pending ends with
        `Closed` (certainly not appended) or `OutcomeUnknown` when the log closes or the node stops
        meanwhile.
        """
        if type(record) is not bytes:
            raise TypeError(f"a record is bytes, not {type(record).__name__}")
        if len(record) > self._limits.record_bytes_max:
            self._refuse_record(len(record))
        return self._inbox.append(record)

    def append_many(self, records: Sequence[bytes]) -> Pending[range]:
        """Append records as one run: all or nothing, at consecutive offsets, exactly once.

        Raises and ends as `append` does; `TooLarge` also for a run beyond `run_bytes_max` packed
        bytes or 1,048,576 records.
        """
        records = list(records)
        if set(map(type, records)) - {bytes}:
            raise TypeError("a record is bytes, and this run holds something else")
        if not records:
            raise ValueError("a run holds at least one record")
        if len(records) > RECORDS_PER_RUN_MAX:
            raise TooLarge(f"{len(records)} records in a run, {RECORDS_PER_RUN_MAX} are allowed")
        body = pack_run(records)
        if len(body) > self._limits.record_bytes_max:
            longest = max(map(len, records))
            if longest > self._limits.record_bytes_max:
                self._refuse_record(longest)
            if len(body) > self._limits.run_bytes_max:
                raise TooLarge(
                    f"a run of {len(body)} packed bytes, {self._limits.run_bytes_max} are allowed: "
                    f"append it in parts"
                )
        return self._inbox.append_run(body, len(records))

    def _refuse_record(self, size: int) -> None:
        raise TooLarge(
            f"a record of {size} bytes, {self._limits.record_bytes_max} are allowed: append it in "
            f"parts"
        )

    def room(self) -> Pending[None]:
        """Wait, after `Busy`, until half of `pending_bytes_max` is free again."""
        return self._inbox.room()

    # -- reading -------------------------------------------------------------------------------

    @property
    def first_offset(self) -> int:
        """The offset of the first record that can be read: 0 until something is compacted. It may
        move on at any time, as the log's `Retention` says."""
        return self._delivered.first_offset

    @property
    def end_offset(self) -> int:
        """The offset after the last record delivered on this node."""
        return self._delivered.end_offset

    def read(self, start: int | None = None, stop: int | None = None) -> Iterator[Record]:
        """Records from offset `start` (default: the first) up to, not including, `stop` (default:
        the end as of now), as delivered on this node. `barrier` first to see everything committed.

        Raises `OffsetOutOfRange`, at the call, when a bound is below the first offset or beyond the
        end. The iterator raises it too when it comes to records that are compacted meanwhile,
        `Corruption` for damaged data and `Closed` after `close`. Without a `start` it begins with
        what is left when its first record is read.
        """
        records = read_range(self._delivered.bounds, self._delivered.records, start, stop)
        self._inbox.check_open()
        return records

    def follow(self, start: int | None = None) -> Follower:
        """Records from offset `start` (default: the first) on, and then as they are delivered:
        iterate over it with `for` in a thread or `async for` in a coroutine.

        The iteration ends when the log is closed, and raises `NodeStopped` when its node stops,
        `OffsetOutOfRange` when it is so slow that its next record is compacted; without a `start`
        it begins with what is left when its first record is read.
        Raises `OffsetOutOfRange` when `start` is below the first offset or beyond the end.
        """
        first, end = self._delivered.bounds()
        if start is None:
            return Follower(self._delivered, first, stated=False)
        if not first <= start <= end:
            raise OffsetOutOfRange(start, first, end)
        return Follower(self._delivered, start)

    def reader(self, name: str) -> NamedReader:
        """A follower whose place is kept on this node's disk: it begins at the offset that the
        reader of this name has acknowledged last, or at the first that can be read when this is
        its first use. From then on records from there are kept for it, within
        `Retention.readers_records_max` and until a snapshot takes their place by which this node
        catches up; a reader that lags further behind raises
        `OffsetOutOfRange` when it is iterated over, until it acknowledges `first_offset` and is
        made again. `status` shows how far each is.

        Its first use waits until the node keeps the log for it, which takes no write to the disk.
        At most 64 for each node. Raises `ConfigError` for one more and for a name that is not of
        the form of a node id, `Closed` or `NodeStopped`.
        """
        self._inbox.check_open()
        return self._readers.open(name)

    def barrier(self) -> Pending[None]:
        """Wait until everything committed anywhere before this call can be read here: what follows
        is a linearizable read (dissertation section 6.4). Raises `Closed` or `NodeStopped`, now or
        when it ends so."""
        return self._inbox.request(self._node.barrier)

    # -- the state machine ---------------------------------------------------------------------

    def attach(self, machine: M) -> M:
        """Feed this machine with every record, in a thread of its own; returns it. One machine for
        each log, and for each time the log is open.

        It begins with the newest snapshot of a machine, if there is one, else with the first
        record; and it begins so again when this node has caught up by a snapshot. From here on
        records are compacted only behind snapshots of the machine: without
        `open(..., snapshots=...)` those that `snapshot` takes.

        A machine whose `apply` or `restore` raises stops where it stands; appends and reads go on,
        and `status` says why. So does one that needs records which were compacted while no machine
        was attached, and one whose `digest` is not what a majority's comes to, which is compared
        every `Limits.machine_digest_records`.

        Raises `ConfigError` for a second machine and for what is none, `Closed` or `NodeStopped`.
        """
        if isinstance(machine, type) or not callable(getattr(machine, "apply", None)):
            raise ConfigError(f"{machine!r} is no machine: an object with an `apply` is")
        self._inbox.check_open()
        with self._attaching:
            if self._applier is not None:
                raise ConfigError("this log feeds a machine already: compose several into one")
            begun = self._node.attach_machine()
            applier = Applier(
                self._node.id,
                machine,
                self._delivered,
                keeping=self._keeping,
                every=self._snapshots,
                begun=begun,
                comparing=Comparing(
                    self._limits.machine_digest_records, self._node.compare_machine
                ),
            )
            self._node.watch_machine(applier.differs)
            applier.start()
            self._applier = applier
        return machine

    def call(self, command: bytes) -> Pending[Any]:
        """Append a record; what this node's machine answers to it, once it is applied here.

        Raises as `append` does, `Busy` also when a million calls wait for the machine,
        `NodeStopped`, `MachineStopped`, and `ConfigError` without a machine. The pending ends as
        that of `append` does, or with `MachineStopped`, which tells the record's offset, or with
        `OutcomeUnknown` when the machine came past the record by a snapshot. Its done
        callbacks run on the machine's thread. `apply` itself must not wait for a call.
        """
        self._inbox.check_open()
        return self._fed().call(lambda: self.append(command))

    def applied(self, offset: int | None = None) -> Pending[None]:
        """Wait until this node's machine has taken every record below `offset` (default: below the
        end as of now). After a `barrier` it has then taken everything committed before that.

        Raises `ConfigError` without a machine; the pending may end with `MachineStopped`.
        """
        return self._fed().wait(self.end_offset if offset is None else offset)

    def snapshot(self) -> Pending[Snapshot | None]:
        """Keep the state of this node's machine as of now, whatever the policy; what is the newest
        snapshot then, once it is durable and was read back. The machine takes no records meanwhile.
        Without a machine: a snapshot of the log alone, which says how far it was and has no state;
        but where states are kept, the newest there is instead, for only a machine replaces those.
        None when there is nothing yet that it could stand for.

        Raises `MachineStopped`, `Busy` when 64 snapshots are asked for already, `Closed` or
        `NodeStopped`. The pending ends with what the machine's `snapshot` raised, which stops
        nothing, or with `ReplogError` when what the machine has taken is behind a snapshot without
        a state.
        """
        self._inbox.check_open()
        if self._applier is not None:
            return self._applier.snapshot()
        return self._node.snapshot_header()

    @property
    def applied_offset(self) -> int:
        """The machine here has taken every record below; known also once the log is closed.
        Raises `ConfigError` without a machine."""
        return self._fed().offset

    def _fed(self) -> Applier:
        if self._applier is None:
            raise ConfigError("no machine is attached to this log: log.attach(machine)")
        return self._applier

    # -- the node ------------------------------------------------------------------------------

    def status(self) -> Status:
        """The node as it sees itself now. Raises `Closed`, or `NodeStopped` with its cause."""
        status: Status = self._inbox.request(self._node.status).result(STATUS_SECONDS_MAX)
        applier = self._applier
        if applier is None:
            return status
        return status._replace(
            machine=MachineStatus(applier.offset, applier.failure),
            alarm="; ".join(filter(None, (status.alarm, applier.alarm))),
        )

    def close(self) -> None:
        """Stop the node and close its directory. Idempotent, from any thread but the node's own
        (a done callback).

        Appends in flight end with `OutcomeUnknown`, appends not yet on their way with `Closed`.
        """
        if self._node.is_own_thread():
            raise ReplogError("a done callback cannot close the log: close it from another thread")
        self._node.stop()
        if self._applier is not None:
            self._applier.stop()
        _open_logs.discard(self)

    def disown(self) -> None:
        """In a forked child, where no node runs: every call from here raises."""
        self._inbox.disown()
        self._delivered.disown()
        self._readers.disown()
        if self._applier is not None:
            self._applier.disown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.close()


_open_logs: set[ReplicatedLog] = set()


@atexit.register
def _close_forgotten() -> None:
    for log in list(_open_logs):
        log.close()


def _disown() -> None:
    for log in _open_logs:
        log.disown()
    _open_logs.clear()


os.register_at_fork(after_in_child=_disown)


def _check_kept(retention: object, snapshots: object) -> None:
    for given, kind in ((retention, Retention), (snapshots, SnapshotEvery)):
        if given is not None and not isinstance(given, kind):
            raise ConfigError(f"{given!r} is no {kind.__name__}")


def open(  # noqa: A001 - `replog.open` is what users look for
    path: str | PathLike[str],
    *,
    agreement: Agreement,
    node: str = "n1",
    members: Mapping[str, str] | None = None,
    cluster: str = "",
    limits: Limits | None = None,
    retention: Retention | None = None,
    snapshots: SnapshotEvery | None = None,
    plaintext: bool = False,
    connect: ConnectTransport | None = None,
) -> ReplicatedLog:
    """Open one member's directory and take part; create it when it is empty or missing.

    `members` maps every member's node id to its address `tcp://host:port`, this node's included;
    without it the log is local to this node and needs no network. An empty directory is
    bootstrapped with these members; later the ids must match and the addresses may differ.
    `cluster` tells clusters with the same member names apart. Binding an address that is not
    loopback raises unless `plaintext=True` says that the network is trusted. `connect` replaces
    ZeroMQ: it is called with the frame header and the members, and returns a `replog.Transport`.

    `retention` bounds what this node keeps of the log; by default all of it, for ever. `snapshots`
    says how often the state of the attached machine is kept; with it nothing is compacted but
    behind such a snapshot. Give it to every member of a cluster that feeds machines.

    Raises `ConfigError` for arguments and addresses that cannot be used, `StoreInUse` when the
    directory is open elsewhere, `WrongStore` when it belongs to another node, cluster or agreement,
    `Corruption` when it is damaged.
    """
    from replog.store.lmdb import create_or_open  # noqa: PLC0415 - loads lmdb

    limits = limits or Limits()
    _check_kept(retention, snapshots)
    addresses = _checked_members(node, members, connect, plaintext=plaintext)
    membership = agreement.membership(set(addresses))
    check_may_begin(path, cluster)
    store = create_or_open(
        path,
        node=node,
        cluster_id=cluster_id(agreement.name, membership, cluster),
        agreement=agreement.name,
        membership=membership,
        unix_ms=time.time_ns() // 1_000_000,
        map_bytes_max=map_bytes(limits.map_bytes_max),
    )
    restoration = store.restore()
    policy = catchup.CompactionPolicy(retention, with_state=snapshots is not None)
    try:
        header = _frame_header(restoration.identity)
        replica = Replica(agreement, restoration, limits, now_ms(), random.Random(), policy=policy)
        link = (connect or _connect(node, plaintext=plaintext))(header, addresses)
    except BaseException as error:
        store.close()
        if isinstance(error, TransportError):
            raise ConfigError(f"node {node} cannot take part: {error}") from error
        raise
    return _start(store, replica, link, snapshots, limits)


def _start(
    store: Store, replica: Replica, link: Transport, snapshots: SnapshotEvery | None, limits: Limits
) -> ReplicatedLog:
    restoration = store.restore()
    recent = Recent(restoration.position.offset, restoration.base.offset)
    node = Node(replica, store, link, recent, limits)
    node.start()
    delivered = DeliveredLog(store, recent, node.inbox.check_open)
    log = ReplicatedLog(
        node,
        delivered,
        readers=Readers(restoration.readers, delivered, node.begin_reader, node.acknowledge),
        keeping=Keeping(
            store,
            node.stage,
            node.seal,
            node.drop_snapshot,
            restoration.membership,
            piece_bytes=limits.piece_bytes_max,
        ),
        snapshots=snapshots,
        limits=limits,
    )
    _open_logs.add(log)
    return log


def _frame_header(identity: Identity) -> FrameHeader:
    cluster, node, agreement, store_id, life = identity
    return FrameHeader(FRAME_VERSION, cluster, agreement, node, store_id, life)


def _checked_members(
    node: str, members: Mapping[str, str] | None, connect: Any, *, plaintext: bool
) -> dict[str, str]:
    """Every check that needs no directory, so that nothing is created for bad arguments."""
    addresses = {node: ""} if members is None else dict(members)
    try:
        for name in (node, *addresses):
            check_node_id(name)
        if node not in addresses:
            raise ConfigError(
                f"node {node!r} is not among the members {', '.join(sorted(addresses))}: give this "
                f"node's own id and address too"
            )
        if connect is None and len(addresses) > 1:
            from transport.address import check_bind, check_peer  # noqa: PLC0415 - not when local

            check_bind(addresses[node], plaintext=plaintext)
            for peer in addresses.keys() - {node}:
                check_peer(addresses[peer])
    except (ValueError, TransportError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(str(error)) from error
    return addresses


def _connect(node: str, *, plaintext: bool) -> ConnectTransport:
    def connect(header: FrameHeader, addresses: Mapping[str, str]) -> Transport:
        if len(addresses) == 1:
            from transport.loopback import LoopbackNetwork  # noqa: PLC0415 - a node of its own

            return LoopbackNetwork().attach(node, header)
        from transport.zeromq import ZeroMQTransport  # noqa: PLC0415 - loads zmq

        return ZeroMQTransport(
            node=node,
            address=addresses[node],
            peers={peer: at for peer, at in addresses.items() if peer != node},
            header=header,
            plaintext=plaintext,
        )

    return connect
