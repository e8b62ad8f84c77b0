"""`replog snapshot`: keep the state of a machine now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from replog.cli.append import open_alone
from replog.cli.base import (
    Command,
    cluster_option,
    directory_argument,
    json_option,
    print_json,
    print_text,
)
from replog.cli.machine import METAVAR, load_machine
from replog.cli.owner import running_node
from replog.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from replog.control import ControlClient, KeptSnapshot
    from replog.log import ReplicatedLog


@click.command(cls=Command)
@directory_argument
@click.option(
    "--machine",
    metavar=METAVAR,
    help="Where no node runs: the machine whose state is kept, as replog.machines:KeyValue.",
)
@cluster_option
@json_option
def snapshot(*, directory: Path, machine: str | None, cluster: str, as_json: bool) -> None:
    """Keep the state of the machine of the log in DIR as of now, whatever the node's policy.

    The node that runs in DIR does it. Where none runs, a log of one node is opened here, and fed to
    the machine that is named. Without a machine it is a snapshot of the log alone: it says how far
    the log was, so that a retention may let go of what is below, and has no state.
    """
    running = running_node(directory)
    if running is not None:
        with running as client:
            kept = _kept_by_node(client, machine)
    else:
        made = None if machine is None else load_machine(machine)
        with open_alone(directory, cluster) as log:
            kept = _kept_here(log, made)
    if as_json:
        print_json({"directory": str(directory), "snapshot": kept and kept._asdict()})
    elif kept is None:
        print_text("nothing to keep: the log is empty")
    else:
        state = f"{kept.size} bytes in {kept.pieces} pieces" if kept.pieces else "without a state"
        print_text(f"snapshot of entry {kept.index}, at offset {kept.offset}: {state}")


def _kept_by_node(client: ControlClient, machine: str | None) -> KeptSnapshot | None:
    if machine is not None:
        raise ConfigError("a node runs there, with its own machine or none: leave out --machine")
    status = client.status()
    if status["machine"] is None:
        _check_no_state(status["snapshot"])
    return client.snapshot()


def _kept_here(log: ReplicatedLog, machine: Any) -> KeptSnapshot | None:
    from replog.control import KeptSnapshot

    if machine is None:
        found = log.status().snapshot
        _check_no_state(found and found._asdict())
    else:
        log.attach(machine)
        log.barrier().result()
        log.applied().result()
    kept = log.snapshot().result()
    if kept is None:
        return None
    return KeptSnapshot(kept.index, kept.position.offset, kept.size, kept.pieces)


def _check_no_state(newest: dict[str, Any] | None) -> None:
    """A snapshot without a state does not take the place of one that has one. Raises `ConfigError`
    where the newest has."""
    if newest is not None and newest["size"]:
        raise ConfigError(
            f"the newest snapshot, at offset {newest['offset']}, holds the state of a machine, "
            "whose place one without a state does not take: attach or name the machine"
        )
