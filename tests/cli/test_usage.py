"""The command line as a whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from replog import __version__
from tests.cli.conftest import Run

ROOT = Path(__file__).resolve().parents[2]


def test_every_command_has_a_page(run: Run) -> None:
    page = run("--help").stdout
    for command in (
        *("append", "demo", "diff", "export", "import", "inspect"),
        *("node", "replay", "status", "tail", "verify"),
    ):
        assert f"  {command} " in page
        shown = run(command, "--help")
        assert shown.exit_code == 0
        assert "--json" in shown.stdout


def test_the_version_is_told(run: Run) -> None:
    assert run("--version").stdout == f"replog, version {__version__}\n"


def test_an_unknown_command_is_wrong_usage(run: Run) -> None:
    result = run("bite")
    assert result.exit_code == 2
    assert "No such command 'bite'" in result.stderr


def test_wrong_usage_of_the_demo(run: Run, tmp_path: Path) -> None:
    (tmp_path / "short").write_text("one line\n")
    for arguments, says in (
        ((f"--input={tmp_path / 'none'}",), "does not exist"),
        ((f"--input={tmp_path / 'short'}",), "are too few for a demo"),
        (("--agreement=none",), "no agreement layer named 'none' is installed"),
        ((f"--directory={tmp_path}",), "is not empty"),
        (("--records=0",), "0 is not in the range"),
    ):
        result = run("demo", *arguments)
        assert result.exit_code == 2, result.output
        assert says in result.stderr


@pytest.mark.parametrize("package", ["click", "rich"])
def test_without_the_extra_it_says_how_to_install_it(package: str) -> None:
    program = f"import sys; sys.modules[{package!r}] = None\nfrom replog.cli import main\nmain()"
    shown = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert shown.returncode == 2
    assert f"needs the package {package!r}" in shown.stderr
    assert "pip install 'replog[cli]'" in shown.stderr


def test_ctrl_c_while_it_is_loaded_ends_it_as_it_ends_a_command() -> None:
    program = (
        "import sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'replog.cli.commands':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "from replog.cli import main\n"
        "main()\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (shown.returncode, shown.stdout, shown.stderr) == (130, "", "")
