"""The machine that figures come from: what to know before comparing them, and no names."""

from __future__ import annotations

import os
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import zmq

PACKAGES = ("lmdb", "msgpack", "pyzmq")
MEMORY_FILE_SYSTEMS = {"tmpfs", "ramfs", "devtmpfs"}
"""Where a sync costs nothing: no figure from there says anything about durability."""
NOISE_SECONDS = 0.5
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def describe(directory: Path) -> dict[str, Any]:
    """The machine, its software, and the file system that holds the data."""
    return {
        "processor": _line("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "libzmq": zmq.zmq_version(),
        "file_system": file_system(directory),
        "processors_busy_before": round(processors_busy(), 2),
    }


def file_system(directory: Path) -> str:
    """The type of the file system that holds the directory; "" when nobody can say."""
    directory = directory.resolve()
    best, kind = -1, ""
    for line in Path("/proc/self/mounts").read_text(errors="replace").splitlines():
        _, point, found, *_ = line.split(" ")
        point = point.replace("\\040", " ")
        if len(point) >= best and directory.is_relative_to(point):
            best, kind = len(point), found
    return kind


def check_disk(directory: Path) -> None:
    """Raise `ValueError` for a directory in memory."""
    kind = file_system(directory)
    if kind in MEMORY_FILE_SYSTEMS:
        raise ValueError(
            f"{directory} lies on {kind}, in memory: name a directory on a disk with --directory"
        )


def processors_busy() -> float:
    """How many processors others use while this process sleeps."""
    before = busy_seconds()[0]
    time.sleep(NOISE_SECONDS)
    return (busy_seconds()[0] - before) / NOISE_SECONDS


def processor_seconds(pid: int) -> float:
    """Processor time that a process and its threads have used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def resident_mib(pid: int) -> float:
    """Memory that a process holds. Its LMDB pages, which the system may take back, count too."""
    kib = _line(f"/proc/{pid}/status", "VmRSS").split()[0]
    return int(kib) / 1024


class Memory(NamedTuple):
    """What a process has resident, in MiB."""

    own: float
    """Its own, anonymous: gone when it ends."""
    of_files: float
    """Pages of files, its LMDB map above all: the system's cache, which it may take back."""


def memory_mib(pid: int) -> Memory:
    """What a process has resident now."""
    path = f"/proc/{pid}/status"
    own, of_files = (int(_line(path, name).split()[0]) for name in ("RssAnon", "RssFile"))
    return Memory(own / 1024, of_files / 1024)


def busy_seconds() -> tuple[float, float]:
    """Time that all processors together were busy, and were taken by the hypervisor."""
    with Path("/proc/stat").open(encoding="ascii") as file:
        user, nice, system, _, _, interrupt, soft, steal = map(int, file.readline().split()[1:9])
    return (user + nice + system + interrupt + soft) / TICKS_PER_SECOND, steal / TICKS_PER_SECOND


def _line(file: str, name: str) -> str:
    for line in Path(file).read_text(errors="replace").splitlines():
        found, _, value = line.partition(":")
        if found.strip() == name:
            return value.strip()
    return ""
