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
from replog import Closed, ConfigError, MachineStopped, Record, ReplicatedLog

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
        while len(listing.records) < 3:
            log.applied(3).result(SECONDS)
        assert not two.done()
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


def test_results_are_kept_for_nobody(log: ReplicatedLog, listing: Listing) -> None:
    log.attach(listing)
    calls = [log.call(b"call") for _ in range(200)]
    log.append_many([b"no call"] * 200).result(SECONDS)
    assert sorted(call.result(SECONDS) for call in calls) == list(range(1, 201))
    applier = log._applier
    assert applier is not None
    assert not applier._results
    assert not applier._calls
