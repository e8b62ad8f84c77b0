"""What a partly connected cluster still does: who stays live, who stands still, and that both are
measured, not assumed."""

from __future__ import annotations

import json
import sys
from types import ModuleType

import pytest

from paxoslog import election as paxos_election
from paxoslog import replication as paxos_replication
from paxoslog.state import Leader as PaxosLeader
from raftlog import election as raft_election
from raftlog import replication as raft_replication
from raftlog.state import Leader as RaftLeader
from replog.agreements import load_agreement
from replog.testing import connectivity
from replog.testing.checkers import Stewards
from replog.testing.connectivity import NEVER, PATTERNS, ConnectivityFailure, Pattern, Row

AGREEMENTS = ("raft", "paxos")
SEEDS = range(5)
STABLE_MS = 1500
PATIENCE_MS = 6000
TAKEOVER_MS_MAX = 1200
"""Four of the longest election timeouts: to depose, to notice, and to elect, perhaps once more."""

QUORUM_LOSS, CONSTRAINED, CHAINED, UNHEARD, DEAF, ISOLATED = PATTERNS
TAKEOVERS = (QUORUM_LOSS, UNHEARD, DEAF, ISOLATED)
"""In these the leader cannot go on, and under either agreement another one can."""

Patch = pytest.MonkeyPatch
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def shorter(monkeypatch: Patch) -> None:
    monkeypatch.setattr(connectivity, "STABLE_MS", STABLE_MS)
    monkeypatch.setattr(connectivity, "PATIENCE_MS", PATIENCE_MS)


def measured(agreement: str, pattern: Pattern, seeds: range = SEEDS) -> Row:
    return connectivity.measure_all(seeds, load_agreement(agreement), pattern)


# --- what is the case -----------------------------------------------------------------------------


@pytest.mark.parametrize("agreement", AGREEMENTS)
@pytest.mark.parametrize("pattern", TAKEOVERS, ids=lambda pattern: pattern.name)
def test_a_leader_without_a_quorum_is_soon_replaced(pattern: Pattern, agreement: str) -> None:
    row = measured(agreement, pattern)
    assert row.live == len(SEEDS)
    for run in row.runs:
        assert run.changes >= 1
        assert 0 < run.last_change_ms < TAKEOVER_MS_MAX
        assert run.first_append_ms < TAKEOVER_MS_MAX
        assert run.served == run.connected == (1 if pattern is QUORUM_LOSS else 4)


@pytest.mark.parametrize("agreement", AGREEMENTS)
def test_the_leader_of_a_chain_stays_and_the_far_end_waits(agreement: str) -> None:
    row = measured(agreement, CHAINED)
    assert row.live == len(SEEDS)
    for run in row.runs:
        assert run.changes == 0
        assert run.first_append_ms < 100
        assert (run.served, run.connected) == (2, 3)  # nobody forwards for another


def test_under_multi_paxos_a_hub_that_is_behind_leads() -> None:
    row = measured("paxos", CONSTRAINED)
    assert row.live == len(SEEDS)
    for run in row.runs:
        assert run.changes >= 1
        assert run.first_append_ms < TAKEOVER_MS_MAX
        assert run.served == run.connected == 1


def test_under_raft_a_hub_that_is_behind_stands_still_safely() -> None:
    row = measured("raft", CONSTRAINED)
    assert row.live == 0
    for run in row.runs:
        assert run.first_append_ms == NEVER
        assert run.changes == run.served == 0
        assert run.connected == 1


def test_it_is_the_lag_of_the_hub_that_stops_raft() -> None:
    row = measured("raft", CONSTRAINED._replace(hub_is_behind=False), range(2))
    assert row.live == 2


# --- the measure has teeth ------------------------------------------------------------------------


def without_check_quorum(patch: Patch, agreement: str) -> None:
    replication = {"raft": raft_replication, "paxos": paxos_replication}[agreement]

    def beat(state):
        if isinstance(state.role, (RaftLeader, PaxosLeader)):
            replication.send_heartbeats(state, state.role)

    patch.setattr(replication, "beat", beat)


def without_stickiness(patch: Patch, election: ModuleType) -> None:
    patch.setattr(election, "_hears_a_leader", lambda _: False)


@pytest.mark.parametrize("agreement", AGREEMENTS)
@pytest.mark.parametrize("pattern", [QUORUM_LOSS, DEAF], ids=lambda pattern: pattern.name)
def test_a_leader_that_never_steps_down_stops_the_cluster(
    pattern: Pattern, agreement: str, monkeypatch: Patch
) -> None:
    without_check_quorum(monkeypatch, agreement)
    with pytest.raises(ConnectivityFailure, match="still leads"):
        measured(agreement, pattern, range(1))
    monkeypatch.setattr(Stewards, "leads", lambda *_: None)  # the judge of just that
    row = measured(agreement, pattern, range(2))
    assert row.live == 0
    assert [run.changes for run in row.runs] == [0, 0]


