"""Named locks with fencing.

Whoever holds a lock may stall, lose it to its time and wake up believing that it holds it still. So
a grant has an epoch, and what the lock protects asks `is_current`, or keeps the highest epoch seen
and refuses lower ones (Burrows, The Chubby Lock Service, section 2.4: sequencers).

1. At most one grant of a name is current.
2. An epoch is one more than the offset of the record that granted it. So it grows with every grant
   for ever, and a lock that nobody holds takes no room.
3. Time is the timestamp of the last command taken: a lock without a command after its end is still
   held, on every node alike. A grant that has ended is as if it were released.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from replog.entry import INTEGER_MAX
from replog.machines.commands import Command, Commands, Malformed
from replog.machines.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from replog.machine import Record

ACQUIRE = Command("acquire", 32, str, str, int | None)
RENEW = Command("renew", 33, str, int, int | None)
RELEASE = Command("release", 34, str, int)

ROWS = Rows("replog.machines.Lock/1", str, str, int, int | None)
"""Name, owner, epoch, end."""

SWEEP_GRANTS_MIN = 1024
"""With fewer grants, those that have ended are left where they are."""


class Grant(NamedTuple):
    """A lock is held: the answer to `acquire` and `renew`."""

    owner: str
    epoch: int
    expires_ms: int | None
    """When it ends, in ms since 1970 by the log's timestamps; None: when it is released."""

    def is_live(self, now_ms: int) -> bool:
        """Whether it has not ended by its time."""
        return self.expires_ms is None or now_ms < self.expires_ms


class Released(NamedTuple):
    """The answer to `release` by the holder."""

    epoch: int


class Refused(NamedTuple):
    """The answer to `acquire` of a held lock; to `renew` and `release` of a grant that is not
    current. It changed no grant."""

    holder: Grant | None
    """Who holds the lock; None: nobody."""


class Lock:
    """Locks by name. `acquire`, `renew` and `release` make commands for `log.call`, and raise
    `TypeError` for arguments of other types; `holder`, `is_current` and `held` read this machine.
    """

    def __init__(self) -> None:
        self._grants: dict[str, Grant] = {}
        """Every live one, and some that have ended."""
        self._now_ms = 0
        self._sweep_grants = SWEEP_GRANTS_MIN
        """With this many, those that have ended are dropped."""
        self._commands: Commands[Grant | Refused | Released | Malformed] = Commands(
            {ACQUIRE: self._acquire, RENEW: self._renew, RELEASE: self._release}
        )

    # -- commands ------------------------------------------------------------------------------

    @staticmethod
    def acquire(name: str, owner: str, ttl_ms: int | None = None) -> bytes:
        """Take the lock, for so many milliseconds or until it is released. Answered with `Grant`
        or `Refused`, also when the same owner holds it: that tells its epoch.

        Raises `ValueError` for a `ttl_ms` below 1.
        """
        _check(ttl_ms)
        return ACQUIRE.pack(name, owner, ttl_ms)

    @staticmethod
    def renew(name: str, epoch: int, ttl_ms: int | None = None) -> bytes:
        """Hold the lock for so many milliseconds from now, or until it is released, under the same
        epoch. Answered with `Grant`, or `Refused` when this epoch is not current.

        Raises `ValueError` for a `ttl_ms` below 1.
        """
        _check(ttl_ms)
        return RENEW.pack(name, epoch, ttl_ms)

    @staticmethod
    def release(name: str, epoch: int) -> bytes:
        """Let the lock go. Answered with `Released`, or `Refused` when this epoch is not
        current."""
        return RELEASE.pack(name, epoch)

    # -- reading -------------------------------------------------------------------------------

    def holder(self, name: str) -> Grant | None:
        """The current grant of this name; None: nobody holds the lock."""
        # The time first: a grant that was live then was current then or came later.
        now_ms = self._now_ms
        grant = self._grants.get(name)
        return grant if grant is not None and grant.is_live(now_ms) else None

    def is_current(self, name: str, epoch: int) -> bool:
        """Whether the grant of this epoch is the current one: refuse what its owner asks if not."""
        holder = self.holder(name)
        return holder is not None and holder.epoch == epoch

    def held(self) -> dict[str, Grant]:
        """Every current grant by name, as of now."""
        now_ms = self._now_ms
        grants = self._grants.copy()
        return {name: grant for name, grant in grants.items() if grant.is_live(now_ms)}

    # -- the machine ---------------------------------------------------------------------------

    def apply(self, records: Sequence[Record]) -> list[Grant | Refused | Released | Malformed]:
        """Take these records; one answer for each."""
        return self._commands.apply(records)

    def snapshot(self) -> Iterator[bytes]:
        """The state as of this call, packed as the pieces are taken, of at most 1 MiB each."""
        return ROWS.pieces(self._rows())

    def restore(self, pieces: Iterable[bytes]) -> None:
        """Replace the state. Raises `Corruption`, and keeps it, for anything but a snapshot."""
        self._grants = {name: Grant(*grant) for name, *grant in ROWS.read(pieces)}
        # All of these are live, and the next command brings its time.
        self._now_ms = 0
        self._sweep_grants = SWEEP_GRANTS_MIN

    def digest(self) -> bytes:
        """16 bytes, equal for equal current grants; O(n)."""
        return ROWS.digest(self._rows())

    def _rows(self) -> list[tuple[str, str, int, int | None]]:
        return [(name, *grant) for name, grant in self.held().items()]

    def _acquire(
        self, record: Record, name: str, owner: str, ttl_ms: int | None
    ) -> Grant | Refused | Malformed:
        if not _is_allowed(ttl_ms):
            return Malformed("acquire takes a ttl_ms from 1 on")
        self._now_ms = record.timestamp_ms
        holder = self.holder(name)
        if holder is not None:
            return Refused(holder)
        grant = Grant(owner, record.offset + 1, self._end(ttl_ms))
        self._grants[name] = grant
        if len(self._grants) >= self._sweep_grants:
            self._grants = self.held()
            self._sweep_grants = max(SWEEP_GRANTS_MIN, 2 * len(self._grants))
        return grant

    def _renew(
        self, record: Record, name: str, epoch: int, ttl_ms: int | None
    ) -> Grant | Refused | Malformed:
        if not _is_allowed(ttl_ms):
            return Malformed("renew takes a ttl_ms from 1 on")
        self._now_ms = record.timestamp_ms
        holder = self.holder(name)
        if holder is None or holder.epoch != epoch:
            return Refused(holder)
        self._grants[name] = grant = holder._replace(expires_ms=self._end(ttl_ms))
        return grant

    def _release(self, record: Record, name: str, epoch: int) -> Released | Refused:
        self._now_ms = record.timestamp_ms
        holder = self.holder(name)
        if holder is None or holder.epoch != epoch:
            return Refused(holder)
        del self._grants[name]
        return Released(epoch)

    def _end(self, ttl_ms: int | None) -> int | None:
        return None if ttl_ms is None else self._now_ms + ttl_ms


def _is_allowed(ttl_ms: int | None) -> bool:
    """The end of such a grant fits 64 bits."""
    return ttl_ms is None or 1 <= ttl_ms <= INTEGER_MAX


def _check(ttl_ms: int | None) -> None:
    if not _is_allowed(ttl_ms):
        raise ValueError(f"ttl_ms is at least 1 and fits 63 bits, {ttl_ms} does not")
