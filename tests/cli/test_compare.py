from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sam3i_edge.cli.app import main
from sam3i_edge.measure import conditions, runner
from sam3i_edge.measure.plan import Plan
from sam3i_edge.measure.schema import END_TO_END, Row
from sam3i_edge.measure.statistics import latency


def _write(path: Path, times: float, **changes: Any) -> Path:
    """Results of one row, whose queries took so many times 10 ms."""
    samples = [times * value for value in (10.0, 10.1, 9.9, 10.0, 10.2, 9.8, 10.1, 9.9)]
    row = Row(
        model="tiny", variant="onnx-fp32", device="cpu", runtime="onnxruntime", precision="fp32",
        level="simple", image_size=32, status="ok", size_bytes=1, before=conditions.now(),
        latency={END_TO_END: latency(samples)},
    )  # fmt: skip
    blank = runner.blank(Plan(rows=(), skipped=(), references={}), runner.settings("quick", 1, None))
    blank.model_copy(update={"rows": (row,), **changes}).write(path)
    return path


def _run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["compare", *map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_a_run_is_not_worse_than_itself(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = _write(tmp_path / "a.json", 1)
    code, printed, _ = _run(capsys, path, path)
    assert code == 0
    assert "same" in printed
    assert "B is not worse than A" in printed


def test_a_slower_run_is_told_and_fails(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    a, b = _write(tmp_path / "a.json", 1), _write(tmp_path / "b.json", 2, versions={"python": "2.7"})
    code, printed, _ = _run(capsys, a, b, "--json")
    assert code == 1
    found = json.loads(printed)
    assert found["worse"]
    assert found["rows"][0]["verdict"] == "slower"
    assert found["rows"][0]["speedup"]["value"] == pytest.approx(0.5)
    assert any(line.endswith("and 2.7") for line in found["differences"])


def test_a_file_that_is_not_there_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, printed, err = _run(capsys, "a.json", "b.json")
    assert (code, printed) == (1, "")
    assert "cannot read a.json" in err
    assert len(err.splitlines()) == 1
