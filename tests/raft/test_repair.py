"""Logs that differ become equal in a bounded number of probes (paper, end of section 5.3)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from raftlog.core import RaftCore
from raftlog.messages import AppendEntries
from replog.agreement import Message
from replog.entry import Epoch
from tests.raft.single import lead, metas, receive, report, start


@st.composite
def parted_logs(draw) -> tuple[list[int], list[int]]:
    """Two logs with a common start and no term in common after it."""
    common = sorted(draw(st.lists(st.integers(1, 3), max_size=4)))
    terms = draw(st.permutations(range(4, 16)))
    lengths = st.lists(st.integers(0, 5), min_size=6, max_size=6)
    ends = [
        [
            term
            for term, count in zip(sorted(half), draw(lengths), strict=True)
            for _ in range(count)
        ]
        for half in (terms[:6], terms[6:])
    ]
    return common + ends[0], common + ends[1]


def answer(leader: RaftCore, follower: RaftCore, append: AppendEntries) -> Message:
    """What the follower says to this append and every entry after it."""
    indexes = range(append.previous_index + 1, leader.last_index + 1)
    terms = [leader.state.log.term_at(index) for index in indexes]
    entries = metas(append.previous_index + 1, *[Epoch(term, "n9") for term in terms])
    return receive(follower, "n9", append, entries).sends[0].message


@given(parted_logs())
def test_repair_takes_one_probe_for_each_term_that_differs(logs) -> None:
    ours, theirs = logs
    leader = lead(start(term=20, log=ours))
    follower = start(term=20, log=theirs, voters=frozenset({"n1", "n9"}))
    report(leader)
    append = AppendEntries(21, len(ours), leader.state.log.term_at(len(ours)), 0)
    probes = 1
    while sends := receive(leader, "n2", answer(leader, follower, append)).sends:
        assert isinstance(sends[0].message, AppendEntries)
        append = sends[0].message
        report(leader)
        probes += 1
    assert probes <= len(set(theirs) - set(ours)) + 2  # the last one agrees
    assert [(first, epoch.number) for first, epoch in follower.state.log.runs()] == [
        (first, epoch.number) for first, epoch in leader.state.log.runs()
    ]
    assert follower.last_index == leader.last_index


def test_ten_thousand_entries_are_found_in_one_probe() -> None:
    leader = lead(start(log=[1] + [3] * 10_000))
    report(leader)
    follower = start(log=[1] + [2] * 10_000, voters=frozenset({"n1", "n9"}))
    refusal = answer(leader, follower, AppendEntries(4, 10_001, 3, 0))
    (send,) = receive(leader, "n2", refusal).sends
    assert send.message == AppendEntries(4, 1, 1, 0)
