"""The simulated world keeps its own rules: time, channels, disks and crashes."""

from __future__ import annotations

from random import Random

import pytest

from raftlog import Raft
from replog.testing import Plan, Simulation, Weather
from replog.testing.network import HIGH_WATER_MARK, Frame, Network
from replog.testing.plan import draw_plan
from replog.testing.schedule import Schedule
from replog.testing.violation import Violation

SLOW_DISK = Weather(commit_ms_max=500)
QUIET = Plan(start_ms_max=0, request_ms_mean=1_000_000)


def frame(number: int, *, bulk: bool = False) -> Frame:
    return Frame(number, "n1", b"store id", 1, "n2", b"\x93\x00\x00\x90", [], bulk)


def network(weather: Weather) -> tuple[Simulation, Network, list[int]]:
    """A network of its own, and the numbers of the frames that get through."""
    simulation = Simulation(1, Raft(), Plan(weather=weather))
    arrived: list[int] = []
    return simulation, Network(simulation.world, lambda one: arrived.append(one.number)), arrived


# --- time -----------------------------------------------------------------------------------------


def test_actions_happen_by_time_and_then_in_order() -> None:
    schedule = Schedule()
    happened: list[object] = []
    for name, time in (("c", 7), ("a", 3), ("d", 7), ("b", 3)):
        schedule.at(time, lambda name=name: happened.append((schedule.now, name)))
    schedule.at(9, happened.append, "too late")
    assert not schedule.run(8)
    assert happened == [(3, "a"), (3, "b"), (7, "c"), (7, "d")]
    assert schedule.now == 8


def test_time_stops_where_the_run_is_finished() -> None:
    schedule = Schedule()
    happened: list[int] = []
    for time in (1, 2, 3):
        schedule.at(time, happened.append, time)
    assert schedule.run(10, lambda: happened == [1, 2])
    assert schedule.now == 2


def test_an_action_that_is_always_due_is_noticed() -> None:
    schedule = Schedule()

    def again() -> None:
        schedule.after(0, again)

    schedule.after(5, again)
    with pytest.raises(Violation, match="time stands still"):
        schedule.run(10)


# --- network --------------------------------------------------------------------------------------


def test_a_channel_keeps_its_order_unless_the_weather_lets_frames_overtake() -> None:
    for reordering, kept in ((0.0, True), (1.0, False)):
        weather = Weather(delay_ms_max=20, reordering=reordering)
        simulation, channel, arrived = network(weather)
        for number in range(100):
            assert channel.send(frame(number))
        simulation.world.schedule.run(100)
        assert sorted(arrived) == list(range(100))
        assert (arrived == sorted(arrived)) is kept


def test_frames_are_lost_and_doubled_as_often_as_the_weather_says() -> None:
    simulation, channel, arrived = network(Weather(loss=0.25, duplication=0.5))
    for number in range(1000):
        channel.send(frame(number))
        simulation.world.schedule.run(simulation.world.schedule.now + 10)
    assert 1000 < len(arrived) < 1250
    assert 650 < len(set(arrived)) < 950


def test_only_bulk_frames_are_refused() -> None:
    _, channel, _ = network(Weather(refusal=1.0))
    assert channel.send(frame(1))
    assert not channel.send(frame(2, bulk=True))


def test_a_channel_holds_a_bounded_number_of_frames() -> None:
    simulation, channel, arrived = network(Weather())
    for number in range(HIGH_WATER_MARK + 10):
        channel.send(frame(number))
    simulation.world.schedule.run(100)
    assert arrived == list(range(HIGH_WATER_MARK))


@pytest.mark.parametrize(("holds", "late"), [(True, [1, 2]), (False, [])])
def test_a_cut_link_keeps_or_loses_its_frames(holds: bool, late: list[int]) -> None:
    simulation, channel, arrived = network(Weather(holds=holds))
    channel.send(frame(1))  # under way when the link is cut
    channel.cut([("n1", "n2")])
    channel.send(frame(2))
    simulation.world.schedule.run(50)
    assert arrived == []
    channel.heal([("n1", "n2")])
    simulation.world.schedule.run(100)
    assert sorted(arrived) == late


def test_a_link_that_is_cut_twice_is_whole_after_both_are_healed() -> None:
    simulation, channel, arrived = network(Weather())
    for _ in range(2):
        channel.cut([("n1", "n2")])
    channel.heal([("n1", "n2")])
    channel.send(frame(1))
    channel.heal([("n1", "n2")])
    channel.send(frame(2))
    simulation.world.schedule.run(100)
    assert arrived == [2]


# --- hosts ----------------------------------------------------------------------------------------


def test_a_commit_that_a_crash_interrupts_is_lost_or_done_and_never_reported() -> None:
    slow = Plan(nodes=1, start_ms_max=0, request_ms_mean=1_000_000, weather=SLOW_DISK)
    written = []
    for seed in range(20):
        simulation = Simulation(seed, Raft(), slow)
        simulation.trouble()
        host = simulation.hosts["n1"]
        length = len(host.disk.log)
        simulation.clients.append(host, 3, whole=True)
        simulation.world.schedule.run(simulation.world.schedule.now)
        host.crash("test")
        assert host.replica is None
        assert simulation.world.tally["acknowledged"] == 0
        written.append(len(host.disk.log) - length)
        simulation.settle()
        assert host.life == 2
        assert len(simulation.world.checkers.history.records) == 2 + 3 * written[-1]
    assert set(written) == {0, 1}


def test_a_node_that_is_closed_loses_nothing_that_was_decided() -> None:
    simulation = Simulation(1, Raft(), QUIET)
    simulation.trouble()
    for host in simulation.hosts.values():
        simulation.clients.append(host, 5, whole=False)
    simulation.world.schedule.run(simulation.world.schedule.now + 200)
    history = simulation.world.checkers.history
    assert simulation.world.tally["acknowledged"] == 15
    for host in simulation.hosts.values():
        host.close()
        assert host.disk.outline.position.index == history.last_index
    simulation.settle()


def test_a_paused_node_does_nothing_until_it_goes_on() -> None:
    simulation = Simulation(1, Raft(), QUIET)
    simulation.trouble()
    host = simulation.hosts["n2"]
    host.pause(500)
    before = host.effects
    simulation.clients.append(host, 1, whole=True)
    simulation.world.schedule.run(simulation.world.schedule.now + 499)
    assert host.effects - before <= 4  # a commit that was under way when it was paused
    simulation.settle()
    assert host.effects - before > 4


def test_a_cluster_that_cannot_settle_is_a_failure() -> None:
    simulation = Simulation(1, Raft(), Plan(start_ms_max=0, settle_ms_max=2000))
    simulation.trouble()
    simulation.network.cut([("n1", "n2"), ("n1", "n3"), ("n2", "n1"), ("n3", "n1")])
    with pytest.raises(Violation, match="not settled: n1 delivered"):
        simulation.settle()


def test_plans_differ_by_seed() -> None:
    assert len({draw_plan(Random(seed)) for seed in range(50)}) == 50
