"""The text that is replicated, and the place it is replicated in."""

from __future__ import annotations

import os
import sysconfig
import tempfile
from array import array
from pathlib import Path
from typing import TYPE_CHECKING

from replog.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMORY_FILE_SYSTEMS = {"tmpfs", "ramfs"}
LINE_BYTES_MAX = 1 << 16
TEXT_BYTES_MAX = 64 << 20
"""What follows in a longer text is left out."""
OTHERS_FOLDERS = {"site-packages", "dist-packages"}
"""Not part of the standard library, though they lie in it."""


class Text:
    """Lines, by their numbers from 0. Beside its bytes a line takes 16 more."""

    def __init__(self, data: bytearray, starts: array[int], ends: array[int]) -> None:
        self._data = data
        self._starts = starts
        self._ends = ends

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, number: int) -> bytes:
        return bytes(self._data[self._starts[number] : self._ends[number]])

    def share(self, place: int, shares: int) -> Text:
        """Of each so many lines the one at this place; of a text with fewer lines all."""
        if len(self) < shares:
            return self
        return Text(self._data, self._starts[place::shares], self._ends[place::shares])


def read_text(source: Path | None, lines_max: int) -> Text:
    """The first lines of a file, or of the running Python's standard library.

    Raises `ConfigError` for a file that cannot be read or holds no line.
    """
    data, starts, ends = bytearray(), array("q"), array("q")
    try:
        for path in [source] if source else _library_files(sysconfig.get_path("stdlib")):
            with path.open("rb") as file:
                while len(starts) < lines_max and len(data) < TEXT_BYTES_MAX:
                    line = file.readline(LINE_BYTES_MAX)
                    if not line:
                        break
                    starts.append(len(data))
                    data += line.rstrip(b"\r\n")
                    ends.append(len(data))
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be read: {error.strerror}") from error
    if not starts:
        raise ConfigError(f"{source or 'the standard library'} holds no line of text")
    return Text(data, starts, ends)


def _library_files(root: str) -> Iterator[Path]:
    """The source files of the standard library, in the order of their paths."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(set(folders) - OTHERS_FOLDERS)
        yield from [Path(folder, name) for name in sorted(files) if name.endswith(".py")]


def temporary_directory() -> Path:
    """A new directory on a disk, if there is one to be found: what memory holds, no sync makes
    durable."""
    places = [tempfile.gettempdir(), "/var/tmp", str(Path.cwd())]  # noqa: S108 - only a candidate
    durable = [place for place in places if file_system(Path(place)) not in MEMORY_FILE_SYSTEMS]
    return Path(tempfile.mkdtemp(prefix="replog-demo-", dir=[*durable, *places][0]))


def file_system(path: Path) -> str:
    """The kind of file system a path lies on; "" where nobody can say."""
    try:
        mounts = Path("/proc/self/mounts").read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    best, kind = "", ""
    for line in mounts:
        _, point, name, *_ = line.split(" ")
        point = point.replace("\\040", " ")
        if path.resolve().is_relative_to(point) and len(point) >= len(best):
            best, kind = point, name
    return kind
