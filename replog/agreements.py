"""Which agreement layers are installed: found by name, so that a new one needs no edit here."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from replog.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replog.agreement import Agreement

GROUP = "replog.agreements"
"""The group of entry points in which distributions announce their agreement layers."""
DEFAULT_AGREEMENT = "raft"


def installed_agreements() -> list[str]:
    """The names of all that are installed, sorted."""
    return sorted({entry.name for entry in entry_points(group=GROUP)})


def load_agreement(name: str, settings: Mapping[str, int] | None = None) -> Agreement:
    """The agreement layer of this name, with its default tuning but for these settings: one of the
    group's, or `module:Class`. Raises `ConfigError`."""
    installed = {entry.name: entry for entry in entry_points(group=GROUP)}
    by_path = name.count(":") == 1
    entry = EntryPoint(name, name, GROUP) if by_path else installed.get(name)
    if entry is None:
        known = ", ".join(sorted(installed)) or "none"
        raise ConfigError(
            f"no agreement layer named {name!r} is installed (installed: {known}): name one of "
            f"these, or module:Class"
        )
    try:
        agreement: Any = entry.load()(**(settings or {}))
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f"agreement {name!r} cannot be loaded: {error}") from error
    if not (hasattr(agreement, "membership") and hasattr(agreement, "core")):
        raise ConfigError(f"{name!r} is no agreement layer: it has no membership and no core")
    loaded: Agreement = agreement
    return loaded
