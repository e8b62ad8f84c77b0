"""Opening a directory: whose it is, who else has it, and what is missing from it."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import lmdb
import pytest

from replog.entry import NO_EPOCH, Epoch
from replog.errors import Corruption, StoreError, StoreFailed, StoreInUse, WrongStore
from replog.membership import Membership, cluster_id
from replog.quorum import majorities, sized
from replog.snapshot import NO_BASE
from replog.store import directory, layout, opening
from replog.store import lmdb as lmdb_store
from replog.store.gate import Gate
from replog.store.interface import Batch, StoredEntry
from replog.store.lmdb import open_reader
from replog.store.verify import verify_directory
from tests.store.author import (
    GAPPED,
    MEMBERSHIP,
    TERM_1,
    append,
    deliver,
    drop_tables,
    edit,
    fill,
    fill_with_gaps,
    noop,
    open_store,
    printed,
    program,
    put,
    record_of,
    run_entry,
    write,
)


def test_a_missing_directory_is_made_for_its_owner_alone(tmp_path: Path):
    open_store(tmp_path / "data" / "n1").close()
    assert (tmp_path / "data" / "n1").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "data" / "n1" / "data.mdb").stat().st_mode & 0o777 == 0o600


def test_a_fresh_store_is_empty_and_may_not_vote_yet(tmp_path: Path):
    restored = open_store(tmp_path).restore()
    assert restored.identity[:3] == (cluster_id("raft", MEMBERSHIP), "n1", "raft")
    assert len(restored.identity.store_id) == 16
    assert restored.membership == MEMBERSHIP
    assert not restored.introduced
    assert (restored.base, restored.last_index, restored.epochs) == (NO_BASE, 0, ())


def test_the_tail_is_what_is_not_delivered(tmp_path: Path):
    store = open_store(tmp_path)
    assert store.restore().tail == []
    data = fill(store)
    store.close()
    store = open_store(tmp_path)
    assert store.restore().tail == [
        StoredEntry(8, Epoch(4, "n1"), data[7]),
        StoredEntry(9, Epoch(4, "n1"), data[8]),
    ]
    batch, _ = deliver(store.position(), data[7:])
    store.commit([batch])
    store.close()
    assert open_store(tmp_path).restore().tail == []


def test_a_log_with_gaps_above_the_position_opens(tmp_path: Path):
    store = open_store(tmp_path)
    fill_with_gaps(store)
    store.close()
    restored = open_store(tmp_path).restore()
    gaps = ((10, NO_EPOCH), (12, GAPPED[12]), (14, NO_EPOCH), (15, GAPPED[15]))
    assert restored.epochs == ((1, Epoch(2, "n2")), (5, Epoch(4, "n1")), *gaps)
    assert restored.last_index == 15
    assert [(entry.index, entry.epoch) for entry in restored.tail[2:]] == [*GAPPED.items()]
    assert all(entry.data == record_of(entry.epoch, entry.index) for entry in restored.tail[2:])


def test_a_log_may_begin_with_a_gap_when_nothing_is_delivered(tmp_path: Path):
    store = open_store(tmp_path)
    store.commit([write(TERM_1, 3)])
    store.close()
    store = open_store(tmp_path)
    assert store.restore().epochs == ((1, NO_EPOCH), (3, TERM_1))
    store.commit([write(TERM_1, 2, 1)])
    store.close()
    assert open_store(tmp_path).restore().epochs == ((1, TERM_1),)


def test_every_store_draws_its_own_id_and_keeps_it(tmp_path: Path):
    ids = []
    for name in ("a", "b", "a", "b"):
        store = open_store(tmp_path / name)
        ids.append(store.restore().identity.store_id)
        store.close()
    assert ids[:2] == ids[2:]
    assert ids[0] != ids[1]


def test_lives_grow_with_every_open_even_when_the_clock_does_not(tmp_path: Path):
    lives = []
    for unix_ms in (5000, 5000, 100, 9000):
        store = open_store(tmp_path, unix_ms=unix_ms)
        lives.append(store.restore().identity.life)
        store.close()
    assert lives == [5000, 5001, 5002, 9000]


def test_the_life_is_on_disk_before_the_store_is_handed_out(tmp_path: Path):
    store = open_store(tmp_path, unix_ms=5000)
    source = (
        "import sys; from replog.store.lmdb import open_reader;"
        "print(open_reader(sys.argv[1]).identity.life)"
    )
    assert int(printed(source, tmp_path)) == store.restore().identity.life == 5000


OTHER = Membership(majorities({"n1", "n2", "n4"}))
SAME_VOTERS = Membership(sized({"n1", "n2", "n3"}, 3, 1))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"node": "n2"}, ["'n1'", "'n2'"]),
        ({"agreement": "paxos"}, ["'raft'", "'paxos'"]),
        (
            {"membership": OTHER, "cluster_id": cluster_id("raft", OTHER)},
            ["members n1, n2, n3", "members n1, n2, n4"],
        ),
        (
            {"membership": SAME_VOTERS, "cluster_id": cluster_id("raft", SAME_VOTERS)},
            ["2 elect, 2 commit", "3 elect, 1 commit"],
        ),
        ({"cluster_id": b"x" * 16}, [(b"x" * 16).hex(), "cluster name"]),
    ],
    ids=["node", "agreement", "members", "quorums", "cluster name"],
)
def test_a_store_of_somebody_else_is_refused_by_name(tmp_path: Path, changes, named: list[str]):
    open_store(tmp_path).close()
    with pytest.raises(WrongStore) as refused:
        open_store(tmp_path, **changes)
    for text in [str(tmp_path), *named]:
        assert text in str(refused.value)
    open_store(tmp_path).close()


@pytest.mark.parametrize("other", [1, 3])
def test_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: int):
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(layout, "FORMAT", other)
        open_store(tmp_path).close()
    if other == 1:  # as it was before there were snapshots
        drop_tables(tmp_path, "snapshots", "readers")
    for opener in (open_store, open_reader):
        with pytest.raises(WrongStore, match=f"format {other}; .* reads format 2"):
            opener(tmp_path)


def test_a_directory_with_other_files_is_left_alone(tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(WrongStore, match=r"thesis\.tex"):
        open_store(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_no_directory(tmp_path: Path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(WrongStore, match="is no directory"):
            open_store(path)


def test_files_of_a_node_that_has_no_store_yet_do_not_hinder(tmp_path: Path):
    for name in ("control", "lock"):
        (tmp_path / name).write_text("")
    open_store(tmp_path).close()


def test_an_environment_of_another_program_is_left_alone(tmp_path: Path):
    edit(tmp_path, lambda environment: environment.open_db(b"theirs"))
    with pytest.raises(WrongStore, match="no store of replog"):
        open_store(tmp_path)
    with pytest.raises(WrongStore, match="no store of replog"):
        open_reader(tmp_path)
    tables: list[bytes] = []
    edit(tmp_path, lambda environment: tables.extend(environment.dbs()))
    assert tables == [b"theirs"]


def test_a_file_of_the_newer_lmdb_is_refused(tmp_path: Path):
    lmdb.open(str(tmp_path), lib_version=1).close()
    with pytest.raises(WrongStore, match=r"LMDB 1\.0"):
        open_store(tmp_path)


@pytest.mark.parametrize("loss", ["file", "content", "tables"])
def test_a_store_that_lost_its_data_is_not_taken_for_a_new_one(tmp_path: Path, loss: str):
    open_store(tmp_path).close()
    data = tmp_path / "data.mdb"
    data.unlink()
    if loss == "content":
        data.touch()
    elif loss == "tables":
        edit(tmp_path, lambda environment: environment.sync())
    with pytest.raises(Corruption, match="lost its data"):
        open_store(tmp_path)
    if loss != "tables":
        with pytest.raises(Corruption, match="lost its data"):
            open_reader(tmp_path)


def test_formatting_that_a_crash_cut_short_begins_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(opening, "put_promise", crash)
        with pytest.raises(KeyboardInterrupt):
            open_store(tmp_path)
    assert (tmp_path / "data.mdb").exists()
    assert not directory.is_marked(tmp_path)
    open_store(tmp_path).close()
    assert directory.is_marked(tmp_path)


def test_a_store_whose_marker_was_not_written_yet_gets_it(tmp_path: Path):
    store = open_store(tmp_path)
    before = store.restore().identity.store_id
    store.close()
    (tmp_path / "store.txt").unlink()
    store = open_store(tmp_path)
    assert store.restore().identity.store_id == before
    assert "n1" in (tmp_path / "store.txt").read_text()


# --- one opener at a time -------------------------------------------------------------------------

OPEN_ELSEWHERE = """
import sys
from pathlib import Path
from replog.errors import StoreInUse
from tests.store.author import open_store
try:
    open_store(Path(sys.argv[1])).close()
