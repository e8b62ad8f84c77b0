"""A planted bug: one small wrong change to the library, and the hazard that it stands for."""

from __future__ import annotations

from typing import NamedTuple


class Edit(NamedTuple):
    """Text of one file that stands there once, and what replaces it."""

    path: str
    before: str
    after: str


class Bug(NamedTuple):
    """One wrong change."""

    name: str
    hazard: str
    """What goes wrong in the field because of it."""
    edits: tuple[Edit, ...]
    agreement: str = "raft"
    """Under which one it is looked for."""
    scenario_only: bool = False
    """It breaks no promise that random runs can see: a scenario or unit test must find it."""
