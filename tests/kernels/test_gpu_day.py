"""The GPU day at tiny sizes: that every step runs on a bare machine, and that its checks can fail."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch

from sam3i_edge.kernels import _dispatch
from sam3i_edge.kernels._dispatch import LAUNCHES, tile_of, use_triton

ROOT = Path(__file__).parents[2]
# What a lent GPU machine lacks.
ABSENT = ("pydantic", "pycocotools", "torchao", "tokenizers", "cv2", "PIL", "typer", "onnx", "hypothesis")


def _load(folder: str, name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def cases():
    yield _load("benchmarks", "kernel_cases")
    del sys.modules["kernel_cases"]


@pytest.fixture(scope="module")
def day():
    yield _load("scripts", "gpu_day")
    del sys.modules["gpu_day"]


@pytest.fixture(scope="module")
def tables():
    return _load("scripts", "gpu_tables")


@pytest.mark.parametrize("operator", ["adapter_mlp", "adapter_cross_attention", "box_attention"])
def test_every_case_agrees_with_its_definition(cases, operator):
    case = cases.CASES[operator](1, torch.float16, "cpu", cases.TINY)
    LAUNCHES.clear()
    assert cases.worst_error(case.kernel, case) < cases.TOLERANCE[torch.float16]
    assert sum(LAUNCHES.values()) >= 2
    assert case.floor > 0

    def off(*tensors):
        return tuple(1.1 * output for output in cases.outputs_of(case.reference(*tensors)))

    assert cases.worst_error(off, case) > 0.05

    def not_a_number(*tensors):
        return tuple(output * float("nan") for output in cases.outputs_of(case.reference(*tensors)))

    assert not cases.worst_error(not_a_number, case) < 1


@torch.no_grad()
def test_quantized_layers_agree_with_the_float_layer(cases):
    for kernel, layer in cases.linear_contenders(3, 64, 48, torch.float16, "cpu").values():
        expected = layer().float()
        assert (kernel().float() - expected).norm() / expected.norm() < cases.QUANTIZED_TOLERANCE


@pytest.mark.slow
def test_the_dry_run_walks_the_day_on_a_bare_machine(day, tables, tmp_path, monkeypatch, capsys):
    """Every kind of step; what another operator has again is left out."""
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({ABSENT!r}))\n")
    out = tmp_path / "result.json"
    again = {"table.adapter_mlp", "tune.box_attention", "tune.adapter_cross_attention", "tune.linear"}
    steps = [step.name for step in day.order(tune=True) if step.name not in again]
    command = [sys.executable, str(ROOT / "scripts" / "gpu_day.py"), "--out", str(out), "--dry-run"]
    command += [f"--only={step}" for step in steps]
    started = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [*command, "--seconds", "3000"],
        capture_output=True, text=True, env=started, check=False,
    )  # fmt: skip
    result = json.loads(out.read_text())
    problems = {name: step.get("log", step.get("problem")) for name, step in result["steps"].items()}
    assert done.returncode == 0, (problems, done.stderr)
    assert list(result["steps"]) == ["machine", *steps]
    assert {step["status"] for step in result["steps"].values()} == {"done"}, problems
    rows = [row for step in result["steps"].values() for row in step["rows"]]
    assert [row for row in rows if "problem" in row and row.get("contender") == "Triton"] == []
    assert len([row for row in rows if row.get("contender") == "Triton"]) >= 5
    text = tables.page(result)
    assert "Nothing was measured" not in text
    assert "A dry run" in text
    monkeypatch.setattr(sys, "argv", ["gpu_tables.py", str(out), "--write"])
    with pytest.raises(SystemExit):
        tables.main()
    assert "figures of a dry run mean nothing" in capsys.readouterr().err


def test_a_failed_step_is_kept_in_one_line_and_the_next_one_runs(day, tmp_path):
    one = day.Day(tmp_path / "result.json", 300, dry_run=True)
    assert one.run(day.Step("table.nothing", 120)) == []
    assert len(one.run(day.Step("machine", 120))) == 1
    steps = json.loads((tmp_path / "result.json").read_text())["steps"]
    assert steps["table.nothing"]["status"] == "failed"
    assert steps["table.nothing"]["problem"] == "KeyError: 'nothing'"
    assert steps["machine"]["status"] == "done"


def test_a_step_without_time_or_memory_is_skipped_with_the_reason(day, tmp_path):
    one = day.Day(tmp_path / "result.json", 5, dry_run=False)
    one.run(day.Step("tests", 100))
    one = day.Day(tmp_path / "other.json", 500, dry_run=False)
    one.result["machine"] = {"free_gib": 3.0}
    one.run(day.Step("train.step", 100, 40))
    assert one.result["steps"]["train.step"]["problem"] == "takes 40 GiB of GPU memory, 3.0 are free"
    steps = json.loads((tmp_path / "result.json").read_text())["steps"]
    assert steps["tests"] == {"status": "skipped", "rows": [], "problem": "the day's time is spent"}


def test_a_day_that_is_started_again_keeps_what_was_done(day, tmp_path):
    out, done, cut = tmp_path / "result.json", day.Step("table.linear", 50), day.Step("tests", 100)
    first = day.Day(out, 1, dry_run=False)
    rows = [{"file": "one"}, {"file": "two"}]
    first.result["steps"] = {
        done.name: {"status": "done", "rows": []},
        cut.name: {"status": "cut", "rows": rows},
    }
    first.run(cut)  # there is no time: what was measured is worth more than a reason
    again = day.Day(out, 1, dry_run=False)
    assert again.done(done)
    assert not again.done(cut)
    again._keep(cut, {"status": "cut", "rows": rows[:1]})
    assert json.loads(out.read_text())["steps"][cut.name]["rows"] == rows
    again._keep(cut, {"status": "done", "rows": rows[:1]})
    assert json.loads(out.read_text())["steps"][cut.name]["rows"] == rows[:1]
    with pytest.raises(ValueError, match="dry_run False in it, True here"):
        day.Day(out, 1, dry_run=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_line_says_what_to_do(day, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu_day.py", "--out", str(tmp_path / "result.json")])
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert day.main() == 2
    assert "finds no CUDA device: --dry-run walks the same way on a CPU" in capsys.readouterr().out


def _result(ratio: float) -> dict:
    def row(contender, ms):
        times = {"median_ms": ms, "p90_ms": ms}
        return {
            "operator": "box_attention", "batch": 1, "dtype": "float16", "contender": contender,
            "error": 1e-3, "forward": times, "training": times, "forward_mib": 1.0, "training_mib": 2.0,
            "gbs": 100.0,
        }  # fmt: skip

    rows = [row("Triton", ratio), row("torch.compile", 1.0), row("FlexAttention", 0.1)]
    tuned = [
        {"kernel": "box_attention forward, d to 32", "winner": [64, 4, 16, 8, 3], "table": [64, 4, 16, 4, 3]},
        {
            "kernel": "box_attention grad_keys, d to 32",
            "winner": [64, 4, 16, 4, 3],
            "table": [64, 4, 16, 4, 3],
        },
    ]
    return {
        "dry_run": False, "commit": "abc",
        "machine": {"capability": 90, "copy_gbs": 1000.0, "notes": ["said"]},
        "steps": {
            "table.box_attention": {"status": "done", "seconds": 1.0, "rows": rows},
            "tune.box_attention": {"status": "cut", "problem": "a | b", "rows": tuned},
        },
    }  # fmt: skip


def test_tables_and_winners_come_from_the_result(tables):
    text = tables.page(_result(0.5))
    line = "| box_attention | 1 | float16 | Triton | 1.0e-03 | 0.500 (0.500) | 0.500 (0.500) | 2.0 | 10% |"
    assert line in text
    assert "| tune.box_attention | cut | - | a / b | - |" in text
    assert tables.slower(_result(0.9)) == []
    assert tables.slower(_result(1.1)) == ["box_attention"]
    result = _result(0.9)
    result["steps"]["table.box_attention"]["rows"][0] |= {"problem": "skipped, the step's time is spent"}
    assert tables.slower(result) == []
    result["steps"]["table.box_attention"]["rows"][0] |= {"problem": "off by 1.0e-01"}
    assert tables.slower(result) == ["box_attention"]
    found = tables.measured(_result(1.1), {"80": {"tiles": {}, "slower": []}})
    tiles = {"box_attention forward, d to 32": [64, 4, 16, 8, 3]}
    assert found == {"80": {"tiles": {}, "slower": []}, "90": {"tiles": tiles, "slower": ["box_attention"]}}


class _Tile(NamedTuple):
    rows: int
    warps: int
    stages: int


def test_the_rule_reads_what_was_measured(monkeypatch):
    monkeypatch.setattr(_dispatch, "MEASURED", {"80": {"tiles": {"k": [64, 8, 3]}, "slower": ["loses"]}})
    assert tile_of("k", 80, _Tile(32, 4, 2)) == _Tile(64, 8, 3)
    assert tile_of("k", 90, _Tile(32, 4, 2)) == tile_of("other", 80, _Tile(32, 4, 2)) == _Tile(32, 4, 2)
    monkeypatch.setattr(_dispatch, "_obstacle", lambda *_, **__: "")  # as on a GPU
    x = {"x": torch.zeros(1)}
    assert use_triton("wins", x)
    assert not use_triton("loses", x)
    assert use_triton("loses", x, "triton")


def test_the_search_keeps_the_fastest_tile_that_agrees(monkeypatch):
    search = _load("benchmarks", "tile_search")
    measured: dict = {}
    monkeypatch.setattr(search, "MEASURED", measured)
    monkeypatch.setattr(_dispatch, "MEASURED", measured)
    now: list[_Tile] = []

    def work():
        now[:] = [tile_of("k", 80, _Tile(32, 4, 2))]
        if now[0].rows == 64:
            raise RuntimeError("out of shared memory")
        return (torch.ones(4) * (2 if now[0].warps == 8 else 1),)  # eight warps are wrong

    def times(work):
        work()
        return {"median_ms": {1: 2.0, 2: 1.0, 3: 0.5, 4: 0.7}[now[0].stages]}

    run = SimpleNamespace(times=times, has_time=lambda *_, **__: True, until=lambda _: 0.0, dry_run=False)
    rows = list(search.search(run, work, (RuntimeError,)))
    assert rows[-1] == {"kernel": "k", "winner": [32, 4, 3], "table": [32, 4, 2], "table_ms": 1.0}
    assert measured == {"80": {"tiles": {"k": [32, 4, 3]}}}
    assert {row["problem"] for row in rows if row.get("tile", [0])[0] == 64} == {"RuntimeError"}
