"""Nodes as processes on this machine.

Rules of this file:

1. Every process that is started is ended and reaped, at the latest when the cluster is left. A node
   also ends by itself when its standard input does: when whoever started it is gone.
2. Everything waited for has a time limit.
3. Ports lie outside the range from which the system takes those of connecting sockets: else a
   peer's attempts to reconnect may take the port of a node that is down.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from replog.control import ControlClient, NodeNotRunning
from replog.errors import ReplogError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

NAMES = ("n1", "n2", "n3")
HOST = "127.0.0.1"
PORT_MIN = 10_000
PORT_MAX = 65_535
PORT_ATTEMPTS_MAX = 1000
CONNECTING_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
CONNECTING_PORTS_DEFAULT = (32_768, 60_999)

START_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 30.0
ATTEMPT_SECONDS = 0.02
PROGRAM = ("-m", "replog")
OUTPUT_LINES_SHOWN = 5


class ClusterFailed(ReplogError):
    """A node of the cluster does not do what it must; the message names it and what it printed."""


class Member:
    """One node: its directory, its process while there is one, and a connection to it."""

    def __init__(self, name: str, directory: Path, command: Sequence[str]) -> None:
        self.name = name
        self.directory = directory
        self.output = directory.with_name(f"{name}.out")
        """What its processes have printed."""
        self.client: ControlClient | None = None
        """The connection to the running process; it may have ended."""
        self._command = command
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def runs(self) -> bool:
        """Whether its process is there, be it paused."""
        return self._child is not None and self._child.poll() is None

    @property
    def exit_status(self) -> int | None:
        """Of the last process; negative for the signal that killed it."""
        return None if self._child is None else self._child.poll()

    @property
    def pid(self) -> int:
        """Of the running process."""
        if self._child is None:
            raise ClusterFailed(f"{self.name} was never started")
        return self._child.pid

    def start(self, environment: Mapping[str, str] | None = None) -> None:
        """Start a process, with these variables beside this process's own; `connect` then waits
        until it serves."""
        path = [entry or str(Path.cwd()) for entry in sys.path]
        with self.output.open("ab") as output:
            self._child = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path), **(environment or {})},
                start_new_session=True,
            )

    def connect(self, seconds_max: float = START_SECONDS_MAX) -> ControlClient:
        """Connect to the process once it serves. Raises `ClusterFailed`."""
        give_up = time.monotonic() + seconds_max
        while (client := self.try_to_connect()) is None:
            if time.monotonic() > give_up:
                raise ClusterFailed(self.said(f"does not serve within {seconds_max} s"))
            time.sleep(ATTEMPT_SECONDS)
        return client

    def try_to_connect(self) -> ControlClient | None:
        """Connect if the process serves already. Raises `ClusterFailed` when it has ended."""
        self._disconnect()
        try:
            self.client = ControlClient(self.directory)
        except NodeNotRunning as error:
            if not self.runs:
                raise ClusterFailed(self.said(f"ended with status {self.exit_status}")) from error
        return self.client

    def kill(self) -> None:
        """SIGKILL, and wait for the end. The connection stays, to tell what it still knows."""
        self._signal(signal.SIGKILL)
        self._reap(STOP_SECONDS_MAX)

    def pause(self) -> None:
        """SIGSTOP."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """Ask the node to stop and wait for its end. Raises `ClusterFailed` for a bad exit."""
        try:
            (self.client or self.connect()).stop(STOP_SECONDS_MAX)
            status = self.wait(STOP_SECONDS_MAX)
        except (TimeoutError, NodeNotRunning) as error:
            raise ClusterFailed(self.said(f"did not stop: {error}")) from error
        if status != 0:
            raise ClusterFailed(self.said(f"stopped with exit status {status}"))

    def wait(self, seconds_max: float) -> int:
        """Wait for the end of the process; its exit status. Raises `ClusterFailed`."""
        try:
            return self._reap(seconds_max)
        except subprocess.TimeoutExpired as error:
            raise ClusterFailed(self.said(f"runs on after {seconds_max} s")) from error

    def end(self) -> None:
        """Whatever is left: kill, reap, disconnect. Never raises for a process that is gone."""
        if self._child is not None:
            self._child.kill()
            self._reap(STOP_SECONDS_MAX)
        self._disconnect()

    def last_event(self, event: str) -> dict[str, Any]:
        """What its processes, run with `--json`, printed last of this event; {} for nothing."""
        with self.output.open("rb") as output:
            for line in reversed(output.readlines()):
                with suppress(ValueError):
                    fields = json.loads(line)
                    if isinstance(fields, dict) and fields.get("event") == event:
                        return fields
        return {}

    def said(self, what: str) -> str:
        """A sentence about this member, with the last lines it printed."""
        text = self.output.read_text("utf-8", "replace") if self.output.exists() else ""
        lines = text.splitlines()[-OUTPUT_LINES_SHOWN:]
        return "\n    ".join([f"{self.name} {what}", *lines])

    def _signal(self, number: int) -> None:
        if self._child is None or not self.runs:
            raise ClusterFailed(self.said("does not run"))
        self._child.send_signal(number)

    def _reap(self, seconds_max: float) -> int:
        if self._child is None:
            raise ClusterFailed(f"{self.name} was never started")
        status = self._child.wait(seconds_max)
        if self._child.stdin is not None:
            self._child.stdin.close()
        return status

    def _disconnect(self) -> None:
        if self.client is not None:
            self.client.close()
            self.client = None


Route = Callable[[str, str, str], str]
"""Of a node, another, and that one's own address: the address under which the first reaches it."""


