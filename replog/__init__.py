"""A durable log that several machines agree on.

::

    import replog
    from raftlog import Raft

    log = replog.open("data/n1", agreement=Raft())
    offset = log.append(b"hello").result()
    for record in log.read():
        print(record.offset, record.data)
    log.close()

Names are resolved on first use, so that importing an agreement layer loads neither `lmdb` nor
`zmq`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from replog.agreement import Agreement
    from replog.config import Limits
    from replog.errors import (
        Busy,
        Closed,
        ConfigError,
        Corruption,
        IdentityRefused,
        InvariantBroken,
        MachineStopped,
        NodeStopped,
        NotAppended,
        OffsetOutOfRange,
        OutcomeUnknown,
        PeerFault,
        ReplogError,
        StoreError,
        StoreFailed,
        StoreInUse,
        TooLarge,
        WrongStore,
    )
    from replog.log import ReplicatedLog, Transport
    from replog.log import open as open  # noqa: A004 - what users look for
    from replog.machine import Machine, Record
    from replog.named_reader import NamedReader
    from replog.pending import Pending
    from replog.reading import Follower
    from replog.replaying import Replayed, replay
    from replog.replica.effects import MachineStatus, SnapshotStatus, Status
    from replog.retention import Retention, SnapshotEvery
    from replog.snapshot import Snapshot
    from replog.store.copying import Copied, backup, restore

__version__ = "0.1.0"

_HOMES = {
    "Agreement": "replog.agreement",
    "Copied": "replog.store.copying",
    "Follower": "replog.reading",
    "Limits": "replog.config",
    "Machine": "replog.machine",
    "MachineStatus": "replog.replica.effects",
    "NamedReader": "replog.named_reader",
    "Pending": "replog.pending",
    "Record": "replog.machine",
    "Replayed": "replog.replaying",
    "ReplicatedLog": "replog.log",
    "Retention": "replog.retention",
    "Snapshot": "replog.snapshot",
    "SnapshotEvery": "replog.retention",
    "SnapshotStatus": "replog.replica.effects",
    "Status": "replog.replica.effects",
    "Transport": "replog.log",
    "backup": "replog.store.copying",
    "open": "replog.log",
    "replay": "replog.replaying",
    "restore": "replog.store.copying",
}

__all__ = [
    "Agreement",
    "Busy",
    "Closed",
    "ConfigError",
    "Copied",
    "Corruption",
    "Follower",
    "IdentityRefused",
    "InvariantBroken",
    "Limits",
    "Machine",
    "MachineStatus",
    "MachineStopped",
    "NamedReader",
    "NodeStopped",
    "NotAppended",
    "OffsetOutOfRange",
    "OutcomeUnknown",
    "PeerFault",
    "Pending",
    "Record",
    "Replayed",
    "ReplicatedLog",
    "ReplogError",
    "Retention",
    "Snapshot",
    "SnapshotEvery",
    "SnapshotStatus",
    "Status",
    "StoreError",
    "StoreFailed",
    "StoreInUse",
    "TooLarge",
    "Transport",
    "WrongStore",
    "__version__",
    "backup",
    "open",
    "replay",
    "restore",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'replog' has no attribute {name!r}")
    value = getattr(import_module(_HOMES.get(name, "replog.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
