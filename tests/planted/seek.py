"""Looks for the bug in the tree it runs in: seeds first, then the tests of the cores.

    python -m tests.planted.seek AGREEMENT SEEDS

prints one JSON object: how it was found, or that it was not.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

SCENARIOS = (
    *("tests/raft", "tests/paxos", "tests/agreement", "tests/replica", "tests/store"),
    *("tests/simulation/test_regressions.py", "tests/simulation/test_rounds.py"),
)
SECONDS_MAX = 600


def seek(agreement: str, seeds: int) -> dict[str, Any]:
    """The first seed that fails, and who said so; else the first test that fails."""
    try:
        from replog.agreements import load_agreement
        from replog.testing import SimulationFailure, simulate
    except Exception as error:  # noqa: BLE001 - a bug may show when it is imported
        return {"by": "import", "who": type(error).__name__}
    layer = load_agreement(agreement)
    for seed in range(seeds):
        try:
            simulate(seed, layer)
        except SimulationFailure as failure:
            return {"by": "seeds", "seeds": seed + 1, "who": failure.kind, "why": failure.reason}
    return scenario(seeds)


def scenario(seeds: int) -> dict[str, Any]:
    """The first test that fails; the seeds have found nothing."""
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *SCENARIOS],
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    failed = [line for line in found.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if found.returncode and failed:
        return {"by": "scenario", "seeds": seeds, "who": failed[0].split(" - ")[0]}
    return {"by": "nothing", "seeds": seeds, "who": ""}


if __name__ == "__main__":
    print(json.dumps(seek(sys.argv[1], int(sys.argv[2]))))
