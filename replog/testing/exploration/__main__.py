"""`python -m replog.testing.exploration`: try every order of events on three real cores.

Exit codes: 0 no rule was broken, 1 one was, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import sys

from replog.agreements import DEFAULT_AGREEMENT, load_agreement
from replog.errors import ConfigError
from replog.testing.exploration.bounds import Bounds
from replog.testing.exploration.cluster import Cluster
from replog.testing.exploration.search import Found, Progress, Search
from replog.testing.exploration.starts import STARTS, start_state

STATES = 1_000_000


def main() -> int:
    """Carry out the command; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m replog.testing.exploration")
    parser.add_argument(
        "--agreement",
        default=DEFAULT_AGREEMENT,
        help=f"which agreement (default: {DEFAULT_AGREEMENT})",
    )
    parser.add_argument("--states", type=int, default=STATES, help="how many (default: a million)")
    parser.add_argument("--start", default="empty", help=f"one of: {', '.join(STARTS)}")
    parser.add_argument(
        "--entries-per-packet", type=int, default=64, help="where hosts cut sends (default: 64)"
    )
    for name, bound in Bounds()._asdict().items():
        parser.add_argument(
            f"--{name}", type=int, default=bound, help=f"at most so many (default: {bound})"
        )
    arguments = parser.parse_args()
    if arguments.states < 1 or arguments.entries_per_packet < 1:
        parser.error("--states and --entries-per-packet are at least 1")
    try:
        cluster = Cluster(
            load_agreement(arguments.agreement),
            entries_per_packet_max=arguments.entries_per_packet,
        )
        bounds = Bounds(*[getattr(arguments, name) for name in Bounds._fields])
        start = start_state(cluster, arguments.start, bounds)
    except ConfigError as error:
        parser.error(str(error))
    found = Search(cluster, start).run(arguments.states, tell)
    say(found, bounds)
    return 1 if found.breach else 0


def tell(progress: Progress) -> None:
    """A line of progress."""
    sys.stderr.write(f"{progress}\n")


def say(found: Found, bounds: Bounds) -> None:
    """What has come of it."""
    write = sys.stdout.write
    write(f"{found.progress}, {found.steps:,} steps\n")
    write("within: " + ", ".join([f"{bound} {name}" for name, bound in bounds._asdict().items()]))
    write("\n")
    if found.breach:
        for number, line in enumerate(found.trace, start=1):
            write(f"{number:>3}  {line}\n")
        write(f"broken: {found.breach}\n")
    elif found.complete:
        write("no rule is broken in any state within these bounds\n")
    else:
        write("no rule is broken in any of these states; there are more\n")


if __name__ == "__main__":
    sys.exit(main())
