"""The directory of a store: what may be in it, its lock, and the checks before LMDB maps a file.

Rules of this file:

1. Nothing is written into a directory that holds files but no store of ours.
2. `store.txt` is written once a store is formatted: where it is, a missing `data.mdb` is lost data.
3. One opener at a time may write. A second one, in whichever process and by whichever path, is
   refused by the lock on the file `lock`.
4. LMDB never maps a file that is shorter than its last page: touching the missing part would kill
   the process with SIGBUS. So that a good file is never refused for it, a writer keeps its file
   longer than its last page (`stretch`): LMDB leaves pages unwritten that one transaction both
   takes and frees.
"""

from __future__ import annotations

import fcntl
import os
import re
import sys
from pathlib import Path
from struct import Struct
from typing import NamedTuple

from replog.errors import ConfigError, Corruption, StoreError, StoreInUse, WrongStore

DATA_FILE = "data.mdb"
LMDB_LOCK_FILE = "lock.mdb"
LOCK_FILE = "lock"
MARKER_FILE = "store.txt"
CONTROL_SOCKET = "control"

NETWORK_FILE_SYSTEMS = {"afs", "cifs", "fuse.sshfs", "nfs", "nfs4", "smb3", "smbfs"}
"""Where file locks or shared mappings cannot be relied on."""

STRETCH_BYTES = 16 << 20
"""How far a file is stretched at once. The part stays sparse: it takes no blocks."""

_RESTORED_NAME = re.compile(r"restored-[0-9a-f]{8}")
_PAGE_HEADER_BYTES = 16
_META = Struct("=IIQQI44x48xQQ")
"""LMDB 0.9's meta page behind the page header: magic, version, map address, map size, page size,
(two table headers), last page, transaction id; in the byte order of the machine."""
_MAGIC = 0xBEEFC0DE
_DATA_VERSION = 1

_held: set[int] = set()
"""Descriptors of the locks held by this process."""


class DataFile(NamedTuple):
    """What the newest meta page of a `data.mdb` says, and its length."""

    page_bytes: int
    used_bytes: int
    """Length of the file up to and with its last page."""
    file_bytes: int


class DirectoryLock:
    """The right to write to a directory; given back by `release` or the end of the process."""

    def __init__(self, directory: Path) -> None:
        """Take the lock. Raises `StoreInUse` when somebody has it."""
        descriptor = os.open(
            directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode=0o600
        )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 20).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise in_use(directory, f"by process {holder}") from None
        except BaseException:
            os.close(descriptor)
            raise
        os.ftruncate(descriptor, 0)
        os.write(descriptor, b"%d\n" % os.getpid())
        self._descriptor = descriptor
        _held.add(descriptor)

    def release(self) -> None:
        """Give the lock back."""
        if self._descriptor in _held:
            _held.remove(self._descriptor)
            # A child forked a moment ago may not have closed its copy yet.
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)


