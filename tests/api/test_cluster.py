"""Three nodes of one process: the same log on every one of them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

import pytest

import replog
from replog import Limits, OutcomeUnknown
from replog.agreement import Agreement
from tests.api.conftest import MEMBERS, SECONDS, Cluster
from transport.loopback import LoopbackNetwork


def contents(cluster: Cluster, node: str) -> list[bytes]:
    log = cluster.logs[node]
    log.barrier().result(SECONDS)
    return [record.data for record in log.read()]


def test_appends_on_every_node_come_to_one_order_everywhere(cluster: Cluster) -> None:
    pendings = {
        node: [log.append(f"{node} {number}".encode()) for number in range(300)]
        for node, log in cluster.logs.items()
    }
    acknowledged = {
        pending.result(SECONDS): f"{node} {number}".encode()
        for node, some in pendings.items()
        for number, pending in enumerate(some)
    }
    assert sorted(acknowledged) == list(range(900))
    expected = [acknowledged[offset] for offset in range(900)]
    for node in MEMBERS:
        assert contents(cluster, node) == expected
    for node in MEMBERS:
        own = [data for data in expected if data.startswith(node.encode())]
        assert own == [f"{node} {number}".encode() for number in range(300)]


def test_digests_agree_and_no_alarm_is_raised(cluster: Cluster) -> None:
    for log in cluster.logs.values():
        log.append_many([b"x"] * 100).result(SECONDS)
    for log in cluster.logs.values():
        log.barrier().result(SECONDS)
    states = [log.status() for log in cluster.logs.values()]
    assert len({(state.end_offset, state.digest) for state in states}) == 1
    assert {state.alarm for state in states} == {""}


def test_a_barrier_shows_on_one_node_what_another_acknowledged(cluster: Cluster) -> None:
    nodes = list(cluster.logs)
    for turn in range(60):
        writer, reader = nodes[turn % 3], nodes[(turn + 1) % 3]
        offset = cluster.logs[writer].append(b"%d" % turn).result(SECONDS)
        cluster.logs[reader].barrier().result(SECONDS)
        assert next(cluster.logs[reader].read(offset)).data == b"%d" % turn


def test_a_node_that_was_away_catches_up(cluster: Cluster) -> None:
    away = cluster.follower()
    cluster.logs.pop(away).close()
    writer = next(iter(cluster.logs))
    for number in range(200):
        cluster.logs[writer].append(b"%d" % number * 100).result(SECONDS)
    cluster.open(away)
    assert contents(cluster, away) == contents(cluster, writer)


def test_losing_the_leader_loses_nothing(cluster: Cluster) -> None:
    leader = cluster.leader()
    survivors = [node for node in MEMBERS if node != leader]
    before = [cluster.logs[survivors[0]].append(b"before").result(SECONDS)]
    cluster.logs.pop(leader).close()
    after = [cluster.logs[node].append(b"after").result(SECONDS) for node in survivors]
    assert after == [before[0] + 1, before[0] + 2]
    cluster.open(leader)
    assert contents(cluster, leader) == [b"before", b"after", b"after"]


def test_a_cluster_that_restarts_whole_goes_on_where_it_was(cluster: Cluster) -> None:
    cluster.logs["n1"].append(b"a").result(SECONDS)
    cluster.close()
    for node in MEMBERS:
        cluster.open(node)
    assert cluster.logs["n2"].append(b"b").result(SECONDS) == 1
    assert {tuple(contents(cluster, node)) for node in MEMBERS} == {(b"a", b"b")}


@pytest.mark.parametrize("seed", range(3))
def test_a_lost_forward_or_answer_delays_an_append_and_never_doubles_it(
    tmp_path: Path, layer: Agreement, seed: int
) -> None:
    lossy = Cluster(tmp_path, LoopbackNetwork(loss=0.2, random=Random(seed)), layer)
    try:
        for node in MEMBERS:
            lossy.open(node, Limits(retry_ms=50))
        pendings = [
            log.append(f"{node} {number}".encode())
            for number in range(40)
            for node, log in lossy.logs.items()
        ]
        offsets = [pending.result(SECONDS) for pending in pendings]
        assert sorted(offsets) == list(range(120))
        assert lossy.network.lost_count > 0
        assert contents(lossy, "n1") == contents(lossy, "n2")
    finally:
        lossy.close()


def test_a_minority_acknowledges_nothing_and_says_that_the_outcome_is_unknown(
    cluster: Cluster,
) -> None:
    leader = cluster.leader()
    for other in MEMBERS:
        if other != leader:
            cluster.network.cut(leader, other)
            cluster.network.cut(other, leader)
    pending = cluster.logs[leader].append(b"in flight")
    rest = next(node for node in MEMBERS if node != leader)
    assert cluster.logs[rest].append(b"majority").result(SECONDS) == 0
    assert not pending.done()
    cluster.logs.pop(leader).close()
    with pytest.raises((OutcomeUnknown, replog.Closed)):
        pending.result(SECONDS)
    cluster.network.heal()
    cluster.open(leader)
    assert contents(cluster, leader) == [b"majority"]


def test_one_event_loop_uses_all_three_nodes(cluster: Cluster) -> None:
    async def main() -> set[int]:
        async def append_all(node: str) -> list[int]:
            return [await cluster.logs[node].append(node.encode()) for _ in range(20)]

        results = await asyncio.gather(*[append_all(node) for node in MEMBERS])
        return {offset for some in results for offset in some}

    assert asyncio.run(main()) == set(range(60))
