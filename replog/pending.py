"""The answer to a call that waits: one object for coroutines and threads alike.

Rules of this file:

1. A pending is resolved once, by the node's thread, and never cancelled: giving up waiting changes
   nothing about the outcome.
2. Resolving many costs one wake-up per event loop, not one per pending.
3. Whoever waits registers first and looks at the outcome afterwards; whoever resolves sets the
   outcome first and looks for waiters afterwards. So no wake-up is lost without a lock in between.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

T = TypeVar("T")
logger = logging.getLogger("replog")
_OPEN: Any = object()
_waiters_lock = threading.Lock()
"""Guards the hand-over of any pending's waiters; never held while anything else happens."""


class _Failure:
    """An outcome that is raised."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Pending(Generic[T]):
    """A value that will be known. Await it in a coroutine, or call `result` in a thread."""

    __slots__ = ("_outcome", "_waiters")

    def __init__(self) -> None:
        self._outcome: Any = _OPEN
        self._waiters: list[Any] | None = None

    def done(self) -> bool:
        """Whether the outcome is known."""
        return self._outcome is not _OPEN

    def result(self, timeout: float | None = None) -> T:
        """The value, waiting up to `timeout` seconds for it (None: as long as it takes).

        Raises `TimeoutError` when it is not known by then: this cancels nothing, call again.
        Raises whatever the call ended with.
        """
        if self._outcome is _OPEN:
            known = threading.Lock()
            known.acquire()
            wake = known.release
            if self._register(wake) and not known.acquire(timeout=_seconds(timeout)):
                self._withdraw(wake)
                raise TimeoutError(
                    f"no outcome within {timeout} s; it is still open and can be asked for again"
                )
        return self._get()

    def __await__(self) -> Generator[Any, None, T]:
        if self._outcome is _OPEN:
            loop = asyncio.get_running_loop()
            future: asyncio.Future[None] = loop.create_future()
            if self._register((loop, future)):
                yield from future
        return self._get()

    def add_done_callback(self, callback: Callable[[Pending[T]], object]) -> None:
        """Call `callback(self)` once the outcome is known: now if it is, else on the node's thread,
        which it must not block. What it raises is logged."""
        if self._outcome is not _OPEN or not self._register(lambda: self._call(callback)):
            self._call(callback)

    def _call(self, callback: Callable[[Pending[T]], object]) -> None:
        try:
            callback(self)
        except BaseException:  # not the node's, whatever it is: nobody else must wait for it
            logger.exception("a callback of an append or barrier raised")

    def _get(self) -> T:
        outcome = self._outcome
        if type(outcome) is _Failure:
            # A new traceback for each caller: two of them must not write to one.
            raise outcome.error.with_traceback(None)
        return cast("T", outcome)

    def _register(self, waiter: object) -> bool:
        """Add a waiter; False when the outcome is known and the waiter will not be called."""
        with _waiters_lock:
            self._waiters = [*(self._waiters or ()), waiter]
        return self._outcome is _OPEN or not self._withdraw(waiter)

    def _withdraw(self, waiter: object) -> bool:
        """Take this waiter back, and no other; False when it was called or will be."""
        with _waiters_lock:
            if self._waiters is None or waiter not in self._waiters:
                return False
            self._waiters = [other for other in self._waiters if other is not waiter] or None
            return True


def _seconds(timeout: float | None) -> float:
    """A timeout as a lock takes it: -1 for ever, and no more than the platform can count."""
    return -1 if timeout is None else min(max(timeout, 0), threading.TIMEOUT_MAX)


def _take_waiters(pending: Pending[Any]) -> list[Any]:
    with _waiters_lock:
        waiters, pending._waiters = pending._waiters or [], None  # noqa: SLF001 - same class
    return waiters


def resolve(pending: Pending[T], value: T) -> None:
    """Set one outcome."""
    resolve_all(((pending, value),))


def fail_all(pendings: Iterable[Pending[Any]], error: BaseException) -> None:
    """Make every one of these raise `error`."""
    failure = _Failure(error)
    resolve_all([(pending, failure) for pending in pendings])


def resolve_all(outcomes: Iterable[tuple[Pending[Any], object]]) -> None:
    """Set many outcomes, waking each event loop once."""
    waited = []
    for pending, value in outcomes:
        pending._outcome = value  # noqa: SLF001 - same module
        if pending._waiters is not None:  # noqa: SLF001 - same module
            waited.append(pending)
    if waited:
        _wake(waited)


def resolve_offsets(pendings: Iterable[Pending[int]], base_offset: int) -> None:
    """Set the outcomes of consecutive records: the hot path of single appends."""
    waited = []
    offset = base_offset
    for pending in pendings:
        pending._outcome = offset  # noqa: SLF001 - same module
        if pending._waiters is not None:  # noqa: SLF001 - same module
            waited.append(pending)
        offset += 1
    if waited:
        _wake(waited)


def _wake(pendings: Iterable[Pending[Any]]) -> None:
    futures: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for pending in pendings:
        for waiter in _take_waiters(pending):
            if type(waiter) is tuple:
                futures.setdefault(waiter[0], []).append(waiter[1])
            else:
                waiter()
    for loop, waiting in futures.items():
        try:
            loop.call_soon_threadsafe(_finish, waiting)
        except RuntimeError:  # the loop is closed: nobody waits there any more
            logger.debug("an event loop closed while appends were in flight")


def _finish(futures: Iterable[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)
