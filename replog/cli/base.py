"""What all commands have in common: how they print, and how they fail."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from replog.agreements import DEFAULT_AGREEMENT
from replog.cli.exits import FAILED_STATUS, INTERRUPTED_STATUS, USAGE_STATUS
from replog.errors import ConfigError, OffsetOutOfRange, ReplogError, WrongStore

USAGE_ERRORS = (ConfigError, OffsetOutOfRange, WrongStore)

directory_type = click.Path(file_okay=False, path_type=Path)
directory_argument = click.argument("directory", metavar="DIR", type=directory_type)
directories_argument = click.argument(
    "directories", metavar="DIR...", nargs=-1, required=True, type=directory_type
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object a line, for programs."
)
agreement_option = click.option(
    "--agreement",
    metavar="NAME",
    help="The agreement layer: a name that is installed, or module:Class. "
    f"[default: the stored one, {DEFAULT_AGREEMENT}]",
)
cluster_option = click.option(
    "--cluster",
    metavar="NAME",
    default="",
    help="Tells clusters whose members have the same names apart.",
)


class Command(click.Command):
    """A command that reports an error of the library in one line, and exits accordingly."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except (ReplogError, OSError) as error:
            if ctx.params.get("as_json"):
                print_json({"error": type(error).__name__, "message": str(error)})
            click.echo(f"replog {ctx.info_name}: {type(error).__name__}: {error}", err=True)
            ctx.exit(USAGE_STATUS if isinstance(error, USAGE_ERRORS) else FAILED_STATUS)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED_STATUS)


def print_json(fields: dict[str, Any]) -> None:
    """Print one line for programs, at once."""
    sys.stdout.write(json.dumps(fields, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def print_text(text: str) -> None:
    """Print one line for people, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
