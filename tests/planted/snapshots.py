"""Bugs planted into snapshots, compaction and catching up, of both agreements and what they share.

Not among them, for no fault shows them: a piece whose own checksum is not compared (the digest over
all of them is, before anything is installed), and a snapshot that is offered before it is on the
disk (what it stands for is committed all the same).
"""

from __future__ import annotations

from tests.planted.bug import Bug, Edit

CATCHUP = "replog/replica/catchup.py"
COMPACTION = "replog/replica/compaction.py"
GIVING = "replog/replica/giving.py"
RECEIVING = "replog/replica/receiving.py"
SNAPSHOTS = "replog/replica/snapshots.py"
REPLICA = "replog/replica/replica.py"
DELIVERY = "replog/replica/delivery.py"

INSTALL = "a snapshot takes the place of the wrong log"
DURABLE = "answered before it is durable"
LOST = "dropped what nothing stands for"
WRONG = "a wrong state is installed"
TWICE = "in the log twice, or out of order"
STUCK = "stuck behind a dropped log"
READER = "a reader loses what it needs"

BUGS = (
    Bug(
        "an install keeps what conflicts with it",
        INSTALL,
        (
            Edit(
                "raftlog/state.py",
                "if base.index <= log.last_index and log.epoch_at(base.index) == base.epoch:",
                "if base.index <= log.last_index:",
            ),
        ),
    ),
    Bug(
        "an install is taken at or below the commit index",
        INSTALL,
        (
            Edit(
                "raftlog/catchup.py",
                "        base.index <= state.commit_index\n        or ",
                "        ",
            ),
        ),
    ),
    Bug(
        "an install is taken at or below the commit index",
        INSTALL,
        (
            Edit(
                "paxoslog/catchup.py",
                "    if base_index <= state.commit_index:\n        return False\n",
                "",
            ),
        ),
        "paxos",
    ),
    Bug(
        "the acknowledgement of an install leaves before it is durable",
        DURABLE,
        (
            Edit(
                "raftlog/catchup.py",
                "state.promise(state.leader, Appended(",
                "state.send(state.leader, Appended(",
            ),
        ),
    ),
    Bug(
        "delivery goes on before an install is durable",
        DURABLE,
        (
            Edit(
                REPLICA,
                "if self._delivery.index < self._commit_index and not self.catchup.is_installing:",
                "if self._delivery.index < self._commit_index:",
            ),
        ),
        "paxos",
    ),
    Bug(
        "a barrier holds before an install is durable",
        "stale read",
        (
            Edit(
                REPLICA,
                "self._reads.passed(0 if self.catchup.is_installing else self._delivery.index)",
                "self._reads.passed(self._delivery.index)",
            ),
        ),
    ),
    Bug(
        "a header is written before the position",
        LOST,
        (Edit(CATCHUP, "return self.snapshots.seals", "return False"),),
    ),
    Bug(
        "the log is dropped ahead of the snapshot",
        LOST,
        (
            Edit(
                CATCHUP,
                "lets_go = self.snapshots.newest_index >= self._compaction.target_index",
                "lets_go = True",
            ),
        ),
    ),
    Bug(
        "a header alone lets a machine's log go",
        LOST,
        (
            Edit(
                CATCHUP,
                "            bounds.append(self.snapshots.newest_state_index)\n",
                "            pass\n",
            ),
        ),
    ),
    Bug(
        "an older snapshot takes the place of a newer one",
        LOST,
        (
            Edit(
                SNAPSHOTS,
                "        if stored.snapshot.index <= self.newest_index:",
                "        if False:",
            ),
        ),
    ),
    Bug(
        "what is dropped gives the base the last epoch",
        "logs repaired wrongly",
        (
            Edit(
                "raftlog/state.py",
                "self.base = EntryRef(index, self.epoch_at(index))",
                "self.base = EntryRef(index, self._epochs[-1])",
            ),
        ),
    ),
    Bug(
        "the stored base gets the last epoch",
        "logs repaired wrongly",
        (
            Edit(
                "replog/store/rules.py",
                "epoch = self._epochs.epoch_at(index)\n",
                "epoch = self._epochs.epoch_at(self._epochs.last_index)\n",
            ),
        ),
    ),
    Bug(
        "an acceptor forgets what it accepted above the base",
        "a value that may be chosen is not adopted",
        (
            Edit(
                "paxoslog/state.py",
                "for index in [index for index in self._accepted if index <= base_index]:",
                "for index in [*self._accepted]:",
            ),
        ),
        "paxos",
    ),
    Bug(
        "the producers are left out of a snapshot",
        TWICE,
        (
            Edit(
                "replog/snapshot.py",
                "rows = [(node, *row) for node, row in sorted(producers.items())]",
                "rows: list[object] = []",
            ),
        ),
    ),
    Bug(
        "an install forgets the producers",
        TWICE,
        (Edit(DELIVERY, "self.producers = Producers(rows)", "self.producers = Producers({})"),),
    ),
    Bug(
        "records that a snapshot stands for are never answered",
        STUCK,
        (Edit(REPLICA, "self._skipped += self._origin.install(row)", "pass"),),
    ),
    Bug(
        "the digest of a received state is not compared",
        WRONG,
        (Edit(RECEIVING, "whole = snapshot.is_made_of(found)", "whole = True"),),
    ),
    Bug(
        "a part is taken wherever it begins",
        WRONG,
        (
            Edit(
                RECEIVING,
                "(part.number, part.start) != (number, start)",
                "part.number != number",
            ),
        ),
    ),
    Bug(
        "a lost part is not asked for again",
        STUCK,
        (
            Edit(
                RECEIVING,
                "        self.deadline = now + self._retry_ms\n",
                "        self.deadline = None\n",
            ),
        ),
    ),
    Bug(
        "nobody offers what takes the place of a dropped log",
        STUCK,
        (Edit("raftlog/catchup.py", "        state.offer_snapshot(peer)\n", "        pass\n"),),
    ),
    Bug(
        "nobody offers what takes the place of a dropped log",
        STUCK,
        (Edit("paxoslog/catchup.py", "            state.offer_snapshot(peer)\n", ""),),
        "paxos",
    ),
    Bug(
        "a snapshot is offered without being wanted",
        "a leader counts what it does not have",
        (
            Edit(
                GIVING,
                "        if pin is None or pin.stored.snapshot_id != fetch.snapshot_id:\n"
                "            return\n",
                "        if pin is None or pin.stored.snapshot_id != fetch.snapshot_id:\n"
                "            self.offer(now, sender)\n            return\n",
            ),
        ),
    ),
    Bug(
        "what follows a snapshot that somebody takes is dropped",
        STUCK,
        (
            Edit(
                CATCHUP,
                "        if self.giving.pinned_index is not None:\n",
                "        if False:\n",
            ),
        ),
    ),
    Bug(
        "readers are not told before the log is dropped",
        READER,
        (Edit(CATCHUP, "return self._compaction.take_first_offset()", "return None"),),
    ),
    Bug(
        "a named reader keeps nothing",
        READER,
        (Edit("replog/retention.py", "    if pinned < position.offset:\n", "    if False:\n"),),
    ),
    Bug(
        "a named reader that begins during a look keeps nothing",
        READER,
        (Edit(COMPACTION, "        if self._outdated:\n", "        if False:\n"),),
    ),
)
