"""A planted bug: one small wrong change to the library, and the hazard that it stands for.

A change behind which a second rule stands, so that nothing ever comes of it, is none: a pre-vote of
an earlier round that counts (the vote itself does not), a value under another ballot (nobody sends
one), a run of a past life (its frames are refused), a Raft journal that takes replaced entries for
durable (see `raft.SOONER`), bytes of Raft's window that are asked for by their index alone (what it
sends is of its own log, and so is the window).
"""

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
