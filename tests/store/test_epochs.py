"""Epochs in runs: any writes and truncations leave what a plain dictionary says."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from replog.entry import NO_EPOCH, Epoch
from replog.store.epochs import (
    ChangingEpochs,
    EpochRun,
    RunChanges,
    count_entries,
    epoch_at,
    first_gap,
    next_entry,
)

E1, E2 = Epoch(1, "n1"), Epoch(2, "n2")
EPOCHS = [E1, E2, Epoch(2, "n3")]
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(1, 7), st.sampled_from(EPOCHS)),
        st.tuples(st.just("truncate"), st.integers(1, 7), st.just(NO_EPOCH)),
        st.tuples(st.just("cut"), st.integers(-3, 7), st.just(NO_EPOCH)),
    ),
    max_size=8,
)
"""What happens, in order, each so far above the fixed entries. What is cut off is fixed from then
on, as delivered."""


def runs_of(log: dict[int, Epoch], base: int = 0) -> tuple[EpochRun, ...]:
    """The runs of a log that begins behind this index, found entry by entry."""
    epochs = {index: log.get(index, NO_EPOCH) for index in range(base + 1, max(log, default=0) + 1)}
    return tuple([run for run in epochs.items() if run[1] != epochs.get(run[0] - 1)])


class Changed:
    """The epochs of a log while it changes, beside the log itself."""

    def __init__(self) -> None:
        self.log: dict[int, Epoch] = {}
        self.base = 0
        self.fixed_to = 0

    @property
    def last_index(self) -> int:
        return max(self.log, default=self.base)

    def change(self, changes: list[tuple[str, int, Epoch]]) -> ChangingEpochs:
        epochs = ChangingEpochs(runs_of(self.log, self.base), self.last_index, self.fixed_to)
        fixed_to = self.fixed_to
        for kind, above, epoch in changes:
            index = max(fixed_to + above, self.base + (kind != "cut"))
            if kind == "write" and index > self.fixed_to:
                epochs.write(index, epoch)
                self.log[index] = epoch
            elif kind == "truncate" and index > self.fixed_to:
                epochs.truncate(index)
                self.log = {at: one for at, one in self.log.items() if at < index}
            elif kind == "cut":
                if index in self.log:
                    assert epochs.epoch_at(index) == self.log[index]
                epochs.cut(index)
                self.log = {at: one for at, one in self.log.items() if at > index}
                self.base = index
                self.fixed_to = max(self.fixed_to, index)
        return epochs


@settings(max_examples=1000, deadline=None)
@given(fixed=st.lists(st.sampled_from(EPOCHS), max_size=9), before=CHANGES, changes=CHANGES)
def test_any_changes_leave_the_runs_that_the_entries_say(fixed, before, changes):
    model = Changed()
    model.change([("write", index, epoch) for index, epoch in enumerate(fixed, start=1)])
    model.fixed_to = len(fixed)
    model.change(before)
    rows = dict(runs_of(model.log, model.base))
    epochs = model.change(changes)
    log, base = model.log, model.base
    runs, difference = epochs.result()
    assert runs == runs_of(log, base)
    assert epochs.last_index == model.last_index
    assert {*range(base + 1, epochs.whole_to + 1)} <= {*log}
    assert epochs.whole_to + 1 not in log
    assert count_entries(runs, epochs.last_index) == len(log)
    for index in range(base + 1, epochs.last_index + 1):
        assert epoch_at(runs, index) == log.get(index, NO_EPOCH)
        assert next_entry(runs, index) == min(other for other in log if other >= index)
    # The difference, applied as to a table, gives the same, and drops no row in vain.
    drop_from, drop_below = difference.drop_from, difference.drop_below
    dropped = {first for first in rows if drop_from is not None and first >= drop_from}
    kept = {first: epoch for first, epoch in rows.items() if first not in dropped}
    assert min([first for first, _ in difference.runs], default=99) > max(kept, default=0)
    table = kept | dict(difference.runs)
    table = {first: epoch for first, epoch in table.items() if first >= (drop_below or 0)}
    assert tuple(sorted((table | dict(difference.first)).items())) == runs
    if drop_from is not None:
        assert drop_from in rows
        assert (drop_from, rows[drop_from]) not in difference.runs[:1]


def test_an_append_under_the_same_epoch_changes_no_run():
    runs = ((1, E1), (5, E2))
    epochs = ChangingEpochs(runs, 9, 7)
    epochs.write(10, E2)
    assert epochs.result() == (runs, RunChanges(None, ()))
    assert epochs.result()[0] is runs


def test_the_cost_of_a_change_is_that_of_what_is_not_fixed():
    class Watched(tuple[EpochRun, ...]):  # noqa: SLOT001 - it counts
        handed_out = 0

        def __getitem__(self, place):
            found = super().__getitem__(place)
            self.handed_out += len(found) if type(place) is slice else 1
            return found

        def __iter__(self):
            raise AssertionError("all the runs are walked through")

    runs = Watched((index, EPOCHS[index % 2]) for index in range(1, 10_001))
    epochs = ChangingEpochs(runs, 10_000, 9_999)
    epochs.write(10_001, runs[9_999][1])
    assert epochs.result()[0] is runs
    epochs.write(10_000, runs[9_998][1])
    assert epochs.whole_to == 10_001
    assert 10 < runs.handed_out < 50


def test_a_log_that_begins_with_a_gap_has_nothing_before_its_first_entry():
    runs = ((1, NO_EPOCH), (4, E1))
    assert first_gap(runs) == 1
    assert [next_entry(runs, index) for index in (1, 3, 4, 5)] == [4, 4, 4, 5]
    assert count_entries(runs, 5) == 2
    assert count_entries((), 0) == 0
    assert epoch_at((), 1) == NO_EPOCH
    assert first_gap(()) is None
