"""Check that a built wheel holds what it should and works away from its source tree.

Usage: python check_wheel.py WHEEL

The wheel is installed into an environment of its own in a temporary directory and used from there:
first bare, where the library must import with its three dependencies, then with the extra `cli`,
where the command must run. Exits with 1 and one line per fault if anything is wrong.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

PACKAGES = ("paxoslog", "raftlog", "replog", "transport")
DEPENDENCIES = {"lmdb", "msgpack", "pyzmq"}
STEP_SECONDS_MAX = 300

# Runs inside the new environment: nothing may come from a source tree.
BARE = """
import sys, importlib.metadata
import replog, raftlog, paxoslog, transport
for package in (replog, raftlog, paxoslog, transport):
    if not package.__file__.startswith(sys.prefix):
        sys.exit(f"{package.__name__} comes from {package.__file__}")
if not callable(replog.open):
    sys.exit("replog.open is not callable")
for point in importlib.metadata.entry_points(group="replog.agreements"):
    print(point.name, point.load())
"""


def faults(wheel: Path) -> Iterator[str]:
    """What is wrong with the content of the wheel, one line each."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        tops = {name.partition("/")[0] for name in names}
        metadata = {top for top in tops if top.endswith(".dist-info")}
        if len(metadata) != 1:
            yield f"{len(metadata)} .dist-info folders, not one"
            return
        (folder,) = metadata
        described = Parser().parsestr(archive.read(f"{folder}/METADATA").decode())
    yield from (f"unexpected: {top}" for top in sorted(tops - metadata - set(PACKAGES)))
    for package in PACKAGES:
        for name in (f"{package}/__init__.py", f"{package}/py.typed"):
            if name not in names:
                yield f"missing: {name}"
    for name in sorted(names):
        if not name.startswith(folder) and Path(name).suffix not in {".py", ".typed"}:
            yield f"unexpected: {name}"
    if f"{folder}/licenses/LICENSE" not in names:
        yield "missing: the licence"
    required = [line for line in described.get_all("Requires-Dist", []) if "extra ==" not in line]
    bare = {line.split(">")[0].split("<")[0].strip() for line in required}
    if bare != DEPENDENCIES:
        yield f"depends on {sorted(bare)}, not on {sorted(DEPENDENCIES)}"


def run(*command: str | Path, folder: Path) -> None:
    """Run a step in `folder`; its output is shown. Raises CalledProcessError if it fails."""
    subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        check=True,
        timeout=STEP_SECONDS_MAX,
    )


def use(wheel: Path) -> None:
    """Install the wheel away from the tree and use it. Raises CalledProcessError where it fails."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        venv.create(folder / "venv", with_pip=True)
        python = folder / "venv" / "bin" / "python"
        pip = (python, "-m", "pip", "install", "-qq", "--disable-pip-version-check")
        run(*pip, wheel, folder=folder)
        run(python, "-I", "-c", BARE, folder=folder)
        run(*pip, f"replog[cli] @ {wheel.as_uri()}", folder=folder)
        run(python.with_name("replog"), "--version", folder=folder)


def main(wheel: Path) -> int:
    """Check one wheel; gives the exit status."""
    found = list(faults(wheel))
    for fault in found:
        print(f"{wheel.name}: {fault}")
    if found:
        return 1
    use(wheel)
    print(f"{wheel.name}: holds its four packages and works by itself")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python check_wheel.py WHEEL")
    sys.exit(main(Path(sys.argv[1]).resolve()))
