"""The clients of a simulated cluster: they append on every node, never the same record twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replog.testing.checkers import AppendTicket
from replog.testing.plan import is_kept

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replog.testing.host import Host
    from replog.testing.world import World

RECORDS_PER_REQUEST_MAX = 6
OPEN_TICKETS_MAX = 100
"""A node that has acknowledged none of so many appends is given no more."""


class Clients:
    """Put requests to nodes at random until told to stop."""

    def __init__(self, world: World, hosts: Sequence[Host]) -> None:
        self._world = world
        self._hosts = hosts
        self._next_ticket = 0
        self._next_number: dict[tuple[str, int], int] = {}
        self._over = False
        self._number = 0
        """Of the last request that was drawn."""
        self.put: list[int] = []
        """The numbers of the requests at random that a node was given."""

    def begin(self) -> None:
        """The first request comes soon."""
        self._await_next()

    def stop(self) -> None:
        """No more requests at random."""
        self._over = True

    def append(self, host: Host, count: int, *, whole: bool) -> None:
        """Append new records on a node that runs: single ones, or one run."""
        records = [self._record(host) for _ in range(count)]
        if whole:
            host.append_run(self._ticket(host, tuple(records)))
        else:
            host.append_records([self._ticket(host, (record,)) for record in records])

    def _await_next(self) -> None:
        delay_ms = self._world.interval_ms(self._world.plan.request_ms_mean)
        self._world.schedule.after(delay_ms, self._request)

    def _request(self) -> None:
        if self._over:
            return
        self._await_next()
        self._number += 1
        world = self._world
        host = world.random.choice(self._hosts)
        if host.replica is None or len(host.tickets) >= OPEN_TICKETS_MAX:
            return
        if not is_kept(self._number, world.plan.requests_kept):
            return  # here, so that leaving out what no node takes anyway changes nothing
        self.put.append(self._number)
        kind = world.below(10)
        barriers = world.plan.barriers_per_10_requests
        if kind < barriers:
            host.barrier()
        else:
            whole = kind == barriers and world.machines is None  # a command is a record of its own
            self.append(host, 1 + world.below(RECORDS_PER_REQUEST_MAX), whole=whole)

    def _ticket(self, host: Host, payloads: tuple[bytes, ...]) -> AppendTicket:
        self._next_ticket += 1
        return AppendTicket(self._next_ticket, host.node, host.life, payloads)

    def _record(self, host: Host) -> bytes:
        """Names the node, its life and the record's number there; then a command, or filled up to
        a random length."""
        producer = host.node, host.life
        number = self._next_number.get(producer, 0)
        self._next_number[producer] = number + 1
        length = self._world.below(self._world.plan.record_bytes_max)
        name = f"{host.node}/{host.life}/{number} ".encode()
        if self._world.machines is not None:
            return name + self._world.machines.command()
        return name.ljust(length, b".")
