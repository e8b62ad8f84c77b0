"""The control socket: how other processes reach a node that runs in a directory.

A node run by `replog node` serves `ipc://DIR/control`. `ControlServer` answers there on top of the
public log and nothing else; `ControlClient` is the other end. The words they share: `words`.
"""

from __future__ import annotations

from replog.control.client import ControlClient, KeptSnapshot, Reply, wait_for_any
from replog.control.server import ControlServer
from replog.control.words import NodeNotRunning, NodeSilent

__all__ = [
    "ControlClient",
    "ControlServer",
    "KeptSnapshot",
    "NodeNotRunning",
    "NodeSilent",
    "Reply",
    "wait_for_any",
]
