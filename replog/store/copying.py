"""Copies of a store: backups, and members of a new cluster that are made from one.

Rules of this file:

1. A copy is of one moment, seen by one read transaction; the node may run meanwhile. It holds what
   was delivered and written down by then: what is not known to be committed stays behind.
2. A copy never has the identity of a node. A backup belongs to no cluster, and no node opens it.
   What is restored from one belongs to a new cluster, which is named after the log it begins with:
   members restored from different backups never meet, nor do they meet the old members.
3. All that the new members begin with is committed among them only because every one of them has
   it: a member that began empty could help to decide otherwise. So such a cluster takes none.
4. Before it begins, a new member has promised the highest epoch of its log to itself, and obeys
   nobody below. Its life is beyond every life of its id that the log knows.
5. A copy is made aside and verified there; it gets its place once it is whole and on the disk.
"""

from __future__ import annotations

import os
import shutil
import threading
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, NamedTuple

import lmdb

from replog.agreement import EntryRef, Restored
from replog.entry import Epoch, check_node_id
from replog.errors import ConfigError, Corruption, InvariantBroken, StoreError, WrongStore
from replog.membership import BACKUP_CLUSTER_ID, Membership, cluster_id
from replog.snapshot import check_header
from replog.store import layout
from replog.store.directory import (
    DATA_FILE,
    MARKER_FILE,
    DataFile,
    mark,
    prepare,
    read_data_file,
    restored_name,
    stretch,
)
from replog.store.layout import Era, StoredPromise, StoreIdentity
from replog.store.lmdb import SPARE_BYTES, room_for_freed
from replog.store.lmdb_reader import LMDB_DAMAGE, open_environment, open_reader, open_stored_tables
from replog.store.opening import (
    STORE_ID_BYTES,
    check_base,
    drop_from,
    put_promise,
    sweep_snapshots,
)
from replog.store.survey import survey
from replog.store.verify import verify_in_child

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from replog.agreement import Agreement
    from replog.store.lmdb_reader import LmdbReader, Tables, Transaction

    Progress = Callable[[str, int, int], None]
    """Called with what is counted, `bytes` copied and then `entries` verified, how many there are
    by now, and how many there will be at most."""

UNFINISHED = "unfinished"
"""The directory within the target where a copy is made."""
POLL_SECONDS = 0.1
"""How often a copy under way is measured."""


class Copied(NamedTuple):
    """A copy that is in its place."""

    node: str
    """Whose store was copied; for a member, whose it is now."""
    agreement: str
    first_offset: int
    end_offset: int
    digest: bytes
    """The log's, after its last entry."""
    file_bytes: int
    cluster: str = ""
    """For a member: what to give to `open` as `cluster`, each time. Empty for a backup."""
    cluster_id: bytes = BACKUP_CLUSTER_ID


class _Owner(NamedTuple):
    """Whose a copy is to be."""

    cluster_id: bytes
    node: str
    era: Era
    promised: str
    """Whom the highest epoch of the log is promised to."""


def backup(
    directory: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    verify: bool = True,
    progress: Progress | None = None,
) -> Copied:
    """Copy the log in `directory` into `target`, a directory that is empty or missing. The node may
    run, in another process. Without the room that was free in the file: a copy may be smaller.

    The copy can be read as any log (`replay`, `LogReader`, every command that looks at a
    directory); a node takes part with what `restore` makes of it, and not with itself. It is
    verified unless `verify` says otherwise.

    Raises `WrongStore` when there is no log or `target` is not empty, `StoreInUse` for a log that
    is open in this process, `Corruption` when it is damaged, `ConfigError` for a target within the
    log's own directory, `StoreError` when the disk fails or is full.
    """
    with closing(open_reader(directory)) as reader:
        identity = reader.identity
        era = Era(identity.agreement, reader.membership, 1)
        owner = _Owner(BACKUP_CLUSTER_ID, identity.node, era, "")
        holds = f"a backup of the replicated log of node {identity.node}"
        return _copy(reader, target, owner, holds, verify=verify, progress=progress)