except StoreInUse as error:
    print(error)
"""


def test_a_second_opener_is_refused_until_the_first_has_closed(tmp_path: Path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "n1")
    store = open_store(tmp_path / "n1")
    for path in (tmp_path / "n1", link):
        with pytest.raises(
            StoreInUse, match=rf"{tmp_path / 'n1'} is in use by process {os.getpid()}"
        ):
            open_store(path)
        refusal = printed(OPEN_ELSEWHERE, path)
        assert f"{tmp_path / 'n1'} is in use by process {os.getpid()}" in refusal
    store.commit([append(1, [noop()])])
    store.close()
    open_store(link).close()


def test_a_reader_in_the_process_of_the_writer_is_refused_and_harms_nothing(tmp_path: Path):
    store = open_store(tmp_path)
    with pytest.raises(StoreInUse, match="by this process"):
        open_reader(tmp_path)
    store.commit([append(1, [noop()])])
    assert len(store.entries(1, 1, 100)) == 1


def test_a_refused_open_leaves_the_directory_free(tmp_path: Path):
    open_store(tmp_path).close()
    with pytest.raises(WrongStore):
        open_store(tmp_path, node="n2")
    open_store(tmp_path).close()


# --- a file that is cut off -----------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0.7, 0.2, 5000, 100], ids=str)
def test_a_file_shorter_than_its_last_page_is_refused_by_all(tmp_path: Path, keep: float):
    store = open_store(tmp_path)
    fill(store)
    used_bytes = store.usage().file_bytes
    store.close()
    data = tmp_path / "data.mdb"
    os.truncate(data, int(keep * used_bytes) if keep < 1 else int(keep))
    for opener in (open_store, open_reader):
        with pytest.raises(Corruption, match=r"data\.mdb is cut off"):
            opener(tmp_path)
    (fault,) = verify_directory(tmp_path).faults
    assert "is cut off" in fault


def test_a_file_cut_off_by_one_byte_names_both_lengths(tmp_path: Path):
    store = open_store(tmp_path)
    used_bytes = store.usage().file_bytes
    store.close()
    os.truncate(tmp_path / "data.mdb", used_bytes - 1)
    with pytest.raises(Corruption, match=rf"{used_bytes - 1} bytes of the {used_bytes} "):
        open_store(tmp_path)
    os.truncate(tmp_path / "data.mdb", used_bytes)
    open_store(tmp_path).close()


def test_a_damaged_first_page_is_refused(tmp_path: Path):
    open_store(tmp_path).close()
    with (tmp_path / "data.mdb").open("r+b") as file:
        file.seek(16)
        file.write(b"\0\0\0\0")
    for opener in (open_store, open_reader):
        with pytest.raises(Corruption, match="does not begin as an LMDB file"):
            opener(tmp_path)


@pytest.mark.parametrize("stretched", [True, False])
def test_a_good_file_is_longer_than_its_last_page_because_the_writer_stretches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stretched: bool
):
    """LMDB never writes a page that one transaction takes and frees, here the last of the file."""
    monkeypatch.setattr(lmdb_store, "STRETCH_BYTES", 0)
    if not stretched:
        monkeypatch.setattr(lmdb_store, "stretch", lambda directory, file_bytes: 0)
    store = open_store(tmp_path)
    data = run_entry("n1", 5, 0, [bytes(1000)])
    store.commit([append(1, [data] * 3000)])
    store.commit([append(3000, [], truncate_from=3000)])
    store.commit([append(2659, [], truncate_from=2659)])
    file_bytes = (tmp_path / "data.mdb").stat().st_size
    assert (file_bytes >= store.usage().file_bytes) == stretched
    store.close()
    if stretched:
        assert open_store(tmp_path).restore().last_index == 2658


def test_a_stretched_file_takes_no_blocks_and_stays_within_the_map(tmp_path: Path):
    store = open_store(tmp_path, map_bytes_max=4 << 20)
    found = (tmp_path / "data.mdb").stat()
    assert found.st_size == 4 << 20
    assert found.st_blocks * 512 < 1 << 20
    assert store.usage().file_bytes < 1 << 20


# --- fork, close ----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_is_refused_and_the_parent_goes_on(tmp_path: Path):
    store = open_store(tmp_path)
    store.commit([append(1, [noop()])])
    child = os.fork()
    if not child:
        status = 1
        try:
            for use in (
                lambda: store.commit([append(2, [noop()])]),
                lambda: store.entries(1, 1, 100),
                store.position,
                store.restore,
            ):
                with pytest.raises(StoreFailed, match="forked"):
                    use()
            store.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    store.commit([append(2, [noop()])])
    assert len(store.entries(1, 9, 100)) == 2
    store.close()
    open_store(tmp_path).close()


OPEN_AND_FORK = """
import os, signal, sys
from pathlib import Path
from tests.store.author import open_store
store = open_store(Path(sys.argv[1]))
if os.fork() == 0:
    print(os.getpid(), flush=True)
