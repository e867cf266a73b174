"""What the packaging files promise, held against the tree."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import tomllib
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import sam3i_edge

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
METADATA = PROJECT["project"]
EXTRAS = METADATA["optional-dependencies"]

LINKS = ("kernels", "export", "runtimes")
DISTRIBUTIONS = {
    "cv2": "opencv-python",
    "PIL": "pillow",
    "google": "protobuf",
    "rerun": "rerun-sdk",
}  # module: what installs it, where the names differ
ON_USE = {
    "av": "video",
    "rerun": "rerun",
    "trackers": "track",
    "torch": "train",
    "supervision": "supervision",
    "pyarrow": "parquet",
    "rosbags": "ros",
    "coremltools": "coreml",
}  # the base imports these only where it uses them
PARTS = {  # extra: what of the package it is for; the base imports these on use too
    "train": (
        "kernels",
        "model",
        "checkpoints",
        "quantize",
        "train",
        "data.batch",
        "data.dataset",
        "data.batch_loading",
        "data.mixed_batches",
        "data.record_batches",
        "data.picture_batches",
        "data.scene_file_batches",
        "runtimes.eager",
        "runtimes.on_device",
    ),
    "qat": ("quantize._torchao", "quantize.qat"),
    "export": ("export",),
    "bench": ("measure.page", "measure.plot"),
    "llm": ("data.language_model.endpoint",),
    "coreml": ("export.coreml",),
    "openvino": ("export.openvino", "runtimes.ov"),
    "litert": ("export.litert", "runtimes.litert"),
    "scale": ("shards.cluster",),
}
APART = {"litert-torch"}  # installed without its dependencies: export/litert/requirements.txt
BESIDE = {
    "coreml": "export",
    "openvino": "export",
    "litert": "export",
    "qat": "train",
}  # extra: another that its part needs too; a Mac that only runs needs the first


def _imports(nodes: Iterable[ast.AST]) -> set[str]:
    """Full names of the modules that these statements import, at any depth."""
    names = set()
    for node in (inner for outer in nodes for inner in ast.walk(outer)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
    return names


def _runs_at_import(node: ast.stmt) -> bool:
    if isinstance(node, ast.If):
        return ast.unparse(node.test) != "TYPE_CHECKING"
    return not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)


def _modules() -> dict[Path, str]:
    """The files of the package, and to which list of requirements each belongs."""
    package = ROOT / "sam3i_edge"
    roots = [package, *(package / part for part in LINKS)]  # rglob follows no link
    extras = {package / name.replace(".", "/"): extra for extra, names in PARTS.items() for name in names}
    return {
        file: next((extras[p] for p in (file.with_suffix(""), *file.parents) if p in extras), "base")
        for file in sorted({file for root in roots for file in root.rglob("*.py")})
        if not file.name.startswith("hook-")  # PyInstaller's: only it runs them
    }


MODULES = _modules()
BASE = [file for file, extra in MODULES.items() if extra == "base"]


def _names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def _distributions(files: Iterable[Path]) -> set[str]:
    imports = set().union(*(_imports(ast.parse(file.read_text()).body) for file in files))
    modules = {name.partition(".")[0] for name in imports} - sys.stdlib_module_names - {"sam3i_edge"}
    return {canonicalize_name(DISTRIBUTIONS.get(name, name)) for name in modules}


def _on_use() -> set[str]:
    return {DISTRIBUTIONS.get(module, module) for module in ON_USE}


def test_the_base_requires_what_it_imports_and_nothing_else():
    assert _names(METADATA["dependencies"]) == _distributions(BASE) - _on_use()


@pytest.mark.parametrize("extra", PARTS)
def test_an_extra_requires_what_its_part_imports(extra):
    files = [file for file, its in MODULES.items() if its == extra]
    assert files
    listed = METADATA["dependencies"] + EXTRAS[extra] + EXTRAS.get(BESIDE.get(extra, ""), [])
    assert _distributions(files) - APART <= _names(listed)


def test_what_the_base_imports_on_use_is_in_an_extra():
    for module, extra in ON_USE.items():
        assert DISTRIBUTIONS.get(module, module) in _names(EXTRAS[extra])


@pytest.mark.parametrize("file", BASE, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_importing_a_module_of_the_base_needs_no_extra(file):
    imports = _imports(filter(_runs_at_import, ast.parse(file.read_text()).body))
    apart = [*ON_USE, *(f"sam3i_edge.{name}" for names in PARTS.values() for name in names)]
    assert [name for name in imports if f"{name}.".startswith(tuple(f"{module}." for module in apart))] == []


def _pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(r.name): Version(str(r.specifier).removeprefix("==")) for r in requirements}


@pytest.mark.parametrize("extra", ["base", *EXTRAS])
def test_the_tested_set_pins_a_version_in_range_of_every_requirement(extra):
    pins = _pins()
    for text in METADATA["dependencies"] if extra == "base" else EXTRAS[extra]:
        requirement = Requirement(text)
        if requirement.name != METADATA["name"]:
            assert pins[canonicalize_name(requirement.name)] in requirement.specifier, text


def test_the_version_is_written_once_and_heads_the_changelog():
    assert METADATA["dynamic"] == ["version"]
    assert PROJECT["tool"]["scikit-build"]["metadata"]["version"]["input"] == "sam3i_edge/__init__.py"
    released = re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released[0] == sam3i_edge.__version__


@pytest.mark.parametrize("part", LINKS)
def test_the_part_is_a_relative_link_into_the_package(part):
    link = ROOT / "sam3i_edge" / part
    assert link.is_symlink(), f"{link} is a copy: run `git config core.symlinks true` and check out again"
    assert link.readlink() == Path("..") / part
    assert (link / "__init__.py").is_file()


@pytest.mark.parametrize("part", ["kernels", "export"])
def test_a_folder_that_may_be_imported_by_another_name_does_nothing(part):
    """Where the tree is on sys.path, transformers' import of a module `kernels` finds ours."""
    body = ast.parse((ROOT / part / "__init__.py").read_text()).body
    assert [type(node) for node in body] == [ast.Expr], f"{part}/__init__.py holds more than a docstring"


def test_the_command_exists():
    module, _, name = METADATA["scripts"]["sam3i-edge"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_pyinstaller_finds_its_hook():
    module, _, name = METADATA["entry-points"]["pyinstaller40"]["hook-dirs"].partition(":")
    (folder,) = getattr(importlib.import_module(module), name)()
    assert (Path(folder) / "hook-sam3i_edge.py").is_file()
