"""What the documentation names is there: paths, modules, commands, options, targets. First samples run."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from sam3i_edge.cli.app import app

ROOT = Path(__file__).resolve().parent.parent
# CHANGELOG and the decisions also name what was removed.
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
PAGES += [page for page in sorted((ROOT / "docs").rglob("*.md")) if page.parent.name != "adr"]
FOLDERS = "sam3i_edge|kernels|export|runtimes|native|tests|benchmarks|scripts|docs"
MADE = {"benchmarks/results", "docs/adr/NNNN-name.md"}  # what a command writes; a pattern
COMMANDS = typer.main.get_command(app).commands
CHARACTERS = r"[\w./-]"


def _code(page):
    """Lines of fenced blocks, and spans of code, each on one line."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^ *```\w*\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`([^`]+)`", re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL))
    return [line for block in blocks for line in block.splitlines()] + [" ".join(s.split()) for s in spans]


def _problems(check):
    return {str(page.relative_to(ROOT)): found for page in PAGES if (found := list(check(page)))}


def test_every_path_exists():
    def missing(page):
        text = page.read_text(encoding="utf-8")
        for path in set(re.findall(rf"(?<![\w./-])(?:{FOLDERS})/{CHARACTERS}*\w", text)):
            there = (ROOT / path).exists() or (
                re.fullmatch(r"docs/adr/\d{4}", path) and any(ROOT.glob(f"{path}-*"))
            )
            if not there and not any(path.startswith(made) for made in MADE):
                yield path

    assert _problems(missing) == {}


def test_every_source_file_exists():
    """Also those that are named without the package's folder, such as `model/weights.py`."""

    def missing(page):
        for code in _code(page):
            for path in re.findall(r"(?<![\w./-])\w[\w/-]*\.(?:py|cpp|h)\b", code):
                if not any(
                    match for folder in FOLDERS.split("|") for match in ROOT.glob(f"{folder}/**/{path}")
                ):
                    yield from () if (ROOT / path).exists() else (path,)

    assert _problems(missing) == {}


def _module_of(name):
    """The file of the longest module in a dotted name, and what remains of the name."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        base = ROOT.joinpath(*parts[:end])
        for file in (base.with_suffix(".py"), base / "__init__.py"):
            if file.is_file():
                return file, parts[end:]
    return None, parts


def test_every_module_and_name_exists():
    def missing(page):
        text = page.read_text(encoding="utf-8")
        for name in set(re.findall(r"\bsam3i_edge(?:\.\w+)+", text)):
            file, rest = _module_of(name)
            if file is None or (rest and not re.search(rf"\b{rest[0]}\b", file.read_text(encoding="utf-8"))):
                yield name
        for module, names in re.findall(r"^from (sam3i_edge[\w.]*) import ([\w, ]+)$", text, re.MULTILINE):
            file, rest = _module_of(module)
            source = "" if file is None or rest else file.read_text(encoding="utf-8")
            yield from (name for name in names.split(", ") if not re.search(rf"\b{name}\b", source))

    assert _problems(missing) == {}


def test_every_command_and_option_exists():
    def unknown(page):
        for code in _code(page):
            for call in re.findall(r"(?:sam3i-edge|-m sam3i_edge) ([^#|&]+)", code):
                verb, *words = call.split()
                if not verb.isalpha():
                    continue
                if verb not in COMMANDS:
                    yield verb
                    continue
                known = {"--help", "-h"}
                for parameter in COMMANDS[verb].params:
                    known |= {*parameter.opts, *parameter.secondary_opts}
                for word in words:
                    option = word.strip("…,.;:)").partition("=")[0]
                    if re.fullmatch(r"--?[a-z][\w-]*", option) and option not in known:
                        yield f"{verb} {option}"

    assert _problems(unknown) == {}


def test_every_target_of_make_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    def unknown(page):
        for code in _code(page):
            yield from set(re.findall(r"^make ([a-z-]+)", code)) - targets

    assert _problems(unknown) == {}


@pytest.mark.parametrize("page", ["README.md", "docs/use.md"])
def test_the_first_sample_runs(page, tmp_path):
    from sam3i_edge.cli.examples import draw_example, table_example
    from sam3i_edge.masks import overlay

    sample = re.search(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)[1]
    overlay.write(draw_example(0)[0].pixels(), tmp_path / "scene.png")
    overlay.write(table_example(0)[0].pixels(), tmp_path / "table.png")
    done = subprocess.run(
        [sys.executable, "-c", sample], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_python_sample_parses(page):
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        ast.parse(block)
