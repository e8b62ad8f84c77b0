"""Backups, and what is restored from them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import pytest

import replog
from replog import Retention, SnapshotEvery
from replog.agreement import Agreement
from replog.entry import Epoch
from replog.errors import ConfigError, Corruption, StoreError, StoreInUse, WrongStore
from replog.log_reader import LogReader
from replog.machines import KeyValue
from replog.membership import BACKUP_CLUSTER_ID
from replog.store import layout
from replog.store.copying import backup, restore
from replog.store.interface import Batch, Peer
from replog.store.lmdb_reader import LmdbReader
from replog.store.verify import verify_directory
from tests.api.conftest import SECONDS, Cluster
from tests.each_agreement import make_agreement, pytest_generate_tests
from tests.store.author import (
    STATE,
    append,
    compact,
    deliver,
    fill_with_gaps,
    open_store,
    program,
    put,
    rows_of,
    sample,
)
from transport.loopback import LoopbackNetwork

__all__ = ["pytest_generate_tests"]

RAFT = make_agreement("raft")
OLD = ("n1", "n2", "n3")
NEW = ("m1", "m2", "m3")


@pytest.fixture
def layer(agreement: str) -> Agreement:
    return make_agreement(agreement)


def make_store(directory: Path) -> Path:
    """n1 of three: 7 of its 12 entries delivered, gaps behind them, and compacted to entry 5."""
    store = open_store(directory)
    fill_with_gaps(store)
    compact(store)
    peers = {"n2": Peer(b"2" * 16, 5)}
    store.commit([Batch(readers={"billing": 303}, peers=peers, introduced=True)])
    store.close()
    return directory


def make_alone(directory: Path, layer: Agreement, *records: bytes) -> Path:
    with replog.open(directory, agreement=layer) as log:
        for record in records:
            log.append(record).result(SECONDS)
    return directory


def records(directory: Path) -> list[tuple[int, bytes]]:
    with LogReader(directory) as reader:
        return [(record.offset, record.data) for record in reader.records()]


# --- backups --------------------------------------------------------------------------------------


def test_a_backup_holds_what_was_delivered_and_nothing_beyond(tmp_path: Path) -> None:
    copied = backup(make_store(tmp_path / "n1"), tmp_path / "copy")
    with LogReader(tmp_path / "n1") as one, LogReader(tmp_path / "copy") as other:
        before, after = one.survey(), other.survey()
        assert list(one.records()) == list(other.records())
        assert one.digest(7) == other.digest(7) == copied.digest
    assert (before.last_index, after.last_index) == (15, 7)
    assert after.epochs == before.epochs[:1]
    assert (after.base, after.position) == (before.base, before.position)
    assert after.snapshot == before.snapshot
    assert (copied.node, copied.agreement) == ("n1", "raft")
    assert (copied.first_offset, copied.end_offset) == (302, 303)
    report = verify_directory(tmp_path / "copy")
    assert (report.faults, report.entries, report.pieces) == ((), 2, len(STATE))


def test_a_backup_has_the_identity_of_nobody(tmp_path: Path) -> None:
    backup(make_store(tmp_path / "n1"), tmp_path / "copy")
    with LogReader(tmp_path / "n1") as one, LogReader(tmp_path / "copy") as other:
        assert other.identity.cluster_id == BACKUP_CLUSTER_ID != one.identity.cluster_id
        assert other.identity.store_id != one.identity.store_id
        assert other.identity.node == "n1"
        assert other.membership == one.membership
        found = other.survey()
    assert (found.introduced, found.promise) == (False, Epoch(4, ""))
    assert (found.peers, found.readers) == ({}, {})
    text = (tmp_path / "copy" / "store.txt").read_text(encoding="utf-8")
    assert text.startswith("This directory holds a backup of the replicated log of node n1.\n")
    with pytest.raises(WrongStore, match=r"is a backup of the log of n1, .* `replog restore`"):
        open_store(tmp_path / "copy")


def test_a_backup_takes_no_more_room_than_its_pages(tmp_path: Path) -> None:
    directory = make_alone(tmp_path / "n1", RAFT, *[bytes(100_000)] * 5)
    copied = backup(directory, tmp_path / "copy")
    size = (tmp_path / "copy" / "data.mdb").stat().st_size
    assert copied.file_bytes == size < (directory / "data.mdb").stat().st_size
    assert size > 500_000
    assert (tmp_path / "copy" / "data.mdb").stat().st_mode & 0o777 == 0o600
    assert records(tmp_path / "copy") == records(directory)


def test_a_backup_of_an_empty_log(tmp_path: Path, layer: Agreement) -> None:
    copied = backup(make_alone(tmp_path / "n1", layer), tmp_path / "copy")
    assert (copied.first_offset, copied.end_offset) == (0, 0)
    assert verify_directory(tmp_path / "copy").faults == ()


WRITER = """
import sys
import replog
from replog.agreements import load_agreement
with replog.open(sys.argv[1], agreement=load_agreement(sys.argv[2])) as log:
    print("running", flush=True)
    while True:
        log.append_many([bytes(1000)] * 10).result()
