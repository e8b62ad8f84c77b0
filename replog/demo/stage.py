"""How a demo is shown: live on a terminal, as lines elsewhere, as JSON for programs."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

LINE_SECONDS = 1.0
"""Between two lines of progress where there is no terminal."""
CONSOLE_COLUMNS = 120
"""Where there is no terminal to ask."""


class Row(NamedTuple):
    """One node as it is shown."""

    node: str
    state: str
    """leader, follower, ...; what its status says, or that it is down."""
    done: int
    total: int


class Stage(Protocol):
    """Where a demo is shown; a context manager."""

    def say(self, event: str, text: str, **fields: Any) -> None:
        """Something happened."""

    def update(self, rows: Sequence[Row]) -> None:
        """How far it is."""

    def tell(self, event: str, **fields: Any) -> None:
        """What only programs are told, because people read it in a table."""

    def table(self, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """What only people are shown."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


class JsonStage:
    """One object a line: {"event": ..., "seconds": ..., fields}."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def say(self, event: str, text: str, **fields: Any) -> None:
        """As `Stage.say`."""
        self.tell(event, **fields)

    def tell(self, event: str, **fields: Any) -> None:
        """As `Stage.tell`."""
        seconds = round(time.monotonic() - self._began, 3)
        line = {"event": event, "seconds": seconds, **fields}
        sys.stdout.write(json.dumps(line, separators=(",", ":")) + "\n")
        sys.stdout.flush()

    def update(self, rows: Sequence[Row]) -> None:
        """Programs are told what happens, not how far it is."""

    def table(self, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Tables are for people."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        return


class TextStage:
    """For people: bars that move on a terminal, a line each second elsewhere."""

    def __init__(self) -> None:
        console = Console()
        if not console.is_terminal:
            console = Console(width=CONSOLE_COLUMNS)
        self._console = console
        self._began = time.monotonic()
        self._line_due = self._began + LINE_SECONDS
        self._tasks: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=40),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def say(self, event: str, text: str, **fields: Any) -> None:
        """As `Stage.say`."""
        style = {"killed": "bold red", "takeover": "bold green", "failed": "bold red"}.get(event)
        seconds = time.monotonic() - self._began
        self._console.print(f"{seconds:6.2f} s  {text}", style=style, highlight=False)

    def update(self, rows: Sequence[Row]) -> None:
        """As `Stage.update`."""
        for row in rows:
            if row.node not in self._tasks:
                self._tasks[row.node] = self._progress.add_task(row.node, total=None, state="")
            self._progress.update(
                self._tasks[row.node], completed=row.done, total=row.total, state=row.state
            )
        now = time.monotonic()
        if not self._console.is_terminal and now >= self._line_due:
            self._line_due = now + LINE_SECONDS
            parts = [f"{row.node} {row.done:,} of {row.total:,} ({row.state})" for row in rows]
            self.say("progress", "; ".join(parts))

    def tell(self, event: str, **fields: Any) -> None:
        """People read it in a table."""

    def table(self, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """As `Stage.table`."""
        table = Table(box=None, header_style="bold")
        for place, column in enumerate(head):
            number = place and rows and str(rows[0][place]).replace(",", "").isdigit()
            table.add_column(column, justify="right" if number else "left")
        for row in rows:
            table.add_row(*map(str, row))
        self._console.print()
        self._console.print(table, highlight=False)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()
