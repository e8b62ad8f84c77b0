"""What a member of a made-up cluster holds, and how it is written down."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from replog.agreement import EntryRef, Leadership, Message, Write
from replog.entry import NO_EPOCH, Epoch, Kind

NO_BASE = EntryRef(0, NO_EPOCH)
"""Of a log that is whole."""


class Value(NamedTuple):
    """An entry's payload."""

    kind: Kind
    data: str

    def __str__(self) -> str:
        return "*" if self.kind is Kind.NOOP else self.data.partition(".")[0]


class Stored(NamedTuple):
    """An entry in a log."""

    epoch: Epoch
    value: Value


class StoredWrite(NamedTuple):
    """A write with its payloads."""

    write: Write
    entries: Mapping[int, Stored]
    position: int
    """How far the member had delivered then."""
    installed: EntryRef | None = None
    """The base of the snapshot that it installs."""


class Offer(NamedTuple):
    """A whole snapshot, on its way to a member that lacks what is compacted elsewhere."""

    base: EntryRef


class Image:
    """What a member holds, in memory or on disk."""

    def __init__(self, promise: Epoch = NO_EPOCH, entries: Iterable[Stored | None] = ()) -> None:
        self.promise = promise
        self.entries = {
            index: stored for index, stored in enumerate(entries, start=1) if stored is not None
        }
        self.position = 0
        """How far this member has delivered."""
        self.base = NO_BASE
        """The last entry that is compacted."""
        self.snapshot = NO_BASE
        """The last entry that the newest snapshot stands for."""

    @property
    def last_index(self) -> int:
        return max(self.entries, default=self.base.index)

    @property
    def epochs(self) -> tuple[tuple[int, Epoch], ...]:
        """The epochs in runs, also of gaps."""
        runs: list[tuple[int, Epoch]] = []
        for index in range(self.base.index + 1, self.last_index + 1):
            epoch = self.entries[index].epoch if index in self.entries else NO_EPOCH
            if not runs or runs[-1][1] != epoch:
                runs.append((index, epoch))
        return tuple(runs)

    @property
    def tail(self) -> tuple[EntryRef, ...]:
        """What lies above the delivered position."""
        indexes = sorted([index for index in self.entries if index > self.position])
        return tuple([EntryRef(index, self.entries[index].epoch) for index in indexes])

    def find(self, ref: EntryRef) -> Stored | None:
        """The entry of this name, `NO_EPOCH` standing for any."""
        stored = self.entries.get(ref.index)
        return stored if stored is not None and ref.epoch in {NO_EPOCH, stored.epoch} else None

    def apply(self, change: StoredWrite) -> None:
        """Promise, truncation, install, entries: in this order."""
        write = change.write
        if write.promise is not None:
            self.promise = write.promise
        if write.truncate_from is not None:
            for index in range(write.truncate_from, self.last_index + 1):
                del self.entries[index]
        if change.installed is not None:
            self.snapshot = change.installed
            self.compact(change.installed)
        indexes = [entry.index for entry in write.entries]
        assert indexes == sorted(set(indexes)), f"entries of a write do not ascend: {indexes}"
        self.entries.update(change.entries)

    def ref_at(self, index: int) -> EntryRef:
        """The name of an entry, or of the base."""
        return self.base if index == self.base.index else EntryRef(index, self.entries[index].epoch)

    def compact(self, base: EntryRef) -> None:
        """Drop every entry up to this one."""
        self.base = base
        for index in [index for index in self.entries if index <= base.index]:
            del self.entries[index]

    def copy(self) -> Image:
        twin = Image(self.promise)
        twin.entries = dict(self.entries)
        twin.position = self.position
        twin.base = self.base
        twin.snapshot = self.snapshot
        return twin


def placeholder(index: int, epoch: Epoch) -> str:
    """The payload of an entry in a log that a test made up."""
    return f"{index}.{epoch.number}.{epoch.node}"


class Words:
    """How epochs and what has them are written down; by the number alone where that is enough."""

    def __init__(self, *, number_is_enough: bool) -> None:
        self._number_is_enough = number_is_enough

    def epoch(self, epoch: Epoch) -> str:
        """As in `3`, or `3.n1`."""
        if self._number_is_enough or not epoch.node:
            return str(epoch.number)
        return f"{epoch.number}.{epoch.node}"

    def leadership(self, leadership: Leadership) -> str:
        """As in `follower of n2 in 3`."""
        of = ""
        if leadership.leader is not None and leadership.role != "leader":
            of = f" of {leadership.leader}"
        return f"{leadership.role}{of} in {self.epoch(leadership.epoch)}"

    def log(self, image: Image) -> str:
        """As in `1-4@1 5:x@2`: made-up entries of one epoch make one piece; `..3@1`: compacted."""
        base = image.base
        pieces = [f"..{base.index}@{self.epoch(base.epoch)}"] if base.index else []
        first = 0
        for index in sorted(image.entries):
            epoch, value = image.entries[index]
            before = image.entries.get(index - 1)
            if value.data != placeholder(index, epoch):
                first = 0
                pieces.append(f"{index}:{value}@{self.epoch(epoch)}")
            elif first and before is not None and before.epoch == epoch:
                pieces[-1] = f"{first}-{index}@{self.epoch(epoch)}"
            else:
                first = index
                pieces.append(f"{index}@{self.epoch(epoch)}")
        return " ".join(pieces) or "empty"

    def write(self, change: StoredWrite) -> str:
        """As in `2: promise 1 n1, 2:x@1`."""
        write = change.write
        parts = []
        if write.promise is not None:
            parts.append(f"promise {write.promise.number} {write.promise.node or '-'}")
        if write.truncate_from is not None:
            parts.append(f"drop from {write.truncate_from}")
        if write.install is not None:
            parts.append(f"install {write.install}")
        if change.entries:
            words = [
                f"{index}:{value}@{self.epoch(epoch)}"
                for index, (epoch, value) in change.entries.items()
            ]
            parts.append(" ".join(words))
        return f"{write.write_id}: {', '.join(parts)}"


def describe_message(message: Message) -> str:
    """As its `repr`, with epochs in short."""
    fields: tuple[str, ...] = message._fields  # type: ignore[attr-defined]
    words = [f"{f}={_field(value)}" for f, value in zip(fields, message, strict=True)]
    return f"{type(message).__name__}({', '.join(words)})"


def _field(value: object) -> str:
    if isinstance(value, Epoch):
        return f"{value.number}.{value.node}" if value.node else str(value.number)
    if isinstance(value, EntryRef):
        return f"{value.index}@{_field(value.epoch)}"
    if isinstance(value, tuple):
        return f"[{' '.join(map(_field, value))}]"
    return repr(value)
