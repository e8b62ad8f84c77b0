"""Whether the log of one directory, replayed, comes to what every node's machine came to live."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from replog.machines import KeyValue
from replog.replaying import replay

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MACHINE = "replog.machines:KeyValue"
"""What the nodes feed: an equal one is fed here."""
DIGEST_DIGITS_SHOWN = 16


class LiveMachine(NamedTuple):
    """What a node said of its machine when it stopped."""

    offset: int
    digest: str | None
    """Hexadecimal; None of a machine that had stopped before."""


class ReplayReport(NamedTuple):
    """What a replay came to; it is that of the live machines when `faults` is empty."""

    node: str
    """Whose directory was replayed."""
    records: int
    seconds: float
    digest: str
    keys: int
    """How many the machine holds at the end."""
    faults: tuple[str, ...]

    @property
    def rate(self) -> float:
        """Records a second."""
        return self.records / max(self.seconds, 1e-6)


def compare_replay(node: str, directory: Path, live: Mapping[str, LiveMachine]) -> ReplayReport:
    """Replay the directory of a stopped node into an empty machine, and compare.

    Raises `StoreError` for a directory that cannot be read.
    """
    machine = KeyValue()
    replayed = replay(directory, machine)
    digest = machine.digest().hex()
    faults = [
        f"the machine of {name} came to digest {shown(there.digest)} at offset {there.offset}, the "
        f"replay of {node} to {shown(digest)} at offset {replayed.offset}"
        for name, there in live.items()
        if (there.offset, there.digest) != (replayed.offset, digest)
    ]
    keys = len(machine.items())
    return ReplayReport(node, replayed.records, replayed.seconds, digest, keys, tuple(faults))


def shown(digest: str | None) -> str:
    """A digest as people read it."""
    return "none" if digest is None else digest[:DIGEST_DIGITS_SHOWN]
