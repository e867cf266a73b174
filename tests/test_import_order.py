"""Every import of the package against the order in CONTRIBUTING.md, through the three links too."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "sam3i_edge"


def _modules() -> dict[str, Path]:
    """Full module name -> file; what a link shows is under its name in the package."""
    folders = [ROOT / PACKAGE, *(path for path in (ROOT / PACKAGE).iterdir() if path.is_symlink())]
    files = {path for folder in folders for path in folder.rglob("*.py")}  # rglob follows no link
    names = {}
    for path in sorted(files):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def _imports(name: str, path: Path, modules: dict[str, Path]) -> set[str]:
    """Modules of the package that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name} has a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    known = set()
    for full in found:
        while full and full not in modules:
            full = full.rpartition(".")[0]
        known |= {full} if full.startswith(PACKAGE) else set()
    return known - {name}


def _order(text: str) -> list[list[str]]:
    block = re.search(r"```order\n(.*?)```", text, re.DOTALL)
    assert block is not None
    return [line.split() for line in block[1].splitlines() if line.strip()]


def _place(name: str, order: list[list[str]]) -> int:
    """The line of the longest entry that `name` is or lies in."""
    entries = [
        (len(entry), place)
        for place, line in enumerate(order)
        for entry in line
        if f"{name}.".startswith(f"{PACKAGE}.{entry}.")
    ]
    assert entries, f"{name} has no place in the order of CONTRIBUTING.md"
    return max(entries)[1]


def _circle(graph: dict[str, set[str]]) -> list[str]:
    """One circle of a graph, or nothing."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for further in sorted(graph[node]):
            if found := visit(further, [*path, node]):
                return found
        done.add(node)
        return []

    return next((found for node in graph if (found := visit(node, []))), [])


MODULES = _modules()
# The package itself gives its names on use, and its command only calls `cli`.
APART = {PACKAGE, f"{PACKAGE}.__main__"}
GRAPH = {name: _imports(name, path, MODULES) - APART for name, path in MODULES.items() if name not in APART}
ORDER = _order((ROOT / "CONTRIBUTING.md").read_text())


@pytest.mark.parametrize("name", GRAPH)
def test_a_module_imports_only_what_stands_above_it_in_the_list(name):
    place = _place(name, ORDER)
    assert [other for other in sorted(GRAPH[name]) if _place(other, ORDER) > place] == []


def test_there_is_no_circle():
    assert len(GRAPH) > 100
    assert _circle(GRAPH) == []


def test_every_entry_of_the_order_is_there():
    for entry in (entry for line in ORDER for entry in line):
        assert f"{PACKAGE}.{entry}" in MODULES


def test_a_circle_would_be_found():
    assert _circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
