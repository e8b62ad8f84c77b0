"""One core without a host: the test gives every input and reads every output."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from random import Random
from typing import cast

from raftlog import Raft
from raftlog.core import RaftCore
from raftlog.messages import Appended, PreVote, Vote
from raftlog.progress import Progress
from raftlog.state import Leader
from replog.agreement import EntryRef, Message, Meta, Ready, Restored, Send
from replog.entry import NO_EPOCH, Epoch, Kind

NOW = 1000
RAFT = Raft()
VOTERS = frozenset({"n1", "n2", "n3"})


def runs_of(terms: Sequence[int], leader: str = "n9") -> tuple[tuple[int, Epoch], ...]:
    """[1, 1, 2] -> ((1, term 1), (3, term 2))."""
    groups = groupby(enumerate(terms, start=1), key=lambda pair: pair[1])
    return tuple([(next(group)[0], Epoch(term, leader)) for term, group in groups])


def base_of(terms: Sequence[int], index: int) -> EntryRef:
    """The name of an entry of such a log; of index 0, that of no entry."""
    return EntryRef(index, Epoch(terms[index - 1], "n9") if index else NO_EPOCH)


def start(
    *,
    term: int = 0,
    vote: str = "",
    log: Sequence[int] = (),
    commit: int = 0,
    base: int = 0,
    voters: frozenset[str] = VOTERS,
    raft: Raft = RAFT,
    seed: int = 0,
) -> RaftCore:
    """The core of n1, with a log given by the terms of its entries, the first `base` of which are
    compacted."""
    promise = Epoch(max([term, *log]), vote)
    kept = tuple([(base + at, epoch) for at, epoch in runs_of(log[base:])])
    restored = Restored(
        promise, kept, len(log), max(commit, base), raft.membership(voters), base_of(log, base)
    )
    return cast("RaftCore", raft.core("n1", restored, NOW, Random(seed)))


def receive(
    core: RaftCore, sender: str, message: Message, metas: Sequence[Meta] = (), *, after: int = 0
) -> Ready:
    """What the core wants after this message, `after` milliseconds later."""
    core.receive(core.state.now + after, sender, message, metas)
    return core.ready()


def persist(core: RaftCore) -> Ready:
    """What the core wants once everything it has written is on disk."""
    core.durable(core.state.now, core.state.journal.last_write_id)
    return core.ready()


def deadline(core: RaftCore) -> int:
    assert core.deadline is not None
    return core.deadline


def time_out(core: RaftCore) -> Ready:
    """What the core wants when its timeout has passed."""
    core.tick(deadline(core))
    return core.ready()


def campaign(core: RaftCore) -> Ready:
    """Make it a candidate: a pre-vote of everybody; what it wants then."""
    time_out(core)
    for peer in core.state.others:
        core.receive(
            core.state.now, peer, PreVote(core.state.term, core.state.pre_vote_round, True), ()
        )
    return core.ready()


def lead(core: RaftCore) -> RaftCore:
    """Make it a leader that has proposed its no-op; nothing is acknowledged or on disk."""
    campaign(core)
    persist(core)
    for peer in core.state.others:
        core.receive(core.state.now, peer, Vote(core.state.term, True), ())
    assert isinstance(core.state.role, Leader)
    assert core.propose(Kind.NOOP, 0) is not None
    core.ready()
    return core


def established(core: RaftCore) -> RaftCore:
    """Make it a leader whose no-op everybody holds."""
    lead(core)
    report(core)
    persist(core)
    for peer in core.state.others:
        core.receive(core.state.now, peer, Appended(core.state.term, core.last_index), ())
    core.ready()
    assert core.state.commit_index == core.last_index
    return core


def report(core: RaftCore, size: int = 0) -> None:
    """All entries handed out have left."""
    for peer, handed in list(core.state.handed.items()):
        core.sent(peer, handed.last_index, size)


def metas(first: int, *epochs: Epoch) -> list[Meta]:
    return [Meta(index, epoch, Kind.RECORDS, 1) for index, epoch in enumerate(epochs, start=first)]


def leader_of(core: RaftCore) -> Leader:
    assert isinstance(core.state.role, Leader)
    return core.state.role


def progress_of(core: RaftCore, peer: str) -> Progress:
    return leader_of(core).progress[peer]


def sends_of(ready: Ready, kind: type[Message]) -> list[Send]:
    return [send for send in ready.sends if isinstance(send.message, kind)]
