from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sam3i_edge.cli import benchmark
from sam3i_edge.cli.app import main
from sam3i_edge.data.annotations import write_scenes
from sam3i_edge.measure import runner, schema

_SMALL = {"queries": 8, "seconds": 0, "pairs": 6, "starts": 1, "scenes": 2}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(runner.BUDGETS, "quick", _SMALL)


def _run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["benchmark", *map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


_FAST = ("--threads", "1", "--level", "simple", "--device", "cpu")


def test_results_report_and_plot_are_written_and_the_table_is_printed(
    capsys: pytest.CaptureFixture[str], tiny_bundle: Any, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    write_scenes(data, 2, 5)
    out = tmp_path / "new" / "folder"
    code, printed, err = _run(capsys, "-m", tiny_bundle.root, *_FAST, "--data", data, "-o", out)
    assert code == 0, err
    assert sorted(path.name for path in out.iterdir()) == [
        "pareto.png", "pareto.svg", "report.html", "results.json",
    ]  # fmt: skip
    results = schema.read_results(out / "results.json")
    assert results.complete
    assert results.settings.data == "data"
    assert str(tmp_path) not in (out / "results.json").read_text()  # paths of a machine are nobody's business
    assert "tiny cpu onnxruntime fp32 simple" in " ".join(printed.split())
    assert "Take tiny cpu onnxruntime fp32" in printed
    assert "tiny cpu onnxruntime fp32 simple: ok" in err


def test_json_is_the_results(capsys: pytest.CaptureFixture[str], tiny_bundle: Any, tmp_path: Path) -> None:
    code, printed, _ = _run(capsys, "-m", tiny_bundle.root, *_FAST, "-o", tmp_path, "--json")
    assert code == 0
    assert json.loads(printed) == json.loads((tmp_path / "results.json").read_text())


def test_without_the_extra_the_results_are_written_and_it_is_said_first(
    capsys: pytest.CaptureFixture[str], tiny_bundle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "find_spec", lambda name: None if name == "jinja2" else object())
    code, _, err = _run(capsys, "-m", tiny_bundle.root, *_FAST, "-o", tmp_path)
    assert code == 0
    assert err.startswith("no report.html and no pareto.png, since jinja2 is not installed: pip install")
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_a_full_disk_is_one_line_and_leaves_the_old_results(
    capsys: pytest.CaptureFixture[str], tiny_bundle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "results.json").write_text("old")

    def full(self: Path, content: bytes) -> int:
        self.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    code, out, err = _run(capsys, "-m", tiny_bundle.root, *_FAST, "-o", tmp_path)
    assert (code, out) == (1, "")
    assert "No space left on device" in err
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    assert (tmp_path / "results.json").read_text() == "old"


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["-m", "."], 1, "is no bundle"),
        (["-m", "nope"], 2, "unknown model 'nope'"),
        (["--device", "abacus"], 2, "unknown device 'abacus'"),
        (["--device", "jetson"], 1, "not on this machine"),
        (["--runtime", "tflite"], 2, "unknown runtime 'tflite'"),
        (["--precision", "int3"], 1, "precision int3: the model has"),
        (["--resolution", "448"], 1, "no bundle takes pictures of 448 px (sam3i-nano "),
        (["--budget", "endless"], 2, "choose from quick, full"),
        (["--level", "hard"], 2, "unknown level 'hard'"),
        (["--threads", "0"], 2, "--threads"),
        (["--data", "nowhere"], 1, "nowhere"),
        (["--data", "maskless"], 1, "no mask, so nothing says what is right"),
        (["--compare", "a.json", "b.json"], 2, "a verb of its own: sam3i-edge compare a.json b.json"),
        (["--no-limits"], 2, "pytest benchmarks/test_rows.py benchmarks/test_studies.py"),
        (["--curves"], 2, "pytest benchmarks/test_rows.py benchmarks/test_studies.py"),
        (["-o", "file"], 1, "File exists"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_runs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], code: int, told: str,
) -> None:  # fmt: skip
    write_scenes(tmp_path / "maskless", 1, 1)
    file = tmp_path / "maskless" / "annotations.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "annotations": []}))
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    found = _run(capsys, *arguments)
    assert (found[0], found[1]) == (code, "")
    assert told in found[2]
    assert len(found[2].splitlines()) == 1
    assert not (tmp_path / "benchmark").exists()


def test_ctrl_c_keeps_the_rows_so_far(tiny_bundle: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "from sam3i_edge.cli.app import main; sys.exit(main(sys.argv[1:]))"
    arguments = ["benchmark", "-m", str(tiny_bundle.root), "--threads", "1", "-o", str(out)]
    child = subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True)
    results, ends = out / "results.json", time.monotonic() + 120
    while not results.is_file() or '"end_to_end"' not in results.read_text():
        assert child.poll() is None
        assert time.monotonic() < ends
        time.sleep(0.05)
    time.sleep(0.5)  # so that the next row has begun
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=120)
    assert child.returncode == 130, err
    assert "Traceback" not in err
    assert "marked as incomplete" in err
    found = schema.read_results(results)
    assert not found.complete
    assert found.rows[0].status == "ok"
    assert found.rows[-1].status == "interrupted"
    assert "This run was interrupted" in (out / "report.html").read_text()
    shutil.rmtree(out)
