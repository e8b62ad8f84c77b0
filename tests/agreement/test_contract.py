"""What every core owes its host, whichever agreement it is part of (`replog.agreement`).

A core is asked after every input, so each `Ready` is what one step wants.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from random import Random
from typing import Any

import pytest

from replog.agreement import Core, Message, Meta, Ready
from replog.entry import Epoch, Kind
from replog.errors import PeerFault
from tests.agreement.chaos import Chaos
from tests.agreement.conftest import (
    PATIENCE_MS,
    SETTLED_MS,
    MakeCluster,
    assert_even,
    elect,
    leaders,
    others,
    propose,
    records,
    run,
)
from tests.agreement.harness import Cluster, Packet

Listen = Callable[[Cluster, Callable[[Core, Ready], None]], None]


@pytest.fixture
def listen(monkeypatch: pytest.MonkeyPatch) -> Listen:
    """Hear every `Ready` of a cluster's cores, whatever becomes of it."""

    def begin(cluster: Cluster, hear: Callable[[Core, Ready], None]) -> None:
        core_class = type(next(iter(cluster.members.values())).core)
        ready = core_class.ready

        def heard(core: Core) -> Ready:
            wanted = ready(core)
            hear(core, wanted)
            return wanted

        monkeypatch.setattr(core_class, "ready", heard)

    return begin


# --- what a Ready says ----------------------------------------------------------------------------


