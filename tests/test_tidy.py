"""The tidiness of the tree: sizes, names, leftovers.

1. A Python file has fewer than 500 lines, a function fewer than 60, a line at most 100 columns.
2. Names in the library say what a thing is: none of the words that fit everything.
3. No note to do something later, and no path of somebody's machine, in any text file.
4. Every Markdown page has exactly one title.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.conftest import Plant

ROOT = Path(__file__).resolve().parents[1]

LIBRARY = ("paxoslog", "raftlog", "replog", "transport")
CODE = (*LIBRARY, ".ci", "benchmarks", "examples", "tests")
UNTRACKED = {"__pycache__", "build", "dist", "node_modules"}

FILE_LINES_MAX = 499
FUNCTION_LINES_MAX = 59
COLUMNS_MAX = 100

VAGUE_WORDS = {"helper", "helpers", "info", "infos", "manager", "managers", "util", "utils"}
VAGUE_VERBS = {"do", "handle", "process"}  # as the first of several words: do_work, HandleVote

# Written with classes of one character, so that this file does not match itself.
LEFTOVER = re.compile(r"\b(T[O]DO|F[I]XME|X[X]X|H[A]CK)\b")
MACHINE_PATH = re.compile(r"(?<![\w.~/-])/(w[o]rk|r[o]ot|h[o]me)/")
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
FENCE = re.compile(r"^\s*(```|~~~)")

Source = tuple[Path, str]
Rule = Callable[[Sequence[Source]], Iterator[str]]


def tracked(root: Path) -> list[Path]:
    """Files that are or may be committed, relative to `root`; all files where git is no help."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        paths = [path.relative_to(root) for path in root.rglob("*")]
        hidden = [{p for p in path.parts if p.startswith(".") and p != ".ci"} for path in paths]
        kept = [
            p for p, dots in zip(paths, hidden, strict=True) if not dots | UNTRACKED & {*p.parts}
        ]
    else:
        kept = [Path(name) for name in listed.stdout.split("\0") if name]
    return sorted(path for path in kept if (root / path).is_file())


def texts(root: Path) -> list[Source]:
    """Every tracked file that is text, with its text."""
    sources = []
    for path in tracked(root):
        try:
            sources.append((path, (root / path).read_text(encoding="utf-8")))
        except UnicodeDecodeError:
            continue
    return sources


def python_in(sources: Sequence[Source], folders: Sequence[str]) -> Iterator[Source]:
    for path, text in sources:
        if path.suffix == ".py" and path.parts[0] in folders:
            yield path, text


def lines_matching(
    sources: Sequence[Source], pattern: re.Pattern[str]
) -> Iterator[tuple[str, str]]:
    for path, text in sources:
        for number, line in enumerate(text.splitlines(), start=1):
            found = pattern.search(line)
            if found:
                yield f"{path}:{number}", found[0]


def defined_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every name that this file gives to something of its own: definitions, arguments, targets."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def vague(name: str) -> bool:
    words = [word.lower() for word in WORD.findall(name)]
    return bool(VAGUE_WORDS & {*words}) or (len(words) > 1 and words[0] in VAGUE_VERBS)


# --- the rules: each yields its breaches ----------------------------------------------------------


def files_are_short(sources: Sequence[Source]) -> Iterator[str]:
    for path, text in python_in(sources, CODE):
        count = len(text.splitlines())
        if count > FILE_LINES_MAX:
            yield f"{path}: {count} lines, at most {FILE_LINES_MAX}"


