"""The shape of the code, read from its imports: what may know what.

    transport  <-  replog  <-  { raftlog, paxoslog }

1. Imports go down the height table; those on one row are blind to each other; nothing is circular.
2. The trunk (`replog`, `transport`) never names a branch (`raftlog`, `paxoslog`), not even as text;
   nor does it speak of their protocols, see `test_trunk_words`.
3. Only the runtime names `transport`.
4. The floor, the contracts, the replica and both cores are pure: no clock, socket, file, thread,
   logger or global randomness; importing them loads neither LMDB nor ZeroMQ.
5. The library imports three packages of others; no pickle, no assert, no quorum arithmetic outside
   `replog.quorum`.
6. Both branches have the same files.

What stands under `if TYPE_CHECKING:` never runs: it is bound by 1, 2 and 3 only.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import Plant

ROOT = Path(__file__).resolve().parents[1]

BRANCHES = ("paxoslog", "raftlog")
TRUNK = ("replog", "transport")
SEES = {
    "transport": {"transport"},
    "replog": {"replog", "transport"},
    "raftlog": {"raftlog", "replog"},
    "paxoslog": {"paxoslog", "replog"},
}

# The height table of `replog`, low to high: a height, then the families of modules on that row. A
# module's family is its whole name if that stands here, else its name up to the first `_` or `.`.
# A family may import itself and lower rows.
ROWS: tuple[tuple[int, tuple[str, ...]], ...] = (
    (0, ("errors",)),
    (0, ("entry",)),
    (0, ("quorum",)),
    (0, ("membership",)),
    (0, ("producers",)),
    (0, ("snapshot",)),
    (0, ("machine",)),
    (1, ("config",)),
    (1, ("agreement",)),
    (1, ("rounds",)),
    (1, ("messages",)),
    (1, ("codec",)),
    (2, ("machines",)),
    (3, ("failpoints",)),
    (3, ("store.interface",)),
    (3, ("disk_room",)),
    (3, ("retention",)),
    (3, ("replica", "store")),
    (3, ("loads",)),
    (4, ("pending",)),
    (4, ("inbox", "recent")),
    (4, ("reading",)),
    (4, ("keeping", "named_reader")),
    (4, ("comparing",)),
    (4, ("applier",)),
    (4, ("node",)),
    (5, ("log",)),
    (5, ("replaying",)),
    (6, ("__init__",)),
    (5, ("agreements",)),
    (6, ("control", "testing")),
    (6, ("demo",)),
    (6, ("cli",)),
    (6, ("__main__",)),
)
RANKS = {family: rank for rank, (_, families) in enumerate(ROWS) for family in families}
HEIGHTS = {family: height for height, families in ROWS for family in families}
CONTRACT_HEIGHT = 1  # what the cores see
PURE = {family for family, height in HEIGHTS.items() if height <= CONTRACT_HEIGHT}
PURE |= {"store.interface", "replica", "machines"}

RUNTIME = {"node", "log", "testing", "control", "cli"}
PROGRAMS = {"testing", "control", "demo", "cli", "__main__"}  # may import what the extras bring
THIRD_PARTY = {"lmdb", "msgpack", "zmq"}
EXTRAS = {"click", "rich"}

IMPURE = frozenset(
    "asyncio atexit concurrent contextvars ctypes datetime fcntl io lmdb logging mmap"
    " multiprocessing os pathlib queue sched secrets select selectors shutil signal socket ssl"
    " subprocess tempfile threading time uuid zmq".split()
)
IMPURE_CALLS = {"breakpoint", "input", "open", "print"}
PICKLES = {"cPickle", "cloudpickle", "dill", "marshal", "pickle", "shelve"}
PICKLING_METHODS = {"recv_pyobj", "send_pyobj"}


@dataclass(frozen=True, slots=True)
class Import:
    """One imported name: the module of ours that it comes from, or the dotted name as written."""

    line: int
    target: str
    name: str
    typing_only: bool


@dataclass(frozen=True, slots=True)
class Module:
    """One source file. `name` is dotted; `path` is relative to the root of the tree."""

    name: str
    path: str
    tree: ast.Module
    imports: tuple[Import, ...]

    @property
    def package(self) -> str:
        return self.name.partition(".")[0]

    @property
    def family(self) -> str:
        return family_of(self.name)

    @property
    def pure(self) -> bool:
        return self.package in BRANCHES or (self.package == "replog" and self.family in PURE)

    def at(self, line: int) -> str:
        return f"{self.path}:{line}"


TYPE_CHECKING = {"TYPE_CHECKING", "typing.TYPE_CHECKING"}

Modules = Mapping[str, Module]
Rule = Callable[[Modules], Iterator[str]]


def family_of(name: str) -> str:
    """`replog.store.lmdb` and `replog.store_lmdb` -> `store`; `replog` -> `__init__`."""
    inside = name.partition(".")[2] or "__init__"
    return inside if inside in RANKS else re.split(r"[._]", inside)[0]


def dotted(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def nodes(tree: ast.AST, *, typing_only: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """Every node below `tree`, and whether it stands under `if TYPE_CHECKING:`."""
    guarded: list[ast.stmt] = []
    if isinstance(tree, ast.If) and ast.unparse(tree.test) in TYPE_CHECKING:
        guarded = tree.body
    for child in ast.iter_child_nodes(tree):
        below = typing_only or child in guarded
        yield child, below
        yield from nodes(child, typing_only=below)


def imports_of(name: str, path: Path, tree: ast.Module, known: set[str]) -> Iterator[Import]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node, typing_only in nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name, alias.asname or "", typing_only)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) + 1 - node.level]
                source = ".".join([*above, source] if source else above)
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                target = inner if inner in known else source
                yield Import(node.lineno, target, alias.asname or alias.name, typing_only)
        elif isinstance(node, ast.Call) and called(node) in {"import_module", "__import__"}:
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield Import(node.lineno, argument.value, "", typing_only)


def called(node: ast.Call) -> str:
    """The last name of what is called: `open`, and `import_module` of `importlib.import_module`."""
    return ast.unparse(node.func).rpartition(".")[2]


def read(root: Path) -> Modules:
    paths = [
        path.relative_to(root) for name in SEES for path in sorted((root / name).rglob("*.py"))
    ]
    known = {dotted(path) for path in paths}
    modules = {}
    for path in paths:
        tree = ast.parse((root / path).read_text(encoding="utf-8"), str(path))
        name = dotted(path)
        imports = tuple(imports_of(name, path, tree, known))
        modules[name] = Module(name, str(path), tree, imports)
    return modules


def our_imports(modules: Modules) -> Iterator[tuple[Module, Import, str]]:
    """Every import of one of our packages, with that package."""
    for module in modules.values():
        for found in module.imports:
            package = found.target.partition(".")[0]
            if package in SEES:
                yield module, found, package


def library(modules: Modules) -> Iterator[Module]:
    """All but the programs that come with the library."""
    for module in modules.values():
        if module.package != "replog" or module.family not in PROGRAMS:
            yield module


# --- the rules: each yields its breaches ----------------------------------------------------------


def every_module_is_placed(modules: Modules) -> Iterator[str]:
    for module in modules.values():
        if module.package == "replog" and module.family not in RANKS:
            yield f"{module.path}: {module.name}: place this module in the height table"


def imports_go_down(modules: Modules) -> Iterator[str]:
    for module, found, package in our_imports(modules):
        arrow = f"{module.at(found.line)}: {module.name} imports {found.target}"
        if package not in SEES[module.package]:
            yield f"{arrow}: {module.package} does not see {package}"
        elif package == "replog" and family_of(found.target) in RANKS:
            family = family_of(found.target)
            if module.package in BRANCHES:
                if HEIGHTS[family] > CONTRACT_HEIGHT:
                    yield f"{arrow}: a core sees only heights 0 and 1"
            elif module.family in RANKS and module.family != family:
                if RANKS[family] > RANKS[module.family]:
                    yield f"{arrow}: an import goes up"
                elif RANKS[family] == RANKS[module.family]:
                    yield f"{arrow}: siblings are blind to each other"


def nothing_is_circular(modules: Modules) -> Iterator[str]:
    graph: dict[str, set[str]] = {name: set() for name in modules}
    for module, found, _ in our_imports(modules):
        if found.target in modules and found.target != module.name and not found.typing_only:
            graph[module.name].add(found.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        yield "circular imports: " + " <- ".join(error.args[1])


def the_trunk_names_no_branch(modules: Modules) -> Iterator[str]:
    branch = re.compile(rf"({'|'.join(BRANCHES)})([.:]\w+)*")
    for module in modules.values():
        if module.package in TRUNK:
            for node in ast.walk(module.tree):
                if isinstance(node, ast.Constant) and branch.fullmatch(str(node.value)):
                    yield f"{module.at(node.lineno)}: the trunk names the branch {node.value!r}"


def the_branches_have_the_same_files(modules: Modules) -> Iterator[str]:
    ours, theirs = (
        {module.name.partition(".")[2] for module in modules.values() if module.package == branch}
        for branch in BRANCHES
    )
    for name in sorted(ours ^ theirs):
        yield f"{name}: only one of {' and '.join(BRANCHES)} has it"


def only_the_runtime_names_transport(modules: Modules) -> Iterator[str]:
    for module, found, package in our_imports(modules):
        if package == "transport" and module.package == "replog" and module.family not in RUNTIME:
            yield f"{module.at(found.line)}: {module.name} is not of the runtime: no transport here"


def pure_modules_touch_nothing(modules: Modules) -> Iterator[str]:
    for module in filter(lambda module: module.pure, modules.values()):
        for found in module.imports:
            top = found.target.partition(".")[0]
            if found.typing_only:
                continue
            if top in IMPURE:
                yield f"{module.at(found.line)}: {module.name} is pure: no {top} here"
            if top == "random" and found.name != "Random":
                yield f"{module.at(found.line)}: {module.name} is pure: take a seeded Random"
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                if name == "Random":
                    yield f"{module.at(node.lineno)}: {module.name} is pure: take a seeded Random"
                if name in IMPURE_CALLS:
                    yield f"{module.at(node.lineno)}: {module.name} is pure: no {name}() here"


def packages_of_others_are_few(modules: Modules) -> Iterator[str]:
    lean = {module.name for module in library(modules)}
    for module in modules.values():
        allowed = THIRD_PARTY if module.name in lean else THIRD_PARTY | EXTRAS
        for found in module.imports:
            top = found.target.partition(".")[0]
            if not (found.typing_only or top in SEES or top in sys.stdlib_module_names | allowed):
                yield f"{module.at(found.line)}: {module.name} imports {top}, a package too many"


def nothing_is_pickled(modules: Modules) -> Iterator[str]:
    for module in modules.values():
        for found in module.imports:
            if found.target.partition(".")[0] in PICKLES:
                yield f"{module.at(found.line)}: no pickle: it runs what a peer sends"
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Attribute) and node.attr in PICKLING_METHODS:
                yield f"{module.at(node.lineno)}: no pickle: {node.attr} runs what a peer sends"


def checks_survive_optimisation(modules: Modules) -> Iterator[str]:
    for module in modules.values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Assert):
                yield f"{module.at(node.lineno)}: raise instead: python -O drops an assert"


def only_quorum_halves(modules: Modules) -> Iterator[str]:
    for module in modules.values():
        for node in ast.walk(module.tree):
            if isinstance(node, (ast.BinOp, ast.AugAssign)) and module.name != "replog.quorum":
                right = node.right if isinstance(node, ast.BinOp) else node.value
                halves = isinstance(node.op, ast.FloorDiv) and ast.unparse(right) == "2"
                if halves:
                    yield f"{module.at(node.lineno)}: only replog/quorum.py computes a majority"


RULES: tuple[Rule, ...] = (
    every_module_is_placed,
    imports_go_down,
    nothing_is_circular,
    the_trunk_names_no_branch,
    the_branches_have_the_same_files,
    only_the_runtime_names_transport,
    pure_modules_touch_nothing,
    packages_of_others_are_few,
    nothing_is_pickled,
    checks_survive_optimisation,
    only_quorum_halves,
)


# --- the code keeps the rules ---------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_code_keeps_the_rule(rule: Rule) -> None:
    assert list(rule(read(ROOT))) == []


def test_all_four_packages_are_read() -> None:
    modules = read(ROOT)
    assert set(SEES) <= set(modules)
    assert {"replog.agreement", "replog.quorum"} <= set(modules)


def loaded_by(root: Path, *names: str) -> set[str]:
    """Which of LMDB and ZeroMQ a fresh interpreter has loaded after importing these modules."""
    program = (
        f"import sys, {', '.join(names)}\n"
        "print(*{name.partition('.')[0] for name in sys.modules} & {'lmdb', 'zmq'})"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


@pytest.mark.parametrize("package", ["raftlog", "paxoslog", "replog"])
def test_importing_a_package_loads_neither_lmdb_nor_zeromq(package: str) -> None:
    assert loaded_by(ROOT, package) == set()


def test_importing_every_pure_module_loads_neither_lmdb_nor_zeromq() -> None:
    pure = [module.name for module in read(ROOT).values() if module.pure]
    assert "replog.agreement" in pure
    assert loaded_by(ROOT, *pure) == set()


# --- every rule bites -----------------------------------------------------------------------------

TYPING = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    "

SOUND = {
    "transport/__init__.py": "import zmq\n",
    "replog/__init__.py": TYPING + "from . import log\n",
    "replog/quorum.py": "def majority(count):\n    return count // 2 + 1\n",
    "replog/entry.py": "import msgpack\nfrom replog.errors import ReplogError\n",
    "replog/errors.py": "",
    "replog/agreement.py": "from random import Random\n",
    "replog/replica.py": "from replog import agreement\n",
    "replog/replica_window.py": "from replog.store.interface import Store\n",
    "replog/store/interface.py": "",
    "replog/store/__init__.py": "import os\nimport lmdb\n",
    "replog/store/layout.py": "from ..entry import Entry\n",
    "replog/node.py": "import time\nimport transport\nfrom . import replica, store\n",
    "replog/log.py": "from replog.node import Node\n",
    "replog/cli.py": "import click\nfrom replog.log import ReplicatedLog\n",
    "raftlog/__init__.py": "from raftlog.core import Core\n",
    "raftlog/core.py": "from replog.agreement import Core\nfrom replog import quorum\n",
    "paxoslog/__init__.py": "",
    "paxoslog/core.py": "",
}
BREACHES = [
    (every_module_is_placed, "replog/gadget.py", "", "place this module in the height table"),
    (every_module_is_placed, "replog/kit/a.py", "", "place this module in the height table"),
    (imports_go_down, "transport/zeromq.py", "import replog.errors", "does not see replog"),
    (imports_go_down, "raftlog/core.py", "from paxoslog import x", "does not see paxoslog"),
    (imports_go_down, "raftlog/core.py", "import transport", "does not see transport"),
    (imports_go_down, "replog/log.py", "import raftlog.core", "does not see raftlog"),
    (imports_go_down, "replog/log.py", TYPING + "import raftlog", "does not see raftlog"),
    (imports_go_down, "replog/errors.py", "from .entry import Entry", "an import goes up"),
    (imports_go_down, "replog/errors.py", "from . import entry", "an import goes up"),
    (imports_go_down, "replog/errors.py", TYPING + "from . import entry", "an import goes up"),
    (imports_go_down, "replog/store/a.py", "from ..node import Node", "an import goes up"),
    (imports_go_down, "replog/node.py", "import replog", "an import goes up"),
    (imports_go_down, "replog/node.py", "importlib.import_module('replog.log')", "goes up"),
    (imports_go_down, "replog/replica.py", "from replog import store", "siblings are blind"),
    (imports_go_down, "replog/replica.py", "from replog.store import layout", "siblings are blind"),
    (imports_go_down, "replog/store/interface.py", "from . import layout", "an import goes up"),
    (imports_go_down, "raftlog/core.py", "from replog import node", "only heights 0 and 1"),
    (imports_go_down, "raftlog/core.py", "from replog import open", "only heights 0 and 1"),
    (nothing_is_circular, "raftlog/core.py", "import raftlog", "circular imports"),
    (the_trunk_names_no_branch, "replog/cli.py", "x = 'raftlog:Raft'", "names the branch"),
    (the_trunk_names_no_branch, "transport/a.py", "x = f('paxoslog')", "names the branch"),
    (the_branches_have_the_same_files, "raftlog/votes.py", "", "votes: only one of"),
    (only_the_runtime_names_transport, "replog/store/a.py", "import transport", "no transport"),
    (only_the_runtime_names_transport, "replog/entry.py", TYPING + "from transport import x", ""),
    (pure_modules_touch_nothing, "raftlog/core.py", "def f():\n    import time", "no time here"),
    (pure_modules_touch_nothing, "replog/codec.py", "from os import path", "no os here"),
    (pure_modules_touch_nothing, "paxoslog/core.py", "import concurrent.futures", "no concurrent"),
    (pure_modules_touch_nothing, "raftlog/core.py", "import random", "take a seeded Random"),
    (pure_modules_touch_nothing, "raftlog/core.py", "from random import choice", "seeded Random"),
    (pure_modules_touch_nothing, "raftlog/core.py", "x = Random()", "take a seeded Random"),
    (pure_modules_touch_nothing, "replog/replica_a.py", "from time import monotonic", "no time"),
    (pure_modules_touch_nothing, "replog/store/interface.py", "import lmdb", "no lmdb here"),
    (pure_modules_touch_nothing, "replog/config.py", "x = open('a')", "no open() here"),
    (packages_of_others_are_few, "replog/log.py", "import click", "a package too many"),
    (packages_of_others_are_few, "replog/cli.py", "import numpy.linalg", "a package too many"),
    (nothing_is_pickled, "replog/cli.py", "import pickle", "no pickle"),
    (nothing_is_pickled, "transport/a.py", "socket.send_pyobj(x)", "no pickle"),
    (checks_survive_optimisation, "replog/testing.py", "assert x", "raise instead"),
    (only_quorum_halves, "raftlog/core.py", "x = n // 2 + 1", "computes a majority"),
    (only_quorum_halves, "raftlog/core.py", "n //= 2", "computes a majority"),
]


def with_line(files: Mapping[str, str], path: str, line: str) -> dict[str, str]:
    return {**files, path: files.get(path, "") + line + "\n"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_sound_tree_keeps_the_rule(rule: Rule, plant: Plant) -> None:
    assert list(rule(read(plant(SOUND)))) == []


@pytest.mark.parametrize(("rule", "path", "line", "says"), BREACHES)
def test_a_breach_is_reported(rule: Rule, path: str, line: str, says: str, plant: Plant) -> None:
    breaches = list(rule(read(plant(with_line(SOUND, path, line)))))
    assert len(breaches) == 1
    assert says in breaches[0]


def test_every_rule_has_a_breach() -> None:
    assert {rule for rule, *_ in BREACHES} == set(RULES)


def test_what_only_a_type_checker_sees_may_be_impure(plant: Plant) -> None:
    tree = with_line(SOUND, "raftlog/core.py", TYPING + "import socket, numpy")
    modules = read(plant(tree))
    assert list(pure_modules_touch_nothing(modules)) == []
    assert list(packages_of_others_are_few(modules)) == []


def test_a_core_that_loads_lmdb_is_found_out(plant: Plant) -> None:
    root = plant(
        {"raftlog/__init__.py": "from raftlog import core", "raftlog/core.py": "import lmdb"}
    )
    assert loaded_by(root, "raftlog") == {"lmdb"}