class Clerk:
    """Checks the form of what cores want, step by step."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self._last: dict[Core, tuple[int, int]] = {}
        """Of each core, the last write id issued and the commit index."""

    def __call__(self, core: Core, ready: Ready) -> None:
        issued_before, committed = self._last.get(core, (0, 0))
        ids = [write.write_id for write in ready.writes]
        assert ids == list(range(issued_before + 1, issued_before + 1 + len(ids)))
        issued = issued_before + len(ids)
        for write in ready.writes:
            indexes = [entry.index for entry in write.entries]
            assert indexes == sorted(set(indexes))
            changes = (write.promise, write.truncate_from, write.install)
            assert indexes or any(change is not None for change in changes)
        for send in ready.sends:
            if send.after_write_id:
                assert issued_before <= send.after_write_id <= issued, "not the last write so far"
                self.seen["waits" if ids else "waits for an earlier step"] += 1
            indexes = [ref.index for ref in send.entries]
            assert indexes == [*range(indexes[0], indexes[0] + len(indexes))] if indexes else True
            self.seen["carries"] += bool(indexes)
        assert ready.commit_index >= committed, "a commit index falls"
        self.seen["reads"] += len(ready.reads)
        self.seen["failed reads"] += len(ready.reads_failed)
        self._last[core] = (issued, ready.commit_index)


def test_promises_wait_for_the_last_write_and_nothing_falls(
    make_cluster: MakeCluster, listen: Listen
) -> None:
    clerk = Clerk()
    listen(make_cluster(), clerk)
    for seed in range(12):
        Chaos(make_cluster((3, 5)[seed % 2], seed=seed), seed).run(600)
    kinds = ("waits", "waits for an earlier step", "carries", "reads", "failed reads")
    assert all(clerk.seen[kind] > 5 for kind in kinds), clerk.seen


def test_a_tick_before_the_deadline_is_harmless(cluster: Cluster) -> None:
    for member in cluster.members.values():
        deadline = member.core.deadline
        assert deadline is not None
        assert deadline > cluster.now
        member.core.tick(deadline - 1)
        assert not member.core.has_ready()
        assert member.core.deadline == deadline
        member.core.tick(deadline)
        assert member.core.has_ready()


def test_what_was_wanted_is_wanted_once(cluster: Cluster) -> None:
    (leader,) = leaders(cluster)
    core = cluster.members[leader].core
    assert core.propose(Kind.RECORDS, 1) is not None
    assert core.has_ready()
    assert core.ready().writes
    assert not core.has_ready()
    commit_index = cluster.members[leader].memory.position
    assert core.ready() == Ready((), (), commit_index, (), ())


def test_the_same_inputs_give_the_same_outputs(make_cluster: MakeCluster, listen: Listen) -> None:
    heard: list[Ready] = []
    listen(make_cluster(), lambda core, ready: heard.append(ready))
    runs = []
    for seed in (1, 1, 2):
        heard.clear()
        Chaos(make_cluster(seed=seed), seed).run(300)
        runs.append(list(heard))
    assert len(runs[0]) > 100
    assert runs[0] == runs[1] != runs[2]


# --- acknowledgements and the disk ----------------------------------------------------------------


def test_a_stalled_disk_acknowledges_nothing_however_often_it_is_asked(cluster: Cluster) -> None:
    (leader,) = leaders(cluster)
    stalled, away = others(cluster, leader)
    cluster.crash(away)
    (index,) = propose(cluster, "x")
    heard = 0

    def settle() -> None:
        nonlocal heard
        cluster.stabilize([leader])
        for packet in cluster.take(lambda packet: packet.target == stalled):
            heard += 1
            cluster.deliver(packet)

    cluster.wait(SETTLED_MS, settle)
    assert cluster.members[leader].core.leadership.role == "leader", "heartbeats are answered"
    assert heard > SETTLED_MS / 100
    assert index not in cluster.committed
    held = cluster.members[stalled].held
    assert held
    assert {send.after_write_id for send in held} == {
        cluster.members[stalled].unpersisted[-1].write.write_id
    }
    cluster.stabilize([leader, stalled])
    assert cluster.committed[index].data == "x"


def test_a_stalled_disk_of_a_candidate_or_voter_elects_nobody(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()

    def settle() -> None:
        while cluster.network:
            cluster.deliver(cluster.network.pop(0))

    cluster.wait(PATIENCE_MS, settle)
    assert any(member.unpersisted for member in cluster.members.values())
    assert leaders(cluster) == []
    elect(cluster)


# --- the window and the host's reports ------------------------------------------------------------


def fill(cluster: Cluster, leader: str) -> int:
    """Propose while the core takes it; how much it took."""
    taken = 0
    while cluster.members[leader].core.has_room:
        assert cluster.propose(leader, f"x{taken}") is not None
        taken += 1
    assert cluster.propose(leader, "too much") is None
    return taken


@pytest.mark.parametrize("entries_max", [1, 4, 64])
def test_the_leader_takes_no_more_than_its_window(
    make_cluster: MakeCluster, entries_max: int
) -> None:
    cluster = make_cluster(inflight_entries_max=entries_max)
    leader = elect(cluster)
    assert fill(cluster, leader) == entries_max
    cluster.stabilize()
    assert cluster.members[leader].core.has_room
    assert fill(cluster, leader) == entries_max
    # Committed by the others; but the leader's own disk is part of the window too.
    for _ in range(10):
        cluster.stabilize(others(cluster, leader))
        for packet in cluster.take(lambda packet: packet.target == leader):
            cluster.deliver(packet)
    assert len(records(cluster)) == 2 * entries_max
    assert fill(cluster, leader) == 0
    cluster.persist(leader)
    assert cluster.members[leader].core.has_room


def carriers(cluster: Cluster, target: str) -> list[list[int]]:
    """The indexes that travel to this member, message by message."""
    return [
        [meta.index for meta, _ in packet.entries]
        for packet in cluster.network
        if packet.target == target and packet.entries
    ]


def test_nothing_more_is_handed_out_for_a_peer_before_the_host_reports(cluster: Cluster) -> None:
    (leader,) = leaders(cluster)
    peer = others(cluster, leader)[0]
    cluster.reports_wait = True
    first, second, third = propose(cluster, "a", "b", "c")
    assert carriers(cluster, peer) == [[first]]
    while cluster.members[leader].unreported:
        cluster.report(leader)
        if carriers(cluster, peer) != [[first]]:
            break
    assert carriers(cluster, peer) == [[first], [second, third]]


def test_a_host_may_cut_a_send_short(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    cluster.entries_per_packet_max = 1
    leader = elect(cluster)
    cluster.reports_wait = True
    indexes = propose(cluster, "a", "b", "c", "d")
    cluster.reports_wait = False
    while cluster.members[leader].unreported:
        cluster.report(leader)
    peer = others(cluster, leader)[0]
    assert carriers(cluster, peer) == [[index] for index in indexes]
    cluster.stabilize()
    assert records(cluster) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("noticed", [True, False], ids=["reported lost", "lost silently"])
@pytest.mark.parametrize("answers", [True, False], ids=["answers too", "entries only"])
def test_what_was_lost_is_sent_again(cluster: Cluster, noticed: bool, answers: bool) -> None:
    (leader,) = leaders(cluster)
    before = dict(cluster.leaders)
    first = propose(cluster, "a")[0]
    for target in others(cluster, leader):
        assert carriers(cluster, target) == [[first]]
        cluster.take(lambda packet: bool(packet.entries) and packet.target == target)  # noqa: B023
        if noticed:
            cluster.lose(leader, target)
    propose(cluster, "b", "c")
    if answers:
        for target in others(cluster, leader):
            cluster.stabilize([target])
        cluster.take(lambda packet: packet.target == leader)
    run(cluster, SETTLED_MS)
    assert records(cluster) == ["a", "b", "c"]
    assert cluster.leaders == before
    assert_even(cluster)


def test_a_peer_that_the_transport_refuses_gets_no_entries_until_it_is_heard(
    cluster: Cluster,
) -> None:
    (leader,) = leaders(cluster)
    peer = others(cluster, leader)[0]
    lines: list[str] = []
    cluster.write_line = lines.append
    cluster.refused.add((leader, peer))
    for number in range(20):
        propose(cluster, f"x{number}")
        cluster.stabilize()
    attempts = [line for line in lines if line.endswith("(refused)") and " with " in line]
    assert len(attempts) == 1
    cluster.heal()
    run(cluster, SETTLED_MS)
    assert_even(cluster)


# --- confirmed reads ------------------------------------------------------------------------------


def test_a_read_waits_for_the_answers_of_a_quorum(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(5)
    leader = elect(cluster)
    (last,) = propose(cluster, "x")
    cluster.stabilize()
    first, second, *rest = others(cluster, leader)
    token = cluster.read(leader)
    assert token is not None
    for name in (first, second):
        assert token not in cluster.confirmed
        cluster.stabilize([name])
        cluster.stabilize([leader])
    assert cluster.confirmed == {token: last}
    assert len(rest) == 2, "who has answered nothing"


def test_answers_to_what_was_sent_before_a_read_confirm_nothing(cluster: Cluster) -> None:
    (leader,) = leaders(cluster)
    cluster.wait(100)
    cluster.stabilize(others(cluster, leader))
    answers = cluster.take(lambda packet: packet.target == leader)
    assert answers
    token = cluster.read(leader)
    questions = cluster.take(lambda packet: packet.source == leader)
    assert questions
    cluster.deliver(*answers)
    assert token not in cluster.confirmed
    cluster.network += questions
    cluster.stabilize()
    assert token in cluster.confirmed


def test_no_read_is_confirmed_before_the_leaders_first_entry_is_delivered(cluster: Cluster) -> None:
    (first,) = leaders(cluster)
    propose(cluster, "x")
    cluster.stabilize()
    cluster.crash(first)
    group = others(cluster, first)
    while not leaders(cluster):
        if not single_step(cluster, group):
            cluster.campaign(min(group, key=lambda name: cluster.members[name].core.deadline or 0))
    (leader,) = leaders(cluster)
    member = cluster.members[leader]
    (peer,) = others(cluster, first, leader)
    first_index = member.core.leadership.first_index
    assert first_index > member.memory.position
    token = cluster.read(leader)
    for _ in range(5):  # everything passes but what the peer's disk holds back
        cluster.wait(30)
        cluster.stabilize([leader])
        for packet in cluster.take(lambda packet: packet.target == peer):
            cluster.deliver(packet)
    assert (cluster.confirmed, cluster.failed) == ({}, set())
    cluster.stabilize(group)
    assert token is not None
    assert cluster.confirmed[token] >= first_index


def single_step(cluster: Cluster, group: list[str]) -> bool:
    """One effect among these members, disks first; whether there was one."""
    for name in group:
        if cluster.members[name].unpersisted:
            cluster.persist(name, 1)
            return True
    for packet in cluster.network:
        if packet.target in group:
            cluster.network.remove(packet)
            cluster.deliver(packet)
            return True
    return False


def test_reads_fail_once_when_the_leadership_ends(cluster: Cluster) -> None:
    (leader,) = leaders(cluster)
    cluster.partition([[leader], others(cluster, leader)])
    tokens = [cluster.read(leader) for _ in range(3)]
    run(cluster, PATIENCE_MS)
    assert cluster.failed == set(tokens)
    assert cluster.confirmed == {}
    assert not cluster.members[leader].reading
    cluster.heal()
    run(cluster, SETTLED_MS)
    assert cluster.confirmed == {}


def test_a_sole_voter_confirms_reads_by_itself(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(1)
    elect(cluster)
    (last,) = propose(cluster, "x")
    early = cluster.read("n1")
    cluster.stabilize()
    late = cluster.read("n1")
    assert cluster.confirmed == {early: last - 1, late: last}


# --- a peer's faults ------------------------------------------------------------------------------


def frozen(value: object) -> object:
    """All that a core holds, comparable; but for the time, which passes whatever comes."""
    if isinstance(value, Random):
        return value.getstate()
    if isinstance(value, dict):
        return {key: frozen(item) for key, item in value.items()}
    if isinstance(value, (int, str, frozenset, type(None), type)):
        return value
    if isinstance(value, set):
        return frozenset(value)
    if hasattr(value, "__iter__"):
        return [frozen(item) for item in value]
    names = [name for base in type(value).__mro__ for name in getattr(base, "__slots__", ())]
    names += getattr(value, "__dict__", ())
    return {name: frozen(getattr(value, name)) for name in names if name != "now"}


def traffic(make_cluster: MakeCluster, count: int) -> list[tuple[Core, int, Packet]]:
    """Messages of a rough run, each with its target's core as it was when the message arrived."""
    found: list[tuple[Core, int, Packet]] = []
    kinds: Counter[type[Message]] = Counter()
    for seed in range(100):
        cluster = make_cluster(seed=seed)
        deliver = cluster.deliver

        def keep(*packets: Packet) -> None:
            kind = type(packets[0].message)
            if kinds[kind] < count:
                kinds[kind] += 1
                core = cluster.members[packets[0].target].core  # noqa: B023 - called in this turn
                found.append((deepcopy(core), cluster.now, packets[0]))  # noqa: B023
            deliver(*packets)  # noqa: B023

        cluster.deliver = keep  # type: ignore[method-assign]
        Chaos(cluster, seed).run(300)
        if len(kinds) == len(cluster.agreement.messages) and min(kinds.values()) == count:
            return found
    raise AssertionError(f"not every message was sent {count} times: {kinds}")


