"""What the pages show runs: every python fence of the README and of docs/, each by itself.

A fence that cannot run alone says why, in a comment on the line before it:
`<!-- no-run: needs three machines -->`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

import pytest

from tests.conftest import Plant

ROOT = Path(__file__).resolve().parents[1]
FENCE_SECONDS_MAX = 60

FENCE = re.compile(
    r"(?:^[ ]*<!-- no-run:(?P<excuse>.*?)-->\s*?\n)?"
    r"^(?P<indent>[ ]*)```python[^\n]*\n"
    r"(?P<code>.*?)"
    r"^(?P=indent)```[ ]*$",
    re.MULTILINE | re.DOTALL,
)
OPENING = re.compile(r"^[ ]*```python", re.MULTILINE)


class Fence(NamedTuple):
    """A program in a page; `excuse` is None for one that runs, else the reason why it does not."""

    where: str
    code: str
    excuse: str | None


def fences(root: Path) -> list[Fence]:
    """All python fences, in order. Raises ValueError for one that never ends."""
    found = []
    for page in [*root.glob("README.md"), *sorted((root / "docs").rglob("*.md"))]:
        text = page.read_text(encoding="utf-8")
        matches = list(FENCE.finditer(text))
        if len(matches) != len(OPENING.findall(text)):
            raise ValueError(
                f"{page.relative_to(root)}: a python fence never ends, or holds another"
            )
        for match in matches:
            line = text.count("\n", 0, match.start("indent")) + 1
            excuse = match["excuse"]
            where = f"{page.relative_to(root)}:{line}"
            found.append(Fence(where, dedent(match["code"]), excuse and excuse.strip()))
    return found


def run(fence: Fence, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run it in an empty folder, with this checkout importable and warnings as errors."""
    program = folder / "fence.py"
    program.write_text(fence.code, encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=FENCE_SECONDS_MAX,
    )


FENCES = fences(ROOT)


def test_the_readme_shows_a_program_that_runs() -> None:
    shown = [fence for fence in FENCES if fence.where.startswith("README.md:")]
    assert [fence for fence in shown if fence.excuse is None]


def test_a_fence_that_does_not_run_says_why() -> None:
    assert [fence.where for fence in FENCES if fence.excuse == ""] == []


@pytest.mark.parametrize(
    "fence",
    [pytest.param(fence, id=fence.where) for fence in FENCES if fence.excuse is None],
)
def test_the_fence_runs(fence: Fence, tmp_path: Path) -> None:
    result = run(fence, tmp_path)
    assert result.returncode == 0, f"{fence.where}\n{result.stdout}{result.stderr}"


# --- the checks themselves ------------------------------------------------------------------------

PAGE = """# Page

```python
print("first")
```

1. An item
   ```python
   raise SystemExit(3)
   ```

<!-- no-run: needs a cluster -->
```python
import nowhere
```

<!-- no-run: -->
```python
pass
```

```sh
echo not python
```
"""


def test_fences_are_found_with_their_lines_and_excuses(plant: Plant) -> None:
    found = fences(plant({"README.md": PAGE, "docs/deep/b.md": "```python\npass\n```\n"}))
    assert found == [
        Fence("README.md:3", 'print("first")\n', None),
        Fence("README.md:8", "raise SystemExit(3)\n", None),
        Fence("README.md:13", "import nowhere\n", "needs a cluster"),
        Fence("README.md:18", "pass\n", ""),
        Fence("docs/deep/b.md:1", "pass\n", None),
    ]


def test_a_tree_without_pages_has_no_fences(plant: Plant) -> None:
    assert fences(plant({"replog/a.py": ""})) == []


def test_a_fence_that_never_ends_is_refused(plant: Plant) -> None:
    root = plant({"docs/a.md": "```python\npass\n"})
    with pytest.raises(ValueError, match="never ends"):
        fences(root)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("import replog.quorum, os\nassert os.listdir() == ['fence.py']", 0),
        ("raise SystemExit(3)", 3),
        ("import nowhere", 1),
        ("import warnings\nwarnings.warn('old')", 1),
    ],
)
def test_a_fence_runs_alone_and_its_failure_shows(code: str, status: int, tmp_path: Path) -> None:
    assert run(Fence("page.md:1", code, None), tmp_path).returncode == status
