"""The check that a release must pass finds what it should, in wheels made up for it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / ".ci" / "check_wheel.py"

METADATA = "replog-0.1.0.dist-info/METADATA"
REQUIRES = "".join(
    f"Requires-Dist: {line}\n"
    for line in ("lmdb<4,>=3.0", "msgpack>=1.2.1,<2", "pyzmq<28", "click>=8; extra == 'cli'")
)
SOUND = {
    **{f"{package}/__init__.py": "" for package in ("paxoslog", "raftlog", "replog", "transport")},
    **{f"{package}/py.typed": "" for package in ("paxoslog", "raftlog", "replog", "transport")},
    "replog/store/lmdb.py": "",
    "replog-0.1.0.dist-info/licenses/LICENSE": "",
    METADATA: f"Name: replog\n{REQUIRES}\n",
}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_wheel", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pack(path: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(path / "a.whl", "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path / "a.whl"


def test_a_sound_wheel_has_no_faults(script: ModuleType, tmp_path: Path) -> None:
    assert list(script.faults(pack(tmp_path, SOUND))) == []


@pytest.mark.parametrize(
    ("path", "text", "fault"),
    [
        ("tests/test_a.py", "", "unexpected: tests"),
        ("replog/notes.txt", "", "unexpected: replog/notes.txt"),
        ("other-1.dist-info/METADATA", "", "2 .dist-info folders, not one"),
        (
            METADATA,
            "Requires-Dist: numpy\n\n",
            "depends on ['numpy'], not on ['lmdb', 'msgpack', 'pyzmq']",
        ),
    ],
)
def test_what_does_not_belong_is_a_fault(
    script: ModuleType, tmp_path: Path, path: str, text: str, fault: str
) -> None:
    assert list(script.faults(pack(tmp_path, {**SOUND, path: text}))) == [fault]


@pytest.mark.parametrize(
    "path", [path for path in SOUND if path.endswith(("__init__.py", "typed"))]
)
def test_what_is_missing_is_a_fault(script: ModuleType, tmp_path: Path, path: str) -> None:
    files = {name: text for name, text in SOUND.items() if name != path}
    assert list(script.faults(pack(tmp_path, files))) == [f"missing: {path}"]


def test_a_wheel_with_faults_fails_before_it_is_installed(tmp_path: Path) -> None:
    wheel = pack(tmp_path, {**SOUND, "tests/test_a.py": ""})
    run = subprocess.run(
        [sys.executable, SCRIPT, wheel], capture_output=True, text=True, check=False, timeout=60
    )
    assert (run.returncode, run.stdout) == (1, "a.whl: unexpected: tests\n")


def test_the_project_names_the_packages_that_the_check_wants(script: ModuleType) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    named = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert sorted(named) == sorted(script.PACKAGES)
