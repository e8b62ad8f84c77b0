"""Clusters that compact: whoever was away comes back by a snapshot, and whoever gets none disturbs
nobody."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from paxoslog import MultiPaxos
from paxoslog.core import PaxosCore
from paxoslog.messages import ACCEPTED_AHEAD_MAX
from tests.agreement.harness import Cluster, Packet
from tests.agreement.image import NO_BASE, Offer
from tests.paxos.single import PAXOS
from tests.paxos.watcher import Watcher

NAMES = ("n1", "n2", "n3")
WAITING_MS = 20_000


def leader_of(cluster: Cluster) -> str:
    (name,) = [
        member.name
        for member in cluster.members.values()
        if member.up and member.core.leadership.role == "leader"
    ]
    return name


def propose(cluster: Cluster, count: int) -> None:
    """The leader proposes so many entries; they are chosen, and delivered on each disk."""
    leader = leader_of(cluster)
    for number in range(count):
        assert cluster.propose(leader, f"x{number}") is not None
        cluster.stabilize()


def compact(cluster: Cluster, *names: str) -> None:
    """Drop all that these members have delivered on their disks."""
    for name in names:
        cluster.compact(name, cluster.snapshot(name))
        assert cluster.members[name].disk.base.index > ACCEPTED_AHEAD_MAX


def left_behind() -> tuple[Cluster, str]:
    """A cluster that has gone on without one, and has dropped what that one lacks; who it is."""
    cluster = Cluster(MultiPaxos(), NAMES, seed=1, watch=Watcher())
    cluster.wait(1000, cluster.stabilize)
    behind = next(name for name in NAMES if name != leader_of(cluster))
    cluster.crash(behind)
    propose(cluster, 2 * ACCEPTED_AHEAD_MAX)
    compact(cluster, *[name for name in NAMES if name != behind])
    cluster.restart(behind)
    return cluster, behind


def is_offer(packet: Packet) -> bool:
    return isinstance(packet.message, Offer)


def settle(
    cluster: Cluster, lost: list[Packet], is_lost: Callable[[Packet], bool], slow_disk: str = ""
) -> None:
    """Persist (but on a slow disk) and deliver until nothing is left; some packets are lost."""
    while cluster.network or any(
        member.unpersisted for member in cluster.members.values() if member.name != slow_disk
    ):
        for name in cluster.names:
            if name != slow_disk:
                cluster.persist(name)
        lost += cluster.take(is_lost)
        for packet in cluster.take(lambda packet: True):
            cluster.deliver(packet)


def assert_even(cluster: Cluster) -> None:
    """All members have delivered all that is committed."""
    assert {m.memory.position for m in cluster.members.values()} == {max(cluster.committed)}


def test_whoever_was_away_comes_back_by_a_snapshot() -> None:
    cluster, behind = left_behind()
    cluster.wait(200, cluster.stabilize)
    propose(cluster, 3)
    assert (cluster.installs, cluster.faults) == (1, [])
    assert_even(cluster)
    assert cluster.members[behind].disk.base.index > ACCEPTED_AHEAD_MAX


def test_whoever_waits_for_a_snapshot_that_never_comes_asks_all_and_disturbs_nobody() -> None:
    cluster, behind = left_behind()
    leaders, committed = dict(cluster.leaders), len(cluster.committed)
    lost: list[Packet] = []
    began = cluster.now
    while cluster.now < began + WAITING_MS:
        cluster.wait(100, lambda: settle(cluster, lost, is_offer))
        assert cluster.propose(leader_of(cluster), "x") is not None
    assert cluster.leaders == leaders
    assert len(cluster.committed) >= committed + WAITING_MS // 100 - 1
    # It asks all the time, but no more often than it would for entries, and both in turn.
    sources = [packet.source for packet in lost]
    assert set(sources) == set(NAMES) - {behind}
    assert all(one != other for one, other in pairwise(sources))
    times = WAITING_MS // PAXOS.retransmit_ms
    assert times / 2 < len(lost) <= times + 1
    core = cluster.members[behind].core
    assert isinstance(core, PaxosCore)
    assert core.state.commit_index < ACCEPTED_AHEAD_MAX
    assert core.state.log.accepted() == ()
    cluster.wait(1000, cluster.stabilize)
    assert_even(cluster)


def test_a_member_whose_snapshots_do_not_arrive_is_not_the_only_one_asked() -> None:
    cluster, _ = left_behind()
    leader = leader_of(cluster)
    lost: list[Packet] = []
    cluster.wait(
        400,
        lambda: settle(cluster, lost, lambda packet: is_offer(packet) and packet.source == leader),
    )
    assert lost
    assert cluster.installs == 1
    cluster.wait(400, cluster.stabilize)
    assert_even(cluster)


@pytest.mark.parametrize("persisted", [True, False])
def test_who_crashes_while_it_installs_has_the_old_log_or_the_new_one(persisted) -> None:
    cluster, behind = left_behind()
    member = cluster.members[behind]
    while not member.memory.base.index:
        cluster.wait(10, lambda: settle(cluster, [], lambda packet: False, slow_disk=behind))
    base = member.memory.base
    assert (member.disk.base, member.disk.position) == (NO_BASE, 0)
    if persisted:
        cluster.persist(behind)
    cluster.crash(behind)
    cluster.restart(behind)
    core = member.core
    assert isinstance(core, PaxosCore)
    assert core.state.log.base_index == core.state.commit_index == (base.index if persisted else 0)
    cluster.wait(1000, cluster.stabilize)
    assert_even(cluster)
    assert cluster.installs == (1 if persisted else 2)
