"""Which epoch each entry of a log has, in runs, and where the log has gaps.

Rules of this file:

1. A run is (first index, epoch). It reaches to the next one, the last of all to the last entry.
2. Neighbouring runs differ. A gap is a run of `NO_EPOCH`, which no entry has; none ends the log.
3. What is delivered is fixed and has no gaps: only the runs from the last fixed entry on are ever
   looked at to change them, so a change costs what lies above that, not the length of the log.
   Only to cut off the beginning of the log takes all of them.
4. The first run begins with the first entry that the log may hold: right behind its base.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from replog.entry import NO_EPOCH, Epoch
from replog.errors import InvariantBroken

if TYPE_CHECKING:
    from collections.abc import Sequence

EpochRun: TypeAlias = tuple[int, Epoch]
"""(first index, epoch)."""

_first_index = itemgetter(0)


def epoch_at(runs: Sequence[EpochRun], index: int) -> Epoch:
    """The epoch at an index up to the last entry; `NO_EPOCH` in a gap and before the first run."""
    place = bisect_right(runs, index, key=_first_index)
    return runs[place - 1][1] if place else NO_EPOCH


def next_entry(runs: Sequence[EpochRun], index: int) -> int:
    """The lowest index from this one on that lies in no gap."""
    place = bisect_right(runs, index, key=_first_index)
    if 0 < place < len(runs) and runs[place - 1][1] == NO_EPOCH:
        return runs[place][0]
    return index


def first_gap(runs: Sequence[EpochRun]) -> int | None:
    """Where the lowest gap begins; None when there is none."""
    return next((first for first, epoch in runs if epoch == NO_EPOCH), None)


def count_entries(runs: Sequence[EpochRun], last_index: int) -> int:
    """How many entries a log with these runs holds."""
    ends = [*(first for first, _ in runs[1:]), last_index + 1]
    return sum(
        [end - first for (first, epoch), end in zip(runs, ends, strict=False) if epoch != NO_EPOCH]
    )


class RunChanges(NamedTuple):
    """What became of the runs of a log, to be applied in the order of the fields."""

    drop_from: int | None
    """Drop every run that begins at this index or above."""
    runs: Sequence[EpochRun]
    """To be added behind those that are left."""
    drop_below: int | None = None
    """Drop every run that begins below this index."""
    first: Sequence[EpochRun] = ()
    """One at most, to be put before those that are left."""


class ChangingEpochs:
    """The epochs of a log while its entries are written, truncated and compacted."""

    def __init__(self, runs: tuple[EpochRun, ...], last_index: int, fixed_to: int) -> None:
        """`last_index` is that of the log; entries up to `fixed_to` will not be touched."""
        self.last_index = last_index
        """The highest index written; before the first entry when there is none."""
        self._before = runs
        # The run of the last fixed entry keeps its first index: what is below it cannot change.
        self._place = max(0, bisect_right(runs, fixed_to, key=_first_index) - 1)
        self._runs = list(runs[self._place :])
        self._front: Sequence[EpochRun] | None = None
        """The runs before those, once some of them are cut off."""

    @property
    def whole_to(self) -> int:
        """The highest index that no gap lies below or at."""
        gap = first_gap(self._runs)
        return self.last_index if gap is None else gap - 1

    def write(self, index: int, epoch: Epoch) -> None:
        """An entry is written, over another one, into a gap or behind the last.

        Raises `InvariantBroken` for `NO_EPOCH`.
        """
        runs, following = self._runs, self.last_index + 1
        if index == following and runs and runs[-1][1] == epoch:
            self.last_index = index
        elif epoch == NO_EPOCH:
            raise InvariantBroken(f"entry {index} written without an epoch")
        elif index < following:
            self._replace(index, epoch)
        else:
            if index > following:
                runs.append((following, NO_EPOCH))
            runs.append((index, epoch))
            self.last_index = index

    def _replace(self, index: int, epoch: Epoch) -> None:
        runs = self._runs
        place = bisect_right(runs, index, key=_first_index) - 1
        first, replaced = runs[place]
        if replaced == epoch:
            return
        end = runs[place + 1][0] if place + 1 < len(runs) else self.last_index + 1
        start, stop = max(place - 1, 0), place + 2
        pieces = [
            *runs[start:place],
            *([(first, replaced)] if first < index else []),
            (index, epoch),
            *([(index + 1, replaced)] if index + 1 < end else []),
            *runs[place + 1 : stop],
        ]
        runs[start:stop] = [
            piece for at, piece in enumerate(pieces) if not at or pieces[at - 1][1] != piece[1]
        ]

    def truncate(self, index: int) -> None:
        """Every entry from this index on is dropped, and a gap that would end the log with it."""
        if index > self.last_index:
            return
        del self._runs[bisect_left(self._runs, index, key=_first_index) :]
        self.last_index = index - 1
        if self._runs and self._runs[-1][1] == NO_EPOCH:
            self.last_index = self._runs.pop()[0] - 1

    def epoch_at(self, index: int) -> Epoch:
        """The epoch at an index up to the last entry."""
        if self._runs and index >= self._runs[0][0]:
            return epoch_at(self._runs, index)
        return epoch_at(self._before if self._front is None else self._front, index)

    def cut(self, index: int) -> None:
        """Every entry up to this index is dropped, and the log begins right behind it, if only with
        a gap. Costs O(runs)."""
        if index >= self.last_index:
            self.last_index = index
            self._front, self._runs = (), []
            return
        front = self._before[: self._place] if self._front is None else self._front
        runs = [*front, *self._runs]
        following = index + 1
        gone = max(bisect_right(runs, following, key=_first_index) - 1, 0)
        runs[: gone + 1] = [(following, runs[gone][1])]
        left = max(len(front) - gone, 0)
        self._front, self._runs = runs[:left], runs[left:]

    def result(self) -> tuple[tuple[EpochRun, ...], RunChanges]:
        """The runs now, and what changed."""
        runs, before = self._runs, self._before[self._place :]
        same = 0
        while same < min(len(runs), len(before)) and runs[same] == before[same]:
            same += 1
        dropped, added = before[same:], runs[same:]
        back = RunChanges(dropped[0][0] if dropped else None, added)
        if self._front is not None:
            left = (*self._front, *runs)
            drop_below = left[0][0] if left else self.last_index + 1
            return left, back._replace(drop_below=drop_below, first=self._front[:1])
        if not dropped and not added:
            return self._before, RunChanges(None, ())
        return (*self._before[: self._place + same], *added), back
