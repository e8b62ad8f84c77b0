"""What every agreement layer does, whichever it is: elect, agree, take over, catch up, hold on.

The cluster itself checks throughout that all members commit the same, that what is committed lies
on the disks of a quorum, that an epoch has one leader, and that reads miss nothing.
"""

from __future__ import annotations

from itertools import combinations

import pytest

from replog.quorum import majority
from tests.agreement.conftest import (
    PATIENCE_MS,
    SETTLED_MS,
    MakeCluster,
    assert_even,
    elect,
    leaders,
    others,
    positions,
    propose,
    records,
    run,
)
from tests.agreement.graphs import keep_links
from tests.agreement.harness import Cluster

# --- a leader and its log -------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7])
def test_one_leader_is_elected_known_to_all_and_stays(make_cluster: MakeCluster, size: int) -> None:
    cluster = make_cluster(size)
    leader = elect(cluster)
    known = {member.core.leadership[1:3] for member in cluster.members.values()}
    assert known == {(leader, max(cluster.leaders))}
    before = dict(cluster.leaders)
    run(cluster, 10 * SETTLED_MS)
    assert cluster.leaders == before


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_records_are_committed_everywhere_in_the_order_proposed(
    make_cluster: MakeCluster, size: int
) -> None:
    cluster = make_cluster(size)
    elect(cluster)
    expected = [f"x{number}" for number in range(40)]
    for place in range(0, 40, 10):
        propose(cluster, *expected[place : place + 10])
        cluster.stabilize()
    assert records(cluster) == expected
    assert_even(cluster)


def test_nobody_but_the_leader_takes_records_and_reads(cluster: Cluster) -> None:
    (leader,) = leaders(cluster)
    for name in others(cluster, leader):
        assert not cluster.members[name].core.has_room
        assert cluster.propose(name, "x") is None
        assert cluster.read(name) is None
    assert cluster.members[leader].core.has_room


def test_entries_leave_before_the_leaders_own_write_and_commit_without_it(cluster: Cluster) -> None:
    (leader,) = leaders(cluster)
    cluster.stabilize()
    (index,) = propose(cluster, "x")
    assert {packet.target for packet in cluster.network if packet.entries} == {
        *others(cluster, leader)
    }
    for _ in range(4):
        cluster.stabilize(others(cluster, leader))
        for packet in cluster.take(lambda packet: packet.target == leader):
            cluster.deliver(packet)
    assert cluster.members[leader].unpersisted
    assert cluster.committed[index].data == "x"


@pytest.mark.parametrize("index", [0, 1])
def test_a_commit_notice_that_is_lost_is_made_good(cluster: Cluster, index: int) -> None:
    (leader,) = leaders(cluster)
    deaf = others(cluster, leader)[index]
    (last,) = propose(cluster, "x")
    while last not in cluster.committed:
        # Entries reach this member, and nothing that could say that they are committed.
        cluster.take(lambda packet: packet.target == deaf and not packet.entries)
        cluster.stabilize([deaf])
        cluster.take(lambda packet: packet.target == deaf)
        cluster.stabilize(others(cluster, deaf))
    cluster.take(lambda packet: packet.target == deaf)
    assert positions(cluster)[deaf] < last
    run(cluster, SETTLED_MS)
    assert_even(cluster)


# --- small and large clusters ---------------------------------------------------------------------