"""


def test_a_log_that_is_written_to_is_backed_up_as_of_one_moment(
    tmp_path: Path, agreement: str
) -> None:
    with program(WRITER, tmp_path / "n1", agreement) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "running\n"
            ends = [0]
            while ends[-1] < 100 or len(ends) < 4:
                target = tmp_path / f"copy {len(ends)}"
                ends.append(backup(tmp_path / "n1", target, verify=False).end_offset)
                report = verify_directory(target)
                assert (report.faults, report.beyond) == ((), 0)
                assert report.records == ends[-1]
        finally:
            writer.kill()
    assert ends == sorted(ends)


# --- what is refused ------------------------------------------------------------------------------


def test_a_target_must_be_empty_and_elsewhere(tmp_path: Path) -> None:
    directory = make_alone(tmp_path / "n1", RAFT)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter").write_text("mine")
    for target in (tmp_path / "full", directory):
        with pytest.raises((WrongStore, ConfigError)):
            backup(directory, target)
    with pytest.raises(WrongStore, match="holds 'letter': name an empty or a new directory"):
        backup(directory, tmp_path / "full")
    with pytest.raises(ConfigError, match="which is to be copied"):
        backup(directory, directory / "copy")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["letter"]
    with pytest.raises(WrongStore, match="holds no store"):
        backup(tmp_path / "none", tmp_path / "copy")
    with replog.open(directory, agreement=RAFT), pytest.raises(StoreInUse):
        backup(directory, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_copy_that_is_not_whole_leaves_nothing(tmp_path: Path) -> None:
    directory = make_store(tmp_path / "n1")
    ((key, value), *_) = rows_of(directory, layout.LOG)
    put(directory, layout.LOG, key, value[:-1] + b"?")
    with pytest.raises(Corruption, match=r"the copy of .*n1 is not whole: .*table log, key 6"):
        backup(directory, tmp_path / "copy")
    assert list((tmp_path / "copy").iterdir()) == []
    assert backup(directory, tmp_path / "copy", verify=False).end_offset == 303


def test_a_disk_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object, directory: Path) -> None:
        (directory / "data.mdb").write_bytes(b"half of it")
        raise lmdb.DiskError("no space left on device")

    directory = make_store(tmp_path / "n1")
    with monkeypatch.context() as broken:
        broken.setattr(LmdbReader, "copy_to", fail)
        with pytest.raises(StoreError, match=r"cannot be copied into .*no space left"):
            backup(directory, tmp_path / "copy")
    assert list((tmp_path / "copy").iterdir()) == []
    backup(directory, tmp_path / "copy")


def test_only_a_backup_is_restored_and_only_for_members_that_can_be(tmp_path: Path) -> None:
    directory = make_store(tmp_path / "n1")
    with pytest.raises(WrongStore, match="is no backup, but the log of n1: make a backup"):
        restore(directory, tmp_path / "m1", agreement=RAFT)
    backup(directory, tmp_path / "copy")
    for node, members in (("m1", NEW[1:]), ("no good", None), ("m1", ["m1", "?"])):
        with pytest.raises(ConfigError):
            restore(tmp_path / "copy", tmp_path / "m1", agreement=RAFT, node=node, members=members)
    assert not (tmp_path / "m1").exists()
    restore(tmp_path / "copy", tmp_path / "m1", agreement=RAFT)
    with pytest.raises(WrongStore, match="name an empty or a new directory"):
        restore(tmp_path / "copy", tmp_path / "m1", agreement=RAFT)


def test_an_empty_directory_is_no_member_of_a_restored_cluster(tmp_path: Path) -> None:
    backup(make_alone(tmp_path / "n1", RAFT, b"a"), tmp_path / "copy")
    name = restore(tmp_path / "copy", tmp_path / "m1", agreement=RAFT).cluster
    with pytest.raises(ConfigError, match="make it one of them with `replog restore`"):
        replog.open(tmp_path / "m2", agreement=RAFT, cluster=name)
    assert not (tmp_path / "m2").exists()


# --- members --------------------------------------------------------------------------------------


def test_a_restored_member_has_promised_its_highest_epoch_to_itself(tmp_path: Path) -> None:
    backup(make_store(tmp_path / "n1"), tmp_path / "copy")
    copied = restore(
        tmp_path / "copy", tmp_path / "m2", agreement=RAFT, node="m2", members=dict.fromkeys(NEW)
    )
    with LogReader(tmp_path / "m2") as reader:
        identity, found = reader.identity, reader.survey()
        assert sorted(reader.membership.voters) == [*NEW]
    assert copied.cluster == f"restored-{copied.digest[:4].hex()}"
    assert (identity.node, identity.cluster_id) == ("m2", copied.cluster_id)
    assert (found.promise, found.introduced) == (Epoch(4, "m2"), False)
    assert found.snapshot is not None
    assert sorted(found.snapshot.snapshot.membership.voters) == [*NEW]
    assert verify_directory(tmp_path / "m2").faults == ()


def test_the_same_backup_makes_the_same_cluster_and_another_one_another(
    tmp_path: Path, layer: Agreement
) -> None:
    names = []
    directory = make_alone(tmp_path / "n1", layer, b"a")
    for number in range(2):
        backup(directory, tmp_path / f"copy {number}")
        for node in NEW:
            at = tmp_path / f"{node} {number}"
            copied = restore(
                tmp_path / f"copy {number}", at, agreement=layer, node=node, members=NEW
            )
            names.append((copied.cluster, copied.cluster_id))
        make_alone(directory, layer, b"b")
    assert len(set(names[:3])) == len(set(names[3:])) == 1
    assert names[0][0] != names[3][0]
    assert names[0][1] != names[3][1]


def test_a_member_appends_though_its_clock_lies_before_its_producers_life(
    tmp_path: Path, layer: Agreement, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup(make_alone(tmp_path / "n1", layer, b"a"), tmp_path / "copy")
    name = restore(tmp_path / "copy", tmp_path / "again", agreement=layer).cluster
    with monkeypatch.context() as early:
        early.setattr(time, "time_ns", lambda: 1_000_000)
        with replog.open(tmp_path / "again", agreement=layer, cluster=name) as log:
            assert log.append(b"b").result(SECONDS) == 1
    assert records(tmp_path / "again") == [(0, b"a"), (1, b"b")]
    with pytest.raises(WrongStore, match="open it with the members, quorums and cluster name"):
        replog.open(tmp_path / "again", agreement=layer)


@pytest.fixture
def restored(tmp_path: Path, layer: Agreement) -> Iterator[tuple[Cluster, str]]:
    """Three new members of a log that three others have written, and the name of their cluster."""
    old = Cluster(tmp_path, LoopbackNetwork(), layer, OLD)
    try:
        for node in OLD:
            old.open(node)
        for node in OLD:
            old.logs[node].append_many([KeyValue.put(node.encode(), b"old")] * 3).result(SECONDS)
        old.logs["n1"].barrier().result(SECONDS)
    finally:
        old.close()
    backup(tmp_path / "n1", tmp_path / "copy")
    new = Cluster(tmp_path, LoopbackNetwork(), layer, NEW)
    for node in NEW:
        name = restore(
            tmp_path / "copy", tmp_path / node, agreement=layer, node=node, members=NEW
        ).cluster
    try:
        yield new, name
    finally:
        new.close()


def test_three_members_with_other_names_go_on_where_the_old_ones_stopped(
    restored: tuple[Cluster, str],
) -> None:
    cluster, name = restored
    machines = {node: cluster.open(node, cluster=name).attach(KeyValue()) for node in NEW}
    logs = cluster.logs
    assert logs["m1"].append(KeyValue.put(b"m1", b"new")).result(SECONDS) == 9
    gone = cluster.follower()
    logs[gone].close()
    others = [node for node in NEW if node != gone]
    for number in range(20):
        assert logs[others[0]].append(b"%d" % number).result(SECONDS) == 10 + number
    machines[gone] = cluster.open(gone, cluster=name).attach(KeyValue())
    for node in NEW:
        cluster.logs[node].barrier().result(SECONDS)
        cluster.logs[node].applied().result(SECONDS)
        assert cluster.logs[node].end_offset == 30
    assert len({machine.digest() for machine in machines.values()}) == 1
    assert [machines[gone].get(key) for key in (b"n3", b"m1")] == [b"old", b"new"]
    leader = cluster.leader()
    cluster.logs[leader].close()
    others = [node for node in NEW if node != leader]
    assert cluster.logs[others[0]].append(b"without it").result(SECONDS) == 30


def test_a_restored_member_catches_up_by_a_snapshot(restored: tuple[Cluster, str]) -> None:
    cluster, name = restored
    kept: dict[str, Any] = {
        "retention": Retention(records_max=10),
        "snapshots": SnapshotEvery(records=20),
    }
    machines = {node: cluster.open(node, cluster=name, **kept).attach(KeyValue()) for node in NEW}
    gone = cluster.follower()
    cluster.logs[gone].close()
    others = [node for node in NEW if node != gone]
    give_up = time.monotonic() + SECONDS
    while any(cluster.logs[node].first_offset <= 9 for node in others):
        cluster.logs[others[0]].append(KeyValue.put(b"a", b"b")).result(SECONDS)
        assert time.monotonic() < give_up
    machines[gone] = cluster.open(gone, cluster=name, **kept).attach(KeyValue())
    end = cluster.logs[others[0]].end_offset
    for node in NEW:
        cluster.logs[node].barrier().result(SECONDS)
        cluster.logs[node].applied(end).result(SECONDS)
    assert cluster.logs[gone].first_offset > 9
    assert machines[gone].digest() == machines[others[0]].digest()


def test_a_log_goes_on_under_another_agreement_where_that_can(
    tmp_path: Path, agreement: str
) -> None:
    (other,) = {"raft", "paxos"} - {agreement}
    backup(make_alone(tmp_path / "n1", make_agreement(agreement), b"a"), tmp_path / "copy")
    layer = make_agreement(other)
    name = restore(tmp_path / "copy", tmp_path / "m1", agreement=layer).cluster
    with replog.open(tmp_path / "m1", agreement=layer, cluster=name) as log:
        assert log.append(b"b").result(SECONDS) == 1
    assert records(tmp_path / "m1") == [(0, b"a"), (1, b"b")]


def test_an_agreement_that_cannot_go_on_with_these_epochs_says_so(tmp_path: Path) -> None:
    membership = make_agreement("paxos").membership({*OLD})
    store = open_store(tmp_path / "n1", agreement="paxos", membership=membership)
    data = sample()
    # A member that has learnt the first entries from a later leader than the others.
    store.commit([append(1, data[:4], Epoch(4, "n1")), append(5, data[4:], Epoch(2, "n2"))])
    store.commit([deliver(store.position(), data)[0]])
    store.close()
    backup(tmp_path / "n1", tmp_path / "copy")
    with pytest.raises(ConfigError, match="'paxos', with which 'raft' cannot go on"):
        restore(tmp_path / "copy", tmp_path / "m1", agreement=RAFT)
    restore(tmp_path / "copy", tmp_path / "m1", agreement=make_agreement("paxos"))
