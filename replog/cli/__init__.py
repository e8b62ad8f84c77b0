"""The command line: `replog`, or `python -m replog`. Needs the extra `replog[cli]`."""

from __future__ import annotations

import sys

from replog.cli.exits import INTERRUPTED_STATUS, USAGE_STATUS


def main() -> None:
    """Run a command and exit: 0 fine, 1 a check or the work itself failed, 2 wrong usage."""
    try:
        from replog.cli.commands import replog
    except ModuleNotFoundError as error:
        if error.name not in {"click", "rich"}:
            raise
        sys.stderr.write(
            f"replog: the command line needs the package {error.name!r}, which is not installed: "
            "pip install 'replog[cli]'\n"
        )
        sys.exit(USAGE_STATUS)
    except KeyboardInterrupt:  # it takes a moment to load everything
        sys.exit(INTERRUPTED_STATUS)
    replog(prog_name="replog")