def with_field(message: Message, place: int, value: object) -> Message:
    """The same message with another value in one place."""
    message_class: Any = type(message)
    changed: Message = message_class(*message[:place], value, *message[place + 1 :])
    return changed


def impossible(packet: Packet) -> list[tuple[str, Message, list[Meta]]]:
    """The same as no correct member sends it to anybody, whatever they hold."""
    source, target, message, entries = packet
    metas = [meta for meta, _ in entries]
    found: list[tuple[str, Message, list[Meta]]] = [
        ("n9", message, metas),
        (target, message, metas),
        (source, (1, "a message of nobody"), metas),
    ]
    far = Epoch(1 << 62, source)
    if metas:
        after = metas[-1].index + 1
        found += [
            (source, message, [metas[0]._replace(index=0)]),
            (source, message, [*metas, metas[-1]]),
            (source, message, [*metas, metas[-1]._replace(index=after + 1)]),
            (source, message, [meta._replace(epoch=far) for meta in metas]),
        ]
    for place, value in enumerate(message):
        if isinstance(value, Epoch):
            found.append((source, with_field(message, place, far), metas))
    return found


def doubtful(packet: Packet) -> list[tuple[str, Message, list[Meta]]]:
    """The same with one number far too high: some of it no member can know to be false."""
    source, _, message, entries = packet
    return [
        (source, with_field(message, place, 1 << 62), [meta for meta, _ in entries])
        for place, value in enumerate(message)
        if type(value) is int
    ]


def test_a_fault_of_a_peer_is_raised_before_anything_changes(make_cluster: MakeCluster) -> None:
    faults = 0
    for core, now, packet in traffic(make_cluster, 3):
        before = frozen(core)
        certain = impossible(packet)
        for sender, message, metas in [*certain, *doubtful(packet)]:
            twin = deepcopy(core)
            try:
                twin.receive(now, sender, message, metas)
            except PeerFault:
                faults += 1
                assert frozen(twin) == before, f"{message} with {metas} of {sender}"
                assert twin.deadline == core.deadline
            else:
                assert (sender, message, metas) not in certain, f"{message} with {metas}"
    assert faults > 100
