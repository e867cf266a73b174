"""The campaign of scripts/kill_campaign.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "kill_campaign.py"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="asks /proc which processes a killed run left"),
]


def test_scenes_and_training_survive_six_cases(tmp_path):
    out = tmp_path / "cases.json"
    command = [sys.executable, SCRIPT, "--verb", "scenes", "--verb", "train", "--cases", "6", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-5000:]
    cases = json.loads(out.read_text())["cases"]
    assert len(cases) == 6
    assert {case["way"] for case in cases} & {"kill", "write"}
    assert "| all |" in done.stdout
