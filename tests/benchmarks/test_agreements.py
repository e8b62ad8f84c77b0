"""Two agreements beside each other: whom a question is asked of, ratios, outages, lost messages."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from benchmarks import __main__ as program
from benchmarks import agreements, failover, loss
from benchmarks.cluster import Cluster, ClusterBroken, LeaderLost, leader_of
from benchmarks.results import side_by_side
from benchmarks.samples import in_turn
from replog.agreements import load_agreement

FOLLOWS: dict[str, Any] = {
    "introduced": True,
    "applied_index": 1,
    "leader": "n1",
    "role": "follower",
}
LEADS: dict[str, Any] = {**FOLLOWS, "role": "leader"}

# --- what is asked --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "alone", "compared"),
    [
        ([], ["raft"], ["raft", "paxos"]),
        (["--agreement", "paxos"], ["paxos"], ["paxos"]),
        (["--agreement", "both"], ["raft", "paxos"], ["raft", "paxos"]),
        (["--agreement", "paxos", "--agreement", "raft"], ["paxos", "raft"], ["paxos", "raft"]),
        (["--agreement", "paxos", "--agreement", "both"], ["paxos", "raft"], ["paxos", "raft"]),
        (["--agreement", "raftlog:Raft"], ["raftlog:Raft"], ["raftlog:Raft"]),
    ],
)
def test_comparisons_are_asked_of_both_agreements_unless_one_is_named(
    argv: list[str], alone: list[str], compared: list[str]
) -> None:
    given = program.arguments(argv)
    assert program.agreements_for(given, is_comparison=False) == alone
    assert program.agreements_for(given, is_comparison=True) == compared


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["--agreement", "zab"], "no agreement layer named 'zab'"),
        (["--agreement", "os:sep"], "cannot be loaded"),
        (["agreements", "--agreement", "paxos"], "compares two"),
        (["failing"], "no question failing"),
        (["loss", "--seconds", "0"], "must be positive"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    argv: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        program.arguments(argv)
    assert refused.value.code == 2
    assert reason in capsys.readouterr().err


def test_what_is_not_asked_for_by_name_is_quick() -> None:
    assert program.arguments([]).questions == ["floor", "latency", "throughput"]


def test_steps_count_each_agreement_and_repeat() -> None:
    def steps(*argv: str) -> int:
        return program.steps(program.arguments(list(argv)))

    assert steps("failover") == 1 + 2 * failover.KILLS
    assert steps("failover", "--agreement", "paxos", "--repeats", "3") == 1 + 3 * failover.KILLS
    assert steps("loss") == 1 + loss.ROUNDS * 2 * 2
    assert steps("agreements") == 1 + agreements.ROUNDS * len(agreements.MEASURES) * 2
    assert steps("throughput", "--agreement", "both") == 1 + 2 * (steps("throughput") - 1)


def test_both_agreements_wait_equally_long_before_they_campaign() -> None:
    raft, paxos = (timeouts_of(load_agreement(name)) for name in program.PAIR)
    for name in ("election_timeout_ms_min", "election_timeout_ms_max", "heartbeat_ms"):
        assert raft[name] == paxos[name]


def timeouts_of(agreement: Any) -> dict[str, Any]:
    return {name: getattr(agreement, name) for name in dir(agreement) if "_ms" in name}


# --- arithmetic -----------------------------------------------------------------------------------


def test_the_ratio_is_taken_round_by_round() -> None:
    rounds = {"raft": [10.0, 20.0, 40.0], "paxos": [9.0, 22.0, 20.0]}
    *each, ratio = side_by_side("q", "n", "records/s", rounds, at_least=0.85)
    assert [(figure.agreement, list(figure.values)) for figure in each] == list(rounds.items())
    assert [figure.meets_bar for figure in each] == [None, None]
    assert ratio.agreement == "paxos / raft"
    assert ratio.values == (0.9, 1.1, 0.5)
    assert ratio.meets_bar is True
    assert side_by_side("q", "n", "us", rounds, at_most=0.85)[-1].meets_bar is False


def test_one_agreement_alone_has_no_ratio() -> None:
    figures = side_by_side("q", "n", "ms", {"paxos": [1.0]}, details={"paxos": {"rounds": [1]}})
    assert [(figure.agreement, figure.details) for figure in figures] == [
        ("paxos", {"rounds": [1]})
    ]


def test_rounds_that_do_not_pair_up_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        side_by_side("q", "n", "ms", {"raft": [1.0, 2.0], "paxos": [1.0]})


def test_who_is_first_changes_with_each_round() -> None:
    assert [in_turn(program.PAIR, number)[0] for number in range(4)] == [*program.PAIR] * 2


def test_an_outage_ends_with_a_record_submitted_after_the_kill() -> None:
    killed_at, gone_at = 10.0, 10.001
    moments = [[9.9, 9.95], [9.999, 10.002], [10.0005, 10.1], [10.002, 10.25], [10.003, 10.2]]
    assert failover.outage_ms(moments, killed_at, gone_at) == pytest.approx(200)


def test_without_an_append_after_the_kill_there_is_no_outage() -> None:
    with pytest.raises(ClusterBroken, match="nothing was appended"):
        failover.outage_ms([[9.0, 9.1]], 10.0, 10.0)


@pytest.mark.parametrize(
    ("seen", "leader"),
    [
        ({"n1": LEADS, "n2": FOLLOWS}, "n1"),
        ({"n2": FOLLOWS, "n3": FOLLOWS}, None),  # it is dead, and they do not know
        ({"n1": LEADS, "n2": {**FOLLOWS, "leader": None}}, None),
        ({"n1": LEADS, "n2": {**FOLLOWS, "introduced": False}}, None),
        ({"n1": LEADS, "n2": {**LEADS, "leader": "n2"}}, None),
    ],
)
def test_a_leader_is_one_that_runs_and_that_all_follow(
    seen: dict[str, dict[str, Any]], leader: str | None
) -> None:
    assert leader_of(seen) == leader


def test_a_pause_may_lie_before_between_or_after_acknowledgements() -> None:
    assert loss.pause_ms_max([1.1, 1.2], begin=1.0, end=1.3) == pytest.approx(100)
    assert loss.pause_ms_max([0.5, 1.4], begin=1.0, end=1.5) == pytest.approx(400)
    assert loss.pause_ms_max([1.1, 2.0], begin=1.0, end=1.5) == pytest.approx(400)
    assert loss.pause_ms_max([], begin=1.0, end=1.5) == pytest.approx(500)


def test_numbered_records_are_found_complete_once_and_in_order() -> None:
    records = loss.numbered(0, 5)
    loss.check_records(iter(records), 5)
    for wrong in (records[:4], [*records, records[-1]], records[1:], records[::-1]):
        with pytest.raises(ClusterBroken):
            loss.check_records(wrong, 5)


# --- on real clusters -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", program.PAIR)
def test_a_killed_leader_is_replaced_and_started_again(name: str, tmp_path: Path) -> None:
    shortest_ms = timeouts_of(load_agreement(name))["election_timeout_ms_min"] / 2
    with Cluster(tmp_path, name) as cluster:
        assert cluster.agreement == name
        found = failover.kill_leader(cluster, Random(0))
        assert found.killed != found.successor == cluster.leader
        assert set(cluster.nodes) == {"n1", "n2", "n3"}
        assert shortest_ms < found.milliseconds < 1000 * failover.ANSWER_SECONDS_MAX
        assert cluster.agree() == found.appended > 100


@pytest.mark.parametrize("name", program.PAIR)
@pytest.mark.parametrize("part", [0.0, loss.LOSS])
def test_a_lossy_network_loses_messages_and_no_record(
    name: str, part: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "WARM_UP_SECONDS", 0.0)
    found = loss.run(tmp_path, name, loss=part, seed=1, seconds=0.2)
    assert (found.messages_lost > 0) is (part > 0)
    assert found.appended >= loss.OUTSTANDING * loss.RECORDS_PER_RUN


def test_each_measure_of_the_comparison_is_taken_of_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agreements, "ROUNDS", 1)
    quick = agreements.MEASURES[:3]
    monkeypatch.setattr(agreements, "MEASURES", quick)
    said: list[str] = []
    with Cluster(tmp_path / "1", "raft") as raft, Cluster(tmp_path / "2", "paxos") as paxos:
        clusters = {"raft": raft, "paxos": paxos}
        figures = agreements.measure(clusters, seconds=0.1, repeats=1, say=said.append)
    assert len(said) == 2 * len(quick)
    assert [(figure.name, figure.agreement) for figure in figures] == [
        (part.name, whose) for part in quick for whose in ("raft", "paxos", "paxos / raft")
    ]
    assert min(min(figure.values) for figure in figures) > 0
    ratios = [figure for figure in figures if figure.unit == "x"]
    assert [(figure.at_least, figure.at_most) for figure in ratios] == [
        (None, 1.15),
        (None, 1.15),
        (0.85, None),
    ]
    assert str(tmp_path) not in json.dumps([figure.details for figure in figures])


class UnsteadyCluster:
    """Keeps a leader from the given take on."""

    def __init__(self, steady_from: int) -> None:
        self.steady_from = steady_from
        self.takes = 0

    def settle(self) -> int:
        return 0

    def take(self, seconds: float, random: Random) -> float:
        self.takes += 1
        if self.takes < self.steady_from:
            raise LeaderLost
        return seconds


def measured(cluster: UnsteadyCluster, monkeypatch: pytest.MonkeyPatch) -> Any:
    part = agreements.Measure("m", "s", lambda unsteady, *given: cluster.take(*given))
    monkeypatch.setattr(agreements, "ROUNDS", 1)
    monkeypatch.setattr(agreements, "MEASURES", (part,))
    clusters: Any = {"raft": cluster}
    return agreements.measure(clusters, seconds=2.0, repeats=1, say=lambda _: None)


def test_what_was_measured_while_a_leadership_was_lost_is_taken_again_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (figure,) = measured(UnsteadyCluster(steady_from=3), monkeypatch)
    assert figure.values == (2.0,)
    assert figure.details == {"measurements taken again": 2}


def test_a_cluster_that_keeps_no_leader_gives_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = UnsteadyCluster(steady_from=100)
    with pytest.raises(LeaderLost):
        measured(cluster, monkeypatch)
    assert cluster.takes == agreements.TAKES_MAX
