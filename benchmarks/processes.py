"""Child processes of a benchmark: each is ended and reaped, whatever happens."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[1]
END_SECONDS_MAX = 10.0


class ChildFailed(Exception):
    """A child process died, said nothing in time, or answered with an error."""


class Child:
    """A Python module of ours in a process of its own, spoken to through its pipes.

    It ends when its standard input does, so it does not outlive this process.
    """

    def __init__(self, module: str, arguments: Sequence[str], log: Path) -> None:
        self._log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
            )
        if self._process.stdin is None or self._process.stdout is None:
            raise ChildFailed("a child was started without pipes")
        self._stdin = self._process.stdin
        self._stdout = self._process.stdout
        self._unread = b""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def input_fd(self) -> int:
        """For exchanges in which every microsecond counts."""
        return self._stdin.fileno()

    @property
    def output_fd(self) -> int:
        """For exchanges in which every microsecond counts."""
        return self._stdout.fileno()

    def ask(self, command: dict[str, Any], seconds_max: float = 10.0) -> dict[str, Any]:
        """Send one command and wait for its answer, both a line of JSON. Raises `ChildFailed`."""
        self.tell(command)
        return self.answer(seconds_max)

    def tell(self, command: dict[str, Any]) -> None:
        """Send one command."""
        try:
            self._stdin.write(json.dumps(command).encode() + b"\n")
        except BrokenPipeError:
            self._fail("is gone")

    def answer(self, seconds_max: float = 10.0) -> dict[str, Any]:
        """The next answer. Raises `ChildFailed` when it does not come in time, or is an error."""
        deadline = time.monotonic() + seconds_max
        while b"\n" not in self._unread:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not select.select([self._stdout], [], [], remaining)[0]:
                self._fail(f"said nothing for {seconds_max} s")
            received = os.read(self.output_fd, 1 << 16)
            if not received:
                self._fail("ended")
            self._unread += received
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            self._fail(f"answered: {answer['error']}")
        return answer

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._process.kill()
        self._process.wait()
        self._stdin.close()
        self._stdout.close()

    def end(self) -> None:
        """Ask it to end by closing its input; kill it if it does not. Idempotent."""
        self._stdin.close()
        try:
            self._process.wait(END_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stdout.close()

    def _fail(self, what: str) -> None:
        errors = self._log.read_text(errors="replace").strip()
        raise ChildFailed(f"a child process {what}\n{errors[-2000:]}".strip())


def end_all(children: Sequence[Child]) -> None:
    """End every child, the later ones also when an earlier one makes trouble."""
    if children:
        try:
            children[0].end()
        finally:
            end_all(children[1:])
