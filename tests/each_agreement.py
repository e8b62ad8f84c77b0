"""Runs each test that asks for `agreement` once for each agreement layer that is installed.

A folder takes part with `from tests.each_agreement import pytest_generate_tests` in its conftest.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from replog.cli.agreements import GROUP, load_agreement

if TYPE_CHECKING:
    import pytest

    from replog.agreement import Agreement

__all__ = ["make_agreement", "pytest_generate_tests"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Name every layer, or the one that `--agreement` names."""
    if "agreement" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--agreement")
        installed = sorted({entry.name for entry in entry_points(group=GROUP)})
        metafunc.parametrize("agreement", [chosen] if chosen else installed)


def make_agreement(name: str, **settings: int) -> Agreement:
    """The layer of this name, tuned."""
    layer: Any = type(load_agreement(name))
    made: Agreement = layer(**settings)
    return made