def test_acceptors_that_do_not_stick_let_the_ends_of_a_chain_take_turns(
    monkeypatch: Patch,
) -> None:
    without_stickiness(monkeypatch, paxos_election)
    for run in measured("paxos", CHAINED, range(2)).runs:
        assert run.changes >= 3
        assert run.last_change_ms > STABLE_MS / 2


def test_voters_that_do_not_stick_still_refuse_a_far_end_that_misses_entries(
    monkeypatch: Patch,
) -> None:
    without_stickiness(monkeypatch, raft_election)
    assert [run.changes for run in measured("raft", CHAINED, range(2)).runs] == [0, 0]


def test_votes_for_any_log_are_no_way_out(monkeypatch: Patch) -> None:
    monkeypatch.setattr(raft_election, "_is_up_to_date", lambda *_: True)
    repeat = "connectivity --agreement raft --first 0 --seeds 1"
    with pytest.raises(ConnectivityFailure, match=repeat):
        measured("raft", CONSTRAINED, range(1))


@pytest.mark.parametrize("agreement", AGREEMENTS)
def test_everybody_goes_on_where_nothing_is_cut(agreement: str) -> None:
    row = measured(agreement, Pattern("whole", 3, lambda *_: True), range(2))
    assert [(run.changes, run.served, run.connected) for run in row.runs] == [(0, 3, 3)] * 2
    assert max(run.first_append_ms for run in row.runs) < 100


@pytest.mark.parametrize("agreement", AGREEMENTS)
def test_nobody_is_live_where_nobody_reaches_a_quorum(agreement: str) -> None:
    row = measured(agreement, Pattern("dust", 3, lambda *_: False), range(2))
    assert row.live == 0
    assert [run.connected for run in row.runs] == [0, 0]


def test_the_same_seed_measures_the_same_and_others_differ() -> None:
    one, other = measured("raft", ISOLATED, range(3)), measured("raft", ISOLATED, range(3))
    assert one == other
    assert len({run.first_append_ms for run in one.runs}) > 1


# --- the command ----------------------------------------------------------------------------------


def run(patch: Patch, *arguments: str) -> int:
    patch.setattr(sys, "argv", ["connectivity", *arguments])
    return connectivity.main()


def test_the_table_has_a_line_for_each_pattern_and_agreement(
    monkeypatch: Patch, capsys: Capture
) -> None:
    monkeypatch.setattr(connectivity, "PATTERNS", (CONSTRAINED, CHAINED))
    assert run(monkeypatch, "--seeds", "1") == 0
    table, _, legend = capsys.readouterr().out.partition("\n\n")
    headings, *lines = table.splitlines()
    assert (
        headings.split() == "pattern agreement live served first append last change changes".split()
    )
    starts = [line[: headings.index("live") - 5].split() for line in lines]
    assert starts == [
        ["constrained", "election", "paxos"],
        ["constrained", "election", "raft"],
        ["chained", "paxos"],
        ["chained", "raft"],
    ]
    assert lines[1].endswith("0 of 1  0 of 1 never / never         0 / 0      0 / 0")
    assert "1 of 1  2 of 3" in lines[3]
    assert "within 6 s" in legend


def test_json_is_an_object_a_line(monkeypatch: Patch, capsys: Capture) -> None:
    monkeypatch.setattr(connectivity, "PATTERNS", (CONSTRAINED, ISOLATED))
    assert run(monkeypatch, "--seeds", "2", "--agreement", "raft", "--json") == 0
    stalled, live = map(json.loads, capsys.readouterr().out.splitlines())
    assert (stalled["pattern"], stalled["agreement"]) == ("constrained election", "raft")
    assert (stalled["seeds"], stalled["live"], stalled["first_append_ms_median"]) == (2, 0, None)
    assert (live["live"], live["changes_max"], live["served_min"], live["connected"]) == (
        2,
        1,
        4,
        4,
    )
    assert 0 < live["first_append_ms_median"] <= live["first_append_ms_max"] < TAKEOVER_MS_MAX


def test_a_median_of_runs_that_never_go_on_is_never() -> None:
    assert connectivity._middle_and_most([20, 10, NEVER]) == "20 / never"
    assert connectivity._middle_and_most([10, NEVER]) == "never / never"


def test_a_broken_rule_ends_the_command(monkeypatch: Patch, capsys: Capture) -> None:
    monkeypatch.setattr(raft_election, "_is_up_to_date", lambda *_: True)
    monkeypatch.setattr(connectivity, "PATTERNS", (CONSTRAINED,))
    assert run(monkeypatch, "--agreement", "raft", "--seeds", "1") == 1
    assert "constrained election under raft, seed 0 at " in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--seeds", "0"], ["--agreement", "gossip"]])
def test_wrong_usage_is_refused(arguments: list[str], monkeypatch: Patch, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, *arguments)
    assert stopped.value.code == 2
    assert "error:" in capsys.readouterr().err
