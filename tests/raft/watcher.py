"""The facts of Raft's figure 3, checked after every step of a cluster."""

from __future__ import annotations

from hashlib import blake2b

from raftlog.core import RaftCore
from raftlog.invariants import Observed, check_state, check_step, observe
from replog.agreement import Ready
from replog.entry import Epoch
from tests.agreement.harness import Cluster, Member
from tests.agreement.image import Image, Stored


class Watcher:
    """Give it to `Cluster(watch=...)`. The cluster itself checks that members commit the same
    entries, and that these are on the disks of a quorum."""

    def __init__(self) -> None:
        self.steps = 0
        self._observed: dict[str, tuple[RaftCore, Observed]] = {}
        self._digests: dict[tuple[int, Epoch], bytes] = {}
        self._seen: dict[str, dict[int, tuple[Stored, bytes]]] = {}
        self._leaders: dict[int, str] = {}
        self._committed_in: dict[int, int] = {}
        """By index: the term in which an entry was first committed."""

    def __call__(self, cluster: Cluster, member: Member) -> None:
        self.steps += 1
        core = member.core
        assert isinstance(core, RaftCore)
        check_state(core)
        now = observe(core)
        core_before, before = self._observed.get(member.name, (None, now))
        if core_before is core:
            check_step(before, now)
        self._observed[member.name] = (core, now)
        if core_before is not core or before.write_ids != now.write_ids:
            self._check_log_matching(member)
            assert core.ready() == Ready((), (), core.state.commit_index, (), ())
            assert core.state.log.runs() == member.memory.epochs
            assert core.state.log.base == member.memory.base
            assert (core.state.term, core.state.vote) == member.memory.promise
        if len(cluster.committed) > len(self._committed_in):
            for index in cluster.committed.keys() - self._committed_in.keys():
                self._committed_in[index] = now.term
        if now.leads and now.term not in self._leaders:
            self._leaders[now.term] = member.name
            self._check_leader_completeness(cluster, now.term, member.memory)
        assert not now.leads or self._leaders[now.term] == member.name, f"two lead {now.term}"

    def _check_log_matching(self, member: Member) -> None:
        """If two logs hold an entry of the same index and term, they are equal up to there. A base
        stands for all that the log it comes from held."""
        seen = self._seen.setdefault(member.name, {})
        base = member.memory.base
        digest = self._digests[base] if base.index else b""
        for index, stored in member.memory.entries.items():
            known = seen.get(index)
            if known is None or known[0] is not stored:
                chained = digest + repr(stored).encode()
                known = seen[index] = (stored, blake2b(chained, digest_size=16).digest())
                for later in [later for later in seen if later > index]:
                    del seen[later]
            digest = known[1]
            first = self._digests.setdefault((index, stored.epoch), digest)
            assert first == digest, f"{member.name}'s log differs below {index} of {stored.epoch}"

    def _check_leader_completeness(self, cluster: Cluster, term: int, memory: Image) -> None:
        """An entry committed in one term is in the log of the leader of every later term."""
        for index, committed_in in self._committed_in.items():
            if committed_in < term and index > memory.base.index:
                value = cluster.committed[index]
                assert memory.entries[index].value == value, f"the leader lacks entry {index}"
