"""The simulator has teeth: each of these faults, planted into the trunk or into Raft, is caught."""

from __future__ import annotations

import pytest

from raftlog import election, replication, state
from replog.agreement import ReadState
from replog.agreements import load_agreement
from replog.producers import ProducerRow, Producers
from replog.quorum import Quorums
from replog.replica.delivery import Delivery
from replog.replica.origin import Origin
from replog.replica.outbox import Outbox
from replog.rounds import Rounds
from replog.testing import SimulationFailure, simulate

SEEDS = 200

Patch = pytest.MonkeyPatch


def messages_that_promise_leave_at_once(patch: Patch) -> None:
    patch.setattr(Outbox, "_gate", lambda self, _, outgoing: self._sends.append(outgoing))


def delivery_accepts_every_run(patch: Patch) -> None:
    def accept(self, run):
        self.rows[run.node] = ProducerRow(run.life, run.first_sequence + run.count)
        return True

    patch.setattr(Producers, "accept", accept)


def one_copy_less_commits(patch: Patch) -> None:
    def committed(self, positions):
        reached = sorted([positions.get(voter, 0) for voter in self.voters], reverse=True)
        return reached[max(0, self.commit - 2)]

    patch.setattr(Quorums, "committed", committed)


def votes_go_to_any_log(patch: Patch) -> None:
    patch.setattr(election, "_is_up_to_date", lambda *_: True)


def a_vote_is_forgotten_by_a_restart(patch: Patch) -> None:
    start = state.State.__init__

    def forget(self, *arguments):
        start(self, *arguments)
        self.vote = ""

    patch.setattr(state.State, "__init__", forget)


def a_leader_hears_no_heartbeat_answered(patch: Patch) -> None:
    patch.setattr(replication, "count_heartbeat", lambda *_: None)


def reads_are_confirmed_by_the_leader_alone(patch: Patch) -> None:
    def confirm(self, _):
        tokens, self._tokens = self._tokens, []
        return [ReadState(token, self._index) for token in tokens]

    patch.setattr(Rounds, "confirm", confirm)


def the_producer_table_is_not_stored(patch: Patch) -> None:
    position = Delivery.position
    patch.setattr(Delivery, "position", lambda self: position(self)._replace(producers={}))


def a_lost_forward_is_not_sent_again(patch: Patch) -> None:
    patch.setattr(Origin, "_restart_timer", lambda *_: None)


@pytest.mark.parametrize(
    ("agreement", "plant", "first_seed"),
    [
        ("raft", messages_that_promise_leave_at_once, 0),
        ("raft", delivery_accepts_every_run, 0),
        ("raft", one_copy_less_commits, 0),
        ("raft", votes_go_to_any_log, 0),
        ("raft", a_vote_is_forgotten_by_a_restart, 120),
        ("raft", reads_are_confirmed_by_the_leader_alone, 50),
        ("raft", a_leader_hears_no_heartbeat_answered, 0),
        ("raft", the_producer_table_is_not_stored, 0),
        ("raft", a_lost_forward_is_not_sent_again, 0),
        ("paxos", messages_that_promise_leave_at_once, 0),
        ("paxos", delivery_accepts_every_run, 0),
        ("paxos", reads_are_confirmed_by_the_leader_alone, 50),
        ("paxos", the_producer_table_is_not_stored, 0),
        ("paxos", a_lost_forward_is_not_sent_again, 0),
    ],
)
def test_a_planted_fault_is_caught(
    agreement: str, plant, first_seed: int, monkeypatch: Patch
) -> None:
    plant(monkeypatch)
    with pytest.raises(SimulationFailure, match=f"--agreement {agreement} --seed [0-9]+ --shrink"):
        simulate_from(agreement, first_seed)


def simulate_from(agreement: str, first_seed: int) -> None:
    """Many seeds; the first is chosen to save time, not to find at all."""
    for seed in range(first_seed, first_seed + SEEDS):
        simulate(seed, load_agreement(agreement))
