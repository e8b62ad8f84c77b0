"""Verification: passes on what is whole, beside a running node too, and finds what is planted."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from replog.entry import DIGEST_START, Epoch
from replog.errors import StoreError, StoreInUse, WrongStore
from replog.store import layout, verify
from replog.store.interface import (
    Batch,
    Delivered,
    ProducerRow,
    StoredEntry,
    StoredSnapshot,
    StoredWrite,
)
from replog.store.rules import EMPTY
from replog.store.verify import VerifyReport, verify_directory, verify_in_child
from tests.store.author import (
    ROOT,
    TERM_1,
    append,
    deliver,
    fill,
    fill_with_gaps,
    noop,
    open_store,
    printed,
    program,
    put,
    rows_of,
    run_entry,
    sample,
    snapshot_at,
    stage,
)


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A closed store that holds the sample."""
    store = open_store(tmp_path)
    fill(store)
    store.close()
    return tmp_path


def test_a_whole_store_passes_and_is_counted(filled: Path):
    store = open_store(filled)
    digest = store.position().digest
    store.close()
    progress: list[tuple[int, int]] = []
    report = verify_directory(filled, lambda *counts: progress.append(counts))
    assert report == VerifyReport(9, 303, 7, 2, digest, ())
    assert progress == [(9, 9)]


def test_an_empty_store_passes(tmp_path: Path):
    open_store(tmp_path).close()
    assert verify_directory(tmp_path) == VerifyReport(0, 0, 0, 0, DIGEST_START, ())


def test_a_store_with_gaps_above_the_position_passes_and_its_entries_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = open_store(tmp_path)
    fill_with_gaps(store)
    digest = store.position().digest
    store.close()
    for step_bytes in (verify.STEP_BYTES, 1):
        monkeypatch.setattr(verify, "STEP_BYTES", step_bytes)
        progress: list[tuple[int, int]] = []
        report = verify_directory(tmp_path, lambda *counts: progress.append(counts))  # noqa: B023
        assert report == VerifyReport(12, 303, 7, 5, digest, ())
        assert progress[-1] == (12, 12)
        assert len(progress) == (12 if step_bytes == 1 else 1)


def test_a_store_of_many_steps_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(verify, "STEP_BYTES", 1000)
    store = open_store(tmp_path)
    position = store.position()
    for first in range(1, 400, 10):
        data = [
            run_entry("n1", 5, index - 1, [bytes(300)]) if index % 10 else noop()
            for index in range(first, first + 10)
        ]
        batch, position = deliver(position, data)
        store.commit([append(first, data, Epoch(first, "n1")), batch])
    store.close()
    progress: list[tuple[int, int]] = []
    report = verify_directory(tmp_path, lambda *counts: progress.append(counts))
    assert report == VerifyReport(400, position.offset, 400, 0, position.digest, ())
    assert len(progress) > 50
    assert progress == sorted(progress)


@pytest.mark.parametrize(
    ("places", "truncating"),
    [((0, 1, 2), True), ((5, 1, 0), False)],
    ids=["truncated", "scattered"],
)
def test_verification_beside_a_running_writer_passes(
    tmp_path: Path, places: tuple[int, ...], truncating: bool
):
    """What is not delivered is dropped or replaced, and gaps come and go, all the while."""
    store = open_store(tmp_path)
    command = [sys.executable, "-c", VERIFY_OFTEN, str(tmp_path)]
    position, epoch = store.position(), TERM_1
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as verifier:
        assert verifier.stdout is not None
        assert verifier.stdout.readline() == "begins\n"
        while verifier.poll() is None:
            epoch = Epoch(epoch.number + 1, "n1")
            first = position.index + 1
            data = {0: run_entry("n1", 5, position.offset, [bytes(2000)] * 9)}
            entries = [
                StoredEntry(first + place, epoch, data.setdefault(place, noop()))
                for place in places
            ]
            truncate_from = first if truncating else None
            write = Batch([StoredWrite(truncate_from=truncate_from, entries=entries)])
            delivery, after = deliver(position, [data[0], data[1]])
            if position.index < 200:  # a log that grew for ever would never be verified
                position = after
                store.commit([write, delivery])
            else:
                store.commit([write])
        assert verifier.stdout.read() == "[]\n" * 10
    store.close()
    assert verify_directory(tmp_path).faults == ()


