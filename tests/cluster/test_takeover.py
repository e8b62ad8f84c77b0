"""A leader that dies, a leader that stands still, and all nodes dying at once."""

from __future__ import annotations

from replog.demo.cluster import LocalCluster
from tests.cluster.load import Load


def test_a_killed_leader_is_replaced_and_comes_back(cluster: LocalCluster) -> None:
    load = Load(cluster)
    load.until_more(list(load.feeders))
    leader = cluster.leader()
    others = load.others(leader)
    load.kill(leader)
    load.until_more(others)
    assert cluster.leader().name in others
    load.restart(leader)
    load.until_more(list(load.feeders))
    report = load.finish()
    assert report.faults == ()
    assert report.acknowledged == load.acknowledged > 1500


def test_a_paused_leader_is_replaced_and_follows_when_it_wakes(cluster: LocalCluster) -> None:
    load = Load(cluster)
    load.until_more(list(load.feeders))
    leader = cluster.leader()
    others = load.others(leader)
    leader.pause()
    load.until_more(others, 1000)
    leader.resume()
    # What was in flight at the paused node is not lost: it is answered, every record of it.
    load.until_more([leader.name])
    assert cluster.leader().name in others
    report = load.finish()
    assert report.faults == ()
    assert report.acknowledged == load.acknowledged
    assert report.unknown_found == report.unknown_missing == 0


def test_all_nodes_killed_at_once_have_lost_nothing(cluster: LocalCluster) -> None:
    load = Load(cluster)
    load.until_more(list(load.feeders))
    before = load.acknowledged
    for member in cluster:
        load.kill(member)
    for member in cluster:
        member.start()
    for member in cluster:
        load.feeders[member.name].client = member.connect()
    load.until_more(list(load.feeders))
    report = load.finish()
    assert report.faults == ()
    assert report.acknowledged == load.acknowledged > before


def test_a_node_that_is_stopped_says_what_became_of_each_append(cluster: LocalCluster) -> None:
    load = Load(cluster)
    load.until_more(list(load.feeders))
    follower = cluster[load.others(cluster.leader())[0]]
    feeder = load.feeders[follower.name]
    while feeder.in_flight < 500:
        feeder.submit()
    follower.stop()
    feeder.disconnect()
    load.restart(follower)
    load.until_more([follower.name])
    # Among the faults would be a record that was refused and is in the log all the same.
    assert load.finish().faults == ()
