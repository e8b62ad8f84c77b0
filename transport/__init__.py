"""Frames between peers.

This package moves opaque messages between the nodes of one cluster and knows no agreement: it never
looks inside a message, never retries, and may lose anything. It imports nothing of the packages
above it.

* `transport.interface`: what every transport owes its owner, and the errors it raises.
* `transport.frames`: the frame header, its strict decoding, and the gate every frame passes.
* `transport.address`: `tcp://host:port`, and which of them may be bound in plain text.
* `transport.zeromq`: the transport of real clusters.
* `transport.loopback`: the same contract inside one process.

It is private plumbing. Importing it loads neither `zmq` nor `msgpack`.
"""

from __future__ import annotations

__all__ = ["TRANSPORT_MARKER"]

TRANSPORT_MARKER = "replog.transport/1"
"""Tells this package from another of the same name that an application's path may hold."""