def functions_are_short(sources: Sequence[Source]) -> Iterator[str]:
    for path, text in python_in(sources, CODE):
        for node in ast.walk(ast.parse(text, str(path))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                count = (node.end_lineno or node.lineno) - node.lineno + 1
                if count > FUNCTION_LINES_MAX:
                    most = f"at most {FUNCTION_LINES_MAX}"
                    yield f"{path}:{node.lineno}: {node.name} has {count} lines, {most}"


def lines_are_short(sources: Sequence[Source]) -> Iterator[str]:
    for path, text in python_in(sources, CODE):
        for number, line in enumerate(text.splitlines(), start=1):
            if len(line) > COLUMNS_MAX:
                yield f"{path}:{number}: {len(line)} columns, at most {COLUMNS_MAX}"


def names_say_something(sources: Sequence[Source]) -> Iterator[str]:
    for path, text in python_in(sources, LIBRARY):
        for part in path.with_suffix("").parts:
            if vague(part):
                yield f"{path}: {part!r} fits everything"
        for line, name in defined_names(ast.parse(text, str(path))):
            if vague(name):
                yield f"{path}:{line}: {name!r} fits everything"


def nothing_is_left_over(sources: Sequence[Source]) -> Iterator[str]:
    for where, found in lines_matching(sources, LEFTOVER):
        yield f"{where}: {found}: do it, or file it elsewhere"


def no_path_of_a_machine(sources: Sequence[Source]) -> Iterator[str]:
    for where, found in lines_matching(sources, MACHINE_PATH):
        yield f"{where}: {found} is a path of somebody's machine"


def pages_have_one_title(sources: Sequence[Source]) -> Iterator[str]:
    for path, text in sources:
        if path.suffix == ".md":
            titles, fenced = 0, False
            for line in text.splitlines():
                fenced ^= bool(FENCE.match(line))
                titles += not fenced and line.startswith("# ")
            if titles != 1:
                yield f"{path}: {titles} titles, not one"


RULES: tuple[Rule, ...] = (
    files_are_short,
    functions_are_short,
    lines_are_short,
    names_say_something,
    nothing_is_left_over,
    no_path_of_a_machine,
    pages_have_one_title,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_tree_keeps_the_rule(rule: Rule) -> None:
    assert list(rule(texts(ROOT))) == []


def test_the_whole_tree_is_read() -> None:
    read = [str(path) for path, _ in texts(ROOT)]
    assert {"pyproject.toml", "tests/test_tidy.py", "replog/quorum.py", "LICENSE"} <= {*read}
    assert not [path for path in read if path.startswith(".venv")]


# --- every rule bites -----------------------------------------------------------------------------

BREACHES = [
    (files_are_short, "tests/a.py", "\n" * 500, "500 lines"),
    (functions_are_short, "raftlog/a.py", "def f():\n" + "    x\n" * 59, "f has 60 lines"),
    (functions_are_short, "tests/a.py", "async def f():\n" + "    x\n" * 59, "f has 60 lines"),
    (lines_are_short, "benchmarks/a.py", "#" * 101, "101 columns"),
    (lines_are_short, ".ci/a.py", "#" * 101, "101 columns"),
    (names_say_something, "replog/a.py", "def handle_vote(): ...", "'handle_vote'"),
    (names_say_something, "replog/a.py", "def _process_vote(): ...", "'_process_vote'"),
    (names_say_something, "replog/a.py", "class VoteManager: ...", "'VoteManager'"),
    (names_say_something, "replog/a.py", "def f(*, node_info): ...", "'node_info'"),
    (names_say_something, "replog/a.py", "do_it = 1", "'do_it'"),
    (names_say_something, "replog/a.py", "self.helper: int = 1", "'helper'"),
    (names_say_something, "replog/a.py", "for INFO in x: ...", "'INFO'"),
    (names_say_something, "transport/utils.py", "", "'utils'"),
    (nothing_is_left_over, "docs/a.md", "# A\n\nTO" + "DO: more", "docs/a.md:3"),
    (nothing_is_left_over, "replog/a.py", "x = 1  # FIX" + "ME", "replog/a.py:1"),
    (no_path_of_a_machine, "README.md", "# A\n\nrun /wo" + "rk/main/x", "README.md:3"),
    (no_path_of_a_machine, "a.toml", 'path = "/ro' + 'ot/x"', "a.toml:1"),
    (no_path_of_a_machine, "a.toml", 'path = "/ho' + 'me/x"', "a.toml:1"),
    (pages_have_one_title, "docs/a.md", "## Section", "0 titles"),
    (pages_have_one_title, "docs/b/a.md", "# One\n\n# Two", "2 titles"),
]

SOUND = {
    "README.md": "# One\n\n```sh\n# not a title\n```\n\nSee /homework/ and https://a.b/home/.\n",
    "replog/a.py": "def f():\n" + "    x\n" * 58 + "#" * 100 + "\n",
    "replog/b.py": "process = 1\nenv.info()\ninformation = handle = 2\nclass Processor: ...\n",
    "tests/a.py": "\n" * 499,
    "tests/b.py": "def handle_vote(): ...\n",
    "tests/data.bin": "\udcff",
    "build/a.py": "#" * 101,
    ".venv/a.py": "#" * 101,
    "plot.md.txt": "no title\n",
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_sound_tree_keeps_the_rule(rule: Rule, plant: Plant) -> None:
    assert list(rule(texts(plant(SOUND)))) == []


@pytest.mark.parametrize(("rule", "path", "text", "says"), BREACHES)
def test_a_breach_is_reported(rule: Rule, path: str, text: str, says: str, plant: Plant) -> None:
    breaches = list(rule(texts(plant({**SOUND, path: text}))))
    assert len(breaches) == 1
    assert says in breaches[0]


def test_every_rule_has_a_breach() -> None:
    assert {rule for rule, *_ in BREACHES} == set(RULES)


def test_what_git_ignores_is_not_read(plant: Plant) -> None:
    root = plant({".gitignore": "scratch/\n", "scratch/a.py": "", "tests/a.py": "", "new.md": ""})
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    subprocess.run(["git", "add", "tests"], cwd=root, check=True)
    assert [str(path) for path in tracked(root)] == [".gitignore", "new.md", "tests/a.py"]
