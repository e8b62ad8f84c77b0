"""`replog backup` and `replog restore`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from replog.agreements import load_agreement
from replog.cli.base import (
    Command,
    agreement_option,
    directory_type,
    json_option,
    print_json,
    print_text,
)
from replog.cli.node import members_option, settings_option
from replog.cli.owner import stored_owner
from replog.cli.progress import late_bar
from replog.errors import WrongStore

if TYPE_CHECKING:
    from pathlib import Path

    from replog.store.copying import Copied

verify_option = click.option(
    "--verify/--no-verify", default=True, help="Whether the copy is verified. [default: it is]"
)


@click.command(cls=Command)
@click.argument("directory", metavar="DIR", type=directory_type)
@click.argument("target", metavar="TARGET", type=directory_type)
@verify_option
@json_option
def backup(*, directory: Path, target: Path, verify: bool, as_json: bool) -> None:
    """Copy the log in DIR, as its node has written it down by now, into TARGET, an empty or new
    directory. The node may be running.

    A backup can be looked at like any log; a node takes part with what `replog restore` makes of
    it. Named readers are not copied.
    """
    import replog

    with late_bar(shown=not as_json) as progress:
        copied = replog.backup(directory, target, verify=verify, progress=progress)
    if as_json:
        print_json({"directory": str(target), **_fields(copied), "verified": verify})
    else:
        print_text(f"{target}: a backup of {copied.node}; {_text(copied, verified=verify)}")


@click.command(cls=Command)
@click.argument("source", metavar="BACKUP", type=directory_type)
@click.argument("directory", metavar="DIR", type=directory_type)
@click.option("--node", "name", metavar="ID", help="This node's id. [default: that of the backup]")
@members_option
@agreement_option
@settings_option
@verify_option
@json_option
def restore(
    *,
    source: Path,
    directory: Path,
    name: str | None,
    members: dict[str, str],
    agreement: str | None,
    settings: dict[str, int],
    verify: bool,
    as_json: bool,
) -> None:
    """Make DIR, an empty or new directory, a member of a new cluster that begins with BACKUP.

    Restore every member, each from the same backup, before the first one starts; give the name of
    the cluster that is printed here to `replog node` as --cluster, each time.
    """
    import replog

    if members and name is None:
        raise click.UsageError("give --node too: which of the members is to live in DIR")
    owner = stored_owner(source)
    if owner is None:
        raise WrongStore(f"{source} holds no store")
    stored = owner[0]
    with late_bar(shown=not as_json) as progress:
        copied = replog.restore(
            source,
            directory,
            agreement=load_agreement(agreement or stored.agreement, settings),
            node=name or stored.node,
            members=members or None,
            verify=verify,
            progress=progress,
        )
    if as_json:
        fields = {**_fields(copied), "cluster": copied.cluster}
        print_json({"directory": str(directory), **fields, "verified": verify})
        return
    print_text(f"{directory}: {copied.node}, restored; {_text(copied, verified=verify)}")
    options = [f"--member {member}={address}" for member, address in members.items()]
    print_text(" ".join(["replog node", str(directory), f"--cluster {copied.cluster}", *options]))


def _fields(copied: Copied) -> dict[str, Any]:
    return {
        "node": copied.node,
        "agreement": copied.agreement,
        "first_offset": copied.first_offset,
        "end_offset": copied.end_offset,
        "digest": copied.digest.hex(),
        "cluster_id": copied.cluster_id.hex(),
        "bytes": copied.file_bytes,
    }


def _text(copied: Copied, *, verified: bool) -> str:
    records = f"{copied.end_offset - copied.first_offset} records"
    if copied.first_offset:
        records += f" from offset {copied.first_offset} on"
    checked = "verified" if verified else "not verified"
    return f"{records}, {copied.file_bytes} bytes, {checked}; digest {copied.digest.hex()}"
