"""What the trunk sees of Raft: the choice, its messages, and the contract of a core."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import get_args, get_type_hints

import pytest

import raftlog
from raftlog import Raft
from raftlog.core import RaftCore
from raftlog.messages import MESSAGES, AppendEntries
from replog.agreement import Agreement, Core, Ready
from replog.entry import Epoch
from replog.errors import ConfigError
from replog.quorum import majorities
from tests.raft.single import established, start, time_out

CHOICE: Agreement = Raft()
CORE: type[Core] = RaftCore
"""Both lines are for the type checker: it compares the contract with what fulfils it."""


def test_the_package_exports_the_choice_alone() -> None:
    assert raftlog.__all__ == ["Raft"]


def test_the_defaults() -> None:
    assert Raft() == Raft(
        election_timeout_ms_min=150,
        election_timeout_ms_max=300,
        heartbeat_ms=30,
        inflight_entries_max=64,
        inflight_bytes_max=16 * 1024 * 1024,
    )
    assert CHOICE.name == "raft"


def test_a_choice_is_a_value() -> None:
    with pytest.raises(FrozenInstanceError):
        Raft().heartbeat_ms = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        Raft(150)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"heartbeat_ms": 0}, "heartbeat_ms"),
        ({"heartbeat_ms": 30.0}, "heartbeat_ms"),
        ({"heartbeat_ms": True}, "heartbeat_ms"),
        ({"heartbeat_ms": 51}, "must fit 3 times"),
        ({"election_timeout_ms_min": -1}, "election_timeout_ms_min"),
        ({"election_timeout_ms_max": 150}, "must exceed"),
        ({"election_timeout_ms_min": 300}, "must exceed"),
        ({"inflight_entries_max": 0}, "inflight_entries_max"),
        ({"inflight_bytes_max": 0}, "inflight_bytes_max"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, word) -> None:
    with pytest.raises(ConfigError, match=word):
        Raft(**settings)


def test_the_voters_decide_by_majorities() -> None:
    voters = frozenset({"n1", "n2", "n3", "n4"})
    assert Raft().membership(voters).quorums == majorities(voters)
    with pytest.raises(ConfigError):
        Raft().membership(frozenset())


# --- messages -------------------------------------------------------------------------------------


def test_messages_keep_their_numbers() -> None:
    assert [message.__name__ for message in CHOICE.messages] == [
        "RequestPreVote",
        "PreVote",
        "RequestVote",
        "Vote",
        "AppendEntries",
        "Appended",
        "AppendRefused",
        "Heartbeat",
        "HeartbeatReply",
        "Committed",
    ]


def test_only_entries_travel_on_the_bulk_channel() -> None:
    assert frozenset(MESSAGES) - CHOICE.control_messages == {AppendEntries}


@pytest.mark.parametrize("message", MESSAGES)
def test_a_codec_can_derive_the_layout(message) -> None:
    hints = get_type_hints(message)
    assert tuple(hints) == message._fields
    assert {kind for hint in hints.values() for kind in get_args(hint) or [hint]} <= {int, bool}


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
    assert start().leadership == ("follower", None, Epoch(0, ""), 0)
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
