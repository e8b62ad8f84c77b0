"""The simulator has teeth for Multi-Paxos too: each of these faults, planted into it, is caught."""

from __future__ import annotations

import pytest

from paxoslog import MultiPaxos, catchup, election, reads, replication
from paxoslog.messages import Promise
from paxoslog.state import Adopted, State
from replog.agreement import Send
from replog.entry import NO_EPOCH, Epoch
from replog.testing import SimulationFailure, simulate

SEEDS = 200

Patch = pytest.MonkeyPatch


def promises_wait_for_no_write(patch: Patch) -> None:
    def promise(self, to, message):
        self._sends.append(Send(to, message, 0))

    patch.setattr(State, "promise", promise)


def a_leader_counts_itself_before_its_disk(patch: Patch) -> None:
    propose_at = replication.propose_at

    def count_at_once(state, leader, index, source):
        propose_at(state, leader, index, source)
        replication._count(state, leader, index, state.node)

    patch.setattr(replication, "propose_at", count_at_once)
    patch.setattr(election, "propose_at", count_at_once)


def the_latest_report_is_adopted(patch: Patch) -> None:
    """Instead of that of the highest ballot."""

    def adopt(reports, base_index):
        found = {}
        for node, report in reports.items():
            for index, ballot in report:
                if index > base_index:
                    found[index] = Adopted(ballot, (node,))
        return {index: found[index] for index in sorted(found)}

    patch.setattr(election, "_adopt", adopt)


def what_one_acceptor_reports_is_taken_for_a_gap(patch: Patch) -> None:
    adopt = election._adopt

    def adopt_the_common(reports, base_index):
        found = adopt(reports, base_index)
        end = max(found, default=0)
        return {
            index: adopted
            for index, adopted in found.items()
            if len(adopted.reporters) > 1 or index == end
        }

    patch.setattr(election, "_adopt", adopt_the_common)


def chosen_indexes_of_others_are_proposed_anew(patch: Patch) -> None:
    count = election.count_promise

    def forget_commit_index(state, sender, promise):
        count(
            state,
            sender,
            promise._replace(commit_index=min(promise.commit_index, state.commit_index)),
        )

    patch.setattr(election, "count_promise", forget_commit_index)


def a_report_leaves_out_old_ballots(patch: Patch) -> None:
    promise = State.promise

    def shorten(self, to, message):
        if isinstance(message, Promise) and message.ballots:
            newest = max(message.ballots)
            kept = [i for i, b in enumerate(message.ballots) if b == newest]
            message = message._replace(
                indexes=tuple([message.indexes[i] for i in kept]),
                ballots=tuple([message.ballots[i] for i in kept]),
            )
        promise(self, to, message)

    patch.setattr(State, "promise", shorten)


def a_ballot_is_used_again_after_a_restart(patch: Patch) -> None:
    start = State.__init__

    def forget(self, *arguments):
        start(self, *arguments)
        if self.ballot.node == self.node:
            self.ballot = Epoch(self.ballot.number - 1, self.node)

    patch.setattr(State, "__init__", forget)


def a_promise_is_forgotten_by_a_restart(patch: Patch) -> None:
    start = State.__init__

    def forget(self, *arguments):
        start(self, *arguments)
        self.ballot = max([ref.epoch for ref in self.log.accepted()], default=NO_EPOCH)

    patch.setattr(State, "__init__", forget)


def a_lower_ballot_is_accepted(patch: Patch) -> None:
    def obeys(state, sender, ballot):
        state.obey(max(ballot, state.ballot))
        return True

    patch.setattr(replication, "_obeys", obeys)


def a_commit_index_chooses_entries_of_any_ballot(patch: Patch) -> None:
    def learn(state, leader, commit_index):
        log = state.log
        state.note_commit(leader, commit_index)
        state.told_index = max(state.told_index, commit_index)
        for index in range(log.commit_index + 1, min(state.told_index, log.last_index) + 1):
            if log.ballot_at(index) != NO_EPOCH:
                log.choose(index)

    patch.setattr(replication, "_learn", learn)


def one_acceptor_less_chooses(patch: Patch) -> None:
    def count(state, leader, index, acceptor):
        accepted_by = leader.accepted_by.get(index)
        if accepted_by is not None:
            accepted_by.add(acceptor)
            if len(accepted_by) >= max(1, state.quorums.commit - 1):
                del leader.accepted_by[index]
                state.log.choose(index)

    patch.setattr(replication, "_count", count)


def one_promise_less_elects(patch: Patch) -> None:
    lead = election._lead_if_promised

    def lead_sooner(state, proposer):
        missing = sorted(state.quorums.voters - proposer.promised)[:1]
        proposer.promised.update(missing)
        lead(state, proposer)
        proposer.promised.difference_update(missing)

    patch.setattr(election, "_lead_if_promised", lead_sooner)


def a_new_leader_reads_before_its_first_entry(patch: Patch) -> None:
    patch.setattr(reads, "_knows_every_choice", lambda *_: True)


def a_missing_entry_is_not_sent_again(patch: Patch) -> None:
    patch.setattr(replication, "send_again", lambda *_: None)
    patch.setattr(replication, "_ask_again_if_overdue", lambda *_: None)


def chosen_entries_are_not_fetched(patch: Patch) -> None:
    patch.setattr(catchup, "fetch_missing", lambda *_: None)


@pytest.mark.parametrize(
    ("plant", "first_seed"),
    [
        (promises_wait_for_no_write, 0),
        (a_leader_counts_itself_before_its_disk, 0),
        (the_latest_report_is_adopted, 600),
        (what_one_acceptor_reports_is_taken_for_a_gap, 0),
        (chosen_indexes_of_others_are_proposed_anew, 140),
        (a_report_leaves_out_old_ballots, 85),
        (a_ballot_is_used_again_after_a_restart, 0),
        (a_promise_is_forgotten_by_a_restart, 0),
        (a_lower_ballot_is_accepted, 0),
        (a_commit_index_chooses_entries_of_any_ballot, 125),
        (one_acceptor_less_chooses, 0),
        (one_promise_less_elects, 0),
        (a_new_leader_reads_before_its_first_entry, 30),
        (a_missing_entry_is_not_sent_again, 0),
        (chosen_entries_are_not_fetched, 0),
    ],
)
def test_a_planted_fault_is_caught(plant, first_seed: int, monkeypatch: Patch) -> None:
    plant(monkeypatch)
    with pytest.raises(SimulationFailure, match=r"--agreement paxos --seed [0-9]+ --shrink"):
        simulate_from(first_seed)


def simulate_from(first_seed: int) -> None:
    """Many seeds; the first is chosen to save time, not to find at all."""
    for seed in range(first_seed, first_seed + SEEDS):
        simulate(seed, MultiPaxos())
