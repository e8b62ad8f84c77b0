"""A machine attached to a log: calls, order, faults, and what is never in doubt."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest

import replog
from raftlog import Raft
from replog import (
    Busy,
    Closed,
    ConfigError,
    MachineStopped,
    Pending,
    Record,
    ReplicatedLog,
)

SECONDS = 20.0


class Listing:
    """Answers each record with its number, and keeps it; raises at `boom`."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.before_apply: Callable[[], object] = lambda: None

    def apply(self, records: Sequence[Record]) -> Sequence[int]:
        self.before_apply()
        results = []
        for record in records:
            if record.data == b"boom":
                raise ValueError("boom")
            self.records.append(record)
            results.append(len(self.records))
        return results

    def snapshot(self) -> Iterable[bytes]:
        return [record.data for record in self.records]

    def restore(self, pieces: Iterable[bytes]) -> None:
        raise NotImplementedError

    def digest(self) -> bytes:
        return bytes(len(self.records))


@pytest.fixture
def log(open_alone: Callable[..., ReplicatedLog]) -> ReplicatedLog:
    return open_alone()


@pytest.fixture
def listing() -> Listing:
    return Listing()


def test_a_call_returns_what_the_machine_answers(log: ReplicatedLog, listing: Listing) -> None:
    log.append(b"before").result(SECONDS)
    assert log.attach(listing) is listing
    assert [log.call(b"%d" % number).result(SECONDS) for number in range(3)] == [2, 3, 4]


def test_calls_of_coroutines_are_answered(log: ReplicatedLog, listing: Listing) -> None:
    log.attach(listing)

    async def call() -> list[int]:
        return list(await asyncio.gather(*[log.call(b"x") for _ in range(100)]))

    assert asyncio.run(call()) == list(range(1, 101))


def test_a_machine_takes_every_record_once_in_order(log: ReplicatedLog, listing: Listing) -> None:
    log.append_many([b"%d" % number for number in range(1000)]).result(SECONDS)
    log.attach(listing)
    log.append_many([b"%d" % number for number in range(1000, 2000)]).result(SECONDS)
    log.applied().result(SECONDS)
    assert listing.records == list(log.read())


def test_a_result_is_not_lost_when_the_record_is_applied_before_its_append_is_answered(
    log: ReplicatedLog, listing: Listing
) -> None:
    log.attach(listing)
    gate, listing_is_done = threading.Event(), threading.Event()
    # One entry holds both records: the machine takes them while the first one's callback holds the
    # node's thread, which has not yet answered the second.
    log.append(b"gate").add_done_callback(lambda _: gate.wait(SECONDS))
    log.append(b"one").add_done_callback(lambda _: listing_is_done.wait(SECONDS))
    two = log.call(b"two")
    gate.set()
    try:
        log.applied(3).result(SECONDS)
        assert len(listing.records) == 3
    finally:
        listing_is_done.set()
    assert two.result(SECONDS) == 3


def test_what_apply_raises_stops_the_machine_and_nothing_else(
    log: ReplicatedLog, listing: Listing
) -> None:
    log.attach(listing)
    assert log.call(b"fine").result(SECONDS) == 1
    failed = log.call(b"boom")
    with pytest.raises(MachineStopped, match=r"at offset 1.*boom") as stopped:
        failed.result(SECONDS)
    assert stopped.value.offset == 1
    cause = stopped.value.__cause__
    assert isinstance(cause, ValueError)
    assert cause.__notes__ == ["in apply, of records 1 to 1"]
    assert log.append(b"after").result(SECONDS) == 2
    assert [record.data for record in log.read(1)] == [b"boom", b"after"]
    machine = log.status().machine
    assert machine is not None
    assert (machine.offset, machine.failure) == (1, "ValueError('boom')")
    with pytest.raises(MachineStopped):
        log.call(b"too late")
    with pytest.raises(MachineStopped):
        log.applied().result(SECONDS)
    assert log.end_offset == 3


def test_a_machine_that_answers_too_few_records_stops(
    log: ReplicatedLog, listing: Listing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "apply", lambda _: [])
    log.attach(listing)
    with pytest.raises(MachineStopped, match="0 results for 1 records"):
        log.call(b"x").result(SECONDS)


def test_a_call_that_is_applied_after_the_close_says_that_its_record_is_in_the_log(
    tmp_path: Path, listing: Listing
) -> None:
    log = replog.open(tmp_path, agreement=Raft())
    applying, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        applying.set()
        go_on.wait(SECONDS)

    listing.before_apply = hold
    log.attach(listing)
    log.append(b"slow").result(SECONDS)
    assert applying.wait(SECONDS)
    call = log.call(b"never applied")
    log.append(b"later").result(SECONDS)
    give_up = time.monotonic() + SECONDS
    while log._delivered._recent.holding(1):
        assert time.monotonic() < give_up
        time.sleep(0.01)
    closing = threading.Thread(target=log.close)
    closing.start()
    while not log._inbox._is_closed:
        assert time.monotonic() < give_up
        time.sleep(0.01)
    go_on.set()
    closing.join(SECONDS)
    with pytest.raises(MachineStopped, match="is closed") as stopped:
        call.result(SECONDS)
    assert stopped.value.offset == 1
    with pytest.raises(Closed):
        log.call(b"closed")


