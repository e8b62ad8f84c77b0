"""`python -m replog`: the command line."""

from __future__ import annotations

from replog.cli import main

if __name__ == "__main__":
    main()
