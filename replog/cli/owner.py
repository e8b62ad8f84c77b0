"""Whose log lies in a directory, and the node that runs there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replog.errors import WrongStore

if TYPE_CHECKING:
    from pathlib import Path

    from replog.control import ControlClient
    from replog.membership import Membership
    from replog.store.interface import Identity


def stored_owner(directory: Path) -> tuple[Identity, Membership] | None:
    """Whose store lies in a directory; None when there is none."""
    from replog.log_reader import LogReader

    try:
        with LogReader(directory) as reader:
            return reader.identity, reader.membership
    except WrongStore:
        return None


def running_node(directory: Path) -> ControlClient | None:
    """A connection to the node that runs in a directory; None when none does. Raises `NodeSilent`
    for one that does not answer."""
    from replog.control import ControlClient, NodeNotRunning, NodeSilent

    try:
        return ControlClient(directory)
    except NodeSilent:
        raise
    except NodeNotRunning:
        return None
