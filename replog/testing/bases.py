"""The judge of what is dropped: a log begins behind its base, and a snapshot stands for the rest.

Rules that it judges, after every commit:

1. base <= newest whole snapshot <= position, by index. None of them falls, nor does the first
   offset.
2. A base says of its entry what delivery made of it, under the epoch under which it is committed.
3. A whole snapshot has all its pieces on the disk, and they are what its header says.
4. Compaction drops nothing that a named reader has not acknowledged, within the bound of
   `Retention.readers_records_max`; and readers are told first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replog.snapshot import StateDigest
from replog.testing.violation import Violation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replog.entry import Epoch
    from replog.retention import Retention
    from replog.store.interface import StoredSnapshot
    from replog.store.memory import MemoryDisk
    from replog.store.rules import Outline
    from replog.testing.checkers import Contents, History


class Bases:
    """Judges the disks of all nodes."""

    def __init__(
        self,
        history: History,
        contents: Contents,
        retention: Retention | None,
        *,
        by_number: bool,
        with_state: bool,
    ) -> None:
        """`with_state`: each node keeps a state, without which nothing may be dropped."""
        self._history = history
        self._contents = contents
        self._retention = retention
        self._by_number = by_number
        self._with_state = with_state
        self._epochs: dict[int, Epoch] = {}
        """Of the entries that are the last of a base or snapshot, by index."""
        self._told: dict[str, int] = {}
        """The first offset that each node's readers know of."""

    def begins(self, node: str, offset: int) -> None:
        """A life begins, with this first offset."""
        self._told[node] = offset

    def tells(self, node: str, offset: int) -> None:
        """A node's readers are told that nothing below this offset is left."""
        if offset < self._told[node]:
            raise Violation(f"the first offset of {node} falls from {self._told[node]} to {offset}")
        self._told[node] = offset

    def committed(
        self,
        node: str,
        disk: MemoryDisk,
        before: Outline,
        readers: Mapping[str, int],
        *,
        installs: bool,
    ) -> None:
        """A commit has changed the disk; `readers` are those known before."""
        after = disk.outline
        if after.snapshot is not before.snapshot and after.snapshot is not None:
            self._check_snapshot(node, disk, after.snapshot)
        kept = (0, 0) if before.snapshot is None else before.snapshot.snapshot.position[:2]
        whole = (0, 0) if after.snapshot is None else after.snapshot.snapshot.position[:2]
        if not (before.base.index, before.base.offset) <= (after.base.index, after.base.offset):
            raise Violation(f"the base of {node} falls from {before.base} to {after.base}")
        if not kept <= whole:
            raise Violation(f"the newest snapshot of {node} falls from {kept} to {whole}")
        if not after.base.index <= whole[0] <= after.position.index:
            raise Violation(
                f"{node} has dropped all to entry {after.base.index}, its newest snapshot is of "
                f"entry {whole[0]}, and it has delivered {after.position.index}"
            )
        if after.base == before.base:
            return
        self._check_base(node, after)
        if not installs:
            self._check_readers(node, before, after, readers)

    def _check_snapshot(self, node: str, disk: MemoryDisk, stored: StoredSnapshot) -> None:
        snapshot_id, snapshot = stored
        if self._with_state and not snapshot.pieces:
            raise Violation(f"{node} keeps no state with its snapshot of entry {snapshot.index}")
        digest = StateDigest()
        for number in range(1, snapshot.pieces + 1):
            piece = disk.pieces.get((snapshot_id, number))
            if piece is None:
                raise Violation(f"{node} calls a snapshot whole that lacks piece {number}")
            digest.add(piece)
        if (digest.size, digest.value()) != (snapshot.size, snapshot.state_digest):
            raise Violation(f"{node} calls a snapshot whole whose pieces are not what was kept")
        self._check_epoch(node, snapshot.index, snapshot.epoch)

    def _check_base(self, node: str, after: Outline) -> None:
        base = after.base
        row = self._history.rows[base.index - 1]
        end = row.end_offset
        if (base.offset, base.digest, base.timestamp_ms) != (end, row.digest, row.timestamp_ms):
            raise Violation(f"{node} begins behind {base}, others deliver {row}")
        self._check_epoch(node, base.index, base.epoch)

    def _check_epoch(self, node: str, index: int, epoch: Epoch) -> None:
        """Where an epoch is its number, an entry is committed under one of them."""
        if not self._by_number:
            return
        known = self._epochs.setdefault(index, epoch)
        if known != epoch or self._contents.data(index, epoch) != self._history.entry(index):
            raise Violation(f"{node} gives entry {index} the epoch {epoch}, others {known}")

    def _check_readers(
        self, node: str, before: Outline, after: Outline, readers: Mapping[str, int]
    ) -> None:
        offset = after.base.offset
        if offset == before.base.offset:
            return  # no record goes; what a reader needs may have gone by an install
        if offset > self._told[node]:
            raise Violation(
                f"{node} drops records up to {offset}; its readers know of {self._told[node]}"
            )
        if not readers or self._retention is None:
            return
        needed = min(readers.values())
        bound = after.position.offset - self._retention.readers_records_max
        if offset > max(needed, bound):
            raise Violation(
                f"{node} drops records up to {offset}; a reader needs {needed}, and beyond the "
                f"bound is only what lies below {bound}"
            )
