"""Calls CMake for the library of native/, with the runtimes whose headers are here."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORES = str(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else "1"

# Tests are built with little optimising, which halves the time; the arithmetic is the same.
QUICK = ("-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS_DEBUG=-O1")


def run(*command, **options) -> str:
    """What a command prints; fails where it does."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return done.stdout


def runtimes() -> dict[str, list[str]]:
    """The runtimes whose headers are here, and what CMake is told of them."""
    found = {}
    if os.environ.get("ORT_ROOT"):
        found["onnxruntime"] = ["-DSAM3I_ONNXRUNTIME=ON", f"-DORT_ROOT={os.environ['ORT_ROOT']}"]
    if importlib.util.find_spec("openvino") is not None:
        import openvino

        found["openvino"] = [
            "-DSAM3I_OPENVINO=ON",
            f"-DOpenVINO_DIR={Path(openvino.__file__).parent / 'cmake'}",
        ]
    return found


def configured(folder: Path, *options: str) -> Path:
    """A build folder of native/; skips where the compiler or a library that every build needs is missing."""
    for tool in ("cmake", "c++"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")
    command = ["cmake", "-S", ROOT / "native", "-B", folder, "-DSAM3I_TESTS=ON", *options]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    if "libsam3i needs" in done.stderr:
        pytest.skip(" ".join(done.stderr.split("needs", 1)[1].split("\n\n")[0].split()))
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def build(folder: Path, *targets: str) -> None:
    """Builds some targets, or all."""
    run("cmake", "--build", folder, "--parallel", CORES, *(["--target", *targets] if targets else []))
