"""docs/side-by-side.md says what the code does: its names exist, its pictures are runs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import parse as parse_xml

import pytest

from paxoslog import MultiPaxos
from raftlog import Raft
from tests.agreement.scenario import Scenario, parse
from tests.conftest import Plant
from tests.paxos.watcher import Watcher as PaxosWatcher
from tests.raft.watcher import Watcher as RaftWatcher

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "side-by-side.md"
PICTURES = ROOT / "docs" / "pictures"
CORES = ("raftlog", "paxoslog")

LINK = re.compile(r"\[(?P<words>[^]]*)\](?:\((?P<target>[^)]+)\)|\[(?P<key>[^]]+)\])")
DEFINITION = re.compile(r"^\[(?P<key>[^]]+)\]: (?P<target>\S+)$", re.MULTILINE)
NAME = re.compile(r"`([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)`")
DOTTED = re.compile(r"`((?:raftlog|paxoslog|replog)(?:\.\w+)+)`")

# --- links and names ------------------------------------------------------------------------------


def links(page: Path) -> list[tuple[str, str]]:
    """(words, target) of every link, in order. Raises KeyError for a reference to nothing."""
    text = page.read_text(encoding="utf-8")
    targets = {found["key"]: found["target"] for found in DEFINITION.finditer(text)}
    return [
        (found["words"], found["target"] or targets[found["key"]]) for found in LINK.finditer(text)
    ]


def names_in(path: Path) -> set[str]:
    """What a Python file defines, as `name`, and in its classes, as `Class.name`."""
    return set(_names(ast.parse(path.read_text(encoding="utf-8")).body, ""))


def _names(body: list[ast.stmt], prefix: str) -> Iterator[str]:
    for node in body:
        match node:
            case ast.ClassDef(name=name):
                yield prefix + name
                yield from _names(node.body, f"{prefix}{name}.")
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield prefix + name
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                yield prefix + name


def unfounded(page: Path, root: Path) -> list[str]:
    """What the page links to or names that does not exist."""
    missing = []
    for words, target in links(page):
        path = (page.parent / target).resolve()
        name = NAME.fullmatch(words)
        if target.startswith("https://"):
            continue
        if not path.exists():
            missing.append(target)
        elif name and path.suffix == ".py" and name[1] not in names_in(path):
            missing.append(f"{name[1]} in {target}")
    for name in DOTTED.findall(page.read_text(encoding="utf-8")):
        package, module, *rest = name.split(".")
        path = root / package / f"{module}.py"
        if not path.is_file() or (rest and ".".join(rest) not in names_in(path)):
            missing.append(name)
    return missing


def test_every_link_and_every_name_leads_somewhere() -> None:
    assert unfounded(PAGE, ROOT) == []


@pytest.mark.parametrize("core", CORES)
def test_names_of_each_file_of_both_cores_are_linked(core: str) -> None:
    linked = {Path(target).name for _, target in links(PAGE) if f"/{core}/" in target}
    assert linked == {path.name for path in (ROOT / core).glob("*.py")}


def test_what_leads_nowhere_is_found(plant: Plant) -> None:
    root = plant(
        {
            "docs/a.md": (
                "[`count`][c] [`Box.size`][c] [`Box.lost`][c] [`gone`](../core/c.py)\n"
                "![a picture](none.svg) `raftlog.c.count` `raftlog.c.gone` `replog.none.count`\n\n"
                "[c]: ../core/c.py\n"
            ),
            "core/c.py": "def count(): ...\nclass Box:\n    size: int\n",
            "raftlog/c.py": "def count(): ...\n",
        }
    )
    assert unfounded(root / "docs" / "a.md", root) == [
        "Box.lost in ../core/c.py",
        "gone in ../core/c.py",
        "none.svg",
        "raftlog.c.gone",
        "replog.none.count",
    ]


# --- tables ---------------------------------------------------------------------------------------


def rows(heading: str) -> list[list[str]]:
    """The cells of the only table under a heading, without its first two lines."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ") or line[:2] == "|-"]
    assert set(lines[1]) <= set("|-")
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_table_of_files_has_a_row_for_each_file_of_both_cores() -> None:
    named = [row[0].strip("`") for row in rows("File by file")]
    assert len(named) == len(set(named))
    for core in CORES:
        assert set(named) == {path.stem for path in (ROOT / core).glob("*.py")}


def test_each_row_of_files_links_the_file_of_raft_and_then_that_of_paxos() -> None:
    for name, *cells in rows("File by file"):
        for core, cell in zip(CORES, cells, strict=True):
            assert cell.startswith(f"[`{core}/{name.strip('`')}.py`]")


def test_each_situation_names_a_scenario_of_both_cores() -> None:
    found = rows("What each does when")
    assert len(found) >= 5
    for row in found:
        assert "](../tests/raft/scenarios/" in row[1], row[0]
        assert "](../tests/paxos/scenarios/" in row[2], row[0]


def test_a_scenario_is_linked_by_its_name() -> None:
    linked = [(words, target) for words, target in links(PAGE) if "/scenarios/" in target]
    assert linked
    assert [words for words, _ in linked] == [f"`{Path(target).stem}`" for _, target in linked]


# --- pictures -------------------------------------------------------------------------------------

APPEND = """
quietly cluster n1 n2 n3
quietly campaign n1
quietly stabilize

propose n1 x
deliver n2
deliver n3
persist n2
persist n1
deliver n1
deliver n2
persist n3
deliver n1
deliver n3
"""

