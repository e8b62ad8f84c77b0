"""Bugs planted into Multi-Paxos."""

from __future__ import annotations

from tests.planted.bug import Bug, Edit

ELECTION = "paxoslog/election.py"
REPLICATION = "paxoslog/replication.py"
STATE = "paxoslog/state.py"
PROGRESS = "paxoslog/progress.py"
CORE = "paxoslog/core.py"

DURABLE = "answered before it is durable"
COUNTING = "counted what does not count"
ADOPTION = "a value that may be chosen is not adopted"
CHOICE = "taken for chosen"
STUCK = "stuck after a loss"


def bug(name: str, hazard: str, *edits: Edit) -> Bug:
    return Bug(name, hazard, edits, "paxos")


BUGS = (
    bug(
        "a promise leaves before it is durable",
        DURABLE,
        Edit(ELECTION, "state.promise(sender, promise)", "state.send(sender, promise)"),
    ),
    bug(
        "an acceptance leaves before it is durable",
        DURABLE,
        Edit(REPLICATION, "state.promise(leader, Accepted(", "state.send(leader, Accepted("),
    ),
    bug(
        "a proposer asks before its ballot is durable",
        "ballot used twice",
        Edit(ELECTION, "state.promise(peer, request)", "state.send(peer, request)"),
    ),
    bug(
        "a promise is not written",
        "forgotten by a restart",
        Edit(STATE, "        self.journal.promise(ballot)\n", ""),
    ),
    bug(
        "a promise is not read at a restart",
        "forgotten by a restart",
        Edit(STATE, "self.ballot = restored.promise\n", "self.ballot = NO_EPOCH\n"),
    ),
    bug(
        "what was accepted is not read at a restart",
        "forgotten by a restart",
        Edit(
            STATE,
            "Log(restored.commit_index, restored.accepted, restored.base.index)",
            "Log(restored.commit_index, (), restored.base.index)",
        ),
    ),
    bug(
        "the latest report is adopted instead of the highest",
        ADOPTION,
        Edit(
            ELECTION,
            "if index <= base_index or (known is not None and ballot < known.ballot):",
            "if index <= base_index:",
        ),
    ),
    bug(
        "the lowest report is adopted",
        ADOPTION,
        Edit(
            ELECTION,
            "(known is not None and ballot < known.ballot)",
            "(known is not None and ballot > known.ballot)",
        ),
    ),
    bug(
        "a proposer leaves out its own report",
        ADOPTION,
        Edit(ELECTION, "    reports[state.node] = state.log.accepted()\n", ""),
    ),
    bug(
        "the report of one promise is enough",
        ADOPTION,
        Edit(
            ELECTION,
            "for peer, promise in promises.items()\n",
            "for peer, promise in [*promises.items()][:1]\n",
        ),
    ),
    bug(
        "a proposer ignores what others know to be chosen",
        ADOPTION,
        Edit(
            ELECTION,
            "base_index = max([state.commit_index, *[p.commit_index for p in promises.values()]])",
            "base_index = state.commit_index",
        ),
    ),
    bug(
        "a promise reports nothing",
        ADOPTION,
        Edit(
            ELECTION,
            "report = [ref for ref in state.log.accepted() if ref.index >= request.first_index]",
            "report: list[EntryRef] = []",
        ),
    ),
    bug(
        "a promise leaves out the first index",
        ADOPTION,
        Edit(
            ELECTION, "if ref.index >= request.first_index]", "if ref.index > request.first_index]"
        ),
    ),
    bug(
        "whatever is at hand is proposed for the adopted value",
        ADOPTION,
        Edit(
            ELECTION,
            "        if held >= adopted.ballot:\n",
            "        if held != NO_EPOCH and held < adopted.ballot:\n"
            "            propose_at(state, leader, index, held)\n"
            "            del leader.adopted[index]\n"
            "            continue\n"
            "        if held >= adopted.ballot:\n",
        ),
    ),
    bug(
        "one promise makes a leader",
        COUNTING,
        Edit(
            ELECTION,
            "    if not state.quorums.can_elect(proposer.promised):\n",
            "    if not proposer.promised:\n",
        ),
    ),
    bug(
        "one acceptance chooses",
        COUNTING,
        Edit(REPLICATION, "if state.quorums.can_commit(accepted_by):", "if accepted_by:"),
    ),
    bug(
        "answers of past ballots count",
        COUNTING,
        Edit(CORE, "            if message.ballot == state.ballot:\n", "            if True:\n"),
    ),
    bug(
        "a leader counts its own acceptance before it is durable",
        DURABLE,
        Edit(
            REPLICATION,
            "leader.accepted_by[index] = set()",
            "leader.accepted_by[index] = {state.node}",
        ),
    ),
    bug(
        "an acceptor accepts at a lower ballot than it promised",
        "a promise is broken",
        Edit(
            REPLICATION,
            "    if ballot < state.ballot:\n        state.promise(sender, Nack(state.ballot))\n"
            "        return False\n",
            "",
        ),
    ),
    bug(
        "an acceptor accepts again what is chosen",
        "a promise is broken",
        Edit(REPLICATION, "if last > log.commit_index and log", "if log"),
    ),
    bug(
        "whatever was accepted counts as chosen up to the commit index",
        CHOICE,
        Edit(
            REPLICATION,
            "        if log.ballot_at(index) == state.ballot:\n            log.choose(index)",
            "        if log.ballot_at(index).number:\n            log.choose(index)",
        ),
    ),
    bug(
        "the commit index jumps over what is not chosen",
        CHOICE,
        Edit(
            STATE,
            "        while self.commit_index + 1 in self._chosen:\n",
            "        self._chosen.update([at for at in self._accepted if at < index])\n"
            "        while self.commit_index + 1 in self._chosen:\n",
        ),
    ),
    bug(
        "ballots are compared by number alone",
        "a promise is broken",
        Edit(
            ELECTION,
            "    if request.ballot < state.ballot:\n"
            "        state.promise(sender, Nack(state.ballot))\n"
            "        return\n    if _hears_a_leader(state):",
            "    if request.ballot.number < state.ballot.number:\n        return\n"
            "    if request.ballot < state.ballot:\n        state.ballot = NO_EPOCH\n"
            "    if _hears_a_leader(state):",
        ),
    ),
    bug(
        "a fetch that was lost is not repeated",
        STUCK,
        Edit(
            "paxoslog/catchup.py",
            "    if state.now - before.asked_at < state.tuning.retransmit_ms:\n"
            "        return None\n",
            "    return None\n",
        ),
    ),
    bug(
        "an acceptor that was lost is never probed",
        STUCK,
        Edit(PROGRESS, "        if self.mode is Mode.DOWN:\n", "        if False:\n"),
    ),
    bug(
        "a missing answer is never asked for",
        STUCK,
        Edit(PROGRESS, "return waiting and now - self.moved_at >= after_ms", "return False"),
    ),
    bug(
        "reads begin before what was adopted is chosen",
        "stale read",
        Edit(
            "paxoslog/reads.py",
            "return 0 < leader.first_index <= state.commit_index",
            "return True",
        ),
    ),
    bug(
        "a leader without a quorum stays",
        "partial connectivity",
        Edit(REPLICATION, "    if is_alone or is_stuck:\n", "    if is_stuck:\n"),
    ),
)
