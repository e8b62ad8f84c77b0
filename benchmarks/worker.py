"""One node of a measured cluster: a program that opens a log and does as it is told.

Its argument is JSON (directory, node, members, agreement; retention and state_bytes, of a machine
to attach, may be left out); each line of its input is a command, answered with one line. It ends
when its input does.
"""

from __future__ import annotations

import json
import sys
import traceback
from typing import Any, NamedTuple

import replog
from benchmarks import load
from benchmarks.state import LargeState
from replog import ReplicatedLog, Retention
from replog.agreements import load_agreement

SECONDS_MAX = 600.0


class Node(NamedTuple):
    """What this process runs."""

    log: ReplicatedLog
    machine: LargeState | None
    steady: load.Steady


def answer(node: Node, command: dict[str, Any]) -> dict[str, Any]:
    """Carry out one command."""
    log = node.log
    match command.pop("command"):
        case "status":
            return status(log)
        case "machine":
            return machine_status(node)
        case "fill":
            return {"first_offset": load.fill(log, **command)}
        case "snapshot":
            kept = log.snapshot().result(SECONDS_MAX)
            return {"bytes": 0 if kept is None else kept.size}
        case "begin steady":
            node.steady.begin(**command)
            return {}
        case "end steady":
            return node.steady.end()._asdict()
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


def machine_status(node: Node) -> dict[str, Any]:
    """How far the machine has come."""
    if node.machine is None:
        raise ValueError("this node has no machine")
    seen = node.log.status()
    return {
        "count": node.machine.count,
        "restored": node.machine.restored,
        "failure": seen.machine.failure if seen.machine else "",
        "first_offset": seen.first_offset,
        "end_offset": seen.end_offset,
        "snapshot_bytes": seen.snapshot.size if seen.snapshot else 0,
    }


def main() -> None:
    given = json.loads(sys.argv[1])
    retention = given.get("retention")
    state_bytes = given.get("state_bytes")
    with replog.open(
        given["directory"],
        node=given["node"],
        members=given["members"],
        agreement=load_agreement(given["agreement"]),
        retention=Retention(**retention) if retention else None,
    ) as log:
        machine = log.attach(LargeState(state_bytes)) if state_bytes else None
        node = Node(log, machine, load.Steady(log))
        for line in sys.stdin:
            try:
                said = answer(node, json.loads(line))
            except Exception as error:  # noqa: BLE001 - the other side must hear of any
                traceback.print_exc()
                said = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
