"""State machines in a simulated run: each node feeds its own with what it delivers.

Rules of this file:

1. A machine begins empty with each life, and takes what the disk says was delivered, then what the
   replica delivers.
2. After the same entry every machine has the same digest, in every life, and has answered the
   same. In how many calls it takes the records of an entry differs from node to node and life.
3. What a command answered, and what was read after a barrier, becomes an `Operation`: a history
   that `replog.testing.linearizability.check` can judge.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from replog.entry import parse_entry
from replog.machine import apply_all
from replog.reading import records_of
from replog.testing.linearizability import PENDING, Operation
from replog.testing.taking import state_of
from replog.testing.violation import Violation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from replog.entry import Entry
    from replog.machine import Digests, Record
    from replog.store.interface import Delivered
    from replog.store.memory import MemoryDisk, MemoryStore

    Query = Callable[[Any, Random], tuple[Any, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A state machine, and what a simulated run asks of it."""

    machine: Callable[[], Digests]
    """Makes an empty one."""
    command: Callable[[Random], bytes]
    """Draws a command."""
    query: Query | None = None
    """Draws a question, asks the machine, and returns both: (input, output). Asked after a
    barrier."""
    check: Callable[[Any], object] | None = None
    """Raises, or answers False, for a machine that breaks a rule of its own; called after every
    entry."""


class _Open(NamedTuple):
    """A command that was given and not answered."""

    client: str
    command: bytes
    called_at: int


class Machines:
    """All machines of one run, and the history they made."""

    def __init__(self, workload: Workload, random: Random) -> None:
        self._workload = workload
        self._random = random
        self._digests: dict[int, bytes] = {}
        """By index."""
        self._results: dict[int, Any] = {}
        """By offset: the first answer to each record."""
        self._cuts = Random(0)
        """Where the records of an entry are cut. Apart from `random`: runs stay as they were."""
        self._open: dict[int, _Open] = {}
        """By ticket."""
        self._asked_at: dict[int, int] = {}
        """Barriers, by number."""
        self.history: list[Operation[Any, Any]] = []

    @property
    def keep_snapshots(self) -> bool:
        """Whether its machines can be kept and made anew from what was kept."""
        return hasattr(self._workload.machine(), "restore")

    def begin_life(self, store: MemoryStore, disk: MemoryDisk) -> Fed:
        """A node starts: its machine, with what its disk says was delivered."""
        stored = store.snapshot()
        fed, index = Fed(self._workload.machine()), 0
        if stored is not None:
            index = stored.snapshot.index
            fed = self.restored(state_of(store, stored), index)
        while index < disk.outline.position.index:
            index += 1
            row, entry = disk.row(index), disk.entry(index)
            if row is None or entry is None:
                raise Violation(f"entry {index} is neither kept nor in the newest snapshot")
            self.deliver(fed, row, parse_entry(entry.data))
        return fed

    def restored(self, state: Iterable[bytes], index: int) -> Fed:
        """A machine of this state, which is that after entry `index`. Raises `Violation` when it is
        another's."""
        fed = Fed(self._workload.machine())
        machine: Any = fed.machine
        machine.restore(state)
        if self._digests.get(index) != fed.machine.digest():
            raise Violation(f"a machine restored from a snapshot of entry {index} differs")
        return fed

    def deliver(self, fed: Fed, row: Delivered, entry: Entry) -> None:
        """A node delivers an entry. Raises `Violation` when its machine differs from another."""
        records = [
            record._replace(data=record.data.partition(b" ")[2])
            for record in records_of(row, entry)
        ]
        cut = self._cuts.randint(0, len(records))
        for some in (records[:cut], records[cut:]):
            for offset, result in fed.take(some):
                if self._results.setdefault(offset, result) != result:
                    raise Violation(f"two machines differ in their answer to record {offset}")
        if self._workload.check is not None and self._workload.check(fed.machine) is False:
            raise Violation(f"after entry {row.index} the check of a machine answers False")
        digest = fed.machine.digest()
        if type(digest) is not bytes:
            raise Violation(f"a digest is of bytes, not {digest!r:.60}")
        if self._digests.setdefault(row.index, digest) != digest:
            raise Violation(f"after entry {row.index} two machines differ: one is not a function")

    def command(self) -> bytes:
        """A new command."""
        return self._workload.command(self._random)

    def called(self, ticket: int, node: str, command: bytes, now: int) -> None:
        """A client gives a command to a node."""
        self._open[ticket] = _Open(f"{node}/{ticket}", command, now)

    def answered(self, ticket: int, result: Any, now: int) -> None:
        """The node's machine has answered it."""
        client, command, called_at = self._open.pop(ticket)
        self.history.append(Operation(client, command, result, called_at, now))

    def asked(self, barrier: int, now: int) -> None:
        """A client asks for a barrier."""
        self._asked_at[barrier] = now

    def passed(self, barrier: int, node: str, fed: Fed, now: int) -> None:
        """It holds: the client reads."""
        called_at = self._asked_at.pop(barrier)
        if self._workload.query is not None:
            given, output = self._workload.query(fed.machine, self._random)
            self.history.append(Operation(f"{node}?{barrier}", given, output, called_at, now))

    def end(self) -> None:
        """Nothing more happens: what is open may or may not have taken effect."""
        for client, command, called_at in self._open.values():
            self.history.append(Operation(client, command, PENDING, called_at, None))
        self._open.clear()


class Fed:
    """One node's machine in one life."""

    def __init__(self, machine: Digests) -> None:
        self.machine = machine
        self.results: dict[int, Any] = {}
        """By offset."""

    def take(self, records: Sequence[Record]) -> Sequence[tuple[int, Any]]:
        """Apply these; each offset with its answer."""
        offsets = [record.offset for record in records]  # the list is the machine's from here on
        results = apply_all(self.machine, records) if records else ()
        answers = list(zip(offsets, results, strict=True))
        self.results.update(answers)
        return answers
