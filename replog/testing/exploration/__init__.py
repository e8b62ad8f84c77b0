"""Every order of events of a small cluster, tried on real cores: an exploration of states.

`python -m replog.testing.exploration --agreement raft --states 1000000` searches breadth first
through what three cores of an agreement can come to: messages arrive late, twice, out of order or
never; disks are slow; nodes crash and forget what was not synced; timers pass when they like. In
every state the rules are checked, those of all members together (`past`), of one (`member`), and
the agreement's own (its module `invariants`, if it has one). What breaks one is printed as the
shortest path there.

A state is what cores, disks, mail and the past are, exactly: none is taken for another. Reads, and
several messages in one turn of a host, are left to the simulator.
"""

from __future__ import annotations
