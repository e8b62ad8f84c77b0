"""Percentiles, spreads, and the order in which to sample."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Spread(NamedTuple):
    """How far repeated figures lie apart."""

    lowest: float
    median: float
    highest: float


def percentile(samples: Sequence[float], percent: float) -> float:
    """The smallest sample that at least `percent` of all samples do not exceed (nearest rank).

    Raises `ValueError` without samples and outside 0 to 100.
    """
    if not samples or not 0 <= percent <= 100:
        raise ValueError(f"no percentile {percent} of {len(samples)} samples")
    rank = -(-len(samples) * percent // 100)
    return sorted(samples)[max(0, int(rank) - 1)]


def median(samples: Sequence[float]) -> float:
    """The middle of the samples. Raises `ValueError` without any."""
    if not samples:
        raise ValueError("no median of no samples")
    return statistics.median(samples)


def in_turn(names: Iterable[str], number: int) -> list[str]:
    """Whom to measure first in this round: forwards and backwards in turn."""
    return list(names) if number % 2 == 0 else list(names)[::-1]


def spread(figures: Sequence[float]) -> Spread:
    """The spread of repeated figures. Raises `ValueError` without any."""
    return Spread(min(figures), median(figures), max(figures))
