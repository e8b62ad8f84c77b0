"""A writer killed at any moment loses nothing whose commit had returned."""

from __future__ import annotations

import random
from pathlib import Path

from replog.entry import Epoch
from replog.store.verify import verify_in_child
from tests.store.author import open_store, program, taken

WRITE_FOR_EVER = """
import sys
from pathlib import Path
from replog.entry import Epoch
from replog.store.interface import Batch, StoredWrite
from tests.store.author import append, deliver, open_store, run_entry

store = open_store(Path(sys.argv[1]))
restored = store.restore()
position, last = restored.position, restored.last_index
print("life", restored.identity.life, flush=True)
while True:
    # Each commit drops an entry that is not delivered, appends two of this life and delivers one.
    first = position.index + 1
    truncate_from = first if last >= first else None
    epoch = Epoch(restored.identity.life, "n1")
    data = [
        run_entry("n1", 1, position.offset, [b"%d" % index * 300]) for index in (first, first + 1)
    ]
    batch, position = deliver(position, data[:1])
    promise = Batch([StoredWrite(Epoch(restored.identity.life, f"n{first}"))])
    store.commit([promise, append(first, data, epoch, truncate_from), batch])
    last = first + 1
    print(first, position.offset, position.digest.hex(), flush=True)
"""


def test_nothing_committed_is_lost_when_the_writer_is_killed(tmp_path: Path):
    chance = random.Random(0)
    kept: dict[int, bytes] = {}
    life = 0
    for _ in range(5):
        with program(WRITE_FOR_EVER, tmp_path) as writer:
            assert writer.stdout is not None
            assert int(writer.stdout.readline().split()[1]) > life
            told = [writer.stdout.readline() for _ in range(chance.randrange(5, 60))]
            writer.kill()
            told += [
                line for line in writer.stdout.read().splitlines(keepends=True) if line[-1:] == "\n"
            ]
        for line in told:
            index, offset, digest = line.split()
            assert int(offset) == int(index)
            kept[int(index)] = bytes.fromhex(digest)

        report = verify_in_child(tmp_path)
        assert report.faults == ()
        assert report.delivered >= max(kept)
        store = open_store(tmp_path)
        restored = store.restore()
        assert restored.promise in {
            Epoch(restored.epochs[-1][1].number, f"n{index}")
            for index in (max(kept), max(kept) + 1)
        }
        assert restored.identity.life > life
        life = restored.identity.life
        assert {index: store.digest(index) for index in kept} == kept
        assert restored.last_index == restored.position.index + 1
        store.close()
    assert len(kept) > 50


STAGE_FOR_EVER = """
import sys
from pathlib import Path
from replog.store.interface import Batch
from tests.store.author import fill, open_store, stage, taken

store = open_store(Path(sys.argv[1]))
if not store.restore().last_index:
    fill(store)
    store.commit([stage(8, [b"four"]), Batch(sealed=taken(4, [b"four"]), compact_to=3)])
snapshot_id = 100
while True:
    store.commit([stage(snapshot_id, [bytes(50_000)] * 3)])
    snapshot_id += 2
    print(snapshot_id, flush=True)
"""


def test_a_crash_between_staging_and_sealing_leaves_nothing_of_the_snapshot(tmp_path: Path):
    chance = random.Random(1)
    used = []
    for _ in range(4):
        with program(STAGE_FOR_EVER, tmp_path) as writer:
            assert writer.stdout is not None
            for _ in range(chance.randrange(3, 9)):
                assert int(writer.stdout.readline()) > 100
            writer.kill()
        report = verify_in_child(tmp_path)
        assert report.faults == ()
        assert report.pieces > 9
        store = open_store(tmp_path)
        assert store.snapshot() == taken(4, [b"four"])
        assert store.piece(8, 1) == b"four"
        assert store.piece(100, 1) is None
        assert store.base() == taken(3).snapshot.base
        used.append(store.usage().file_bytes)
        store.close()
        assert verify_in_child(tmp_path).pieces == 1
    assert used[-1] <= used[0] + (8 << 20)
