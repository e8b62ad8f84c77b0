"""One node of a measured cluster: a program that opens a log and does as it is told.

Its argument is JSON (directory, node, members, agreement); each line of its input is a command,
answered with one line. It ends when its input does.
"""

from __future__ import annotations

import json
import sys
import traceback
from typing import TYPE_CHECKING, Any

import replog
from benchmarks import load
from replog.agreements import load_agreement

if TYPE_CHECKING:
    from replog import ReplicatedLog


def answer(log: ReplicatedLog, command: dict[str, Any]) -> dict[str, Any]:
    """Carry out one command."""
    match command.pop("command"):
        case "status":
            return status(log)
        case "single appends":
            return load.single_appends(log, **command)._asdict()
        case "runs":
            return load.runs(log, **command)._asdict()
        case "paced":
            return {"moments": load.paced(log, **command)}
        case "one by one":
            return {"durations_us": load.one_by_one_us(log, **command)}
        case "awaited one by one":
            return {"durations_us": load.awaited_one_by_one_us(log, **command)}
        case unknown:
            raise ValueError(f"no command {unknown!r}")


def status(log: ReplicatedLog) -> dict[str, Any]:
    """What the other side must know of this node."""
    seen = log.status()
    return {
        "role": seen.leadership.role,
        "leader": seen.leadership.leader,
        "term": seen.leadership.epoch.number,
        "introduced": seen.introduced,
        "applied_index": seen.applied_index,
        "end_offset": seen.end_offset,
        "digest": seen.digest.hex(),
        "drops": dict(seen.drops),
        "alarm": seen.alarm,
    }


def main() -> None:
    given = json.loads(sys.argv[1])
    with replog.open(
        given["directory"],
        node=given["node"],
        members=given["members"],
        agreement=load_agreement(given["agreement"]),
    ) as log:
        for line in sys.stdin:
            try:
                said = answer(log, json.loads(line))
            except Exception as error:  # noqa: BLE001 - the other side must hear of any
                traceback.print_exc()
                said = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
