"""Multi-Paxos, as an agreement layer for `replog.open(agreement=MultiPaxos())`.

Sources, cited as *PMS*, *PMMC* and *FPaxos*: L. Lamport, "Paxos Made Simple", 2001; R. van Renesse
and D. Altinbuken, "Paxos Made Moderately Complex", 2015; H. Howard, D. Malkhi and A. Spiegelman,
"Flexible Paxos: Quorum Intersection Revisited", 2016.

The papers' words and ours: an *instance* (PMS) or *slot* (PMMC) is an index, a *proposal number* or
*ballot number* is a ballot, a *leader* is a proposer whose ballot a quorum has promised to obey.
"""

from __future__ import annotations

from paxoslog.core import MultiPaxos

__all__ = ["MultiPaxos"]
