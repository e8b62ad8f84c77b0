"""What happens to a store inside the transaction that opens it: formatting, checking, a new life.

Rules of this file:

1. A directory is formatted once, by one transaction; only an environment without any table is.
2. A store is used only by the node, cluster and agreement it was formatted for; a backup by none.
3. What can be seen without reading what is delivered is checked at each open, in time O(epochs +
   tail): a missing entry, a table cut short or a position beyond the log is corruption, never
   repaired by guessing. Gaps are where the epochs say so, above the position, and nowhere else.
4. The newest whole snapshot is kept, and every other one, whole or not, deleted: nobody reads it
   any more. Of its pieces the first and the last are looked for, and none is read.
5. One whole copy of the promise serves, and is copied over a damaged other one. Without any the
   node must not vote: that is corruption.
"""

from __future__ import annotations

import os
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import lmdb

from replog.entry import NO_EPOCH
from replog.errors import Corruption, WrongStore
from replog.membership import BACKUP_CLUSTER_ID
from replog.snapshot import Base
from replog.store import layout
from replog.store.epochs import count_entries, epoch_at, first_gap, next_entry
from replog.store.interface import Restoration
from replog.store.layout import Era, StoredPromise, StoreIdentity
from replog.store.lmdb_reader import (
    Roots,
    Tables,
    Transaction,
    load_roots,
    load_snapshots,
    newest_snapshot,
    open_stored_tables,
    open_tables,
)
from replog.store.rules import EMPTY

if TYPE_CHECKING:
    from replog.entry import Epoch
    from replog.membership import Membership
    from replog.store.epochs import EpochRun
    from replog.store.interface import Peer, Position, StoredEntry, StoredSnapshot

STORE_ID_BYTES = 16


class Owner(NamedTuple):
    """Whose store is asked for."""

    node: str
    cluster_id: bytes
    agreement: str
    membership: Membership


class Opened(NamedTuple):
    """A store that may be used once the transaction is committed."""

    tables: Tables
    restoration: Restoration
    generation: int
    """Of the stored promise."""


def begin_life(
    environment: lmdb.Environment,
    txn: Transaction,
    file: str,
    owner: Owner,
    unix_ms: int,
    *,
    formatted: bool,
) -> Opened:
    """Format the environment, or check that it is the owner's and whole; store a new life.

    `formatted` says that a store was here before. Raises `WrongStore` and `Corruption`.
    """
    if txn.stat()["entries"] == 0:
        if formatted:
            raise Corruption(
                f"{file} is empty: this node has lost its data and must not go on as if it were new"
            )
        tables = open_tables(environment, txn, create=True)
        _format(txn, tables, owner)
        life = max(1, unix_ms)
    else:
        tables = open_stored_tables(file, environment, txn)
        roots = load_roots(file, txn, tables)
        _check_owner(file, roots, owner)
        life = max(roots.identity.life + 1, unix_ms)
    txn.put(layout.LIFE_KEY, layout.pack_life(life), db=tables[layout.META])
    stored = _load_promise(file, txn, tables)
    snapshot = sweep_snapshots(file, txn, tables)
    restoration = _load(file, txn, tables, stored.promise, snapshot)
    return Opened(tables, restoration, stored.generation)


def drop_from(txn: Transaction, table: lmdb._Database, first: int) -> None:
    """Delete every row from this index on, of a table whose keys are indexes."""
    cursor = txn.cursor(table)
    if cursor.set_range(layout.index_key(first)):
        while cursor.delete():
            pass


def drop_snapshot(txn: Transaction, table: lmdb._Database, snapshot_id: int) -> None:
    """Delete all that is stored of a snapshot."""
    first = layout.piece_key(snapshot_id, layout.HEADER_NUMBER)
    cursor = txn.cursor(table)
    cursor.set_range(first)
    while cursor.key()[: layout.SNAPSHOT_ID_BYTES] == first[: layout.SNAPSHOT_ID_BYTES]:
        cursor.delete()


def put_promise(txn: Transaction, tables: Tables, stored: StoredPromise) -> None:
    """Write both copies of the promise."""
    for table, key in PROMISE_COPIES:
        txn.put(key, layout.pack_promise(table, key, stored), db=tables[table])


def read_promises(
    file: str, txn: Transaction, tables: Tables
) -> tuple[list[StoredPromise], list[Corruption]]:
    """The copies of the promise that are whole, and what is wrong with the others."""
    whole: list[StoredPromise] = []
    damage: list[Corruption] = []
    for table, key in PROMISE_COPIES:
        try:
            whole.append(layout.parse_promise(file, table, key, txn.get(key, db=tables[table])))
        except Corruption as error:
            damage.append(error)
    return whole, damage


PROMISE_COPIES = (
    (layout.META, layout.PROMISE_KEY),
    (layout.PROMISE, layout.PROMISE_COPY_KEY),
)


