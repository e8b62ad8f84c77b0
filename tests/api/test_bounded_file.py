"""A log that drops what is old: its file does not grow with what is appended."""

from __future__ import annotations

from pathlib import Path

import replog
from benchmarks.load import fill
from replog import Retention
from replog.agreement import Agreement
from replog.store.directory import DATA_FILE, STRETCH_BYTES

KEPT_BYTES = 4_000_000
APPENDED_BYTES = 60_000_000
STEPS = 12


def test_the_file_of_a_bounded_log_stays_bounded(tmp_path: Path, layer: Agreement) -> None:
    retention = Retention(bytes_max=KEPT_BYTES)
    file = tmp_path / "n1" / DATA_FILE
    blocks: list[int] = []
    with replog.open(tmp_path / "n1", agreement=layer, retention=retention) as log:
        for _ in range(STEPS):
            fill(log, fill_bytes=APPENDED_BYTES // STEPS, record_bytes=[1024], outstanding=4)
            found = file.stat()
            blocks.append(found.st_blocks * 512)
            # The end of the file is sparse: it is stretched ahead of what is written.
            assert found.st_size <= 5 * KEPT_BYTES + 2 * STRETCH_BYTES
    # Opened without a retention, it drops nothing more, and so nothing that is about to be read.
    with replog.open(tmp_path / "n1", agreement=layer) as log:
        kept = sum(len(record.data) for record in log.read())
        assert 0 < kept < 4 * KEPT_BYTES
        assert log.end_offset * 1024 >= APPENDED_BYTES
    assert KEPT_BYTES < max(blocks) < 5 * KEPT_BYTES
