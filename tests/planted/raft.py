"""Bugs planted into Raft."""

from __future__ import annotations

from tests.planted.bug import Bug, Edit

ELECTION = "raftlog/election.py"
REPLICATION = "raftlog/replication.py"
STATE = "raftlog/state.py"
PROGRESS = "raftlog/progress.py"
CORE = "raftlog/core.py"

DURABLE = "answered before it is durable"
COUNTING = "counted what does not count"
COMMIT = "committed too much"
REPAIR = "logs repaired wrongly"
STUCK = "stuck after a loss"
READ = "stale read"

SOONER = Edit(
    REPLICATION,
    "    state.promise(sender, Appended(state.term, verified))\n",
    "    acknowledge = state.send if verified <= state.journal.durable_index else state.promise\n"
    "    acknowledge(sender, Appended(state.term, verified))\n",
)
"""A follower leans on what its journal takes for durable. As things are only a leader does, and to
a leader nothing that was truncated matters: its own vote is younger and was on disk before it asked
for others, and it truncates no more. So what is wrong there would harm nobody."""

BUGS = (
    Bug(
        "a vote leaves before it is durable",
        DURABLE,
        (Edit(ELECTION, "state.promise(sender, Vote(", "state.send(sender, Vote("),),
    ),
    Bug(
        "a candidate asks before its own vote is durable",
        DURABLE,
        (Edit(ELECTION, "state.promise(peer, request)", "state.send(peer, request)"),),
    ),
    Bug(
        "stepping down clears the vote",
        "vote twice in a term",
        (
            Edit(
                STATE,
                "            self.restart_election_timer()\n        self.role = Follower()\n",
                "            self.restart_election_timer()\n        self.role = Follower()\n"
                '        self.vote = ""\n',
            ),
        ),
    ),
    Bug(
        "a vote is given to everyone who asks",
        "vote twice in a term",
        (
            Edit(
                ELECTION,
                'and (state.vote == sender or (state.vote == "" and state.leader is None))',
                "and state.leader is None",
            ),
            Edit(STATE, 'if self.vote not in {"", node}:', "if False:"),
            Edit(STATE, "        if not self.vote:\n", "        if True:\n"),
        ),
    ),
    Bug(
        "votes are counted by message",
        COUNTING,
        (
            Edit(
                ELECTION,
                "if isinstance(role, Candidate) and answer.granted:\n"
                "        role.granted.add(sender)",
                "if isinstance(role, Candidate) and answer.granted:\n"
                "        role.granted.add(min(state.quorums.voters - role.granted))",
            ),
        ),
    ),
    Bug(
        "answers of past terms count",
        COUNTING,
        (Edit(CORE, "elif answer.term == state.term:", "else:"),),
    ),
    Bug(
        "entries of older terms are committed by counting",
        COMMIT,
        (Edit(REPLICATION, " and state.log.term_at(reached) == state.term", ""),),
    ),
    Bug(
        "a follower commits what the append did not verify",
        COMMIT,
        (
            Edit(
                REPLICATION,
                "min(append.commit_index, verified)",
                "min(append.commit_index, state.log.last_index)",
            ),
        ),
    ),
    Bug(
        "a heartbeat tells the whole commit index",
        COMMIT,
        (
            Edit(
                REPLICATION,
                "        commit_index = min(state.commit_index, progress.match_index)\n"
                "        progress.commit_told = max(",
                "        commit_index = state.commit_index\n        progress.commit_told = max(",
            ),
        ),
    ),
    Bug(
        "a commit notice tells the whole commit index",
        COMMIT,
        (
            Edit(
                REPLICATION,
                "        commit_index = min(state.commit_index, progress.match_index)\n"
                "        if commit_index >",
                "        commit_index = state.commit_index\n        if commit_index >",
            ),
        ),
    ),
    Bug(
        "a new commit index may be lower than the last",
        COMMIT,
        (
            Edit(
                STATE,
                "self.commit_index = max(self.commit_index, index)",
                "self.commit_index = index",
            ),
        ),
    ),
    Bug(
        "an overlapping append truncates what agrees",
        REPAIR,
        (Edit(REPLICATION, "if meta.epoch.number != epoch.number:", "if True:"),),
    ),
    Bug(
        "a conflicting entry is kept",
        REPAIR,
        (
            Edit(
                REPLICATION,
                "        if meta.epoch.number != epoch.number:\n"
                "            state.truncate(meta.index)\n            break\n"
                "        if meta.epoch.node != epoch.node:\n",
                "        if meta.epoch.number == epoch.number and meta.epoch.node != epoch.node:\n",
            ),
        ),
    ),
    Bug(
        "a follower acknowledges its whole log",
        COUNTING,
        (
            Edit(
                REPLICATION,
                "Appended(state.term, verified)",
                "Appended(state.term, state.log.last_index)",
            ),
        ),
    ),
    Bug(
        "the term before an append is not compared",
        REPAIR,
        (
            Edit(
                REPLICATION,
                "if previous > log.last_index or (\n"
                "        previous >= base_index and log.term_at(previous) != append.previous_term\n"
                "    ):",
                "if previous > log.last_index:",
            ),
        ),
    ),
    Bug(
        "a leader counts its own copy before it is durable",
        DURABLE,
        (
            Edit(
                REPLICATION,
                "positions[state.node] = state.journal.durable_index",
                "positions[state.node] = state.log.last_index",
            ),
        ),
    ),
    Bug(
        "an acknowledgement leaves before it is durable",
        DURABLE,
        (Edit(REPLICATION, "state.promise(sender, Appended(", "state.send(sender, Appended("),),
    ),
    Bug(
        "reads begin before the first commit of the term",
        READ,
        (
            Edit(
                "raftlog/reads.py",
                "return 0 < leader.first_index <= state.commit_index",
                "return True",
            ),
        ),
    ),
    Bug(
        "the answer to a past term's heartbeat repeats its round",
        READ,
        (
            Edit(
                REPLICATION,
                "    if heartbeat.term < state.term:\n        _tell_term(state, sender)\n",
                "    if heartbeat.term < state.term:\n"
                "        state.send(sender, HeartbeatReply(state.term, heartbeat.round))\n",
            ),
        ),
    ),
    Bug(
        "a leader without a quorum stays",
        "partial connectivity",
        (
            Edit(
                REPLICATION,
                "if state.now - quorum_heard_at >= state.tuning.election_timeout_ms_max:",
                "if False:",
            ),
        ),
    ),
    Bug(
        "votes go to any log",
        "a leader lacks committed entries",
        (
            Edit(
                ELECTION,
                "return (last_term, last_index) >= (state.log.last_term, state.log.last_index)",
                "return True",
            ),
        ),
    ),
    Bug(
        "logs are compared by length alone",
        "a leader lacks committed entries",
        (
            Edit(
                ELECTION,
                "return (last_term, last_index) >= (state.log.last_term, state.log.last_index)",
                "return last_index >= state.log.last_index",
            ),
        ),
    ),
    Bug(
        "a higher term is not written",
        "forgotten by a restart",
        (Edit(STATE, '        self.journal.promise(Epoch(term, ""))\n', ""),),
    ),
    Bug(
        "a vote is not written",
        "forgotten by a restart",
        (Edit(STATE, "            self.journal.promise(Epoch(self.term, node))\n", ""),),
    ),
    Bug(
        "a vote is not read at a restart",
        "forgotten by a restart",
        (
            Edit(
                STATE,
                "self.term, self.vote = restored.promise",
                'self.term, self.vote = restored.promise.number, ""',
            ),
        ),
    ),
    Bug(
        "a completed write vouches for the entry that replaced its own",
        "asynchronous writes, ABA",
        (
            SOONER,
            Edit(
                STATE,
                "        for issued in self._issued:\n"
                "            issued[1] = min(issued[1], first - 1)\n",
                "",
            ),
        ),
    ),
    Bug(
        "what was durable vouches for the entry that replaced it",
        "asynchronous writes, ABA",
        (
            SOONER,
            Edit(STATE, "        self.durable_index = min(self.durable_index, first - 1)\n", ""),
        ),
    ),
    Bug(
        "a follower that was lost is never probed",
        STUCK,
        (Edit(PROGRESS, "        if self.mode is Mode.DOWN:\n", "        if False:\n"),),
    ),
    Bug(
        "a missing acknowledgement is never asked for",
        STUCK,
        (Edit(PROGRESS, "return waiting and now - self.moved_at >= after_ms", "return False"),),
    ),
    Bug(
        "appends of past terms are taken",
        COUNTING,
        (Edit(REPLICATION, "    if append.term < state.term:\n", "    if False:\n"),),
    ),
)