def _format(txn: Transaction, tables: Tables, owner: Owner) -> None:
    identity = StoreIdentity(owner.cluster_id, owner.node, os.urandom(STORE_ID_BYTES))
    era = Era(owner.agreement, owner.membership, 1)
    meta = tables[layout.META]
    for key, value in (
        (layout.FORMAT_KEY, layout.pack_format()),
        (layout.IDENTITY_KEY, layout.pack_identity(identity)),
        (layout.ERAS_KEY, layout.pack_eras(era)),
        (layout.INTRODUCED_KEY, layout.pack_introduced(introduced=False)),
        (layout.POSITION_KEY, layout.pack_position(EMPTY.position)),
        (layout.BASE_KEY, layout.pack_base(EMPTY.base)),
    ):
        txn.put(key, value, db=meta)
    put_promise(txn, tables, StoredPromise(0, EMPTY.promise))


def _check_owner(file: str, roots: Roots, owner: Owner) -> None:
    found = roots.identity
    if found.cluster_id == BACKUP_CLUSTER_ID:
        raise WrongStore(
            f"{file} is a backup of the log of {found.node}, which no node may write to: make a "
            "member of it in a directory of its own, with `replog restore`"
        )
    advice = "name this node's own directory, or an empty one for a new node"
    if found.agreement != owner.agreement:
        raise WrongStore(
            f"{file} holds a log under {found.agreement!r}, not {owner.agreement!r}: open it with "
            "the agreement it was made with"
        )
    if found.node != owner.node:
        raise WrongStore(f"{file} belongs to node {found.node!r}, not {owner.node!r}: {advice}")
    if found.cluster_id != owner.cluster_id:
        raise WrongStore(
            f"{file} belongs to cluster {found.cluster_id.hex()} ({_described(roots.membership)}), "
            f"not {owner.cluster_id.hex()} ({_described(owner.membership)}): open it with the "
            f"members, quorums and cluster name it was made with; or {advice}"
        )


def _described(membership: Membership) -> str:
    quorums = membership.quorums
    members = ", ".join(sorted(membership.voters))
    return f"members {members}; {quorums.elect} elect, {quorums.commit} commit"


def _load_promise(file: str, txn: Transaction, tables: Tables) -> StoredPromise:
    """The newest whole copy. Only a damaged copy is written again: else nothing changes."""
    whole, damage = read_promises(file, txn, tables)
    if not whole:
        raise Corruption(
            f"{damage[0]}; and {damage[1]}: "
            "this node cannot know what it promised and must not vote"
        )
    newest = max(whole)
    if damage or whole[0] != whole[1]:
        put_promise(txn, tables, newest)
    return newest


def sweep_snapshots(file: str, txn: Transaction, tables: Tables) -> StoredSnapshot | None:
    """The newest whole snapshot; rule 4. Raises `Corruption`."""
    found = load_snapshots(file, txn, tables)
    newest = newest_snapshot(found)
    table = tables[layout.SNAPSHOTS]
    for snapshot_id in found:
        if newest is None or snapshot_id != newest.snapshot_id:
            drop_snapshot(txn, table, snapshot_id)
    if newest is not None and newest.snapshot.pieces:
        cursor = txn.cursor(table)
        for number in (1, newest.snapshot.pieces):
            if not cursor.set_key(layout.piece_key(newest.snapshot_id, number)):
                where = layout.piece_name(newest.snapshot_id, number)
                raise layout.corruption(file, layout.SNAPSHOTS, where, "is missing")
    return newest


def _load(
    file: str,
    txn: Transaction,
    tables: Tables,
    promise: Epoch,
    snapshot: StoredSnapshot | None,
) -> Restoration:
    """The durable state of a store, checked as far as that does not take what is delivered."""
    roots = load_roots(file, txn, tables)
    meta = tables[layout.META]
    epochs = [
        layout.parse_epoch(file, key, value) for key, value in txn.cursor(tables[layout.EPOCHS])
    ]
    peers: dict[str, Peer] = dict(
        layout.parse_peer(file, key, value) for key, value in txn.cursor(tables[layout.PEERS])
    )
    readers: dict[str, int] = dict(
        layout.parse_reader(file, key, value) for key, value in txn.cursor(tables[layout.READERS])
    )
    position = layout.parse_position(file, txn.get(layout.POSITION_KEY, db=meta))
    base = layout.parse_base(file, txn.get(layout.BASE_KEY, db=meta))
    check_base(file, base, snapshot, position)
    first_index = base.index + 1
    extent = _measure_log(file, txn, tables, first_index)
    _check_log(file, extent, epochs, first_index, position)
    tail = _load_tail(file, txn, tables, epochs, position)
    _check_delivered(file, txn, tables, base, position)
    return Restoration(
        identity=roots.identity,
        membership=roots.membership,
        introduced=layout.parse_introduced(file, txn.get(layout.INTRODUCED_KEY, db=meta)),
        promise=promise,
        epochs=tuple(epochs),
        base=base,
        last_index=extent.last,
        position=position,
        snapshot=snapshot,
        peers=peers,
        tail=tail,
        readers=readers,
    )


