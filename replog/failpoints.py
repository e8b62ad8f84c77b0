"""Named points at which a test makes a running node crash, fail or wait.

    REPLOG_FAILPOINTS='writer: before a commit=crash@3; node: before a send=delay:20%10'

means: kill this process the third time it comes to the first point, and hold it 20 ms every tenth
time at the second. Actions:

=============  =====================================================================================
`crash`        the process dies at once, as by SIGKILL: nothing is flushed, nothing is closed
`error`        `FailpointError`, an `OSError`, is raised
`delay:MS`     the thread that came there waits
=============  =====================================================================================

`@N` acts at the N-th time only, `%N` at every N-th; without either at the first.

Rules of this file:

1. A point that the environment does not name costs a look into an empty dictionary.
2. Whatever acts says so first, on standard error: `failpoint NAME ACTION`.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from typing import NamedTuple

from replog.errors import ConfigError

VARIABLE = "REPLOG_FAILPOINTS"
POINTS = (
    "open: before the life is written",
    "open: after the life is written",
    "writer: before a commit",
    "writer: inside a transaction",
    "writer: after a commit",
    "node: before a send",
    "node: after a send",
    "node: before answers",
    "node: after answers",
    "node: before a batch is queued",
    "node: after a step",
    "machine: before apply",
    "machine: after apply",
    "close: before the last position",
    "close: before the store closes",
    "close: before the transport closes",
)
"""Every persist, send, apply and shutdown step."""
SNAPSHOT_POINTS = (
    "snapshot: before a piece is staged",
    "snapshot: before it is read back",
    "snapshot: before it is sealed",
    "machine: before restore",
    "machine: after restore",
    "node: before a step of compaction is queued",
    "node: before an install is queued",
    "node: before an install is told",
)
"""And the steps of a snapshot that is taken or installed, and of a log that is dropped."""
ALL_POINTS = (*POINTS, *SNAPSHOT_POINTS)
_RULE = re.compile(r"([^=;]+)=(crash|error|delay:(\d{1,6}))(?:([@%])(\d{1,9}))?")


class FailpointError(OSError):
    """What the action `error` raises."""


class Rule(NamedTuple):
    """What happens at one point, and when."""

    action: str
    delay_ms: int
    every: bool
    number: int


def parse(text: str) -> dict[str, Rule]:
    """The rules of an environment variable. Raises `ConfigError`."""
    rules: dict[str, Rule] = {}
    for part in filter(None, map(str.strip, text.split(";"))):
        found = _RULE.fullmatch(part)
        if found is None or found[1] not in ALL_POINTS:
            points = ", ".join(ALL_POINTS)
            raise ConfigError(f"{VARIABLE}: {part!r} is no rule for one of {points}")
        if found[1] in rules:
            raise ConfigError(f"{VARIABLE}: {found[1]!r} is named twice")
        number = int(found[5] or 1)
        if number < 1:
            raise ConfigError(f"{VARIABLE}: {part!r} counts from 1")
        rules[found[1]] = Rule(found[2], int(found[3] or 0), found[4] == "%", number)
    return rules


_armed = parse(os.environ.get(VARIABLE, ""))
_reached = dict.fromkeys(ALL_POINTS, 0)
_lock = threading.Lock()


def reach(point: str) -> None:
    """The calling thread has come to a point. Raises `FailpointError` where that is the action."""
    rule = _armed.get(point)
    if rule is None:
        return
    with _lock:
        _reached[point] += 1
        reached = _reached[point]
    if reached % rule.number if rule.every else reached != rule.number:
        return
    sys.stderr.write(f"failpoint {point} {rule.action}\n")
    sys.stderr.flush()
    if rule.action == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if rule.action == "error":
        raise FailpointError(f"failpoint {point}")
    time.sleep(rule.delay_ms / 1000)
