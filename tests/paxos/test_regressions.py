"""What random runs and readers have found, each reduced to its cause."""

from __future__ import annotations

from paxoslog import MultiPaxos
from paxoslog.core import PaxosCore
from paxoslog.messages import ACCEPTED_AHEAD_MAX, ENTRIES_PER_SEND_MAX, FetchAccepted
from tests.agreement.harness import Cluster
from tests.paxos.single import FIVE, OLD, deadline, elect, sends_of, start
from tests.paxos.watcher import Watcher

NAMES = ("n1", "n2", "n3")


def all_must_accept() -> Cluster:
    """Each node is a prepare quorum of its own, all together are the one accept quorum."""
    cluster = Cluster(MultiPaxos(accept_quorum=3), NAMES, seed=1, watch=Watcher())
    cluster.wait(1000, cluster.stabilize)
    assert cluster.committed
    return cluster


def test_who_reaches_no_accept_quorum_does_not_depose_who_reaches_one() -> None:
    for hub in NAMES:
        cluster = all_must_accept()
        a, b = [name for name in NAMES if name != hub]
        cluster.cut = {(a, b), (b, a)}
        cluster.wait(2000, cluster.stabilize)
        leaders, committed = dict(cluster.leaders), len(cluster.committed)
        assert cluster.propose(hub, "x") is not None
        cluster.wait(2000, cluster.stabilize)
        assert cluster.leaders == leaders
        assert len(cluster.committed) > committed


def test_a_cluster_without_an_accept_quorum_elects_nobody_in_vain() -> None:
    cluster = all_must_accept()
    cluster.crash("n3")
    cluster.wait(1000, cluster.stabilize)
    leaders = dict(cluster.leaders)
    last = [cluster.members[name].core.last_index for name in NAMES]
    cluster.wait(60_000, cluster.stabilize)
    assert cluster.leaders == leaders
    assert [cluster.members[name].core.last_index for name in NAMES] == last
    cluster.restart("n3")
    cluster.wait(1000, cluster.stabilize)
    assert cluster.leaders != leaders


def test_each_reporter_of_an_adopted_value_is_asked_in_turn() -> None:
    core = start(voters=FIVE, promise=OLD)
    ready = elect(core, {"n3": {1: OLD}, "n2": {1: OLD}})
    asked = [send.to for send in sends_of(ready, FetchAccepted)]
    while core.leadership.role == "leader":
        core.tick(deadline(core))
        asked += [send.to for send in sends_of(core.ready(), FetchAccepted)]
    assert set(asked) == {"n2", "n3"}


def test_a_learner_fetches_no_faster_than_its_disk_writes() -> None:
    cluster = Cluster(MultiPaxos(), NAMES, seed=1, watch=Watcher())
    cluster.partition([["n1", "n2"], ["n3"]])
    cluster.wait(1000, cluster.stabilize)
    while len(cluster.committed) < 4 * ACCEPTED_AHEAD_MAX:
        for name in ("n1", "n2"):
            cluster.propose(name, "x")
        cluster.stabilize()
    for name in ("n1", "n2"):  # who leads next proposes nothing of what n3 lacks: it must fetch
        cluster.crash(name)
        cluster.restart(name)
    cluster.wait(1000, cluster.stabilize)
    cluster.heal()
    laggard = cluster.members["n3"]
    core = laggard.core
    assert isinstance(core, PaxosCore)

    def settle_but_its_disk() -> None:
        while cluster.network or any(cluster.members[name].unpersisted for name in ("n1", "n2")):
            for name in ("n1", "n2"):
                cluster.persist(name)
            for packet in cluster.take(lambda packet: True):
                cluster.deliver(packet)

    cluster.wait(1000, settle_but_its_disk)
    waiting = sum([len(change.entries) for change in laggard.unpersisted])
    assert ENTRIES_PER_SEND_MAX <= waiting <= ACCEPTED_AHEAD_MAX + ENTRIES_PER_SEND_MAX
    cluster.wait(1000, cluster.stabilize)
    assert laggard.memory.position == max(cluster.committed)
