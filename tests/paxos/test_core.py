"""What the trunk sees of Multi-Paxos: the choice, its messages, and the contract of a core."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

import paxoslog
from paxoslog import MultiPaxos
from paxoslog.core import BALLOT_JUMP_MAX, PaxosCore
from paxoslog.messages import (
    ACCEPTED_AHEAD_MAX,
    MESSAGES,
    REPORTED_AHEAD_MAX,
    Accept,
    AcceptedValues,
    Chosen,
    FetchAccepted,
    Heartbeat,
    HeartbeatReply,
    Nack,
    Prepare,
    PrePrepare,
    PrePromise,
    Promise,
)
from replog.agreement import Agreement, Core, Ready
from replog.codec import LIST_LENGTH_MAX, Codec
from replog.entry import NO_EPOCH, Epoch
from replog.errors import ConfigError, PeerFault
from replog.quorum import majorities, sized
from tests.paxos.single import FIVE, OLD, established, metas, start, time_out

CHOICE: Agreement = MultiPaxos()
CORE: type[Core] = PaxosCore
"""Both lines are for the type checker: it compares the contract with what fulfils it."""

FAR = Epoch(BALLOT_JUMP_MAX + 2, "n2")


def test_the_package_exports_the_choice_alone() -> None:
    assert paxoslog.__all__ == ["MultiPaxos"]


def test_the_defaults() -> None:
    assert MultiPaxos() == MultiPaxos(
        election_timeout_ms_min=150,
        election_timeout_ms_max=300,
        heartbeat_ms=30,
        inflight_entries_max=64,
        inflight_bytes_max=16 * 1024 * 1024,
        accept_quorum=None,
    )
    assert CHOICE.name == "paxos"


def test_a_choice_is_a_value() -> None:
    with pytest.raises(FrozenInstanceError):
        MultiPaxos().heartbeat_ms = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        MultiPaxos(150)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"heartbeat_ms": 0}, "heartbeat_ms"),
        ({"heartbeat_ms": 30.0}, "heartbeat_ms"),
        ({"heartbeat_ms": None}, "heartbeat_ms"),
        ({"heartbeat_ms": 51}, "must fit 3 times"),
        ({"election_timeout_ms_min": -1}, "election_timeout_ms_min"),
        ({"election_timeout_ms_max": 150}, "must exceed"),
        ({"inflight_entries_max": 0}, "inflight_entries_max"),
        ({"inflight_entries_max": ACCEPTED_AHEAD_MAX + 1}, "inflight_entries_max"),
        ({"inflight_bytes_max": 0}, "inflight_bytes_max"),
        ({"accept_quorum": 0}, "accept_quorum"),
        ({"accept_quorum": True}, "accept_quorum"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, word) -> None:
    with pytest.raises(ConfigError, match=word):
        MultiPaxos(**settings)


# --- quorums (FPaxos, sections 3 and 4) -----------------------------------------------------------


def test_the_voters_decide_by_majorities() -> None:
    voters = frozenset({"n1", "n2", "n3", "n4"})
    assert MultiPaxos().membership(voters).quorums == majorities(voters)
    with pytest.raises(ConfigError):
        MultiPaxos().membership(frozenset())


@pytest.mark.parametrize(("accept", "prepare"), [(1, 5), (2, 4), (3, 3), (4, 2), (5, 1)])
def test_a_smaller_accept_quorum_means_a_larger_prepare_quorum(accept, prepare) -> None:
    quorums = MultiPaxos(accept_quorum=accept).membership(FIVE).quorums
    assert quorums == sized(FIVE, elect=prepare, commit=accept)


def test_an_accept_quorum_has_no_more_acceptors_than_there_are() -> None:
    with pytest.raises(ConfigError, match="accept_quorum 6 exceeds 5 voters"):
        MultiPaxos(accept_quorum=6).membership(FIVE)


# --- messages -------------------------------------------------------------------------------------


def test_messages_keep_their_numbers() -> None:
    assert [message.__name__ for message in CHOICE.messages] == [
        "PrePrepare",
        "PrePromise",
        "Prepare",
        "Promise",
        "FetchAccepted",
        "AcceptedValues",
        "Accept",
        "Accepted",
        "AskAccepted",
        "Missing",
        "Heartbeat",
        "HeartbeatReply",
        "Committed",
        "Nack",
        "FetchChosen",
        "Chosen",
    ]


def test_only_entries_travel_on_the_bulk_channel() -> None:
    assert frozenset(MESSAGES) - CHOICE.control_messages == {Accept, AcceptedValues, Chosen}


def test_the_longest_promise_fits_a_frame() -> None:
    assert REPORTED_AHEAD_MAX <= LIST_LENGTH_MAX
    indexes = tuple(range(1, REPORTED_AHEAD_MAX + 1))
    longest = Promise(OLD, 0, indexes, tuple([OLD for _ in indexes]))
    codec = Codec(MESSAGES)
    assert codec.decode(codec.encode(longest)) == (longest, [])


FAULTS = [
    ("n4", Heartbeat(Epoch(1, "n4"), 0, 0), []),  # no voter
    ("n1", Heartbeat(Epoch(1, "n1"), 0, 0), []),  # not from outside
    ("n2", Heartbeat(Epoch(2, "n3"), 0, 0), []),  # of another's ballot
    ("n2", Heartbeat(Epoch(0, "n2"), 0, 0), []),
    ("n2", Heartbeat(FAR, 0, 0), []),
    ("n2", PrePrepare(FAR, 1), []),
    ("n2", Prepare(FAR, 1), []),
    ("n2", Prepare(Epoch(2, "n2"), 0), []),
    ("n2", PrePromise(FAR, 0, False, 0), []),
    ("n2", Nack(FAR), []),
    ("n2", Nack(NO_EPOCH), []),
    ("n2", Nack(Epoch(2, "n9")), []),  # a ballot of nobody
    ("n2", Promise(Epoch(2, "n1"), 0, (), ()), []),  # never prepared
    ("n2", HeartbeatReply(Epoch(1, "n3"), 0, 0), []),  # of another's ballot
    ("n2", Accept(Epoch(2, "n2"), 0), []),  # without entries
    ("n2", Accept(Epoch(2, "n2"), 0), metas(1, OLD)),  # of another ballot
    ("n2", Accept(Epoch(2, "n2"), 0), metas(0, Epoch(2, "n2"))),
    ("n2", Accept(Epoch(2, "n2"), 0), [*metas(1, OLD), *metas(3, OLD)]),  # with a gap
    ("n2", Heartbeat(Epoch(2, "n2"), 0, 0), metas(1, OLD)),  # with entries
    ("n2", Chosen(1), metas(1, OLD, OLD)),  # more than is chosen
    ("n2", Chosen(1), metas(1, FAR)),
    ("n2", FetchAccepted(Epoch(2, "n2"), 1, ()), []),
    ("n2", FetchAccepted(Epoch(2, "n2"), 0, (OLD,)), []),
    ("n2", FetchAccepted(Epoch(2, "n2"), 1, (OLD,) * 65), []),
    ("n2", (1, 2), []),
]


@pytest.mark.parametrize(("sender", "message", "entries"), FAULTS)
def test_what_no_member_sends_changes_nothing(sender, message, entries) -> None:
    core = start(promise=OLD)
    before = (core.leadership, core.deadline, core.state.role)
    with pytest.raises(PeerFault):
        core.receive(5000, sender, message, entries)
    assert (core.leadership, core.deadline, core.state.role) == before
    assert not core.has_ready()


def test_a_ballot_may_jump_but_not_too_far() -> None:
    core = start(promise=OLD)
    core.receive(5000, "n2", Nack(FAR._replace(number=FAR.number - 1)), ())
    assert core.leadership.epoch.number == FAR.number - 1


# --- the contract ---------------------------------------------------------------------------------


def test_nothing_is_wanted_twice() -> None:
    core = start()
    time_out(core)
    assert not core.has_ready()
    assert core.ready() == Ready((), (), 0, (), ())


def test_ready_repeats_the_commit_index() -> None:
    core = established(start())
    assert not core.has_ready()
    assert core.ready().commit_index == 1


def test_leadership_is_level_triggered() -> None:
    assert start().leadership == ("acceptor", None, Epoch(0, ""), 0)
    leader = established(start())
    assert leader.leadership == ("leader", "n1", Epoch(1, "n1"), 1)
    assert leader.leadership == leader.leadership


def test_the_same_inputs_give_the_same_outputs() -> None:
    def run(seed: int) -> list[Ready]:
        core = start(seed=seed)
        return [time_out(core) for _ in range(5)]

    assert run(1) == run(1)
    deadlines = [start(seed=seed).deadline for seed in range(10)]
    assert len(set(deadlines)) > 1
