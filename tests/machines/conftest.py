"""Each machine for the tests that ask for `kind`."""

from __future__ import annotations

import pytest

from tests.machines.kinds import KINDS, Kind


@pytest.fixture(scope="session", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]
