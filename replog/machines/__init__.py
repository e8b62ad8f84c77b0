"""State machines that many applications want, and by their example how to write another.

::

    kv = log.attach(KeyValue())
    await log.call(KeyValue.put(b"a", b"1"))  # a command is a record; its answer comes back
    await log.barrier()
    await log.applied()  # the machine here has now taken everything committed before
    kv.get(b"a")

A machine is made of three parts, each short:

* its commands: a `Command` for each operation, and a static method that packs one into a record;
* its steps: one method for each command, from (record, arguments) to the answer, handed to
  `Commands`, which unpacks, checks and answers what is no command with `Malformed`;
* its state as `Rows`, from which snapshot, restore and digest follow.

The methods that read a machine may be called from any thread and see it between two records.
"""

from __future__ import annotations

from replog.machines.commands import Command, Commands, Malformed
from replog.machines.counter import Counter, OutOfRange
from replog.machines.key_value import Compared, KeyValue
from replog.machines.lock import Grant, Lock, Refused, Released
from replog.machines.queue import Full, Pushed, Queue
from replog.machines.rows import Rows

__all__ = [
    "Command",
    "Commands",
    "Compared",
    "Counter",
    "Full",
    "Grant",
    "KeyValue",
    "Lock",
    "Malformed",
    "OutOfRange",
    "Pushed",
    "Queue",
    "Refused",
    "Released",
    "Rows",
]
