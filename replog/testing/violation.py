"""What every judge raises."""

from __future__ import annotations


class Violation(Exception):
    """A rule is broken."""