SHORTER_LOG = """
quietly cluster n1 n2 n3
quietly boot n2 promise=1/n1 log=1*4 commit=1
quietly boot n3 promise=1/n1 log=1 commit=1
quietly crash n1
"""

RAFT_TAKEOVER = f"""{SHORTER_LOG}
campaign n3
deliver n2
deliver n3
campaign n2
deliver n3
deliver n2
persist n2
deliver n3
persist n3
deliver n2
deliver n3
deliver n2
deliver n3
persist n3
persist n2
deliver n2
deliver n3
"""

PAXOS_TAKEOVER = f"""{SHORTER_LOG}
campaign n3
deliver n2
deliver n3
persist n3
deliver n2
persist n2
deliver n3
deliver n2
deliver n3
deliver n2
persist n2
persist n3
deliver n3
deliver n2
"""

EVENTS = (
    (re.compile(r"(\w+) <- (\w+): (?!Heartbeat)(\w+)"), r"\2 \3 \1"),
    (re.compile(r"(\w+) has write \d+ on disk"), r"\1 disk"),
    (re.compile(r"(\w+) commits .*"), r"\1 commits"),
    (re.compile(r"(\w+) is leader in .*"), r"\1 leads"),
)


def new_scenario(core: str) -> Scenario:
    if core == "raft":
        return Scenario(Raft, RaftWatcher, number_is_enough=True)
    return Scenario(MultiPaxos, PaxosWatcher)


def play(core: str, text: str) -> list[str]:
    scenario = new_scenario(core)
    return [line for block in parse(text) for line in scenario.run(block)]


def events(printed: list[str]) -> list[str]:
    """What a picture of this run shows, in the pictures' own words."""
    return [
        pattern.sub(shown, line)
        for line in printed
        for pattern, shown in EVENTS
        if pattern.fullmatch(line)
    ]


def drawn(picture: Path) -> list[tuple[str, str]]:
    """(event, its label) from top to bottom."""
    groups = [each for each in parse_xml(picture).iter() if "data-event" in each.attrib]
    return [(each.attrib["data-event"], "".join(each.itertext()).strip()) for each in groups]


@pytest.mark.parametrize(
    ("core", "picture", "text"),
    [
        ("raft", "append-raft.svg", APPEND),
        ("paxos", "append-paxos.svg", APPEND),
        ("raft", "takeover-raft.svg", RAFT_TAKEOVER),
        ("paxos", "takeover-paxos.svg", PAXOS_TAKEOVER),
    ],
)
def test_a_picture_shows_a_run(core: str, picture: str, text: str) -> None:
    shown = drawn(PICTURES / picture)
    assert [event for event, _ in shown] == events(play(core, text))
    assert {event.split()[1] for event, _ in shown} >= {"Committed", "disk", "commits"}
    for event, label in shown:
        words = event.split()
        if len(words) == 3:
            assert re.match(rf"{words[1]}\b", label)


@pytest.mark.parametrize("picture", sorted(PICTURES.glob("*.svg")), ids=lambda path: path.name)
def test_a_picture_stands_alone_and_is_on_the_page(picture: Path) -> None:
    text = picture.read_text(encoding="utf-8")
    assert re.findall(r"@import|@font-face|url\(|href|<script|<image", text) == []
    assert "@media (prefers-color-scheme: dark)" in text
    assert f"pictures/{picture.name}" in [target for _, target in links(PAGE)]


# --- the constrained election ---------------------------------------------------------------------

HUB_IS_BEHIND = """
quietly cluster n1 n2 n3 n4 n5
quietly campaign n1
quietly stabilize
quietly partition n1 n2 n4 n5 | n3
quietly propose n1 x y
quietly stabilize
quietly heal
quietly cut n2 n4 both
quietly cut n2 n5 both
quietly cut n4 n5 both
quietly drop n3
quietly crash n1
"""


def test_in_the_constrained_election_the_hub_of_multi_paxos_leads() -> None:
    printed = play("paxos", f"{HUB_IS_BEHIND}\nshow n3\nquietly run 3000\nshow n2\nshow n3")
    log = "1:*@1.n1 2:x@1.n1 3:y@1.n1 4:*@2.n3"
    assert printed == [
        "n3 is acceptor of n1 in 1.n1, commit 1, log 1:*@1.n1",
        f"n2 is acceptor of n3 in 2.n3, commit 4, log {log}",
        f"n3 is leader in 2.n3, commit 4, log {log}",
    ]


def test_in_the_constrained_election_of_raft_nobody_leads_until_a_link_is_mended() -> None:
    scenario = new_scenario("raft")
    for block in parse(f"{HUB_IS_BEHIND}\nquietly run 20000"):
        scenario.run(block)
    waiting = scenario.run(parse("show n2\nshow n3\nshow n4\nshow n5")[0])
    assert [line.split(",")[0] for line in waiting] == [
        f"n{number} is pre-candidate in 1" for number in (2, 3, 4, 5)
    ]
    after = scenario.run(parse("quietly heal\nquietly run 1000\nshow n3")[0])
    assert len(after) == 1
    assert re.fullmatch(
        r"n3 is follower of n[245] in 2, commit 4, log 1:\*@1 2:x@1 3:y@1 4:\*@2", after[0]
    )
