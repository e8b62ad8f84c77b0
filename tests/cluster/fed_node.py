"""`replog node` with a state machine attached, which the command itself has no option for.

The machine takes records in their order and holds their number; when it stops, that is printed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import replog
from replog.cli import main
from replog.machine import Record

STOPPED = "the machine stopped"
NEVER = 1 << 62
"""An offset that no log here reaches."""

open_log = replog.open


class Count:
    """How many records there are."""

    def __init__(self) -> None:
        self.records = 0

    def apply(self, records: Sequence[Record]) -> Sequence[int]:
        for record in records:
            if record.offset != self.records:
                raise ValueError(f"offset {record.offset} after {self.records} records")
            self.records += 1
        return [record.offset for record in records]

    def snapshot(self) -> Iterable[bytes]:
        return [b"%d" % self.records]

    def restore(self, pieces: Iterable[bytes]) -> None:
        self.records = int(b"".join(pieces))

    def digest(self) -> bytes:
        return b"%d" % self.records


def open_fed(*arguments: Any, **settings: Any) -> replog.ReplicatedLog:
    log = open_log(*arguments, **settings)
    log.attach(Count())
    log.applied(NEVER).add_done_callback(lambda _: print(STOPPED, flush=True))
    return log


if __name__ == "__main__":
    replog.open = open_fed
    main()
