"""The C library under the address and undefined-behaviour sanitizers: tests/fuzz/native.cpp calls it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECONDS = 60 * float(os.environ.get("FUZZ_MINUTES", "1")) / 10  # as in test_targets.py

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECONDS + 900)]


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory):
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if shutil.which("cmake") is None or compiler is None:
        pytest.skip("needs CMake and a C++ compiler")
    folder = tmp_path_factory.mktemp("sanitized")
    probe = [compiler, "-fsanitize=address,undefined", "-x", "c++", "-", "-o", folder / "probe"]
    if subprocess.run(probe, input=b"int main() {}", capture_output=True, check=False).returncode:
        pytest.skip(f"{compiler} has no sanitizers here")
    build = folder / "build"
    for command in (["cmake", "-S", ROOT, "-B", build, "-DSAM3I_SANITIZE=ON"], ["cmake", "--build", build]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return build / "sam3i_fuzz"


def test_no_call_reads_or_writes_too_far(sanitized):
    done = subprocess.run([sanitized, "0", str(SECONDS)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    assert int(done.stdout) > 100