def restore(
    backup: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    *,
    agreement: Agreement,
    node: str = "n1",
    members: Collection[str] | None = None,
    verify: bool = True,
    progress: Progress | None = None,
) -> Copied:
    """Make `directory`, which is empty or missing, one member of a new cluster that begins with the
    log of a backup. `members` names all of them, as the mapping given to `open` does; without it
    this node is alone. They may be others than those the log had.

    Restore every member, each from the same backup, before the first of them starts; give
    `Copied.cluster` to `open` as `cluster`. Offsets, digests and the newest snapshot are kept;
    named readers are not.

    Raises as `backup` does; `WrongStore` also for what is no backup, and `ConfigError` for members
    that cannot be, and for an agreement that cannot go on with the epochs of this log: the one that
    it was kept under always can.
    """
    membership = _checked_membership(agreement, node, members)
    with closing(open_reader(backup)) as reader:
        if reader.identity.cluster_id != BACKUP_CLUSTER_ID:
            raise WrongStore(
                f"{reader.file} is no backup, but the log of {reader.identity.node}: make a backup "
                "of it first, with `replog backup`"
            )
        _check_goes_on(reader, agreement, node, membership)
        name = restored_name(reader.position().digest)
        number = cluster_id(agreement.name, membership, name)
        owner = _Owner(number, node, Era(agreement.name, membership, 1), node)
        holds = f"the replicated log of node {node}"
        copied = _copy(reader, directory, owner, holds, verify=verify, progress=progress)
    return copied._replace(cluster=name)


def _checked_membership(
    agreement: Agreement, node: str, members: Collection[str] | None
) -> Membership:
    names = {node} if members is None else set(members)
    try:
        for name in (node, *names):
            check_node_id(name)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if node not in names:
        raise ConfigError(f"node {node!r} is not among the members {', '.join(sorted(names))}")
    return agreement.membership(names)


def _check_goes_on(
    reader: LmdbReader, agreement: Agreement, node: str, membership: Membership
) -> None:
    """An agreement says by itself what it can begin with."""
    found = survey(reader)
    restored = Restored(
        promise=Epoch(found.promise.number, node),
        epochs=found.epochs,
        last_index=found.last_index,
        commit_index=found.position.index,
        membership=membership,
        base=EntryRef(found.base.index, found.base.epoch),
    )
    try:
        agreement.core(node, restored, 0, Random(0))
    except InvariantBroken as error:
        raise ConfigError(
            f"{reader.file} holds a log under {reader.identity.agreement!r}, with which "
            f"{agreement.name!r} cannot go on: {error}"
        ) from error


def _copy(
    reader: LmdbReader,
    target: str | os.PathLike[str],
    owner: _Owner,
    holds: str,
    *,
    verify: bool,
    progress: Progress | None,
) -> Copied:
    """Rule 5. `holds` says what the directory holds then, for people."""
    source, directory = Path(reader.file).parent, Path(os.path.realpath(target))
    try:
        aside = _find_place(source, directory)
        try:
            aside.mkdir(mode=0o700)
        except FileExistsError as error:
            raise WrongStore(f"another copy into {directory} is being made") from error
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        try:
            with _measured(source, aside / DATA_FILE, progress):
                reader.copy_to(aside)
            copied = _give(aside, owner, reader.map_bytes)
            if verify:
                _verify(aside, source, progress)
            (aside / DATA_FILE).rename(directory / DATA_FILE)
            mark(directory, holds)
        except BaseException:
            # Nothing half made stays: the directory is as empty as it was found.
            for name in (DATA_FILE, MARKER_FILE):
                (directory / name).unlink(missing_ok=True)
            raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except LMDB_DAMAGE as error:
        raise Corruption(f"{reader.file} is damaged: {error}") from error
    except (OSError, lmdb.Error) as error:
        raise StoreError(f"{source} cannot be copied into {directory}: {error}") from error
    return copied


def _find_place(source: Path, directory: Path) -> Path:
    """Where to make the copy, in a directory that holds nothing else."""
    if directory.is_relative_to(source):
        raise ConfigError(f"{directory} lies in {source}, which is to be copied")
    found = sorted(directory.iterdir()) if directory.is_dir() else []
    if found:
        raise WrongStore(f"{directory} holds {found[0].name!r}: name an empty or a new directory")
    prepare(directory)
    return directory / UNFINISHED


