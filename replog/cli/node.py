"""`replog node`: run one member."""

from __future__ import annotations

import os
import signal
import threading
from datetime import datetime
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import click

from replog.agreements import DEFAULT_AGREEMENT, load_agreement
from replog.cli.base import (
    Command,
    agreement_option,
    cluster_option,
    directory_argument,
    json_option,
    print_json,
    print_text,
)
from replog.cli.machine import METAVAR, load_machine
from replog.cli.owner import stored_owner
from replog.errors import Closed, NodeStopped

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from replog.log import ReplicatedLog
    from replog.machine import Machine
    from replog.replica.effects import Status
    from replog.retention import Retention, SnapshotEvery

WATCH_SECONDS = 0.1
"""How often a node looks whether its state has changed, to print it."""

STANDARD_INPUT = 0

Stops = SimpleQueue[str]
"""Why the node is to stop; filled by signals, the control socket and the end of input."""


def parse_members(
    _context: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    """`ID=ADDRESS`, many times."""
    members: dict[str, str] = {}
    for value in values:
        name, equals, address = value.partition("=")
        if not (name and equals and address):
            raise click.BadParameter(f"{value!r} is not ID=ADDRESS, as in n1=tcp://127.0.0.1:7001")
        if name in members:
            raise click.BadParameter(f"{name} is given twice")
        members[name] = address
    return members


def parse_settings(
    _context: click.Context, _option: click.Parameter, given: tuple[str, ...]
) -> dict[str, int]:
    """`NAME=NUMBER`, many times."""
    settings: dict[str, int] = {}
    for text in given:
        name, _, number = text.partition("=")
        if not name.isidentifier() or not number.isascii() or not number.isdigit():
            raise click.BadParameter(f"{text!r} is not NAME=NUMBER, such as heartbeat_ms=20")
        settings[name] = int(number)
    return settings


members_option = click.option(
    "--member",
    "members",
    metavar="ID=ADDRESS",
    multiple=True,
    callback=parse_members,
    help="A member and its address, as n1=tcp://127.0.0.1:7001; once for each, this node too. "
    "Without any the log is local to this node.",
)
settings_option = click.option(
    "--set",
    "settings",
    metavar="NAME=NUMBER",
    multiple=True,
    callback=parse_settings,
    help="A setting of the agreement layer, as heartbeat_ms=20. Quorums: the same on every node.",
)


def bound_option(flag: str, name: str, text: str) -> Callable[[Any], Any]:
    """An option that bounds what is kept, or says when."""
    return click.option(flag, name, metavar="N", type=click.IntRange(min=1), help=text)


@click.command(cls=Command)
@directory_argument
@click.option("--node", "name", metavar="ID", help="This node's id. [default: the stored one, n1]")
@members_option
@agreement_option
@settings_option
@cluster_option
@bound_option("--keep-records", "records_max", "Keep the newest N records. [default: all]")
@bound_option("--keep-bytes", "bytes_max", "Keep about N bytes of entries.")
@bound_option("--keep-ms", "age_ms_max", "Keep records for N milliseconds.")
@click.option(
    "--machine",
    metavar=METAVAR,
    help="Feed a state machine, as replog.machines:KeyValue. With one the log is compacted only "
    "behind snapshots of it: give --snapshot-records or --snapshot-bytes too.",
)
@bound_option("--snapshot-records", "snapshot_records", "Keep its state every N records.")
@bound_option("--snapshot-bytes", "snapshot_bytes", "Keep its state every N bytes of records.")
@click.option(
    "--plaintext", is_flag=True, help="Listen on an address that other machines can reach."
)
@click.option(
    "--stop-with-input", is_flag=True, help="Stop when standard input ends, as when a parent dies."
)
@json_option
def node(
    *,
    directory: Path,
    name: str | None,
    members: dict[str, str],
    agreement: str | None,
    settings: dict[str, int],
    cluster: str,
    machine: str | None,
    plaintext: bool,
    stop_with_input: bool,
    as_json: bool,
    **bounds: int | None,
) -> None:
    """Run one member in the foreground, until SIGTERM, Ctrl-C or a stop on its control socket.

    An empty DIR is bootstrapped with the members given; later the ids must be the same and the
    addresses may differ.
    """
    import replog

    retention, snapshots = _policies(bounds, has_machine=machine is not None)
    made = None if machine is None else load_machine(machine)
    stops: Stops = SimpleQueue()
    if stop_with_input:
        threading.Thread(target=_await_end_of_input, args=(stops,), daemon=True).start()
    stored = None
    if name is None or agreement is None:
        owner = stored_owner(directory)
        stored = owner[0] if owner else None
    log = replog.open(
        directory,
        agreement=load_agreement(
            agreement or (stored.agreement if stored else DEFAULT_AGREEMENT), settings
        ),
        node=name or (stored.node if stored else "n1"),
        members=members or None,
        cluster=cluster,
        retention=retention,
        snapshots=snapshots,
        plaintext=plaintext,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: stops.put(signal.Signals(number).name))
    try:
        if made is not None:
            log.attach(made)
        _serve(log, made, directory, stops, as_json=as_json)
    finally:
        log.close()


def _policies(
    bounds: Mapping[str, int | None], *, has_machine: bool
) -> tuple[Retention | None, SnapshotEvery | None]:
    from replog.retention import Retention, SnapshotEvery

    retention = None
    if any(bounds[name] for name in ("records_max", "bytes_max", "age_ms_max")):
        retention = Retention(
            records_max=bounds["records_max"],
            bytes_max=bounds["bytes_max"],
            age_ms_max=bounds["age_ms_max"],
        )
    records, size = bounds["snapshot_records"], bounds["snapshot_bytes"]
    if records is None and size is None:
        return retention, None
    if not has_machine:
        raise click.UsageError("give --machine too: a snapshot keeps the state of a machine")
    return retention, SnapshotEvery(records=records, bytes=size)


def _serve(
    log: ReplicatedLog, machine: Machine | None, directory: Path, stops: Stops, *, as_json: bool
) -> None:
    from replog.control import ControlServer

    server = ControlServer(log, directory, lambda: stops.put("a request"))
    watch = Watch(log, directory, as_json=as_json)
    try:
        reason = watch.run(stops)
    finally:
        # The log first: then whatever is open has its outcome, and the server answers it.
        log.close()
        server.close()
    text = f"stopped by {reason}"
    fields: dict[str, Any] = {"reason": reason}
    if machine is not None:
        offset, digest = log.applied_offset, None
        text += f"; the machine is at offset {offset}"
        if not watch.machine_failure:
            digest = machine.digest().hex()
            text += f", digest {digest}"
        failure = watch.machine_failure
        fields["machine"] = {"offset": offset, "digest": digest, "failure": failure}
    _print(as_json, "stopped", text, fields)


class Watch:
    """Prints what happens to a node, until it is to stop."""

    def __init__(self, log: ReplicatedLog, directory: Path, *, as_json: bool) -> None:
        self._log = log
        self._directory = directory
        self._as_json = as_json
        self._said = ""
        self.machine_failure = ""
        """Why the machine of the log takes no more records; empty while it does."""

    def run(self, stops: Stops) -> str:
        """Wait for a reason to stop. Raises what stopped the node by itself."""
        status = self._status()
        fields = {"node": status.node, "directory": str(self._directory), "pid": os.getpid()}
        text = f"{status.node} runs in {self._directory} as process {os.getpid()}"
        _print(self._as_json, "running", text, fields)
        while True:
            self._print_change(status)
            try:
                return stops.get(timeout=WATCH_SECONDS)
            except Empty:
                pass
            try:
                status = self._status()
            except TimeoutError:
                continue  # the process was paused

    def _status(self) -> Status:
        try:
            return self._log.status()
        except (Closed, NodeStopped) as error:
            raise error.__cause__ or error from None

    def _print_change(self, status: Status) -> None:
        role, leader, epoch, _ = status.leadership
        self.machine_failure = status.machine.failure if status.machine else ""
        if not status.introduced:
            text = f"{status.node} waits for the other members: a first start needs all of them"
        elif leader == status.node:
            text = f"{status.node} leads epoch {epoch.number}"
        elif leader is not None:
            text = f"{status.node} follows {leader} in epoch {epoch.number}"
        else:
            text = f"{status.node} knows no leader in epoch {epoch.number}"
        if status.alarm:
            text += f"; ALARM: {status.alarm}"
        if self.machine_failure:
            text += f"; the machine stopped: {self.machine_failure}"
        if text == self._said:
            return
        self._said = text
        fields: dict[str, Any] = {
            "node": status.node,
            "role": role,
            "leader": leader,
            "epoch": epoch.number,
            "introduced": status.introduced,
            "alarm": status.alarm,
            "machine_failure": self.machine_failure,
        }
        _print(self._as_json, "state", text, fields)


def _print(as_json: bool, event: str, text: str, fields: dict[str, Any]) -> None:
    if as_json:
        print_json({"event": event, **fields})
    else:
        print_text(f"{datetime.now().astimezone():%H:%M:%S} {text}")


def _await_end_of_input(stops: Stops) -> None:
    # Not through sys.stdin: its lock, held by a thread at the end of the process, would break that.
    while os.read(STANDARD_INPUT, 1 << 16):
        pass
    stops.put("the end of its input")
