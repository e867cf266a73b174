"""A program that PyInstaller froze: it segments, and runs OpenVINO, far from the tree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HOOKS = ROOT / "sam3i_edge/_pyinstaller"

PROGRAM = """
import json, sys
import numpy as np
from sam3i_edge import Segmenter
from sam3i_edge.runtimes import probe

probe("openvino", "cpu")
image = np.full((120, 160, 3), 230, np.uint8)
image[30:80, 40:90] = 220, 30, 30
with Segmenter(device="cpu", runtime="onnxruntime", threads=1) as segmenter:
    result = segmenter.segment(image, "the red square")
    root = str(segmenter.info.bundle)
print(json.dumps([len(result), int(result.masks.sum()), root, "torch" in sys.modules]))
"""


def _run(*command, folder):
    # Neither a home nor a path to the tree, beside what is asked for.
    done = subprocess.run(
        command, cwd=folder, env={"HOME": str(folder / "none")}, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_frozen_program_segments(tmp_path):
    pytest.importorskip("PyInstaller")
    pytest.importorskip("openvino")
    (tmp_path / "program.py").write_text(PROGRAM)
    made = subprocess.run(
        [
            *(sys.executable, "-m", "PyInstaller", "--noconfirm", "--log-level", "ERROR", "program.py"),
            *("--additional-hooks-dir", HOOKS, "--paths", ROOT),
            *("--hidden-import", "sam3i_edge.runtimes.ov"),
            # Others than this package ask for these where they are installed.
            *(f"--exclude-module={name}" for name in ("torch", "scipy", "matplotlib", "pandas", "IPython")),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYINSTALLER_CONFIG_DIR": str(tmp_path / "config")},
        check=False,
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    away = tmp_path / "away"
    (tmp_path / "dist").rename(away)
    count, area, root, torch = _run(away / "program/program", folder=tmp_path)
    assert Path(root).is_relative_to(away)
    assert count == 1
    assert area == pytest.approx(50 * 50, rel=0.1)
    assert not torch
    assert not list(away.rglob("torch"))