def test_verification_beside_a_writer_that_compacts_and_installs_passes(tmp_path: Path):
    """What was to be checked next is gone when the step comes, and snapshots come and go."""
    store = open_store(tmp_path)
    command = [sys.executable, "-c", VERIFY_OFTEN, str(tmp_path)]
    position, turn, kept = store.position(), 0, 0
    compactions = installs = 0
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as verifier:
        assert verifier.stdout is not None
        assert verifier.stdout.readline() == "begins\n"
        while verifier.poll() is None:
            turn += 1
            first = position.index + 1
            data = [run_entry("n1", 5, position.offset + place, [b"r"]) for place in range(20)]
            delivery, position = deliver(position, data)
            store.commit([append(first, data), delivery])
            if turn % 5 == 0:
                state = [bytes([turn % 251]) * 3000] * 3
                snapshot = StoredSnapshot(position.index << 1, snapshot_at(position, TERM_1, state))
                dropped = [kept] if kept else []
                store.commit([stage(snapshot.snapshot_id, state), Batch(sealed=snapshot)])
                store.commit([Batch(dropped_snapshots=dropped, compact_to=position.index - 60)])
                kept = snapshot.snapshot_id
                compactions += 1
            if turn % 23 == 0:
                digest = bytes([turn % 251]) * 16
                position = position._replace(index=position.index + 50, digest=digest)
                snapshot = StoredSnapshot(position.index << 1 | 1, snapshot_at(position, TERM_1))
                install = Batch([StoredWrite(install=snapshot)])
                store.commit([install, Batch(dropped_snapshots=[kept])])
                kept = snapshot.snapshot_id
                installs += 1
        assert verifier.stdout.read() == "[]\n" * 10
    assert min(compactions, installs) > 0
    store.close()
    assert verify_directory(tmp_path).faults == ()


CHANGE_ON_DEMAND = """
import sys
from pathlib import Path
from replog.store.interface import Batch, StoredSnapshot, StoredWrite
from tests.store.author import TERM_1, compact, fill, open_store, snapshot_at, taken
store = open_store(Path(sys.argv[1]))
fill(store)
compact(store, compact_to=0)
ahead = snapshot_at(store.position()._replace(index=20, digest=b"a" * 16), TERM_1)
changes = {
    "compacts": Batch(compact_to=5),
    "installs": Batch([StoredWrite(install=StoredSnapshot(41, ahead))]),
}
print("ready", flush=True)
store.commit([changes[sys.stdin.readline().strip()]])
print("done", flush=True)
"""


@pytest.mark.parametrize(
    ("change", "counted"), [("compacts", (5, 1, 3, 2)), ("installs", (1, 0, 1, 0))]
)
def test_a_walk_goes_on_behind_what_is_dropped_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, counted: tuple[int, ...]
):
    """The entries after the first one go while the first one is checked."""
    monkeypatch.setattr(verify, "STEP_BYTES", 1)
    with program(CHANGE_ON_DEMAND, tmp_path) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"

        def drop(checked: int, _: int) -> None:
            if checked == 1 and writer.poll() is None:
                writer.communicate(f"{change}\n", timeout=30)

        report = verify_directory(tmp_path, drop)
    assert writer.returncode == 0
    assert report.faults == ()
    assert report[:4] == counted
    digests = {"compacts": deliver(EMPTY.position, sample()[:7])[1].digest, "installs": b"a" * 16}
    assert report.digest == digests[change]


