"""Figures, their bars, the table that shows them and the file that keeps them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from benchmarks.samples import spread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rich.console import Console


PROCESSORS_BUSY_MAX = 0.2
"""More than this, used by others, disturbs a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One thing measured, once for each repeat."""

    question: str
    name: str
    unit: str
    values: tuple[float, ...]
    agreement: str = ""
    """Whose it is; "" for what has none, `b / a` for the ratio of two."""
    at_least: float | None = None
    """The bar, for what should be high."""
    at_most: float | None = None
    """The bar, for what should be low."""
    details: dict[str, Any] = field(default_factory=dict)
    """Whatever helps to explain the values."""

    @property
    def meets_bar(self) -> bool | None:
        """Whether the median meets the bar; None without one."""
        middle = spread(self.values).median
        if self.at_least is not None:
            return middle >= self.at_least
        if self.at_most is not None:
            return middle <= self.at_most
        return None


def side_by_side(
    question: str,
    name: str,
    unit: str,
    values: Mapping[str, Sequence[float]],
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    details: Mapping[str, dict[str, Any]] | None = None,
) -> list[Figure]:
    """A figure for each agreement and, of two, the ratio of the second to the first, round by
    round. The bars are for that ratio.

    Raises `ValueError` when the two have unequally many rounds.
    """
    figures = [
        Figure(
            question=question,
            name=name,
            unit=unit,
            values=tuple(found),
            agreement=agreement,
            details=(details or {}).get(agreement, {}),
        )
        for agreement, found in values.items()
    ]
    if len(figures) == 2:
        base, other = figures
        ratios = [b / a for a, b in zip(base.values, other.values, strict=True)]
        figures.append(
            Figure(
                question=question,
                name=name,
                unit="x",
                values=tuple(ratios),
                agreement=f"{other.agreement} / {base.agreement}",
                at_least=at_least,
                at_most=at_most,
            )
        )
    return figures


def table(figures: Sequence[Figure]) -> Table:
    """For people."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    shown.add_column("what")
    shown.add_column("agreement", no_wrap=True)
    for heading in ("lowest", "median", "highest", "", "bar", "of it"):
        shown.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    question = ""
    for figure in figures:
        if question and figure.question != question:
            shown.add_section()
        question = figure.question
        shown.add_row(figure.name, figure.agreement, *_cells(figure))
    return shown


def _cells(figure: Figure) -> list[str]:
    lowest, middle, highest = (readable(value) for value in spread(figure.values))
    bar = figure.at_least if figure.at_least is not None else figure.at_most
    if bar is None:
        return [lowest, middle, highest, figure.unit, "", ""]
    sign = ">=" if figure.at_least is not None else "<="
    colour = "green" if figure.meets_bar else "red"
    part = f"{spread(figure.values).median / bar:.2f}" if bar else ""
    of_it = f"[{colour}]{part or ('met' if figure.meets_bar else 'missed')}[/]"
    return [lowest, middle, highest, figure.unit, f"{sign} {readable(bar)}", of_it]


def readable(value: float) -> str:
    """Three digits that count, or all before the point."""
    if value >= 999_500:
        return f"{value / 1e6:.3g} M"
    if value >= 10_000:
        return f"{value / 1e3:.3g} k"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def show(console: Console, machine: dict[str, Any], figures: Sequence[Figure]) -> None:
    """Print the machine and the table."""
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    console.print(
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"{machine['kernel']}, {machine['file_system']}; {machine['python']}, {packages}, "
        f"libzmq {machine['libzmq']}",
        highlight=False,
    )
    busy = machine["processors_busy_before"]
    if busy > PROCESSORS_BUSY_MAX:
        console.print(
            f"[yellow]Other programs kept {busy} of {machine['cores']} cores busy when this began: "
            f"no figure is what the machine can do, and the ratios suffer too.[/]",
            highlight=False,
        )
    console.print(table(figures))


def write(
    path: Path, machine: dict[str, Any], settings: dict[str, Any], figures: Sequence[Figure]
) -> None:
    """Keep the figures, with everything needed to read them later."""
    kept = {
        "machine": machine,
        "settings": settings,
        "figures": [asdict(figure) for figure in figures],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
