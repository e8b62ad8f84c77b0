"""Runs each test that asks for `agreement` once for each agreement layer that is installed.

A folder takes part with `from tests.each_agreement import pytest_generate_tests` in its conftest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replog.agreements import installed_agreements, load_agreement

if TYPE_CHECKING:
    import pytest

    from replog.agreement import Agreement

__all__ = ["make_agreement", "pytest_generate_tests"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Name every layer, or the one that `--agreement` names."""
    if "agreement" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--agreement")
        metafunc.parametrize("agreement", [chosen] if chosen else installed_agreements())


def make_agreement(name: str, **settings: int) -> Agreement:
    """The layer of this name, tuned."""
    return load_agreement(name, settings)
