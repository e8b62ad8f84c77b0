"""Every failpoint of a running node, in each way it can act; nothing acknowledged may be lost.

Under `crash` and `error` each member of a cluster is started armed with one point after the other,
so that at most moments all three are about to fail somewhere: what it left there is what its next
life begins with. The leader is then armed as well as the others.
"""

from __future__ import annotations

import ast
import os
import random
import re
import signal
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from replog.demo.cluster import ClusterFailed, LocalCluster, Member
from replog.failpoints import ALL_POINTS, POINTS, VARIABLE
from tests.cluster.fed_node import STOPPED
from tests.cluster.load import SECONDS, Load

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = (str(ROOT / "tests" / "cluster" / "fed_node.py"),)
RECORDS_PER_SECOND = 2000
ACTIONS = ("crash", "error", "delay")
ONCE = ("open", "close")
"""Where a life comes once."""
TIMES = (1, 10, 50)
"""At which coming to any other point it acts."""
ROLE = re.compile(r" (leads|follows|knows no leader|waits for the other members)\b")
"""What a node prints of itself."""

Fired = dict[tuple[str, str], Counter[str]]
"""How often each point fired, by agreement and action."""


@pytest.fixture(scope="module")
def fired() -> Fired:
    return {}


@contextmanager
def fed_cluster(root: Path, agreement: str) -> Iterator[LocalCluster]:
    """Three nodes with a machine each, none of which was started."""
    with LocalCluster(root, agreement=agreement, program=PROGRAM) as cluster:
        yield cluster


def said_by(text: str, action: str) -> Counter[str]:
    """The points that said that they act so."""
    lines = Counter(text.splitlines())
    return Counter({point: lines[f"failpoint {point} {action}"] for point in POINTS})


def armed(action: str, point: str, source: random.Random) -> Mapping[str, str]:
    times = 1 if point.startswith(ONCE) else source.choice(TIMES)
    return {VARIABLE: f"{point}={action}@{times}"}


class Trial(NamedTuple):
    """One life of a member, armed with one point."""

    point: str
    output_bytes: int
    """What the member had printed before."""
    acknowledged: int
    """What had been acknowledged by it before."""