class LocalCluster:
    """Three nodes, or as many as there are names, each a process; a context manager."""

    def __init__(
        self,
        root: Path,
        *,
        names: Sequence[str] = NAMES,
        agreement: str,
        options: Mapping[str, Sequence[str]] | None = None,
        program: Sequence[str] = PROGRAM,
        route: Route | None = None,
    ) -> None:
        """Nothing is started yet. Directories are `root/name`; `options` are added to the command
        of the node they are for. `program` is what Python runs in place of `replog`; `route` says
        where a node reaches each other one, when that is not the other's own address."""
        self._program = program
        self._route = route
        self.addresses = dict(zip(names, free_addresses(len(names)), strict=True))
        self.members = {
            name: Member(
                name,
                root / name,
                self.command(name, root / name, agreement, (options or {}).get(name, ())),
            )
            for name in names
        }

    def command(
        self, name: str, directory: Path, agreement: str, options: Sequence[str] = ()
    ) -> list[str]:
        """The command that runs a node."""
        members = [f"--member={other}={self._reached(name, other)}" for other in self.addresses]
        return [
            *(sys.executable, "-P", *self._program, "node", str(directory), f"--node={name}"),
            *(f"--agreement={agreement}", "--stop-with-input", *members, *options),
        ]

    def _reached(self, name: str, other: str) -> str:
        """Where a node reaches another."""
        if self._route is None or name == other:
            return self.addresses[other]
        return self._route(name, other, self.addresses[other])

    def start(self) -> None:
        """Start all and wait until each serves. Raises `ClusterFailed`."""
        for member in self:
            member.start()
        for member in self:
            member.connect()

    def __getitem__(self, name: str) -> Member:
        return self.members[name]

    def __iter__(self) -> Iterator[Member]:
        return iter(self.members.values())

    def leader(self, seconds_max: float = START_SECONDS_MAX) -> Member:
        """The member that leads and is followed by a majority. Raises `ClusterFailed`."""
        found: list[Member] = []

        def is_led() -> bool:
            seen = [self._status(member) for member in self]
            leaders = [status["leader"] for status in seen if status]
            for member, status in zip(self, seen, strict=True):
                if status and status["role"] == "leader":
                    followers = leaders.count(member.name)
                    if 2 * followers > len(self.members):
                        found.append(member)
            return bool(found)

        self.wait_until(is_led, "the cluster has no leader", seconds_max)
        return found[0]

    def wait_until(
        self, condition: Callable[[], bool], otherwise: str, seconds_max: float = START_SECONDS_MAX
    ) -> None:
        """Wait for a condition. Raises `ClusterFailed` with the text `otherwise`."""
        give_up = time.monotonic() + seconds_max
        while not condition():
            if time.monotonic() > give_up:
                raise ClusterFailed(f"{otherwise} after {seconds_max} s")
            time.sleep(ATTEMPT_SECONDS)

    def is_even(self) -> bool:
        """Whether all nodes have delivered the same log and wait for nothing."""
        seen = [self._status(member) for member in self]
        ends = {(status["end_offset"], status["digest"]) for status in seen if status}
        return all(seen) and len(ends) == 1

    def is_applied(self) -> bool:
        """Whether every node's machine has taken all that the node has delivered. Raises
        `ClusterFailed` when one has stopped, or there is none."""
        applied = 0
        for member in self:
            status = self._status(member)
            if status is None:
                continue
            machine = status["machine"]
            if machine is None:
                raise ClusterFailed(member.said("feeds no machine"))
            if machine["failure"]:
                raise ClusterFailed(
                    member.said(f"has a machine that stopped: {machine['failure']}")
                )
            applied += machine["offset"] == status["end_offset"]
        return applied == len(self.members)

    def stop(self) -> None:
        """Stop all that run, cleanly. Raises `ClusterFailed`."""
        for member in self:
            if member.runs:
                member.stop()

    def end(self) -> None:
        """Leave no process behind."""
        with ExitStack() as endings:
            for member in self:
                endings.callback(member.end)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.end()

    def _status(self, member: Member) -> dict[str, Any] | None:
        if member.client is None or member.client.ended:
            return None
        try:
            return member.client.status(1.0)
        except (ReplogError, TimeoutError):
            return None


def free_addresses(count: int) -> list[str]:
    """Addresses on loopback that nobody listens on. Raises `ClusterFailed`."""
    try:
        low, high = map(int, CONNECTING_PORTS.read_text("ascii").split())
    except (OSError, ValueError):
        low, high = CONNECTING_PORTS_DEFAULT
    ports = [port for port in range(PORT_MIN, PORT_MAX + 1) if not low <= port <= high]
    random.shuffle(ports)
    addresses: list[str] = []
    with ExitStack() as taken:
        for port in ports[:PORT_ATTEMPTS_MAX]:
            listener = taken.enter_context(socket.socket())
            try:
                listener.bind((HOST, port))
            except OSError:
                continue
            addresses.append(f"tcp://{HOST}:{port}")
            if len(addresses) == count:
                return addresses
    raise ClusterFailed(f"no {count} free ports were found on {HOST}")
