"""Kernels compiled for chips that are not here. `make kernels-aot` compiles all of them for more chips."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "kernels_aot.py"
CAPABILITY = 89  # of the chips with the least shared memory


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("kernels_aot", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows():
    command = [sys.executable, str(SCRIPT), "--capability", str(CAPABILITY), "--json"]
    command += ["--operator", "adapter_cross_attention", "--case", "bfloat16"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_chosen_configurations_fit_without_spills(rows, script):
    assert [row["case"].split()[1] for row in rows] == ["forward", "backward"]
    for row in rows:
        assert row["chosen"]
        assert row["spilled"] == 0
        assert 0 < row["registers"] <= 255
        assert 0 < row["shared"] <= 1024 * script.SHARED_KIB[CAPABILITY]
        assert row["problems"] == []


def test_bfloat16_kernels_hold_bfloat16_matrix_instructions(rows):
    assert [row["products"] for row in rows] == [["mma bf16"], ["mma bf16"]]


def test_what_does_not_fit_fails(script, monkeypatch, capsys):
    row = {
        "capability": 89, "operator": "op", "case": "op forward", "chosen": True, "warps": 4, "stages": 2,
        "registers": 255, "spilled": 8, "shared": 1024, "products": [], "problems": ["8 bytes a thread"],
    }  # fmt: skip
    monkeypatch.setattr(script, "compile_apart", lambda *_: [row])
    monkeypatch.setattr(sys, "argv", ["kernels_aot.py", "--capability", "89"])
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == 1
    printed = capsys.readouterr()
    assert "| sm_89 RTX 40 | op forward | 4, 2 | 255 | 8 | 1.0 | 99 | - |" in printed.out
    assert "sm_89: op forward: 8 bytes a thread" in printed.err
    row["chosen"] = False
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == 0