signal.pause()
"""


def test_a_forked_child_does_not_keep_the_directory_of_its_dead_parent_locked(tmp_path: Path):
    with program(OPEN_AND_FORK, tmp_path) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        try:
            with pytest.raises(StoreInUse, match=f"by process {parent.pid}"):
                open_store(tmp_path)
            parent.kill()
            parent.wait()
            open_store(tmp_path).close()
            os.kill(child, 0)
        finally:
            parent.kill()
            os.kill(child, signal.SIGKILL)


def test_a_closed_store_refuses_and_closes_twice(tmp_path: Path):
    store = open_store(tmp_path)
    store.close()
    store.close()
    for use in (store.position, store.restore, lambda: store.commit([Batch()])):
        with pytest.raises(StoreFailed, match="is closed"):
            use()


def test_a_gate_is_shut_only_when_everybody_has_left():
    gate = Gate("file")
    order: list[str] = []

    def shut() -> None:
        gate.shut()
        order.append("shut")

    shutter = threading.Thread(target=shut)
    with gate:
        shutter.start()
        while not order:
            try:
                with gate:
                    pass
            except StoreFailed as error:
                order.append(str(error))
        shutter.join(timeout=0.2)
        order.append("left")
    shutter.join()
    assert order == ["file is closed", "left", "shut"]


def test_reads_of_many_threads_end_in_an_answer_or_a_refusal_when_it_closes(tmp_path: Path):
    for _ in range(5):
        store = open_store(tmp_path)
        if not store.restore().last_index:
            fill(store)
        answers: list[int] = []
        refused: list[StoreFailed] = []

        def read(store=store, answers=answers, refused=refused) -> None:
            try:
                while True:
                    answers.append(len(store.entries(1, 9, 1 << 20)))
            except StoreFailed as error:
                refused.append(error)

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        while len(answers) < 20:
            store.position()
        store.close()
        for thread in threads:
            thread.join()
        assert set(answers) == {9}
        assert len(refused) == 4


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(directory, "_network_file_system", lambda path: "nfs4")
    with pytest.raises(StoreError, match="nfs4"):
        open_store(tmp_path / "n1")


def test_the_file_system_is_that_of_the_innermost_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    mounts = (
        f"/dev/a / ext4 rw 0 0\nserver:/x {tmp_path} nfs4 rw 0 0\n/dev/b {tmp_path}/in ext4 - -\n"
    )
    monkeypatch.setattr(Path, "read_text", lambda path, **_: mounts)
    assert directory._network_file_system(tmp_path / "n1") == "nfs4"
    assert directory._network_file_system(tmp_path / "in" / "n1") == ""
    assert directory._network_file_system(Path("/elsewhere")) == ""


def test_a_value_of_the_store_names_its_place_when_it_is_damaged(tmp_path: Path):
    open_store(tmp_path).close()
    put(tmp_path, "meta", b"identity", b"\0\0\0\0\0")
    with pytest.raises(Corruption, match=r"data\.mdb: table meta, key identity: .* checksum"):
        open_store(tmp_path)
