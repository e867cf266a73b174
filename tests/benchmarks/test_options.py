"""`pytest benchmarks/`: what cannot be measured is refused in a line, and Ctrl-C keeps what was measured."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sam3i_edge.data.annotations import write_scenes
from sam3i_edge.measure.schema import read_results

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow  # each starts a pytest of its own


def _command(*arguments: object) -> list[str]:
    rows = str(ROOT / "benchmarks" / "test_rows.py")
    return [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", rows, *map(str, arguments)]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--model", "."), "is no bundle"),
        (("--device", "abacus"), "unknown device 'abacus'"),
        (("--resolution", "448"), "no bundle takes pictures of 448 px (sam3i-nano "),
        (("--budget", "endless"), "invalid choice: 'endless'"),
    ],
)
def test_bad_options_are_usage_errors(arguments: tuple[str, ...], told: str, tmp_path: Path) -> None:
    done = subprocess.run(
        _command("--collect-only", *arguments), capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout
    assert told in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_data_without_masks_is_refused(tmp_path: Path) -> None:
    write_scenes(tmp_path / "data", 1, 1)
    file = tmp_path / "data" / "annotations.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "annotations": []}))
    done = subprocess.run(
        _command("--data", tmp_path / "data"), capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout
    assert "no mask, so nothing says what is right" in done.stderr


def test_ctrl_c_keeps_and_marks_what_was_measured(tiny_bundle: Any, tmp_path: Path) -> None:
    out, data = tmp_path / "out", tmp_path / "data"
    write_scenes(data, 1, 1)  # it draws 40 of its own otherwise
    child = subprocess.Popen(
        _command("--model", tiny_bundle.root, "--threads", 1, "--data", data, "--out", out, "-v"),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # A shell that starts this test in the background has its children ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert child.stdout is not None
    said = ""
    while "PASSED" not in said:  # the first row is done
        line = child.stdout.readline()
        assert line, said
        said += line
    time.sleep(1)  # so that the next has begun
    child.send_signal(signal.SIGINT)
    rest, _ = child.communicate(timeout=120)
    assert child.returncode == pytest.ExitCode.INTERRUPTED, said + rest
    found = read_results(out / "results.json")
    assert not found.complete
    assert [row.status for row in found.rows] == ["ok", "interrupted"]
    assert "This run was interrupted" in (out / "report.html").read_text()
