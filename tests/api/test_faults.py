"""Faults at the edges: full disks, shared pendings, signals, forks, failing parts. Nobody hangs."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import replog
from raftlog import Raft
from replog import Limits, Pending, ReplicatedLog
from replog.agreement import Agreement
from replog.replica.outbox import Outbox
from replog.store.lmdb import LmdbStore
from tests.api.conftest import MEMBERS, SECONDS, Cluster
from transport.loopback import LoopbackNetwork

OpenLog = Callable[..., ReplicatedLog]
MIB = 1 << 20


def test_a_late_waiter_leaves_the_others_to_be_woken() -> None:
    """The outcome is set, its waiters not yet looked for: whoever comes now takes only itself."""
    pending: Pending[int] = Pending()
    first = threading.Lock()
    assert pending._register(first.release)
    pending._outcome = 7
    assert not pending._register(threading.Lock().release)
    assert pending._waiters == [first.release]


@pytest.mark.parametrize("map_mib", [4, 8, 24])
def test_a_full_map_refuses_appends_and_loses_nothing(open_alone: OpenLog, map_mib: int) -> None:
    log = open_alone(map_bytes_max=map_mib * MIB)
    accepted: list[Pending[int]] = []
    with pytest.raises(replog.Busy, match="map_bytes_max"):  # noqa: PT012 - one of many appends
        while True:
            accepted.append(log.append(bytes(1024)))
            if len(accepted) % 500 == 0:
                accepted[-1].result(SECONDS)
    assert [pending.result(SECONDS) for pending in accepted] == list(range(len(accepted)))
    log.close()
    log = open_alone(map_bytes_max=map_mib * MIB)
    log.barrier().result(SECONDS)
    assert sum(1 for _ in log.read()) == len(accepted)
    log.close()
    log = open_alone(map_bytes_max=64 * MIB)
    assert log.append(b"room again").result(SECONDS) == len(accepted)


@pytest.mark.parametrize("small", list(MEMBERS))
def test_nodes_with_smaller_runs_take_the_runs_of_others(
    tmp_path: Path, layer: Agreement, small: str
) -> None:
    cluster = Cluster(tmp_path, LoopbackNetwork(), layer)
    try:
        for node in MEMBERS:
            limits = Limits(run_bytes_max=65536, record_bytes_max=32768) if node == small else None
            cluster.open(node, limits)
        pendings = [
            cluster.logs[node].append(bytes(30_000 if node == small else 100_000))
            for _ in range(20)
            for node in MEMBERS
        ]
        assert sorted(pending.result(SECONDS) for pending in pendings) == list(range(60))
        assert "peer fault" not in cluster.logs["n1"].status().drops
    finally:
        cluster.close()


def test_whatever_a_callback_raises_the_node_lives(open_alone: OpenLog) -> None:
    log = open_alone()

    def leave(_: object) -> None:
        raise SystemExit

    first = log.append(b"a")
    first.add_done_callback(leave)
    assert first.result(SECONDS) == 0
    assert log.append(b"b").result(SECONDS) == 1


def test_a_store_that_fails_to_close_still_answers_everybody(
    open_alone: OpenLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_alone()
    log.append(b"a").result(SECONDS)
    close = LmdbStore.close

    def fail(self: LmdbStore) -> None:
        close(self)
        raise OSError("close failed")

    monkeypatch.setattr(LmdbStore, "close", fail)
    more = log._delivered._recent.wait(1)
    log.close()
    with pytest.raises(replog.NodeStopped, match="close failed"):
        more.result(SECONDS)


def test_a_commit_that_fails_stops_the_node_and_leaves_the_outcome_open(
    open_alone: OpenLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_alone()
    log.append(b"kept").result(SECONDS)

    def fail(self: LmdbStore, batches: object) -> None:
        raise replog.StoreFailed(f"{self.file}: no more of {batches!r:.10}")

    monkeypatch.setattr(LmdbStore, "commit", fail)
    with pytest.raises(replog.OutcomeUnknown, match="node stopped"):
        log.append(b"in flight").result(SECONDS)
    with pytest.raises(replog.Closed, match="node stopped"):
        log.append(b"later")
    for call in (log.status, log.barrier, log.read, log.room):
        with pytest.raises(replog.NodeStopped):
            call()


def test_a_fault_in_the_step_that_delivered_leaves_no_append_unanswered(
    open_alone: OpenLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_alone()
    log.append(b"a").result(SECONDS)
    settled = Outbox.take_sends

    def fail(self: Outbox) -> object:
        if log._delivered._recent.end_offset or self.has_writes:
            raise replog.InvariantBroken("planted")
        return settled(self)

    monkeypatch.setattr(Outbox, "take_sends", fail)
    with pytest.raises((replog.OutcomeUnknown, replog.Closed)):
        log.append(b"b").result(SECONDS)


def test_a_forked_child_is_refused_and_the_parent_goes_on(open_alone: OpenLog) -> None:
    log = open_alone()
    log.append(b"a").result(SECONDS)
    child = os.fork()
    if not child:
        status = 1
        try:
            calls = (lambda: log.append(b"b"), log.barrier, log.status, lambda: list(log.read()))
            refused = 0
            for call in calls:
                try:
                    call()
                except replog.ReplogError:
                    refused += 1
            status = 0 if refused == len(calls) else 1
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert log.append(b"c").result(SECONDS) == 1


def test_giving_up_on_a_follower_again_and_again_costs_nothing(open_alone: OpenLog) -> None:
    async def main() -> int:
        log = open_alone()
        follower = log.follow()
        for _ in range(20):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(follower), 0.001)
        waiting = len(log._delivered._recent._waiting)
        log.append(b"at last").result(SECONDS)
        assert (await anext(follower)).data == b"at last"
        return waiting

    assert asyncio.run(main()) == 1


def test_no_members_at_all_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(replog.ConfigError, match="not among the members"):
        replog.open(tmp_path / "x", agreement=Raft(), members={})
