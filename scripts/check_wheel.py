"""Builds sdist and wheel, compares them with the tree, and runs the wheel where the tree is out of reach.

`make check` runs it. The wheel is built from the sdist, as an installer does that has none for its platform.
It is installed with its own requirements alone: this is also the test that segmenting needs no torch.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = {
    "CMakeLists.txt",
    "native/include/sam3i.h",
    "LICENSE",
    "README.md",
    "constraints.txt",
    "tests/conftest.py",
}
MOST_BYTES = 64 << 20  # of the wheel
LIBRARY = re.compile(r"sam3i_edge/(lib)?sam3i_edge\.(so|dylib|dll)")
# The tested set, for what is installed and for what builds the package; relative to ROOT.
CONSTRAINED = os.environ | {"PIP_CONSTRAINT": "constraints.txt", "PIP_BUILD_CONSTRAINT": "constraints.txt"}

# Run in the new environment. Every package must come from there, and torch from nowhere.
IMPORTS = """
import importlib, importlib.util, pathlib, sys
import sam3i_edge.masks.native
for part in ("kernels", "export", "runtimes", "segmenter"):
    name = f"sam3i_edge.{part}"
    file = pathlib.Path(importlib.import_module(name).__file__).resolve()
    assert file.is_relative_to(pathlib.Path(sys.prefix).resolve()), f"{name} was imported from {file}"
assert sam3i_edge.masks.native.implementation() == "native", "the C library is not found"
assert importlib.util.find_spec("kernels") is None, "the wheel installs a top-level `kernels`"
assert importlib.util.find_spec("torch") is None, "the base install brings torch"
"""


def tree() -> set[str]:
    """Gives the files of the package in the tree, those behind its three links included."""
    found = set()
    for folder, subfolders, names in os.walk(ROOT / "sam3i_edge", followlinks=True):
        subfolders[:] = [name for name in subfolders if name != "__pycache__"]
        found.update((Path(folder) / name).relative_to(ROOT).as_posix() for name in names)
    return {name for name in found if not name.endswith((".so", ".pyc"))}


def differences(wanted: set[str], found: set[str]) -> str:
    """Says what is missing and what is too much, or nothing."""
    lines = [f"  missing: {name}" for name in sorted(wanted - found)]
    return "\n".join(lines + [f"  too much: {name}" for name in sorted(found - wanted)])


def check_wheel(path: Path) -> None:
    """Compares the names in a wheel with the tree.

    Raises:
        SystemExit: a file is missing or does not belong, or the wheel is too large or not for every Python.
    """
    if not path.name.split("-", 2)[2].startswith("py3-none-"):
        raise SystemExit(f"{path.name}: want a wheel py3-none-<platform>, one for every Python")
    if path.stat().st_size > MOST_BYTES:
        raise SystemExit(f"{path.name}: {path.stat().st_size:,} bytes, want at most {MOST_BYTES:,}")
    with zipfile.ZipFile(path) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    libraries = {name for name in names if LIBRARY.fullmatch(name)}
    if len(libraries) != 1:
        raise SystemExit(f"{path.name}: want one C library, found {sorted(libraries)}")
    if wrong := differences(tree(), names - libraries):
        raise SystemExit(f"{path.name} and sam3i_edge/ differ:\n{wrong}")


def check_sdist(path: Path) -> None:
    """Checks that an sdist can be built from and tested.

    Raises:
        SystemExit: a file is missing.
    """
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = tree() | SOURCES
    if wrong := differences(wanted, names & wanted):
        raise SystemExit(f"{path.name}:\n{wrong}")


def run_installed(wheel: Path, folder: Path) -> None:
    """Installs a wheel in a new environment in `folder`, and runs the demo outside the tree."""
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python, script = folder / "venv/bin/python", folder / "venv/bin/sam3i-edge"
    subprocess.run([python, "-m", "pip", "install", "--quiet", wheel], check=True, cwd=ROOT, env=CONSTRAINED)
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    subprocess.run([python, "-c", IMPORTS], check=True, cwd=elsewhere)
    subprocess.run([script, "demo"], check=True, cwd=elsewhere)


def main() -> None:
    """Builds and checks; the first thing wrong ends it."""
    os.environ.pop("PYTHONPATH", None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build = [sys.executable, "-m", "build", "--outdir", folder]
        subprocess.run(build, check=True, cwd=ROOT, env=CONSTRAINED)
        (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
        check_sdist(sdist)
        check_wheel(wheel)
        run_installed(wheel, folder)
        for path in (sdist, wheel):
            print(f"ok {path.name} {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
