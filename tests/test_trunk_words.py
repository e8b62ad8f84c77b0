"""The trunk (`replog`, `transport`) uses no word of one protocol, nor the name of a message of one.

What knows no such word cannot do one thing for one protocol and another for the other. Docstrings
may explain; the exceptions stand below, with their reasons.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.conftest import Plant
from tests.test_architecture import BRANCHES, ROOT, TRUNK, Modules, read, with_line

PROTOCOL_WORDS = frozenset(
    "acceptor acceptors ballot ballots nack paxos paxoslog proposer proposers raft raftlog"
    " term terms".split()
)  # roles and words that both share (vote, promise, leader) are the contract's
DEFAULTS = {"replog.agreements": {"raft"}}
"""Where the agreement is named that a command takes when it is told none."""
JUDGES = {"replog.testing.checkers", "replog.testing.choices", "replog.testing.promises"}
"""They watch a simulated run from outside and know what each protocol's messages promise, so as not
to ask the code they judge. No node runs them."""


def the_trunk_speaks_of_no_protocol(modules: Modules) -> Iterator[str]:
    messages = messages_of(modules)
    for module in modules.values():
        if module.package in TRUNK and module.name not in JUDGES:
            for line, text in said(module.tree):
                found = {word for word in re.findall(r"[A-Za-z]+", text) if word in messages}
                found |= PROTOCOL_WORDS & {word.lower() for word in words_of(text)}
                for word in sorted(found - DEFAULTS.get(module.name, set())):
                    yield f"{module.at(line)}: {text!r} speaks of one protocol: {word}"


def messages_of(modules: Modules) -> set[str]:
    """The names of every message class of the branches."""
    return {
        node.name
        for branch in BRANCHES
        if f"{branch}.messages" in modules
        for node in modules[f"{branch}.messages"].tree.body
        if isinstance(node, ast.ClassDef)
    }


def said(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every name and text of a module, but for docstrings."""
    docstrings = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node not in docstrings:
                yield node.lineno, node.value
        elif isinstance(node, ast.Name):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute):
            if not (node.attr == "term" and ast.unparse(node.value).endswith("context")):
                yield node.lineno, node.attr  # but for ZeroMQ's `context.term()`
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.alias)):
            yield node.lineno, node.name
        elif isinstance(node, (ast.arg, ast.keyword)):
            yield node.lineno, node.arg or ""


def words_of(text: str) -> list[str]:
    """`fooBar_baz` and `FooBar baz` -> foo, Bar, baz."""
    return re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", text)


def test_the_trunk_speaks_of_no_protocol() -> None:
    assert list(the_trunk_speaks_of_no_protocol(read(ROOT))) == []


def test_the_messages_of_both_protocols_are_known() -> None:
    assert {"RequestVote", "AppendEntries", "Prepare", "Accept"} <= messages_of(read(ROOT))


SOUND = {
    "transport/__init__.py": "",
    "replog/__init__.py": "",
    "replog/node.py": "'Raft sends AppendEntries.'\nprint('leader', votes, promise)\n",
    "replog/control/client.py": "self._context.term()\n",
    "replog/testing/promises.py": "if name == 'AppendEntries':\n    pass\n",
    "replog/agreements.py": "DEFAULT_AGREEMENT = 'raft'\n",
    "raftlog/messages.py": "class AppendEntries: ...\n",
    "paxoslog/messages.py": "class Prepare: ...\n",
}
BREACHES = [
    ("replog/node.py", "if x.name == 'raft': ...", ": raft"),
    ("replog/log.py", "x = 'a Multi-Paxos node'", ": paxos"),
    ("replog/node.py", "x = type(m).__name__ == 'Prepare'", ": Prepare"),
    ("replog/log.py", "def on_append(m: AppendEntries): ...", ": AppendEntries"),
    ("replog/node.py", "x = message.term", ": term"),
    ("replog/store/a.py", "def raise_ballot(): ...", ": ballot"),
    ("transport/a.py", "f(term_max=1)", ": term"),
    ("replog/agreements.py", "x = 'paxos'", ": paxos"),
]


def test_a_sound_tree_keeps_the_rule(plant: Plant) -> None:
    assert list(the_trunk_speaks_of_no_protocol(read(plant(SOUND)))) == []


@pytest.mark.parametrize(("path", "line", "says"), BREACHES)
def test_a_breach_is_reported(path: str, line: str, says: str, plant: Plant) -> None:
    tree = plant(with_line(SOUND, path, line))
    (breach,) = the_trunk_speaks_of_no_protocol(read(tree))
    assert f"speaks of one protocol{says}" in breach
