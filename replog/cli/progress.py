"""Bars on the terminal."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console
    from rich.progress import Progress, ProgressColumn

    Advance = Callable[[int, int], None]
    """Called with the offset reached and the offset where it ends."""

REFRESH_SECONDS = 0.1
LATE_SECONDS = 2.0
"""What takes less needs no bar."""


def _terminal(*, shown: bool) -> Console | None:
    """Standard error, when it is a terminal on which a bar is to be shown."""
    from rich.console import Console

    console = Console(stderr=True)
    return console if shown and console.is_terminal else None


@contextmanager
def bar_on_terminal(*columns: str | ProgressColumn, shown: bool) -> Iterator[Progress | None]:
    """A display of these columns on standard error while this lasts; None where that is no
    terminal."""
    from rich.progress import Progress

    console = _terminal(shown=shown)
    if console is None:
        yield None
        return
    with Progress(*columns, console=console, transient=True) as progress:
        yield progress


@contextmanager
def offsets_bar(start: int | None, *, shown: bool) -> Iterator[Advance | None]:
    """Moves a bar with a rate, which begins at offset `start`, or at the first one it is told of;
    None where it cannot be seen."""
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} records"),
        BarColumn(),
        TextColumn("{task.fields[rate]:,.0f} a second"),
        TimeRemainingColumn(),
    )
    with bar_on_terminal(*columns, shown=shown) as progress:
        if progress is None:
            yield None
            return
        task = progress.add_task("", total=0, rate=0.0)
        began = told = time.monotonic()

        def advance(offset: int, end: int) -> None:
            nonlocal start, told
            start = offset if start is None else start
            now = time.monotonic()
            if now - told >= REFRESH_SECONDS:
                told = now
                done = offset - start
                progress.update(task, completed=done, total=end - start, rate=done / (now - began))

        yield advance


class LateBar:
    """A bar that comes only when the work takes long; for a `Progress` of `replog.backup`."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=None)
        self._due = time.monotonic() + LATE_SECONDS

    def advance(self, counted: str, done: int, most: int) -> None:
        """So much is done."""
        self._progress.update(self._task, description=counted, completed=done, total=most)
        if time.monotonic() >= self._due:
            self._progress.start()


@contextmanager
def late_bar(*, shown: bool) -> Iterator[Callable[[str, int, int], None] | None]:
    """Moves a bar that names what it counts, once it has lasted; None where it cannot be seen."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = _terminal(shown=shown)
    if console is None:
        yield None
        return
    columns = (
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} {task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns, console=console, transient=True)
    try:
        yield LateBar(progress).advance
    finally:
        progress.stop()
