"""Loads under way: each is numbered, and its answer goes to whoever asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from replog.replica.effects import Load

    Take = Callable[[int, Any], None]
    """Takes the time and the answer."""


class Loads:
    """What a replica reads from its store, through its host."""

    def __init__(self) -> None:
        self._next_id = 1
        self._asked: list[tuple[int, Load]] = []
        self._takers: dict[int, Take] = {}

    def ask(self, load: Load, take: Take) -> None:
        """Have this carried out, and its answer taken."""
        self._asked.append((self._next_id, load))
        self._takers[self._next_id] = take
        self._next_id += 1

    def take(self) -> list[tuple[int, Load]]:
        """Loads to carry out since the last call."""
        asked, self._asked = self._asked, []
        return asked

    def answer(self, now: int, load_id: int, result: Any) -> None:
        """The host has carried out this load."""
        self._takers.pop(load_id)(now, result)