def test_behind_a_base_producers_are_learnt_and_judged_from_there(tmp_path: Path):
    store = open_store(tmp_path)
    data = [run_entry(f"n{1 + place % 2}", 5, place // 2, [b"r"]) for place in range(8)]
    data[5] = data[3]  # a repeated run
    delivery, position = deliver(store.position(), data)
    store.commit([append(1, data), delivery])
    sealed = StoredSnapshot(16, snapshot_at(position, TERM_1))
    store.commit([Batch(sealed=sealed, compact_to=2)])
    store.close()
    assert verify_directory(tmp_path) == VerifyReport(6, 4, 6, 0, position.digest, ())
    replace_row(tmp_path, 6, accepted=(0,))
    faults = verify_directory(tmp_path).faults
    assert [fault for fault in faults if "table delivered, index 6: " in fault]


VERIFY_OFTEN = """
import sys
from replog.store import verify
from replog.store.lmdb import open_reader

def transactions():
    reader = open_reader(sys.argv[1])
    count = reader._environment.info()["last_txnid"]
    reader.close()
    return count

verify.STEP_BYTES = 5000
print("begins", flush=True)
beside_writes = 0
while beside_writes < 10:
    before = transactions()
    faults = verify.verify_directory(sys.argv[1]).faults
    if transactions() > before + 1 or faults:
        beside_writes += 1
        print(list(faults))
"""


# --- planted faults: whole values that do not fit each other --------------------------------------


def replace_position(filled: Path, **changes: object) -> None:
    value = dict(rows_of(filled, "meta"))[b"position"]
    position = layout.parse_position("file", value)
    changed: Any = position._replace(**changes)  # type: ignore[arg-type]
    put(filled, "meta", b"position", layout.pack_position(changed))


def replace_row(filled: Path, index: int, **changes: object) -> None:
    rows = [layout.parse_delivered("file", *row) for row in rows_of(filled, "delivered")]
    (row,) = [row for row in rows if row.index == index]
    changed: Delivered = row._replace(**changes)  # type: ignore[arg-type]
    put(filled, "delivered", layout.delivered_key(row.base_offset, index), None)
    put(filled, "delivered", *layout.pack_delivered(changed))


def replace_entry(filled: Path, index: int, data: bytes, epoch: Epoch) -> None:
    put(filled, "log", *layout.pack_log_row(StoredEntry(index, epoch, data)))


PLANTED: dict[str, tuple[Callable[[Path], None], str]] = {
    "another entry": (
        lambda path: replace_entry(path, 7, run_entry("n1", 7, 2, [bytes(19_999)]), Epoch(4, "n1")),
        "table delivered, index 7: ",
    ),
    "an entry of another epoch": (
        lambda path: replace_entry(path, 3, sample()[2], Epoch(4, "n1")),
        "table log, key 3: has Epoch",
    ),
    "an epoch too many": (
        lambda path: put(path, "epochs", *layout.pack_epoch((7, Epoch(4, "n1")))),
        "table epochs, key 7: begins no new epoch",
    ),
    "an epoch beyond the log": (
        lambda path: put(path, "epochs", *layout.pack_epoch((10, Epoch(6, "n1")))),
        "table epochs, key 10: begins no new epoch",
    ),
    "a missing epoch": (
        lambda path: put(path, "epochs", layout.index_key(5), None),
        "table log, key 5: has Epoch",
    ),
    "a row that accepts a repeated run": (
        lambda path: replace_row(path, 6, accepted=(0,)),
        "table delivered, index 6: ",
    ),
    "a row of another count": (
        lambda path: replace_row(path, 2, count=3),
        "table delivered, index 2: ",
    ),
    "a row at another offset": (
        lambda path: replace_row(path, 2, base_offset=1),
        "table delivered, index 2: ",
    ),
    "a row of another time": (
        lambda path: replace_row(path, 3, timestamp_ms=1),
        "table delivered, index 3: ",
    ),
    "a row of another digest": (
        lambda path: replace_row(path, 7, digest=b"?" * 16),
        "table delivered, index 7: ",
    ),
    "a position of another digest": (
        lambda path: replace_position(path, digest=b"?" * 16),
        "table meta, key position: ",
    ),
    "a position of another offset": (
        lambda path: replace_position(path, offset=304),
        "table meta, key position: ",
    ),
    "a position of another time": (
        lambda path: replace_position(path, timestamp_ms=1 << 40),
        "table meta, key position: ",
    ),
    "a position of other producers": (
        lambda path: replace_position(path, producers={"n1": ProducerRow(7, 3)}),
        "table meta, key position: ",
    ),
    "a position behind the rows": (
        lambda path: replace_position(path, index=6),
        "table delivered holds 7 rows for entries to 6",
    ),
    "a position beyond the log": (
        lambda path: replace_position(path, index=11),
        "delivery from entry 10 on could not be checked",
    ),
    "an entry gone": (
        lambda path: put(path, "log", layout.index_key(4), None),
        "table log, key 4: is missing",
    ),
    "the first entry gone": (
        lambda path: put(path, "log", layout.index_key(1), None),
        "table log, key 1: is missing",
    ),
    "a row gone": (
        lambda path: put(path, "delivered", layout.delivered_key(2, 3), None),
        "table delivered, index 3: is missing",
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found_and_named(filled: Path, name: str):
    plant, found = PLANTED[name]
    plant(filled)
    faults = verify_directory(filled).faults
    assert [fault for fault in faults if found in fault], faults
    assert all(str(filled / "data.mdb") in fault for fault in faults)


def test_many_faults_are_counted_and_each_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = open_store(tmp_path)
    store.commit([append(1, [noop()] * 300)])
    store.close()
    put(tmp_path, "epochs", *layout.pack_epoch((1, Epoch(2, "n2"))))
    monkeypatch.setattr(verify, "STEP_BYTES", 1000)
    faults = verify_directory(tmp_path).faults
    assert len(faults) == verify.FAULTS_MAX + 1
    assert "200 more faults" in faults[-1]


def test_rows_behind_the_position_are_not_counted_as_delivered(filled: Path):
    PLANTED["a position behind the rows"][0](filled)
    assert verify_directory(filled).delivered == 6


def test_what_was_delivered_before_the_damage_is_still_counted(filled: Path):
    put(filled, "log", layout.index_key(7), b"\0" * 40)
    report = verify_directory(filled)
    assert report[:5] == (9, 302, 7, 2, b"")


# --- in a child -----------------------------------------------------------------------------------


def test_a_child_reports_what_the_parent_would(filled: Path):
    progress: list[tuple[int, int]] = []
    assert verify_in_child(filled, lambda *counts: progress.append(counts)) == verify_directory(
        filled
    )
    assert progress == [(9, 9)]
    PLANTED["a row of another count"][0](filled)
    report = verify_in_child(filled)
    assert report.faults
    assert report == verify_directory(filled)


def test_a_child_verifies_a_store_that_this_process_has_open(filled: Path):
    store = open_store(filled)
    with pytest.raises(StoreInUse):
        verify_directory(filled)
    assert verify_in_child(filled).faults == ()
    store.commit([Batch([StoredWrite(Epoch(9, "n2"))])])


def test_a_directory_without_a_store_is_refused_through_the_child(tmp_path: Path):
    for verifier in (verify_directory, verify_in_child):
        with pytest.raises(WrongStore, match="holds no store"):
            verifier(tmp_path)


def test_a_store_that_cannot_be_read_is_refused_through_the_child(filled: Path):
    (filled / "lock.mdb").unlink()
    (filled / "lock.mdb").mkdir()
    for verifier in (verify_directory, verify_in_child):
        with pytest.raises(StoreError, match="cannot be opened"):
            verifier(filled)


@pytest.mark.parametrize(
    ("last_words", "ending"),
    [
        ("os.kill(os.getpid(), 7)", "was killed by signal 7, Bus error"),
        ("os._exit(3)", "failed with status 3"),
    ],
)
def test_the_death_of_the_child_is_a_fault(
    filled: Path, monkeypatch: pytest.MonkeyPatch, last_words: str, ending: str
):
    dying = f"""import os; print('{{"progress": [5, 9]}}', flush=True); {last_words}"""
    popen = subprocess.Popen
    monkeypatch.setattr(
        subprocess,
        "Popen",
        lambda command, **options: popen([sys.executable, "-c", dying], **options),
    )
    report = verify_in_child(filled)
    (fault,) = report.faults
    assert f"after 5 entries the verifier {ending}" in fault
    assert report.entries == 5


@pytest.mark.parametrize("seed", range(4))
def test_damaged_pages_are_a_fault_whatever_lmdb_makes_of_them(tmp_path: Path, seed: int):
    store = open_store(tmp_path)
    data = [run_entry("n1", 5, index, [bytes([index % 251]) * 700]) for index in range(300)]
    batch, _ = deliver(store.position(), data)
    store.commit([append(1, data), batch])
    used_bytes = store.usage().file_bytes
    store.close()
    page = 4096
    with (tmp_path / "data.mdb").open("r+b") as file:
        for place in range(2 * page + seed * page, used_bytes, 4 * page):
            file.seek(place)
            file.write(bytes([place // page % 256, seed]) * 30)
    assert verify_in_child(tmp_path).faults


def children() -> set[str]:
    """Process ids of this process's children, the unreaped ones included."""
    lists = Path("/proc/self/task").glob("*/children")
    return {child for one in lists for child in one.read_text().split()}


INTERRUPT_ALL = """
import os, signal, sys
from replog.store.verify import verify_in_child
os.setpgid(0, 0)
signal.signal(signal.SIGINT, lambda *_: None)
print(verify_in_child(sys.argv[1], lambda *_: os.killpg(0, signal.SIGINT)).faults)
"""


def test_an_interrupt_of_the_terminal_does_not_reach_the_verifier(filled: Path):
    assert printed(INTERRUPT_ALL, filled) == "()\n"


def test_an_interrupted_verification_leaves_no_child_behind(filled: Path):
    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    before = children()
    with pytest.raises(KeyboardInterrupt):
        verify_in_child(filled, interrupt)
    assert children() == before
