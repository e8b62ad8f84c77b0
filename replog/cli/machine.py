"""State machines by name: `module:factory`."""

from __future__ import annotations

import sys
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replog.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replog.machine import Applies, Machine

METAVAR = "MODULE:FACTORY"


def load_applies(name: str) -> Applies:
    """What the factory of this name makes, which takes records. Raises `ConfigError`."""
    made: Applies = _load(name, ("apply",))
    return made


def load_machine(name: str) -> Machine:
    """What the factory of this name makes, fit to be attached to a log. Raises `ConfigError`."""
    made: Machine = _load(name, ("apply", "digest", "snapshot", "restore"))
    return made


def _load(name: str, methods: Sequence[str]) -> Any:
    module, colon, factory = name.partition(":")
    if not (module and colon and factory):
        raise ConfigError(f"{name!r} is not {METAVAR}, as in replog.machines:KeyValue")
    current = str(Path.cwd())
    if current not in sys.path:
        sys.path.insert(0, current)
    try:
        machine: Any = attrgetter(factory)(import_module(module))()
    except (Exception, SystemExit) as error:  # whatever the module of an application may raise
        raise ConfigError(f"machine {name!r} cannot be made: {error!r}") from error
    for method in methods:
        if not callable(getattr(machine, method, None)):
            kind = type(machine).__name__
            raise ConfigError(f"{name!r} makes no machine: a {kind} has no {method}")
    return machine