@contextmanager
def _measured(source: Path, copy: Path, progress: Progress | None) -> Iterator[None]:
    """Tell how long the copy is by now, while it is made."""
    if progress is None:
        yield
        return
    size = _measure(source).used_bytes
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(POLL_SECONDS):
            progress("bytes", min(copy.stat().st_size, size) if copy.exists() else 0, size)

    thread = threading.Thread(target=tell, name="replog-copy", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _measure(directory: Path) -> DataFile:
    found = read_data_file(directory)
    if found is None:
        raise Corruption(f"{directory / DATA_FILE} has lost its data")
    return found


def _give(aside: Path, owner: _Owner, map_bytes: int) -> Copied:
    """Make a copy the owner's, in one transaction, and the file as long as its last page says."""
    path = aside / DATA_FILE
    path.chmod(0o600)
    used_bytes = _measure(aside).used_bytes
    room = SPARE_BYTES + room_for_freed(used_bytes)
    stretch(aside, used_bytes + room)
    opened = open_environment(aside, map_bytes=map_bytes + room, readonly=False)
    with closing(opened) as environment, environment.begin(write=True) as txn:
        tables = open_stored_tables(str(path), environment, txn)
        copied = _rewrite(str(path), txn, tables, owner)
    file_bytes = _measure(aside).used_bytes
    with path.open("r+b") as file:
        file.truncate(file_bytes)
        os.fsync(file.fileno())
    return copied._replace(file_bytes=file_bytes)


def _rewrite(file: str, txn: Transaction, tables: Tables, owner: _Owner) -> Copied:
    """Rules 1, 2 and 4."""
    meta = tables[layout.META]
    position = layout.parse_position(file, txn.get(layout.POSITION_KEY, db=meta))
    base = layout.parse_base(file, txn.get(layout.BASE_KEY, db=meta))
    life = layout.parse_life(file, txn.get(layout.LIFE_KEY, db=meta))
    snapshot = sweep_snapshots(file, txn, tables)
    check_base(file, base, snapshot, position)
    for table in (layout.LOG, layout.EPOCHS):
        drop_from(txn, tables[table], position.index + 1)
    for table in (layout.PEERS, layout.READERS):
        txn.drop(tables[table], delete=False)
    numbers = [base.epoch.number]
    for key, value in txn.cursor(tables[layout.EPOCHS]):
        numbers.append(layout.parse_epoch(file, key, value)[1].number)
    if snapshot is not None:
        header = snapshot.snapshot._replace(membership=owner.era.membership)
        check_header(header)
        numbers.append(header.epoch.number)
        txn.put(
            *layout.pack_snapshot(snapshot._replace(snapshot=header)), db=tables[layout.SNAPSHOTS]
        )
    store_id = os.urandom(STORE_ID_BYTES)
    life = max([life, *[row.life for row in position.producers.values()]])
    identity = StoreIdentity(owner.cluster_id, owner.node, store_id)
    for key, packed in (
        (layout.IDENTITY_KEY, layout.pack_identity(identity)),
        (layout.ERAS_KEY, layout.pack_eras(owner.era)),
        (layout.LIFE_KEY, layout.pack_life(life)),
        (layout.INTRODUCED_KEY, layout.pack_introduced(introduced=False)),
    ):
        txn.put(key, packed, db=meta)
    put_promise(txn, tables, StoredPromise(0, Epoch(max(numbers), owner.promised)))
    return Copied(
        node=owner.node,
        agreement=owner.era.agreement,
        first_offset=base.offset,
        end_offset=position.offset,
        digest=position.digest,
        file_bytes=0,
        cluster_id=owner.cluster_id,
    )


def _verify(aside: Path, source: Path, progress: Progress | None) -> None:
    tell = None if progress is None else lambda done, all_: progress("entries", done, all_)
    faults = verify_in_child(aside, tell).faults
    if faults:
        more = f", and {len(faults) - 1} more faults" if len(faults) > 1 else ""
        raise Corruption(f"the copy of {source} is not whole: {faults[0]}{more}")
