"""One node: a durable local log, without a network."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import replog
from replog import Limits, Pending, ReplicatedLog
from replog.agreement import Agreement
from tests.api.conftest import SECONDS

OpenLog = Callable[..., ReplicatedLog]


def test_appended_records_are_read_back_in_order_with_their_offsets(open_alone: OpenLog) -> None:
    log = open_alone()
    assert log.append(b"a").result(SECONDS) == 0
    assert log.append_many([b"b", b"c"]).result(SECONDS) == range(1, 3)
    assert [(r.offset, r.data) for r in log.read()] == [(0, b"a"), (1, b"b"), (2, b"c")]
    assert [r.data for r in log.read(1, 2)] == [b"b"]


def test_records_survive_a_close_and_a_new_open(open_alone: OpenLog) -> None:
    log = open_alone()
    pendings = [log.append(b"%d" % number) for number in range(1000)]
    assert [pending.result(SECONDS) for pending in pendings] == list(range(1000))
    log.close()
    log = open_alone()
    assert log.end_offset == 1000
    assert [record.data for record in log.read()] == [b"%d" % number for number in range(1000)]
    assert log.append(b"next").result(SECONDS) == 1000


def test_timestamps_never_fall(open_alone: OpenLog) -> None:
    log = open_alone()
    for _ in range(5):
        log.append(b"x").result(SECONDS)
    stamps = [record.timestamp_ms for record in log.read()]
    assert stamps == sorted(stamps)
    assert stamps[0] > 0


def test_a_coroutine_awaits_the_same_calls(open_alone: OpenLog) -> None:
    async def main() -> list[int]:
        async with open_alone() as log:
            first = await log.append(b"a")
            many = await log.append_many([b"b", b"c"])
            await log.barrier()
            tail = []
            async for record in log.follow(start=first):
                tail.append(record.offset)
                if record.offset == many[-1]:
                    break
            return tail

    assert asyncio.run(main()) == [0, 1, 2]


def test_giving_up_an_await_changes_nothing_about_the_append(open_alone: OpenLog) -> None:
    async def main() -> int:
        log = open_alone()
        pending = log.append(b"kept")

        async def wait() -> int:
            return await pending

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await pending

    assert asyncio.run(main()) == 0


def test_a_follower_waits_for_records_to_come_and_ends_with_the_log(open_alone: OpenLog) -> None:
    log = open_alone()
    seen: list[bytes] = []
    thread = threading.Thread(target=lambda: seen.extend(r.data for r in log.follow()))
    thread.start()
    for number in range(10):
        log.append(b"%d" % number).result(SECONDS)
    log.close()
    thread.join(SECONDS)
    assert not thread.is_alive()
    assert seen == [b"%d" % number for number in range(len(seen))]
    assert len(seen) in range(11)


@pytest.mark.parametrize("bound", [-1, 4, 10**9])
def test_reading_outside_the_log_names_what_it_holds(open_alone: OpenLog, bound: int) -> None:
    log = open_alone()
    log.append_many([b"a", b"b", b"c"]).result(SECONDS)
    for read in (lambda: log.read(bound), lambda: log.read(0, bound), lambda: log.follow(bound)):
        with pytest.raises(replog.OffsetOutOfRange, match="offsets 0 to 2") as caught:
            read()
        assert caught.value.offset == bound


def test_only_bytes_are_records(open_alone: OpenLog) -> None:
    log = open_alone()
    for wrong in ("text", bytearray(b"x"), None, 7):
        with pytest.raises(TypeError):
            log.append(wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            log.append_many([b"good", wrong])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="at least one"):
        log.append_many([])
    assert log.append(b"").result(SECONDS) == 0


def test_a_record_beyond_the_limit_is_refused_and_one_at_the_limit_is_kept(
    open_alone: OpenLog,
) -> None:
    limit = Limits().record_bytes_max
    log = open_alone()
    for size in (limit - 1, limit):
        offset = log.append(bytes(size)).result(SECONDS)
        assert len(next(log.read(offset)).data) == size
        assert log.append_many([bytes(size)]).result(SECONDS) == range(offset + 1, offset + 2)
    for call in (lambda: log.append(bytes(limit + 1)), lambda: log.append_many([bytes(limit + 1)])):
        with pytest.raises(replog.TooLarge, match=f"record of {limit + 1} bytes"):
            call()
    with pytest.raises(replog.TooLarge, match="run of"):
        log.append_many([bytes(limit // 2)] * 3)
    assert log.end_offset == 4


def test_every_call_after_close_says_so(open_alone: OpenLog) -> None:
    log = open_alone()
    log.append(b"a").result(SECONDS)
    log.close()
    log.close()
    for call in (
        lambda: log.append(b"b"),
        lambda: log.append_many([b"b"]),
        log.barrier,
        log.room,
        log.status,
        log.read,
    ):
        with pytest.raises(replog.Closed, match="closed"):
            call()


def test_appends_beyond_the_bound_are_refused_until_there_is_room(open_alone: OpenLog) -> None:
    log = open_alone(pending_bytes_max=64 * 1024)
    accepted, refused = [], 0
    for _ in range(400):
        try:
            accepted.append(log.append(bytes(1024)))
        except replog.Busy:
            refused += 1
            log.room().result(SECONDS)
    offsets = [pending.result(SECONDS) for pending in accepted]
    assert refused > 0
    assert offsets == list(range(400 - refused))


def test_a_callback_may_append_and_its_exceptions_stay_its_own(open_alone: OpenLog) -> None:
    log = open_alone()
    chained: list[Pending[int]] = []
    log.append(b"a").add_done_callback(lambda _: chained.append(log.append(b"b")))
    raising = log.append(b"c")
    raising.add_done_callback(lambda _: 1 / 0)
    raising.result(SECONDS)
    assert log.append(b"d").result(SECONDS) > 1
    assert chained[0].result(SECONDS) > 0


def test_a_callback_cannot_close_the_log_it_runs_on(open_alone: OpenLog) -> None:
    log = open_alone()
    caught: list[BaseException] = []

    def close(_: object) -> None:
        try:
            log.close()
        except replog.ReplogError as error:
            caught.append(error)

    while not caught:
        pending = log.append(b"a")
        pending.add_done_callback(close)
        pending.result(SECONDS)
        if not caught:  # the append was done before the callback was added: it ran here
            log = open_alone()
    assert "another thread" in str(caught[0])


def test_a_timeout_of_result_leaves_the_append_as_it_was() -> None:
    pending: Pending[int] = Pending()
    with pytest.raises(TimeoutError, match="asked for again"):
        pending.result(0.01)
    assert not pending.done()


def test_a_second_open_of_a_directory_is_refused(
    open_alone: OpenLog, tmp_path: Path, layer: Agreement
) -> None:
    log = open_alone()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "alone")
    for path in (tmp_path / "alone", link):
        with pytest.raises(replog.StoreInUse, match="alone"):
            replog.open(path, agreement=layer)
    assert log.append(b"still fine").result(SECONDS) == 0


def test_an_open_log_does_not_keep_the_program_from_ending(tmp_path: Path) -> None:
    program = (
        "import replog; from raftlog import Raft;"
        f"log = replog.open({str(tmp_path / 'left')!r}, agreement=Raft());"
        "print(log.append(b'kept').result(10))"
    )
    for offset in (0, 1):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            capture_output=True, text=True, timeout=SECONDS, check=False, env=os.environ,
        )  # fmt: skip
        assert (done.returncode, done.stdout.strip(), done.stderr) == (0, str(offset), "")


def test_no_thread_or_descriptor_outlives_a_log(tmp_path: Path, layer: Agreement) -> None:
    def resources() -> tuple[int, int]:
        return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))

    with replog.open(tmp_path / "cycle", agreement=layer) as log:
        log.append(b"warm").result(SECONDS)
    before = resources()
    for _ in range(30):
        with replog.open(tmp_path / "cycle", agreement=layer) as log:
            log.append(b"x").result(SECONDS)
    assert resources() == before
