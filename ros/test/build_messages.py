"""Builds vision_msgs and sam3i_msgs into an environment that has ROS 2 from wheels: `build_messages.py`.

Run it with that environment's Python. A dozen CMake files of its packages name the folders of
Python's and NumPy's headers of the machine that built them, which are replaced by those that are here.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import numpy as np

ROS = Path(__file__).resolve().parent.parent
PREFIX = Path(sys.prefix)
PACKAGES = (ROS / "test" / "vision_msgs", ROS / "sam3i_msgs")


def name_headers_that_are_here() -> int:
    """Rewrites the builder's folders of headers, and gives the number of files that named them."""
    python = Path(sysconfig.get_paths()["include"])
    if not (python / "Python.h").is_file():
        raise SystemExit(f"there is no {python}/Python.h: install Python's headers, as Debian's python3-dev")
    changed = 0
    for file in PREFIX.glob("share/*/cmake/*.cmake"):
        text = file.read_text(encoding="utf-8")
        here = re.sub(
            r"/opt/python/[\w.-]+/lib/python[\d.]+/site-packages/numpy/_core/include", np.get_include(), text
        )
        here = re.sub(r"/opt/python/[\w.-]+/include/python[\d.]+", str(python), here)
        if here != text:
            file.write_text(here, encoding="utf-8")
            changed += 1
    return changed


def build(package: Path) -> None:
    """Generates, compiles and installs one package of interfaces."""
    path = os.pathsep.join([str(PREFIX / "bin"), os.environ["PATH"]])  # rosidl's generators are commands
    environment = {**os.environ, "PATH": path, "AMENT_PREFIX_PATH": str(PREFIX)}
    with tempfile.TemporaryDirectory() as scratch:
        configure = ["cmake", "-S", str(package), "-B", scratch, f"-DCMAKE_INSTALL_PREFIX={PREFIX}"]
        configure += [f"-DCMAKE_PREFIX_PATH={PREFIX}", f"-DPython3_EXECUTABLE={sys.executable}"]
        configure += ["-DBUILD_TESTING=OFF", "-DCMAKE_CXX_FLAGS=-O0", "-DCMAKE_C_FLAGS=-O0"]
        for command in (configure, ["cmake", "--build", scratch, "-j2"], ["cmake", "--install", scratch]):
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(
                    f"{package.name}: {' '.join(command[:2])} failed\n{done.stdout}{done.stderr}"
                )


if __name__ == "__main__":
    name_headers_that_are_here()
    for package in PACKAGES:
        build(package)