def _drop_locks_in_child() -> None:
    """A forked child must not keep its parent's directories locked after the parent's end."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_drop_locks_in_child)


def in_use(directory: Path, whose: str) -> StoreInUse:
    """The error for a second opener; the caller raises it."""
    return StoreInUse(f"{directory} is in use {whose}: one log at a time may open a directory")


def prepare(directory: Path) -> None:
    """Make the directory if it is missing, with mode 0700.

    Raises `WrongStore` when it holds files but no store, `Corruption` when the store in it has lost
    its data, `StoreError` on a file system that cannot hold one.
    """
    _make_directory(directory)
    names = {path.name for path in directory.iterdir()}
    if MARKER_FILE not in names and DATA_FILE not in names:
        strange = sorted(names - {LOCK_FILE, CONTROL_SOCKET, LMDB_LOCK_FILE})
        if strange:
            raise WrongStore(
                f"{directory} holds {strange[0]!r} but no store: name an empty or a new directory"
            )
    file_system = _network_file_system(directory)
    if file_system:
        raise StoreError(
            f"{directory} lies on {file_system}, where locks and mapped files cannot be relied on: "
            "name a directory on a local disk"
        )


def check_present(directory: Path) -> None:
    """Raise `WrongStore` when there is no store in the directory, for those who only read."""
    if not (directory / DATA_FILE).exists() and not is_marked(directory):
        raise WrongStore(f"{directory} holds no store")


def is_marked(directory: Path) -> bool:
    """Whether a store was formatted in this directory."""
    return (directory / MARKER_FILE).exists()


def restored_name(digest: bytes) -> str:
    """The name of a cluster that begins with the log of this digest: see `replog.store.copying`."""
    return f"restored-{digest[:4].hex()}"


def check_may_begin(path: str | os.PathLike[str], cluster: str) -> None:
    """Raise `ConfigError` for a directory without a log in a cluster that was restored: there it
    could help to decide otherwise what the others have from their backup."""
    directory = Path(path)
    if not _RESTORED_NAME.fullmatch(cluster):
        return
    if not (is_marked(directory) or (directory / DATA_FILE).exists()):
        raise ConfigError(
            f"{directory} holds no log, and the members of cluster {cluster} begin with that of "
            "their backup: make it one of them with `replog restore`"
        )


def mark(directory: Path, holds: str) -> None:
    """Note durably that a store is formatted here, and in words what it holds: its files and their
    names are on disk."""
    text = (
        f"This directory holds {holds}.\n"
        "Its files belong together: to lose or to copy back one of them is to lose data.\n"
    )
    with (directory / MARKER_FILE).open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    _sync_directory(directory)


def read_data_file(directory: Path) -> DataFile | None:
    """What `data.mdb` says of itself; None when it is missing or empty and nothing is lost.

    Raises `Corruption` when it is damaged or cut off, `WrongStore` for another engine's format.
    """
    path = directory / DATA_FILE
    try:
        with path.open("rb") as file:
            first = _read_meta(path, file.read(_PAGE_HEADER_BYTES + _META.size))
            if first is None and not is_marked(directory):
                return None
            page_bytes = first[4] if first else 0
            file.seek(page_bytes)
            second = _read_meta(path, file.read(_PAGE_HEADER_BYTES + _META.size))
            # After the meta pages: a running writer lengthens the file before it says so.
            file_bytes = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        if not is_marked(directory):
            return None
        raise Corruption(
            f"{path} is missing: this node has lost its data and must not go on as if it were new"
        ) from None
    if first is None or second is None:
        raise Corruption(f"{path} has lost its data: it holds {file_bytes} bytes")
    last_page = max(first, second, key=lambda meta: meta[6])[5]
    used_bytes = (last_page + 1) * page_bytes
    if file_bytes < used_bytes:
        raise Corruption(
            f"{path} is cut off: it holds {file_bytes} bytes of the {used_bytes} that it needs"
        )
    return DataFile(page_bytes, used_bytes, file_bytes)


def stretch(directory: Path, file_bytes: int) -> int:
    """Lengthen `data.mdb` to this many bytes unless it is longer; its length then.

    Only for who holds the directory's lock.
    """
    path = directory / DATA_FILE
    found = path.stat().st_size
    if found >= file_bytes:
        return found
    os.truncate(path, file_bytes)
    return file_bytes


def _read_meta(path: Path, page: bytes) -> tuple[int, ...] | None:
    """The fields of a meta page; None when the file ends before it."""
    if not page:
        return None
    if len(page) < _PAGE_HEADER_BYTES + _META.size:
        raise Corruption(f"{path} is cut off within its first pages")
    fields = _META.unpack_from(page, _PAGE_HEADER_BYTES)
    magic, version, _, _, page_bytes, _, _ = fields
    if magic != _MAGIC:
        if int.from_bytes(page[24:28], sys.byteorder) == _MAGIC:
            raise WrongStore(f"{path} was written by LMDB 1.0; this library uses LMDB 0.9")
        raise Corruption(f"{path} does not begin as an LMDB file does")
    if version != _DATA_VERSION:
        raise WrongStore(f"{path} has version {version} of LMDB's format, not {_DATA_VERSION}")
    if page_bytes.bit_count() != 1 or not 256 <= page_bytes <= 65536:
        raise Corruption(f"{path} claims pages of {page_bytes} bytes")
    return fields


def _make_directory(directory: Path) -> None:
    missing = []
    path = directory
    while not path.exists():
        missing.append(path)
        path = path.parent
    if not path.is_dir():
        raise WrongStore(f"{path} is no directory")
    for path in reversed(missing):
        path.mkdir(mode=0o700)
        _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _network_file_system(directory: Path) -> str:
    """The type of the file system when it is a network's; "" when not, or where nobody can say."""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    best, kind = -1, ""
    for line in mounts.splitlines():
        _, point, file_system, *_ = line.split(" ")
        point = point.replace("\\040", " ")
        if len(point) >= best and directory.is_relative_to(point):
            best, kind = len(point), file_system
    return kind if kind in NETWORK_FILE_SYSTEMS else ""