class Ordeal:
    """Leads the members of a cluster from one point to the next until all have fired."""

    def __init__(self, cluster: LocalCluster, action: str) -> None:
        self.load = Load(cluster, RECORDS_PER_SECOND)
        self.fired: Counter[str] = Counter()
        self.roles: Counter[str] = Counter()
        """As what the members failed."""
        self._cluster = cluster
        self._action = action
        self._random = random.Random(action)
        self._points = deque(POINTS)
        self._trials: dict[str, Trial] = {}
        self._stopped: set[str] = set()
        """Members that were asked to stop: a second signal would end them before their time."""

    def run(self) -> None:
        for member in self._cluster:
            self._start(member)
        while left := self._left:
            self.load.until(partial(self._has_less_than, left), f"one of the last {left} points")
        self.load.until(self._all_serve, "the last return")

    @property
    def _left(self) -> int:
        """Points that have not fired yet."""
        return len(self._points) + len(self._trials)

    def _has_less_than(self, left: int) -> bool:
        self._advance()
        return self._left < left

    def _advance(self) -> None:
        """Start whoever has failed, and stop whoever is to fail at its end."""
        for member in self._cluster:
            if not member.runs:
                self._settle(member)
                self._start(member)
            elif self.load.feeders[member.name].client is None:
                with suppress(ClusterFailed):  # it ended meanwhile: the next turn looks why
                    self.load.try_to_return(member)
            elif member.name in self._trials.keys() - self._stopped and self._may_stop(member):
                os.kill(member.pid, signal.SIGTERM)
                self._stopped.add(member.name)

    def _all_serve(self) -> bool:
        self._advance()
        return all(feeder.client is not None for feeder in self.load.feeders.values())

    def _start(self, member: Member) -> None:
        if not self._points:
            member.start()
            return
        point = self._points.popleft()
        printed = member.output.stat().st_size if member.output.exists() else 0
        acknowledged = self.load.feeders[member.name].ledger.acknowledged
        self._trials[member.name] = Trial(point, printed, acknowledged)
        member.start(armed(self._action, point, self._random))

    def _said(self, member: Member) -> str:
        """What a member has printed in its trial."""
        content = member.output.read_bytes()[self._trials[member.name].output_bytes :]
        return content.decode()

    def _may_stop(self, member: Member) -> bool:
        """Whether it does not end by itself, and has shown what is to be seen before its end."""
        trial = self._trials[member.name]
        ledger = self.load.feeders[member.name].ledger
        if trial.point.startswith("close"):
            return ledger.acknowledged > trial.acknowledged
        if not (self._action == "error" and trial.point.startswith("machine")):
            return False
        if STOPPED not in self._said(member):
            self._trials[member.name] = trial._replace(acknowledged=ledger.acknowledged)
            return False
        # Its machine stands still, and the node goes on.
        return ledger.acknowledged > trial.acknowledged

    def _settle(self, member: Member) -> None:
        """It ended: as the point says, or the test has failed."""
        assert member.name in self._trials, member.said("ended, and was armed with nothing")
        feeder = self.load.feeders[member.name]
        feeder.disconnect()
        status = member.wait(SECONDS)
        self._stopped.discard(member.name)
        said = self._said(member)
        self.roles[(ROLE.findall(said) or ["has yet to begin"])[-1]] += 1
        trial = self._trials.pop(member.name)
        assert +said_by(said, self._action) == {trial.point: 1}, said
        self.fired[trial.point] += 1
        if self._action == "crash":
            assert status == -signal.SIGKILL, said
        elif trial.point.startswith("machine"):
            assert status == 0, said
        elif trial.point.startswith("close"):
            assert status in {0, 1}, said
        else:
            assert status == 1, said
            assert f"failpoint {trial.point}\n" in said, said  # the error's own words


@pytest.mark.parametrize("action", ["crash", "error"])
def test_each_point_where_a_node_fails(
    action: str, agreement: str, tmp_path: Path, fired: Fired
) -> None:
    with fed_cluster(tmp_path, agreement) as cluster:
        ordeal = Ordeal(cluster, action)
        fired[agreement, action] = ordeal.fired
        ordeal.run()
        load = ordeal.load
        load.until_more(list(load.feeders))
        report = load.finish()
        assert report.faults == ()
        assert report.acknowledged == load.acknowledged
        print(f"\n{agreement}, {action}: {report.acknowledged:,} acknowledged; {ordeal.roles}")


def test_each_point_where_a_node_waits(agreement: str, tmp_path: Path, fired: Fired) -> None:
    rule = ";".join([f"{point}=delay:5%{1 if point.startswith(ONCE) else 3}" for point in POINTS])
    with fed_cluster(tmp_path, agreement) as cluster:
        for member in cluster:
            member.start({VARIABLE: rule})
        for member in cluster:
            member.connect()
        load = Load(cluster, RECORDS_PER_SECOND)
        load.until_more(list(load.feeders), 3000)
        report = load.finish()
        assert report.faults == ()
        assert report.acknowledged == load.acknowledged
        assert report.unknown_found == report.unknown_missing == 0
        waited = [said_by(member.output.read_text(), "delay:5") for member in cluster]
        fired[agreement, "delay"] = sum(waited, Counter())
        for member, counts in zip(cluster, waited, strict=True):
            assert {*+counts} == {*POINTS}, member.name


def test_every_point_has_fired_in_every_way(agreement: str, fired: Fired) -> None:
    if not all((agreement, action) in fired for action in ACTIONS):
        pytest.skip("it judges the tests above, and not all of them were run")
    for action in ACTIONS:
        assert {*+fired[agreement, action]} == {*POINTS}, action


def test_the_code_comes_to_each_point_and_to_no_other() -> None:
    names = Counter[str]()
    for path in (ROOT / "replog").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "failpoints.reach":
                names[ast.literal_eval(node.args[0])] += 1
    assert names == Counter(ALL_POINTS)
