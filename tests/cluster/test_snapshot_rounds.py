"""Rounds of kill -9 in a cluster of real processes that drops its log behind snapshots.

n1 keeps its whole log, and waits so long before it campaigns that the others lead: what they say is
compared with a replay of that log. In each round one of the others is killed and left behind what
is dropped. It comes back armed with a failpoint of snapshots or compaction, dies there, comes back
again and catches up.
"""

from __future__ import annotations

import itertools
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from replog.demo.cluster import LocalCluster, Member
from replog.failpoints import SNAPSHOT_POINTS, VARIABLE
from replog.log_reader import LogReader
from replog.machines import KeyValue

KEPT_RECORDS = 20
VALUE_BYTES = 4000
"""So that a state is two pieces of 1 MiB in the end."""
KEYS = 400
RECORDS_PER_APPEND = 5
SECONDS = 30.0
MACHINE = "--machine=replog.machines:KeyValue"
KEEPER = (MACHINE, "--set=election_timeout_ms_min=2000", "--set=election_timeout_ms_max=3000")
FORGETFUL = (MACHINE, f"--keep-records={KEPT_RECORDS}", "--snapshot-records=20")
STOPPED = re.compile(r"the machine is at offset (\d+), digest ([0-9a-f]+)")


@pytest.fixture
def forgetful_cluster(tmp_path: Path, agreement: str) -> Iterator[LocalCluster]:
    options = {"n1": KEEPER, "n2": FORGETFUL, "n3": FORGETFUL}
    with LocalCluster(tmp_path, agreement=agreement, options=options) as cluster:
        cluster.start()
        cluster.leader()
        yield cluster


class Rounds:
    """Appends, and what was acknowledged."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        self.acknowledged: dict[int, bytes] = {}
        """By offset."""
        self._numbers = itertools.count()

    def append(self, member: Member) -> None:
        """A few puts through one node, in one request."""
        assert member.client is not None
        records = [self._put() for _ in range(RECORDS_PER_APPEND)]
        offsets = member.client.append_many(records, SECONDS)
        self.acknowledged.update(zip(offsets, records, strict=True))
        keeper = self.cluster["n1"]
        if keeper.runs:  # left behind what the others keep, it would have to take a snapshot too
            self.cluster.wait_until(lambda: self.are_even(keeper, member), "n1 lags behind")

    def _put(self) -> bytes:
        number = next(self._numbers)
        value = b"%d " % number
        return KeyValue.put(b"key %d" % (number % KEYS), value.ljust(VALUE_BYTES, b"."))

    def status(self, member: Member, name: str) -> int:
        assert member.client is not None
        value: int = member.client.status()[name]
        return value

    def are_even(self, one: Member, other: Member) -> bool:
        return self.status(one, "end_offset") == self.status(other, "end_offset")

    def append_until_dropped(self, member: Member, offset: int) -> None:
        """Until this node has dropped what lies below."""

        def has_dropped() -> bool:
            self.append(member)
            return self.status(member, "first_offset") > offset

        self.cluster.wait_until(has_dropped, f"{member.name} has not dropped its log")

    def round(self, laggard: Member, other: Member, point: str) -> None:
        end = self.status(laggard, "end_offset")
        laggard.kill()
        self.append_until_dropped(other, end)
        installs = "install" in point
        keeper = self.cluster["n1"]
        if installs:  # the one that could give it what the others have dropped is away as well
            self.cluster.wait_until(lambda: self.are_even(keeper, other), "they are not even")
            # Not killed: it might know less than the others have dropped, and take a snapshot too.
            keeper.stop()
        laggard.start({VARIABLE: f"{point}=crash"})

        def has_died() -> bool:
            if laggard.runs and not installs:
                self.append(other)
            return not laggard.runs

        self.cluster.wait_until(has_died, f"{laggard.name} did not come to {point!r}")
        if installs:
            keeper.start()
            keeper.connect()
        assert laggard.wait(SECONDS) == -signal.SIGKILL
        assert f"failpoint {point} crash" in laggard.output.read_text()
        end = self.status(other, "end_offset")
        laggard.start()
        laggard.connect()
        self.cluster.wait_until(
            lambda: self.status(laggard, "end_offset") >= end, f"{laggard.name} lags behind"
        )


def machine_at_stop(member: Member) -> tuple[int, bytes]:
    found = STOPPED.search(member.output.read_text().splitlines()[-1])
    assert found is not None, member.output.read_text()
    return int(found[1]), bytes.fromhex(found[2])


@pytest.mark.timeout(400)
def test_rounds_lose_nothing_and_every_machine_agrees(
    forgetful_cluster: LocalCluster, request: pytest.FixtureRequest
) -> None:
    count = request.config.getoption("--snapshot-rounds")
    cluster = forgetful_cluster
    rounds = Rounds(cluster)
    points = itertools.cycle(SNAPSHOT_POINTS)
    for number in range(count):
        laggard, other = cluster["n2"], cluster["n3"]
        if number % 2:
            laggard, other = other, laggard
        rounds.round(laggard, other, next(points))
    cluster.wait_until(cluster.is_even, "the nodes are not even")
    end = rounds.status(cluster["n2"], "end_offset")
    for name in ("n2", "n3"):
        assert rounds.status(cluster[name], "first_offset") > end / 2
    cluster.stop()
    replayed = KeyValue()
    with LogReader(cluster["n1"].directory) as whole:
        assert whole.first_offset == 0
        records = list(whole.records())
    for record in records:
        replayed.apply([record])
    assert {machine_at_stop(member) for member in cluster} == {(end, replayed.digest())}
    assert all(records[offset].data == data for offset, data in rounds.acknowledged.items())
    assert len({record.data for record in records}) == len(records), "a record is there twice"
    assert len(rounds.acknowledged) > 20 * count
