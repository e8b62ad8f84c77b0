"""Raft, as an agreement layer for `replog.open(agreement=Raft())`.

Sources, cited as *paper* and *dissertation*: D. Ongaro and J. Ousterhout, "In Search of an
Understandable Consensus Algorithm (Extended Version)", 2014; D. Ongaro, "Consensus: Bridging Theory
and Practice", 2014.
"""

from __future__ import annotations

from raftlog.core import Raft

__all__ = ["Raft"]