def check_base(file: str, base: Base, stored: StoredSnapshot | None, position: Position) -> None:
    """Rule 6 of `replog.store.rules`; and where two of them lie at one index, they say the same.

    Raises `Corruption`.
    """
    marks = [(layout.META, "base", base)]
    if stored is not None:
        where = layout.piece_name(stored.snapshot_id, layout.HEADER_NUMBER)
        marks.append((layout.SNAPSHOTS, where, stored.snapshot.base))
    elif base.index:
        raise layout.corruption(
            file, layout.SNAPSHOTS, "header", f"is missing for entries to {base.index} are gone"
        )
    marks.append((layout.META, "position", Base(position.index, NO_EPOCH, *position[1:4])))
    for (_, _, low), (table, key, high) in pairwise(marks):
        if high.index < low.index or (
            high.index == low.index and high._replace(epoch=low.epoch) != low
        ):
            raise layout.corruption(file, table, key, f"is {high}, behind {low}")


class _Extent(NamedTuple):
    """How far the rows of the log reach."""

    first: int
    last: int
    """Before the first index for an empty log."""
    rows: int


def _measure_log(file: str, txn: Transaction, tables: Tables, first_index: int) -> _Extent:
    cursor = txn.cursor(tables[layout.LOG])
    first, last = first_index, first_index - 1
    if cursor.first():
        first = layout.parse_index_key(file, layout.LOG, cursor.key())
        cursor.last()
        last = layout.parse_index_key(file, layout.LOG, cursor.key())
    return _Extent(first, last, txn.stat(tables[layout.LOG])["entries"])


def _check_log(
    file: str, extent: _Extent, epochs: list[EpochRun], first_index: int, position: Position
) -> None:
    """The epochs cover the log and leave no gap in what is delivered; there are as many entries as
    they say."""
    first, last, rows = extent
    if position.index > last:
        raise layout.corruption(
            file, layout.LOG, str(last), f"ends the log, but {position.index} was delivered"
        )
    if rows:
        gap = first_gap(epochs)
        covered = (
            bool(epochs)
            and epochs[0][0] == first_index
            and epochs[-1][0] <= last
            and epochs[-1][1] != NO_EPOCH
            and (gap is None or gap > position.index)
            and all(run[1] != following[1] for run, following in pairwise(epochs))
        )
    else:
        covered = not epochs
    if not covered:
        raise layout.corruption(
            file,
            layout.EPOCHS,
            str([run[0] for run in epochs]),
            f"do not cover the entries {first} to {last}, delivered to {position.index}",
        )
    expected = count_entries(epochs, last)
    if rows != expected or first != next_entry(epochs, first_index):
        raise layout.corruption(
            file,
            layout.LOG,
            f"{first} to {last}",
            f"holds {rows} entries, but {expected} from {next_entry(epochs, first_index)} on have "
            "epochs",
        )


def _load_tail(
    file: str, txn: Transaction, tables: Tables, epochs: list[EpochRun], position: Position
) -> list[StoredEntry]:
    """The entries above the position; each has the epoch that table epochs gives it."""
    tail: list[StoredEntry] = []
    cursor = txn.cursor(tables[layout.LOG])
    if cursor.set_range(layout.index_key(position.index + 1)):
        for key, value in cursor:
            entry = layout.parse_log_row(file, key, value)[0]
            expected = epoch_at(epochs, entry.index)
            if entry.epoch != expected:
                raise layout.corruption(
                    file, layout.LOG, str(entry.index), f"has {entry.epoch}, but epochs {expected}"
                )
            tail.append(entry)
    return tail


def _check_delivered(
    file: str, txn: Transaction, tables: Tables, base: Base, position: Position
) -> None:
    cursor = txn.cursor(tables[layout.DELIVERED])
    rows = txn.stat(tables[layout.DELIVERED])["entries"]
    first, last = (base.offset, base.index + 1), base.index
    if cursor.first():
        first = layout.parse_delivered_key(file, cursor.key())
        cursor.last()
        last = layout.parse_delivered_key(file, cursor.key())[1]
    if (
        first != (base.offset, base.index + 1)
        or last != position.index
        or rows != last - base.index
    ):
        raise layout.corruption(
            file,
            layout.DELIVERED,
            str(last),
            f"ends {rows} rows, the first of entry {first[1]} at offset {first[0]}, but entries "
            f"from {base.index + 1} at offset {base.offset} to {position.index} were delivered",
        )
