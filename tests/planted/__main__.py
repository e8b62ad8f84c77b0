"""Plants each bug in a scratch copy of the tree, one at a time, and tells what finds it.

python -m tests.planted --seeds 2000 --processes 2 [--only TEXT] [--write docs/planted-bugs.md]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

from tests.planted import paxos, raft, snapshots, trunk
from tests.planted.bug import Bug

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("replog", "raftlog", "paxoslog", "transport", "tests", "pyproject.toml")
BUGS = (*raft.BUGS, *paxos.BUGS, *trunk.BUGS, *snapshots.BUGS)
SECONDS_MAX = 3600
RANDOM_SHARE_MIN = 0.95
HEADINGS = "| bug | what it stands for | agreement | found by | seeds | noticed by |"


class Finding(NamedTuple):
    """What came of one bug."""

    bug: Bug
    by: str
    """seeds, scenario, import or nothing."""
    seeds: int
    """How many were run: the last of them failed, if seeds found it."""
    who: str


def plant(bug: Bug, tree: Path) -> None:
    """Change the copy. Raises `ValueError` when the text to change is not there just once."""
    for edit in bug.edits:
        path = tree / edit.path
        text = path.read_text()
        if text.count(edit.before) != 1:
            raise ValueError(f"{bug.name}: {edit.path} has changed; write this bug anew")
        path.write_text(text.replace(edit.before, edit.after))


def seek(bug: Bug, seeds: int) -> Finding:
    """Plant one bug and look for it."""
    with tempfile.TemporaryDirectory(prefix="replog-planted-") as scratch:
        tree = Path(scratch)
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("*.pyc"))
            else:
                shutil.copy(ROOT / name, tree / name)
        plant(bug, tree)
        try:
            ended = subprocess.run(
                [sys.executable, "-m", "tests.planted.seek", bug.agreement, str(seeds)],
                cwd=tree,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
                capture_output=True,
                text=True,
                timeout=SECONDS_MAX,
                check=True,
            )
        except subprocess.TimeoutExpired:
            return Finding(bug, "nothing", seeds, f"no end within {SECONDS_MAX} s")
        except subprocess.CalledProcessError as error:
            return Finding(bug, "nothing", seeds, f"the search failed: {error.stderr[-200:]!r}")
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return Finding(bug, found["by"], found.get("seeds", 0), found["who"])


def summary(findings: list[Finding], seeds: int) -> str:
    """How many were found by what."""
    by_seeds = [found for found in findings if found.by in {"seeds", "import"}]
    missed = [found for found in findings if found.by == "nothing"]
    scenarios = len(findings) - len(by_seeds) - len(missed)
    return (
        f"{len(findings)} bugs planted one at a time; {len(by_seeds)} found by at most {seeds} "
        f"random seeds ({len(by_seeds) / len(findings):.1%}), {scenarios} by a scenario, "
        f"{len(missed)} by nothing.\n"
    )


def table(findings: list[Finding]) -> str:
    """The findings, one a line."""
    lines = [HEADINGS, "|---|---|---|---|---|---|"]
    lines += [
        f"| {f.bug.name} | {f.bug.hazard} | {f.bug.agreement} | {f.by} | {f.seeds} | `{f.who}` |"
        for f in findings
    ]
    return "\n".join(lines) + "\n"


def replace_table(page: Path, findings: list[Finding]) -> None:
    """Write the table to the end of a page; what is said before it stays."""
    said = page.read_text().partition(HEADINGS)[0] if page.exists() else "# Planted bugs\n\n"
    page.write_text(said + table(findings))


def main() -> int:
    """Exit code 0 when all were found, and enough of them by seeds alone."""
    parser = argparse.ArgumentParser(prog="python -m tests.planted", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="for each bug (default: 2000)")
    parser.add_argument("--processes", type=int, default=1, help="how many at once (default: 1)")
    parser.add_argument("--only", default="", help="bugs whose name holds this text")
    parser.add_argument("--write", type=Path, help="put the table at the end of this page")
    arguments = parser.parse_args()
    bugs = [bug for bug in BUGS if arguments.only in bug.name]
    if not bugs:
        parser.error(f"no bug's name holds {arguments.only!r}")
    began = time.monotonic()
    findings: dict[str, Finding] = {}
    with ThreadPoolExecutor(arguments.processes) as pool:
        seeking = [pool.submit(seek, bug, arguments.seeds) for bug in bugs]
        for ended in as_completed(seeking):
            found = ended.result()
            findings[found.bug.agreement + found.bug.name] = found
            print(
                f"{time.monotonic() - began:6.0f} s  {len(findings):>3} of {len(bugs)}  "
                f"{found.by:<8} {found.seeds:>5}  {found.bug.agreement:<5} {found.bug.name}: "
                f"{found.who}",
                flush=True,
            )
    ordered = [findings[bug.agreement + bug.name] for bug in bugs]
    print(f"\n{summary(ordered, arguments.seeds)}\n{table(ordered)}")
    if arguments.write is not None:
        replace_table(arguments.write, ordered)
    by_seeds = sum(found.by in {"seeds", "import"} for found in ordered)
    all_found = all(found.by != "nothing" for found in ordered)
    return 0 if all_found and by_seeds >= RANDOM_SHARE_MIN * len(ordered) else 1


if __name__ == "__main__":
    sys.exit(main())
