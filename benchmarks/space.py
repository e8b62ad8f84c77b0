"""How large the file of a bounded log becomes under appends without an end.

One node keeps so many bytes of its log and drops the rest. Its file is looked at again and again
while many times as much is appended. LMDB never shrinks a file: what is dropped is used anew, as
far as the free pages lie where the next entry fits.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.cluster import NODES, Cluster
from benchmarks.results import Figure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

QUESTION = "space"
KEPT_BYTES = 100_000_000
APPENDED_BYTES = 5_000_000_000
STEPS = 50
"""How often the file is looked at."""
FILE_BYTES_MAX = 300_000_000
BLOCK_BYTES = 512
STEP_SECONDS_MAX = 120.0
MB = 1_000_000


class Sample(NamedTuple):
    """The file after a part of the appends."""

    appended_bytes: int
    file_bytes: int
    """Its length."""
    block_bytes: int
    """What it takes on the disk."""
    first_offset: int


class Mix(NamedTuple):
    """What is appended."""

    name: str
    record_bytes: tuple[int, ...]
    """In turn: a run of records of 128 KiB, or one larger record."""
    outstanding: int


MIXES = (
    Mix("1 KiB records", (1024,), 16),
    Mix("64 KiB records", (64 << 10,), 16),
    Mix("100 B and 1 MiB records in turn", (100, 1 << 20), 4),
)


def measure(
    directory: Path, agreements: Sequence[str], repeats: int, say: Callable[[str], None]
) -> list[Figure]:
    """Every mix, of each agreement."""
    figures = []
    for name in agreements:
        for number, mix in enumerate(MIXES):
            longest, blocks, rates, rounds = [], [], [], []
            for repeat in range(repeats):
                say(f"the file under {mix.name}, {name}")
                began = time.monotonic()
                samples = run(directory / f"space-{name}-{number}-{repeat}", name, mix)
                rates.append(APPENDED_BYTES / MB / (time.monotonic() - began))
                longest.append(max(sample.file_bytes for sample in samples) / MB)
                blocks.append(max(sample.block_bytes for sample in samples) / MB)
                rounds.append([sample._asdict() for sample in samples])
            for what, unit, values, bar in (
                ("longest file", "MB", longest, FILE_BYTES_MAX / MB),
                ("most blocks", "MB", blocks, None),
                ("appended", "MB/s", rates, None),
            ):
                figures.append(
                    Figure(
                        question=QUESTION,
                        name=f"{mix.name}: {what}",
                        unit=unit,
                        values=tuple(values),
                        agreement=name,
                        at_most=bar,
                        details={"rounds": rounds} if bar is not None else {},
                    )
                )
    return figures


def run(directory: Path, agreement: str, mix: Mix) -> list[Sample]:
    """Append to a bounded log of one node, and look at its file."""
    node = NODES[0]
    settings = {"retention": {"bytes_max": KEPT_BYTES}}
    samples = []
    with Cluster(directory, agreement, names=[node], **settings) as cluster:
        for step in range(STEPS):
            command = {
                "command": "fill",
                "fill_bytes": APPENDED_BYTES // STEPS,
                "record_bytes": mix.record_bytes,
                "outstanding": mix.outstanding,
            }
            first_offset = cluster.nodes[node].ask(command, STEP_SECONDS_MAX)["first_offset"]
            found = cluster.file(node).stat()
            appended = (step + 1) * (APPENDED_BYTES // STEPS)
            blocks = found.st_blocks * BLOCK_BYTES
            samples.append(Sample(appended, found.st_size, blocks, first_offset))
        cluster.agree()
    return samples
