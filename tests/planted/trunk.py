"""Bugs planted into what both agreements share."""

from __future__ import annotations

from tests.planted.bug import Bug, Edit

OUTBOX = "replog/replica/outbox.py"
REPLICA = "replog/replica/replica.py"
PRODUCERS = "replog/producers.py"
READS = "replog/replica/reads.py"
ROUNDS = "replog/rounds.py"

DURABLE = "answered before it is durable"
TWICE = "in the log twice, or out of order"
STUCK = "stuck after a loss"
READ = "stale read"
DISK = "the disk is not a prefix of the steps"

BUGS = (
    Bug(
        "promising messages wait for nothing",
        DURABLE,
        (Edit(OUTBOX, "        if batch_id <= self._durable_batch:\n", "        if True:\n"),),
    ),
    Bug(
        "promising messages leave one batch too early",
        DURABLE,
        (
            Edit(
                OUTBOX,
                "while self._gated and self._gated[0][0] <= batch_id:",
                "while self._gated and self._gated[0][0] <= batch_id + 1:",
            ),
        ),
    ),
    Bug(
        "a message waits only for the writes of its own step",
        DURABLE,
        (
            Edit(
                OUTBOX,
                "        for issued in self._issued:\n"
                "            if write_id <= issued.last_write_id:\n"
                "                return issued.batch_id\n",
                "",
            ),
        ),
        "paxos",
    ),
    Bug(
        "every run is accepted",
        TWICE,
        (
            Edit(
                PRODUCERS,
                "accepted = run.first_sequence == row.next_sequence",
                "accepted = True",
            ),
        ),
    ),
    Bug(
        "a position forgets the producers",
        TWICE,
        (Edit("replog/replica/delivery.py", "self.producers.snapshot()", "{}"),),
    ),
    Bug(
        "records of other nodes do not move the offset",
        "acknowledged at a wrong offset",
        (
            Edit(
                REPLICA,
                "self._origin.delivered(now, run, offset))\n            offset += run.count\n",
                "self._origin.delivered(now, run, offset))\n                offset += run.count\n",
            ),
        ),
    ),
    Bug(
        "entries are delivered before they are committed",
        "delivered and lost",
        (
            Edit(
                REPLICA,
                "        while delivery.index < self._commit_index:\n            index",
                "        while delivery.index < self._core.last_index:\n            index",
            ),
        ),
    ),
    Bug(
        "a lost forward is not repeated",
        STUCK,
        (
            Edit(
                "replog/replica/origin.py",
                "self.deadline = now + self._limits.retry_ms if waits else None",
                "self.deadline = None if waits else None",
            ),
        ),
    ),
    Bug(
        "a lost read is not repeated",
        STUCK,
        (
            Edit(
                READS,
                "        self.deadline = now + self._retry_ms\n",
                "        self.deadline = None\n",
            ),
        ),
    ),
    Bug(
        "what was taken in a lost leadership counts in the next",
        STUCK,
        (Edit(REPLICA, "            self._intake.close()\n", ""),),
    ),
    Bug(
        "an answer to an earlier life's read counts",
        READ,
        (Edit(READS, "        if message.life != self._life:\n            return\n", ""),),
    ),
    Bug(
        "a barrier holds before its index is delivered",
        READ,
        (
            Edit(
                READS,
                "for at, tickets in self._confirmed if at <= applied_index for",
                "for at, tickets in self._confirmed for",
            ),
        ),
    ),
    Bug(
        "a leader confirms reads alone",
        READ,
        (
            Edit(
                ROUNDS,
                "if not self._tokens or not quorums.can_commit(self._acknowledged):",
                "if not self._tokens:",
            ),
        ),
    ),
    Bug(
        "an answer to an earlier round confirms a read",
        READ,
        (Edit(ROUNDS, "        if number == self.number:\n", "        if True:\n"),),
    ),
    Bug(
        "a commit quorum may lack a voter",
        "committed too much",
        (
            Edit(
                "replog/quorum.py",
                "return reached[self.commit - 1]",
                "return reached[max(0, self.commit - 2)]",
            ),
        ),
    ),
    Bug(
        "an election quorum may lack a voter",
        "two leaders",
        (
            Edit(
                "replog/quorum.py",
                "return len(self.voters & acknowledged) >= self.elect",
                "return len(self.voters & acknowledged) >= max(1, self.elect - 1)",
            ),
        ),
        "paxos",
    ),
    Bug(
        "bytes are found by their index alone",
        "bytes of an overwritten entry",
        (
            Edit(
                "replog/replica/window.py",
                "entry = self._staged.get(source)\n",
                "entry = self.at(index) or self._staged.get(source)\n",
            ),
        ),
        "paxos",
    ),
    Bug(
        "a vote is not stored in a term that is stored",
        DISK,
        (
            Edit(
                "replog/store/rules.py",
                "            self._promise = write.promise\n",
                "            if write.promise.number > self._promise.number:\n"
                "                self._promise = write.promise\n",
            ),
        ),
    ),
    Bug(
        "a truncation leaves what its group has written",
        DISK,
        (
            Edit(
                "replog/store/rules.py",
                "{at: entry for at, entry in self._entries.items() if at < index}",
                "dict(self._entries)",
            ),
        ),
    ),
    Bug(
        "a truncation leaves the first of the dropped epochs",
        DISK,
        (
            Edit(
                "replog/store/epochs.py",
                "del self._runs[bisect_left(self._runs, index, key=_first_index) :]",
                "del self._runs[bisect_right(self._runs, index, key=_first_index) :]",
            ),
        ),
    ),
)
