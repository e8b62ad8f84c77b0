"""A proposer far behind takes over: it learns what is chosen, in bounded pieces, and then leads.

Its log need not be the longest: that is what a `Promise` with a commit index is for.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from paxoslog import MultiPaxos
from paxoslog.core import PaxosCore
from paxoslog.messages import (
    ACCEPTED_AHEAD_MAX,
    ENTRIES_PER_SEND_MAX,
    MESSAGES,
    Accept,
    AcceptedValues,
    Chosen,
    FetchChosen,
    HeartbeatReply,
)
from replog import Limits
from replog.agreement import Ready
from replog.codec import Codec
from replog.entry import Kind
from tests.api.conftest import MEMBERS, SECONDS, Cluster
from tests.paxos.single import OLD, elect, metas, refs, sends_of, start
from transport.loopback import LoopbackNetwork

FAR = 1_000_000
CODEC = Codec(MESSAGES)
MESSAGE_BYTES_MAX = 4096


class Judge:
    """Reads all that the proposer wants."""

    def __init__(self, core: PaxosCore) -> None:
        self.core = core
        self.learnt = 0
        self.rounds = 0

    def take(self, ready: Ready) -> Ready:
        core = self.core
        for send in ready.sends:
            assert len(send.entries) <= ENTRIES_PER_SEND_MAX
            assert len(CODEC.encode(send.message, list(send.entries))) < MESSAGE_BYTES_MAX
            if isinstance(send.message, Accept):
                assert send.entries[0].index > FAR
        for write in ready.writes:
            for index, epoch, source in write.entries:
                assert (epoch == core.state.ballot) == (index > FAR), "proposed, or only learnt"
                assert source == OLD or index > FAR
                self.learnt += index <= FAR
        assert len(core.state.log.accepted()) <= ACCEPTED_AHEAD_MAX + ENTRIES_PER_SEND_MAX
        return ready

    def catch_up(self, ready: Ready, peer: str) -> None:
        """Answer each fetch with what is chosen, until there is nothing more to fetch."""
        core = self.core
        while fetches := sends_of(self.take(ready), FetchChosen):
            (fetch,) = fetches
            request = fetch.message
            assert isinstance(request, FetchChosen)
            first, last = request
            assert 0 < last - first + 1 <= ENTRIES_PER_SEND_MAX
            assert core.propose(Kind.NOOP, 0) is None
            assert core.leadership.first_index == 0
            now = core.state.now + 1
            core.tick(now)  # heartbeats, when they are due
            self.take(core.ready())
            core.receive(now, peer, HeartbeatReply(core.state.ballot, 0, FAR), ())
            chosen = metas(first, *[OLD] * (last - first + 1))
            core.receive(now, fetch.to, Chosen(FAR), chosen)
            core.durable(now, core.state.journal.durable_write_id)
            ready = core.ready()
            core.durable(now, core.state.journal.last_write_id)
            self.rounds += 1


def test_a_proposer_a_million_entries_behind_takes_over_in_bounded_messages() -> None:
    core = start(promise=OLD)
    judge = Judge(core)
    ready = elect(core, {"n2": {FAR + 1: OLD, FAR + 3: OLD}}, {"n2": FAR})
    ballot = core.state.ballot
    judge.catch_up(ready, "n2")
    assert (core.state.commit_index, judge.learnt) == (FAR, FAR)
    assert judge.rounds == FAR // ENTRIES_PER_SEND_MAX
    # Now the values of the two that may be chosen, and a no-op into the gap between them.
    core.tick(core.state.now + core.state.tuning.heartbeat_ms)
    judge.take(core.ready())
    assert core.leadership.role == "leader"
    for index in (FAR + 1, FAR + 3):
        core.receive(core.state.now, "n2", AcceptedValues(ballot), metas(index, OLD))
        judge.take(core.ready())
    gap, first = core.propose(Kind.NOOP, 0), core.propose(Kind.NOOP, 0)
    assert (gap, first) == (refs(FAR + 2, ballot)[0], refs(FAR + 4, ballot)[0])
    proposed = refs(FAR + 1, *[ballot] * 4)
    (send,) = sends_of(judge.take(core.ready()), Accept)
    assert (send.to, send.entries) == ("n2", proposed)
    # n3 gets them once it is known to take them: it may be just as far behind.
    core.receive(core.state.now, "n3", HeartbeatReply(ballot, 0, FAR), ())
    (send,) = sends_of(judge.take(core.ready()), Accept)
    assert (send.to, send.entries) == ("n3", proposed)
    assert core.leadership.first_index == FAR + 4
    assert core.has_room


# --- through the whole stack ----------------------------------------------------------------------

BEHIND = 5_000
PATIENT = MultiPaxos(election_timeout_ms_min=60_000, election_timeout_ms_max=90_000)
"""Never prepares within this test."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path, LoopbackNetwork(), MultiPaxos())
    yield cluster
    cluster.close()


def test_a_node_that_missed_many_entries_takes_over_through_the_whole_stack(
    cluster: Cluster,
) -> None:
    limits = Limits(entry_bytes_max=64)  # so that every record makes an entry
    for node in MEMBERS:
        cluster.open(node, limits)
    cluster.logs["n1"].append(b"together").result(SECONDS)
    behind = cluster.follower()
    cluster.logs.pop(behind).close()
    survivor, gone = sorted(cluster.logs)
    records = [b"%060d" % number for number in range(BEHIND)]
    pendings = [cluster.logs[survivor].append(record) for record in records]
    assert pendings[-1].result(SECONDS) == BEHIND
    assert cluster.logs[survivor].status().applied_index > BEHIND
    for node in (survivor, gone):
        cluster.logs.pop(node).close()
    cluster.open(survivor, limits, PATIENT)
    cluster.open(behind, limits)
    assert cluster.logs[survivor].append(b"after").result(SECONDS) == BEHIND + 1
    assert cluster.leader() == behind
    for log in cluster.logs.values():
        log.barrier().result(SECONDS)
        assert [record.data for record in log.read()] == [b"together", *records, b"after"]
        assert not {"parts", "malformed", "peer fault"} & set(log.status().drops)
