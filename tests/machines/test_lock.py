"""`Lock` beside the list of everything that was ever granted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from replog.machine import Record
from replog.machines import Grant, Lock, Refused, Released
from replog.machines.lock import SWEEP_GRANTS_MIN
from tests.machines.kinds import NAMES, OWNERS, TTLS_MS, as_records

OPERATIONS = st.one_of(
    st.tuples(st.just("acquire"), NAMES, OWNERS, TTLS_MS),
    st.tuples(st.just("renew"), NAMES, st.integers(0, 3), TTLS_MS),
    st.tuples(st.just("release"), NAMES, st.integers(0, 3)),
)
"""The number of a renewal or release is how many grants back its epoch is."""


def at(*commands: tuple[int, bytes]) -> list[Record]:
    """(time, command) at consecutive offsets."""
    return [Record(offset, command, now_ms) for offset, (now_ms, command) in enumerate(commands)]


@given(operations=st.lists(st.tuples(OPERATIONS, st.integers(0, 15)), max_size=40))
def test_it_answers_as_a_list_of_all_grants_says(operations) -> None:
    machine = Lock()
    granted: list[tuple[str, Grant]] = []
    ended: set[int] = set()
    now_ms = 100
    for offset, ((operation, name, detail, *ttl), gap_ms) in enumerate(operations):
        now_ms += gap_ms
        ended |= {
            grant.epoch
            for _, grant in granted
            if grant.expires_ms is not None and grant.expires_ms <= now_ms
        }
        live = [pair for pair in granted if pair[1].epoch not in ended]
        holder = dict(live).get(name)
        end_ms = now_ms + ttl[0] if ttl and ttl[0] is not None else None
        epochs = [grant.epoch for _, grant in granted]
        epoch = epochs[-detail] if operation != "acquire" and 0 < detail <= len(epochs) else 0
        answer: object
        if operation == "acquire":
            command = Lock.acquire(name, detail, *ttl)
            answer = Refused(holder) if holder else Grant(detail, offset + 1, end_ms)
        elif operation == "renew":
            command = Lock.renew(name, epoch, *ttl)
            is_holder = holder is not None and holder.epoch == epoch
            answer = Grant(holder.owner, epoch, end_ms) if holder and is_holder else Refused(holder)
        else:
            command = Lock.release(name, epoch)
            is_holder = holder is not None and holder.epoch == epoch
            answer = Released(epoch) if is_holder else Refused(holder)
            ended |= {epoch} if is_holder else set()
        assert machine.apply([Record(offset, command, now_ms)]) == [answer]
        if isinstance(answer, Grant):
            granted = [pair for pair in granted if pair[1].epoch != answer.epoch]
            granted.append((name, answer))
        current = {pair for pair in granted if pair[1].epoch not in ended}
        assert set(machine.held().items()) == current
        for other, grant in granted:
            assert machine.is_current(other, grant.epoch) == ((other, grant) in current)


def test_epochs_of_a_name_grow_for_ever() -> None:
    machine = Lock()
    epochs = []
    for base in range(0, 40, 4):
        (grant,) = machine.apply(as_records([Lock.acquire("a", "ann")], base=base))
        assert isinstance(grant, Grant)
        epochs.append(grant.epoch)
        release = as_records([Lock.release("a", grant.epoch)], base=base + 2)
        assert machine.apply(release) == [Released(grant.epoch)]
        assert machine.digest() == Lock().digest()  # nothing of the name is kept
        restored = Lock()
        restored.restore(machine.snapshot())
        machine = restored
    assert epochs == sorted(set(epochs))
    assert epochs[0] > 0


def test_an_expired_holder_is_refused_after_another_was_granted() -> None:
    machine = Lock()
    first, second = machine.apply(
        at((1000, Lock.acquire("a", "ann", 50)), (1050, Lock.acquire("a", "bob", 50)))
    )
    assert isinstance(first, Grant)
    assert isinstance(second, Grant)
    assert first.epoch < second.epoch
    assert not machine.is_current("a", first.epoch)
    assert machine.is_current("a", second.epoch)
    late = [Lock.release("a", first.epoch), Lock.renew("a", first.epoch, 50)]
    assert machine.apply(as_records(late, base=2, start_ms=1060)) == [Refused(second)] * 2
    assert machine.holder("a") == second


def test_a_lock_is_held_until_a_command_comes_after_its_end() -> None:
    machine = Lock()
    (grant,) = machine.apply(at((1000, Lock.acquire("a", "ann", 50))))
    assert grant == Grant("ann", 1, 1050)
    assert machine.apply([Record(1, Lock.acquire("b", "bob"), 1049)]) == [Grant("bob", 2, None)]
    assert machine.is_current("a", 1)
    assert machine.apply([Record(2, Lock.acquire("b", "ann"), 1050)]) == [
        Refused(Grant("bob", 2, None))
    ]
    assert not machine.is_current("a", 1)
    assert machine.apply([Record(3, Lock.renew("a", 1, 50), 1050)]) == [Refused(None)]


def test_a_renewal_moves_the_end_and_keeps_the_epoch() -> None:
    machine = Lock()
    assert machine.apply(
        at(
            (1000, Lock.acquire("a", "ann", 50)),
            (1049, Lock.renew("a", 1, 50)),
            (1098, Lock.acquire("a", "bob")),
            (1098, Lock.renew("a", 1)),
            (9999, Lock.acquire("a", "bob")),
        )
    ) == [
        Grant("ann", 1, 1050),
        Grant("ann", 1, 1099),
        Refused(Grant("ann", 1, 1099)),
        Grant("ann", 1, None),
        Refused(Grant("ann", 1, None)),
    ]


def test_the_owner_itself_is_refused_and_told_its_epoch() -> None:
    machine = Lock()
    first, second = machine.apply(as_records([Lock.acquire("a", "ann"), Lock.acquire("a", "ann")]))
    assert second == Refused(Grant("ann", 1, None)) == Refused(first)  # type: ignore[arg-type]


def test_the_longest_time_to_live_can_be_packed() -> None:
    machine, restored = Lock(), Lock()
    longest = (1 << 63) - 1
    (grant,) = machine.apply([Record(0, Lock.acquire("a", "ann", longest), longest)])
    assert grant == Grant("ann", 1, 2 * longest)
    restored.restore(machine.snapshot())
    assert restored.held() == {"a": grant}


def test_grants_that_ended_take_no_room() -> None:
    machine = Lock()
    names = [f"job {number}" for number in range(10 * SWEEP_GRANTS_MIN)]
    acquired = [Lock.acquire(name, "ann", 10) for name in names]
    kept = []
    for base, record in enumerate(as_records(acquired, [1] * len(names))):
        machine.apply([record._replace(offset=base)])
        kept.append(len(machine._grants))
    assert max(kept) == SWEEP_GRANTS_MIN - 1
    assert list(machine.held()) == names[-10:]


def test_locks_that_are_held_are_never_swept() -> None:
    machine = Lock()
    names = [f"job {number}" for number in range(3 * SWEEP_GRANTS_MIN)]
    machine.apply(as_records([Lock.acquire(name, "ann") for name in names]))
    assert list(machine.held()) == names