def test_a_sole_voter_leads_at_once_and_commits_what_is_on_its_disk(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(1)
    began = cluster.now
    cluster.tick("n1")
    cluster.stabilize()
    assert (leaders(cluster), cluster.now) == (["n1"], began)
    (index,) = propose(cluster, "x")
    assert index not in cluster.committed
    cluster.persist("n1")
    assert cluster.committed[index].data == "x"
    assert cluster.members["n1"].core.deadline is None
    cluster.crash("n1")
    cluster.restart("n1")
    assert elect(cluster) == "n1"
    propose(cluster, "y")
    cluster.stabilize()
    assert records(cluster) == ["x", "y"]
    assert not cluster.network


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_a_majority_goes_on_and_a_minority_waits(make_cluster: MakeCluster, size: int) -> None:
    cluster = make_cluster(size)
    elect(cluster)
    spare = size - majority(size)
    for name in cluster.names[:spare]:
        cluster.crash(name)
    run(cluster, PATIENCE_MS)
    propose(cluster, "with a majority")
    cluster.stabilize()
    assert records(cluster) == ["with a majority"]
    last = cluster.names[spare]
    cluster.crash(last)
    for name in leaders(cluster):
        cluster.propose(name, "in vain")
    run(cluster, PATIENCE_MS)
    assert leaders(cluster) == []
    assert records(cluster) == ["with a majority"]
    cluster.restart(last)
    run(cluster, PATIENCE_MS)
    propose(cluster, "a majority again")
    cluster.stabilize()
    assert records(cluster)[-1] == "a majority again"


# --- takeovers ------------------------------------------------------------------------------------


def test_a_crashed_leader_is_replaced_and_comes_back_to_follow(cluster: Cluster) -> None:
    (first,) = leaders(cluster)
    propose(cluster, "before")
    cluster.stabilize()
    cluster.crash(first)
    second = elect(cluster)
    assert second != first
    assert max(cluster.leaders).number > min(cluster.leaders).number
    propose(cluster, "after")
    cluster.stabilize()
    cluster.restart(first)
    assert elect(cluster) == second
    assert cluster.members[first].core.leadership.leader == second
    assert records(cluster) == ["before", "after"]
    assert_even(cluster)


@pytest.mark.parametrize("size", [3, 4, 5])
def test_an_entry_that_a_majority_holds_survives_every_takeover(
    make_cluster: MakeCluster, size: int
) -> None:
    names = [f"n{number}" for number in range(1, size + 1)]
    for number, holders in enumerate(combinations(names, majority(size))):
        cluster = make_cluster(size, seed=number)
        leader = elect(cluster)
        (index,) = propose(cluster, "held")
        for name in holders:
            if name == leader:
                cluster.persist(name)
            else:
                cluster.stabilize([name])
        assert index not in cluster.committed, "a leader that knows could tell"
        cluster.network.clear()
        cluster.crash(leader)
        for _ in range(2):
            leader = elect(cluster)
            assert cluster.committed[index].data == "held"
            for name in others(cluster, leader):
                if not cluster.members[name].up:
                    cluster.restart(name)
            run(cluster, SETTLED_MS)
            cluster.crash(leader)
        elect(cluster)
        propose(cluster, "goes on")
        cluster.stabilize()
        assert records(cluster) == ["held", "goes on"]


def test_what_only_a_deposed_leader_holds_gives_way(cluster: Cluster) -> None:
    (first,) = leaders(cluster)
    cluster.partition([[first], others(cluster, first)])
    (index,) = propose(cluster, "lost")
    run(cluster, PATIENCE_MS)
    propose(cluster, "kept", "kept too")
    cluster.stabilize()
    cluster.heal()
    run(cluster, SETTLED_MS)
    assert records(cluster) == ["kept", "kept too"]
    assert cluster.members[first].memory.entries[index].value == cluster.committed[index]
    assert_even(cluster)


# --- restarts -------------------------------------------------------------------------------------


def steps(cluster: Cluster, count: int) -> int:
    """So many single effects, disk or network, oldest first; how many there were."""
    for done in range(count):
        slow = [member.name for member in cluster.members.values() if member.unpersisted]
        if slow:
            cluster.persist(slow[0], 1)
        elif cluster.network:
            cluster.deliver(cluster.network.pop(0))
        else:
            return done
    return count


@pytest.mark.parametrize("victim", ["n1", "n2"])
def test_a_restart_between_any_two_effects_of_an_election_breaks_no_promise(
    make_cluster: MakeCluster, victim: str
) -> None:
    count = 0
    while True:
        cluster = make_cluster()
        cluster.campaign("n1")
        if steps(cluster, count) < count:
            break
        count += 1
        promised = cluster.members[victim].disk.promise
        cluster.crash(victim)
        cluster.restart(victim)
        # Another tries at once: whom the victim had promised to obey, it still does.
        cluster.campaign("n3")
        cluster.stabilize()
        elect(cluster)
        propose(cluster, "x")
        cluster.stabilize()
        assert cluster.members[victim].disk.promise >= promised
        assert records(cluster) == ["x"]
    assert count > 10


def test_all_members_restart_with_their_promises_and_what_they_had_on_disk(
    cluster: Cluster,
) -> None:
    propose(cluster, "a", "b", "c")
    cluster.stabilize()
    promises = {name: member.disk.promise for name, member in cluster.members.items()}
    numbers = {epoch.number for epoch in cluster.leaders}
    for name in cluster.names:
        cluster.crash(name)
    for name in cluster.names:
        cluster.restart(name)
        assert cluster.members[name].core.leadership.role != "leader"
        assert cluster.members[name].core.leadership.epoch.number >= promises[name].number
    elect(cluster)
    assert max(cluster.leaders).number > max(numbers)
    propose(cluster, "d")
    cluster.stabilize()
    assert records(cluster) == ["a", "b", "c", "d"]
    assert_even(cluster)


@pytest.mark.parametrize("absence", ["crashed", "cut off"])
@pytest.mark.parametrize("entries_per_packet", [1, 64])
def test_a_member_that_missed_more_than_any_window_catches_up(
    make_cluster: MakeCluster, absence: str, entries_per_packet: int
) -> None:
    cluster = make_cluster()
    cluster.entries_per_packet_max = entries_per_packet
    leader = elect(cluster)
    away = others(cluster, leader)[0]
    if absence == "crashed":
        cluster.crash(away)
    else:
        cluster.partition([[away], others(cluster, away)])
    count = 350
    for number in range(0, count, 50):
        propose(cluster, *[f"x{number + place}" for place in range(50)])
        cluster.stabilize()
        cluster.wait(30, cluster.stabilize)
    assert positions(cluster)[away] < 10
    if absence == "crashed":
        cluster.restart(away)
    cluster.heal()
    run(cluster, 2 * SETTLED_MS)
    assert leaders(cluster) == [leader]
    assert records(cluster) == [f"x{number}" for number in range(count)]
    assert_even(cluster)


# --- partitions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [3, 5])
def test_a_leader_cut_off_steps_down_and_the_majority_goes_on(
    make_cluster: MakeCluster, size: int
) -> None:
    cluster = make_cluster(size)
    first = elect(cluster)
    cluster.partition([[first], others(cluster, first)])
    run(cluster, PATIENCE_MS)
    (second,) = leaders(cluster)
    assert second != first
    assert cluster.members[first].core.leadership.leader is None
    propose(cluster, "x")
    cluster.stabilize()
    before = dict(cluster.leaders)
    cluster.heal()
    run(cluster, PATIENCE_MS)
    assert cluster.leaders == before
    assert cluster.members[first].core.leadership.leader == second
    assert_even(cluster)


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("direction", ["both", "hears nothing", "is not heard"])
def test_a_member_cut_off_and_healed_disturbs_nobody(
    make_cluster: MakeCluster, size: int, direction: str
) -> None:
    cluster = make_cluster(size)
    leader = elect(cluster)
    before = dict(cluster.leaders)
    away = others(cluster, leader)[0]
    for name in others(cluster, away):
        if direction != "hears nothing":
            cluster.cut.add((away, name))
        if direction != "is not heard":
            cluster.cut.add((name, away))
    for number in range(5):
        propose(cluster, f"x{number}")
        run(cluster, SETTLED_MS)
    cluster.heal()
    run(cluster, PATIENCE_MS)
    propose(cluster, "y")
    run(cluster, SETTLED_MS)
    assert cluster.leaders == before
    assert_even(cluster)


STAR = {(0, 1), (0, 2), (0, 3), (0, 4)}
CHAIN = {(0, 1), (1, 2)}
QUORUM_LOSS = {(0, 1), (0, 2), (0, 3), (0, 4), (1, 2)}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("size", "links"),
    [(5, STAR), (3, CHAIN), (5, QUORUM_LOSS), (4, STAR - {(0, 4)})],
    ids=["star of 5", "chain of 3", "quorum loss of 5", "star of 4"],
)
def test_one_member_that_reaches_a_majority_keeps_the_cluster_live(
    make_cluster: MakeCluster, size: int, links: set[tuple[int, int]], seed: int
) -> None:
    cluster = make_cluster(size, seed=seed)
    leader = elect(cluster)
    # The leader stands at an end, where it reaches too few.
    keep_links(cluster, [*others(cluster, leader), leader], frozenset(links))
    run(cluster, PATIENCE_MS)
    before = dict(cluster.leaders)
    propose(cluster, "x")
    run(cluster, PATIENCE_MS)
    assert records(cluster) == ["x"]
    assert cluster.leaders == before, "the leadership is steady"
    cluster.heal()
    run(cluster, PATIENCE_MS)
    assert_even(cluster)
