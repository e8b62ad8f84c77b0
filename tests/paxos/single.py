"""One core without a host: the test gives every input and reads every output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import cast

from paxoslog import MultiPaxos
from paxoslog.core import PaxosCore
from paxoslog.invariants import check_state, check_step, observe
from paxoslog.messages import Accepted, FetchChosen, Heartbeat, PrePromise, Promise
from paxoslog.progress import Progress
from paxoslog.state import Leader, Proposer
from replog.agreement import EntryRef, Message, Meta, Ready, Restored, Send
from replog.entry import NO_EPOCH, Epoch, Kind

NOW = 1000
PAXOS = MultiPaxos()
VOTERS = frozenset({"n1", "n2", "n3"})
FIVE = frozenset({"n1", "n2", "n3", "n4", "n5"})
OLD = Epoch(1, "n2")
"""The ballot of entries that a test made up."""


def start(
    *,
    promise: Epoch | None = None,
    accepted: Mapping[int, Epoch] | None = None,
    commit: int = 0,
    base: int = 0,
    voters: frozenset[str] = VOTERS,
    paxos: MultiPaxos = PAXOS,
    seed: int = 0,
) -> PaxosCore:
    """The core of n1, with what it has accepted above its commit index."""
    refs = tuple([EntryRef(index, epoch) for index, epoch in sorted((accepted or {}).items())])
    restored = Restored(
        promise or max([ref.epoch for ref in refs], default=OLD if commit else NO_EPOCH),
        (),
        refs[-1].index if refs else commit,
        commit,
        paxos.membership(voters),
        EntryRef(base, NO_EPOCH),
        refs,
    )
    return cast("PaxosCore", paxos.core("n1", restored, NOW, Random(seed)))


def receive(
    core: PaxosCore, sender: str, message: Message, metas: Sequence[Meta] = (), *, after: int = 0
) -> Ready:
    """What the core wants after this message, `after` milliseconds later."""
    core.receive(core.state.now + after, sender, message, metas)
    return core.ready()


def persist(core: PaxosCore) -> Ready:
    """What the core wants once everything it has written is on disk."""
    core.durable(core.state.now, core.state.journal.last_write_id)
    return core.ready()


def install(core: PaxosCore, index: int) -> Ready:
    """What the core wants after a snapshot that it needs."""
    before = observe(core)
    assert core.install(core.state.now, EntryRef(index, NO_EPOCH))
    check_state(core)
    check_step(before, observe(core))
    return core.ready()


def deadline(core: PaxosCore) -> int:
    assert core.deadline is not None
    return core.deadline


def time_out(core: PaxosCore) -> Ready:
    """What the core wants when its timeout has passed."""
    core.tick(deadline(core))
    return core.ready()


def prepare(core: PaxosCore) -> Ready:
    """Make it a proposer: a pre-promise of everybody; what it wants then."""
    time_out(core)
    state = core.state
    for peer in state.others:
        yes = PrePromise(state.ballot, state.pre_prepare_round, True, state.commit_index)
        core.receive(state.now, peer, yes, ())
    assert isinstance(state.role, Proposer)
    return core.ready()


def promise(core: PaxosCore, report: Mapping[int, Epoch] | None = None, commit: int = 0) -> Promise:
    """A promise to obey it, from an acceptor that has accepted this."""
    report = report or {}
    return Promise(core.state.ballot, commit, tuple(report), tuple(report.values()))


def elect(
    core: PaxosCore,
    reports: Mapping[str, Mapping[int, Epoch]] | None = None,
    commits: Mapping[str, int] | None = None,
) -> Ready:
    """Make it a leader by the promises of these acceptors; by default n2's, who reports nothing."""
    prepare(core)
    persist(core)
    commits = commits or {}
    for peer, report in (reports or {"n2": {}}).items():
        core.receive(core.state.now, peer, promise(core, report, commits.get(peer, 0)), ())
    assert isinstance(core.state.role, Leader)
    return core.ready()


def lead(core: PaxosCore) -> PaxosCore:
    """Make it a leader that has proposed its first entry; nothing is accepted or on disk."""
    elect(core, {peer: {} for peer in core.state.others})
    assert core.propose(Kind.NOOP, 0) is not None
    core.ready()
    assert core.leadership.first_index
    return core


def established(core: PaxosCore) -> PaxosCore:
    """Make it a leader whose first entry everybody has accepted."""
    lead(core)
    report(core)
    persist(core)
    for peer in core.state.others:
        core.receive(core.state.now, peer, accepted(core, 1, core.last_index), ())
    core.ready()
    assert core.state.commit_index == core.last_index
    return core


def accepted(core: PaxosCore, first: int, last: int, commit: int = 0) -> Accepted:
    return Accepted(core.state.ballot, first, last, commit)


def follow(core: PaxosCore, ballot: Epoch, commit: int = 0) -> Ready:
    """Make it an acceptor that has heard the leader of this ballot."""
    return receive(core, ballot.node, Heartbeat(ballot, commit, 0))


def report(core: PaxosCore, size: int = 0) -> None:
    """All entries handed out have left."""
    for peer, handed in list(core.state.handed.items()):
        core.sent(peer, handed.last_index, size)


def metas(first: int, *epochs: Epoch) -> list[Meta]:
    return [Meta(index, epoch, Kind.RECORDS, 1) for index, epoch in enumerate(epochs, start=first)]


def refs(first: int, *epochs: Epoch) -> tuple[EntryRef, ...]:
    return tuple([EntryRef(index, epoch) for index, epoch in enumerate(epochs, start=first)])


def leader_of(core: PaxosCore) -> Leader:
    assert isinstance(core.state.role, Leader)
    return core.state.role


def progress_of(core: PaxosCore, peer: str) -> Progress:
    return leader_of(core).progress[peer]


def sends_of(ready: Ready, kind: type[Message]) -> list[Send]:
    return [send for send in ready.sends if isinstance(send.message, kind)]


def entry_sends(ready: Ready) -> dict[str, list[int]]:
    return {s.to: [ref.index for ref in s.entries] for s in ready.sends if s.entries}


def fetches(ready: Ready) -> list[tuple[str, FetchChosen]]:
    """Who is asked for what is chosen."""
    return [(s.to, s.message) for s in ready.sends if isinstance(s.message, FetchChosen)]


def written(ready: Ready) -> dict[int, tuple[Epoch, Epoch]]:
    """Of each index written, the ballot and whose bytes it takes."""
    return {e.index: (e.epoch, e.source_epoch) for write in ready.writes for e in write.entries}