def test_a_log_feeds_one_machine(log: ReplicatedLog, listing: Listing) -> None:
    with pytest.raises(ConfigError, match="no machine"):
        log.call(b"x")
    with pytest.raises(ConfigError, match="no machine"):
        log.applied()
    log.attach(listing)
    with pytest.raises(ConfigError, match="machine already"):
        log.attach(Listing())
    for nothing in (None, 7, "apply", Listing):
        with pytest.raises(ConfigError, match="is no machine: an object with an `apply` is"):
            log.attach(nothing)  # type: ignore[type-var]


def test_results_are_kept_for_nobody(log: ReplicatedLog, listing: Listing) -> None:
    log.attach(listing)
    calls = [log.call(b"call") for _ in range(200)]
    log.append_many([b"no call"] * 200).result(SECONDS)
    assert sorted(call.result(SECONDS) for call in calls) == list(range(1, 201))
    applier = log._applier
    assert applier is not None
    assert not applier._results
    assert not applier._calls


def test_each_of_two_calls_at_once_gets_its_own_answer(
    log: ReplicatedLog, listing: Listing
) -> None:
    log.attach(listing)
    applier = log._applier
    assert applier is not None
    later: list[Pending[int]] = []
    other = threading.Thread(target=lambda: later.append(log.call(b"second")))

    def append_while_another_calls() -> Pending[int]:
        appended = log.append(b"first")
        other.start()
        other.join(0.2)  # it must not overtake: else its answer takes this one's place
        return appended

    first = applier.call(append_while_another_calls)
    other.join(SECONDS)
    assert first.result(SECONDS) == 1
    assert later[0].result(SECONDS) == 2


@pytest.mark.parametrize("error", [SystemExit(0), KeyboardInterrupt(), asyncio.CancelledError()])
def test_a_machine_that_raises_to_end_the_program_is_stopped(
    log: ReplicatedLog, listing: Listing, error: BaseException
) -> None:
    def leave() -> None:
        raise error

    listing.before_apply = leave
    log.attach(listing)
    with pytest.raises(MachineStopped) as stopped:
        log.call(b"x").result(SECONDS)
    assert stopped.value.__cause__ is error


class Speechless(Exception):
    def __repr__(self) -> str:
        raise ValueError("no words")


def test_a_fault_without_words_is_told_by_its_class(log: ReplicatedLog, listing: Listing) -> None:
    def fail() -> None:
        raise Speechless

    listing.before_apply = fail
    log.attach(listing)
    with pytest.raises(MachineStopped, match="Speechless"):
        log.call(b"x").result(SECONDS)
    machine = log.status().machine
    assert machine is not None
    assert machine.failure == "Speechless"


@pytest.mark.parametrize("form", [iter, tuple, dict.fromkeys], ids=["iterator", "tuple", "dict"])
def test_results_may_come_in_any_order_keeping_form(
    log: ReplicatedLog, listing: Listing, monkeypatch: pytest.MonkeyPatch, form
) -> None:
    apply = listing.apply
    monkeypatch.setattr(listing, "apply", lambda records: form(apply(records)))
    log.attach(listing)
    assert [log.call(b"x").result(SECONDS) for _ in range(3)] == [1, 2, 3]


def test_the_list_of_records_is_the_machines_to_change(
    log: ReplicatedLog, listing: Listing, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply = listing.apply

    def apply_and_empty(records):
        results = apply(list(records))
        records.clear()
        return results

    monkeypatch.setattr(listing, "apply", apply_and_empty)
    log.attach(listing)
    calls = [log.call(b"x") for _ in range(50)]
    assert [call.result(SECONDS) for call in calls] == list(range(1, 51))
    log.applied().result(SECONDS)
    assert listing.records == list(log.read())


def test_calls_that_wait_are_bounded(
    log: ReplicatedLog, listing: Listing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("replog.applier.CALLS_MAX", 3)
    go_on = threading.Event()
    listing.before_apply = lambda: go_on.wait(SECONDS)
    log.attach(listing)
    calls = [log.call(b"x") for _ in range(3)]
    with pytest.raises(Busy, match="3 calls wait"):
        log.call(b"one too many")
    go_on.set()
    assert [call.result(SECONDS) for call in calls] == [1, 2, 3]


def test_of_many_that_attach_at_once_one_does(log: ReplicatedLog) -> None:
    attached: list[Listing] = []
    start = threading.Barrier(8)

    def attach() -> None:
        start.wait(SECONDS)
        try:
            attached.append(log.attach(Listing()))
        except ConfigError:
            return

    threads = [threading.Thread(target=attach) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert len(attached) == 1
    log.call(b"x").result(SECONDS)
    assert len(attached[0].records) == 1
