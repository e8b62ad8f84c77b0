"""The facts of Paxos, checked after every step of a cluster."""

from __future__ import annotations

from paxoslog.core import PaxosCore
from paxoslog.invariants import Observed, check_state, check_step, observe
from replog.agreement import EntryRef, Ready
from tests.agreement.harness import Cluster, Member
from tests.agreement.image import Value


class Watcher:
    """Give it to `Cluster(watch=...)`. The cluster itself checks that members commit the same
    entries, that these are on the disks of a quorum, and that each ballot has one leader."""

    def __init__(self) -> None:
        self.steps = 0
        self._observed: dict[str, tuple[PaxosCore, Observed]] = {}
        self._proposed: dict[EntryRef, Value] = {}
        self._acceptors: dict[EntryRef, set[str]] = {}
        self._chosen: dict[int, Value] = {}
        """Whatever a quorum of disks has ever accepted, whether anybody knows or not."""
        self._settled: dict[str, int] = {}
        """Up to here, nothing changes any more on each member's disk."""

    def __call__(self, cluster: Cluster, member: Member) -> None:
        self.steps += 1
        core = member.core
        assert isinstance(core, PaxosCore)
        check_state(core)
        now = observe(core)
        core_before, before = self._observed.get(member.name, (None, now))
        if core_before is core:
            check_step(before, now)
        self._observed[member.name] = (core, now)
        if core_before is not core or before.write_ids != now.write_ids:
            assert core.ready() == Ready((), (), core.state.commit_index, (), ())
            assert core.state.log.accepted() == member.memory.tail
            assert core.state.log.base_index == member.memory.base.index
            assert core.state.ballot == member.memory.promise
            self._check_proposals(member)
            self._check_choices(cluster, member)

    def _check_proposals(self, member: Member) -> None:
        """At one index, a ballot proposes one value (PMS, section 2.2)."""
        for ref in member.memory.tail:
            value = member.memory.entries[ref.index].value
            known = self._proposed.setdefault(ref, value)
            assert known == value, f"{member.name} holds {value} as {ref}, others {known}"

    def _check_choices(self, cluster: Cluster, member: Member) -> None:
        """What a quorum has accepted at one ballot is chosen, and nothing else ever (PMS 2.2)."""
        disk, settled = member.disk, self._settled.get(member.name, 0)
        for index in range(settled + 1, disk.last_index + 1):
            if index in disk.entries:
                epoch, value = disk.entries[index]
                acceptors = self._acceptors.setdefault(EntryRef(index, epoch), set())
                acceptors.add(member.name)
                if cluster.membership.quorums.can_commit(acceptors):
                    known = self._chosen.setdefault(index, value)
                    assert known == value, f"both {known} and {value} are chosen at {index}"
        for index in range(settled + 1, member.memory.position + 1):
            if index in member.memory.entries:
                value = member.memory.entries[index].value
                assert self._chosen.setdefault(index, value) == value
            else:
                assert index <= member.memory.base.index
                assert index in self._chosen, f"a snapshot stands for {index}, which is not chosen"
        self._settled[member.name] = disk.position
