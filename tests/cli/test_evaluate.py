from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sam3i_edge import Segmenter
from sam3i_edge.cli.app import main
from sam3i_edge.data.annotations import read_annotations, write_scenes
from sam3i_edge.evaluate.metrics import iou


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "scenes"
    write_scenes(folder, 2, 5)
    return folder


def _run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["evaluate", *map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_json_agrees_with_asking_the_segmenter_oneself(
    capsys: pytest.CaptureFixture[str], tiny_bundle: Any, data: Path
) -> None:
    code, out, _ = _run(capsys, tiny_bundle.root, "--data", data, "--json")
    assert code == 0
    report = json.loads(out)
    ious: dict[str, list[float]] = {"simple": [], "complex": []}
    with Segmenter(tiny_bundle.root) as segmenter:
        for record in read_annotations(data / "annotations.json"):
            scene = segmenter.encode(data / "images" / record.file_name)
            for level, texts in (("simple", record.simple), ("complex", record.complex)):
                if texts and record.annotations:
                    ious[level].append(
                        iou(scene.segment(texts[0], level=level).merged, record.masks().any(0))
                    )  # type: ignore[arg-type]
    cells = {cell["level"]: cell for cell in report["cells"] if cell["granularity"] == "overall"}
    for level, values in ious.items():
        assert values
        assert cells[level]["giou"] == pytest.approx(np.mean(values), abs=1e-12)
    assert report["images"] == 2
    assert report["threshold"] == 0.5
    assert report["conditions"] == {
        "model": "tiny",
        "device": "cpu",
        "runtime": "onnxruntime",
        "precision": "fp32",
        "level": "column",
        "data": str(data),
    }


def test_the_table_can_be_read_and_shows_the_same(
    capsys: pytest.CaptureFixture[str], tiny_bundle: Any, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = _run(capsys, tiny_bundle.root, "--data", data, "--json")
    cells = json.loads(out)["cells"]
    code, out, err = _run(capsys, tiny_bundle.root, "--data", data)
    assert code == 0
    assert err == ""  # no terminal, so no progress
    assert out.startswith("tiny on cpu (onnxruntime, fp32)")
    lines = [line.split() for line in out.splitlines()]
    for cell in cells:
        shown = next(line for line in lines if line[:2] == [cell["level"], cell["granularity"]])
        assert shown[2] == str(cell["pairs"])
        assert shown[3] == ("-" if cell["giou"] is None else f"{cell['giou']:.3f}")
        assert shown[4] == f"{cell['giou_with_none']:.3f}"
        assert len(shown) == 10
    assert "cgF1" in out
    assert "level chosen by the model" not in out
    assert max(map(len, out.splitlines()[1:])) <= 80


def test_options_reach_the_evaluation(
    capsys: pytest.CaptureFixture[str], tiny_bundle: Any, data: Path, tmp_path: Path
) -> None:
    outcomes = tmp_path / "outcomes.jsonl"
    arguments = ["--limit", "1", "--threshold", "0.9", "--level", "auto", "--outcomes", outcomes, "--json"]
    code, out, err = _run(capsys, tiny_bundle.root, "--data", data, "--threads", "1", *arguments)
    assert code == 0
    report = json.loads(out)
    assert (report["images"], report["threshold"]) == (1, 0.9)
    assert 0 <= report["routing"]["accuracy"] <= 1
    lines = [json.loads(line) for line in outcomes.read_text().splitlines()]
    assert len(lines) == report["timings_ms"]["instruction"]["count"]
    assert {line["file_name"] for line in lines} == {"000000.png"}
    assert f"{len(lines)} outcomes written to {outcomes}" in err
    assert [p.name for p in tmp_path.iterdir()] == ["outcomes.jsonl"]
    code, out, _ = _run(capsys, tiny_bundle.root, "--data", data, "--level", "auto")
    assert code == 0
    assert "level chosen by the model" in out


def _remove_picture(data: Path) -> None:
    (data / "images" / "000001.png").unlink()


def _cut_picture(data: Path) -> None:
    picture = data / "images" / "000001.png"
    picture.write_bytes(picture.read_bytes()[:1000])


def _cut_annotations(data: Path) -> None:
    file = data / "annotations.json"
    file.write_text(file.read_text()[:5000])


def _remove_annotations(data: Path) -> None:
    (data / "annotations.json").unlink()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_remove_picture, "1 of 2 pictures are missing"),
        (_cut_picture, "000001.png"),
        (_cut_annotations, "is not valid JSON"),
        (_remove_annotations, "annotations.json"),
    ],
)
def test_damaged_data_is_one_line_and_exit_code_1(
    capsys: pytest.CaptureFixture[str], tiny_bundle: Any, data: Path, tmp_path: Path, damage: Any, told: str
) -> None:
    shutil.copytree(data, tmp_path / "data")
    damage(tmp_path / "data")
    outcomes = tmp_path / "outcomes.jsonl"
    arguments = [tiny_bundle.root, "--data", tmp_path / "data", "--outcomes", outcomes, "--json"]
    code, out, err = _run(capsys, *arguments)
    assert (code, out) == (1, "")
    assert told in err
    assert len(err.splitlines()) == 1
    assert not outcomes.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--data", "{data}", "--limit", "0"],
        ["--data", "{data}", "--threshold", "1.5"],
        ["--data", "{data}", "--level", "simple"],
        ["--data", "{data}", "--device", "abacus"],
        ["--data", "{data}", "--outcomes", "{data}/no/such/folder/o.jsonl"],
        ["--data", "{data}", "--agent", "http://127.0.0.1:9/v1", "--agent-model", "tiny"],
        ["--data", "{data}", "--agent", "127.0.0.1:9", "--agent-model", "m", "--agent-cache", "{data}/c"],
        ["--data", "{data}", "--agent", "oracle", "--agent-model", "tiny"],
        ["--data", "{data}", "--agent", "oracle", "--agent-errors", "2"],
        ["--data", "{data}", "--agent-errors", "0.1"],
    ],
)
def test_wrong_usage_is_exit_code_2(
    capsys: pytest.CaptureFixture[str], tiny_bundle: Any, data: Path, arguments: list[str]
) -> None:
    code, out, err = _run(capsys, tiny_bundle.root, *(word.format(data=data) for word in arguments))
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1


def test_an_agent_stands_beside_the_direct_way(
    capsys: pytest.CaptureFixture[str], tiny_bundle: Any, data: Path, tmp_path: Path, chat: Any
) -> None:
    code, out, _ = _run(capsys, tiny_bundle.root, "--data", data, "--agent", "oracle", "--json")
    assert code == 0
    told = json.loads(out)
    code, out, _ = _run(capsys, tiny_bundle.root, "--data", data, "--json")
    cells = {(cell["level"], cell["granularity"]): cell for cell in json.loads(out)["cells"]}
    for cell in told["direct"]["cells"]:
        if cell["level"] != "overall":
            assert cell == cells[cell["level"], cell["granularity"]]
    assert told["costs"]["questions"] == told["agent"]["timings_ms"]["instruction"]["count"]
    assert told["costs"]["tokens"] == 0 < told["costs"]["calls"]
    outcomes = tmp_path / "outcomes.jsonl"
    with chat.ChatServer(lambda _: '{"phrases": []}') as server:
        endpoint = ["--agent", server.url, "--agent-model", "tiny", "--agent-cache", tmp_path / "cache"]
        code, out, _ = _run(capsys, tiny_bundle.root, "--data", data, *endpoint, "--outcomes", outcomes)
        assert code == 0
        asked = len(server.asked)
        refused = _run(
            capsys, tiny_bundle.root, "--data", data, *endpoint[:4], "--agent-cache", data / "images"
        )
    assert asked == told["costs"]["questions"] == len(outcomes.read_text().splitlines())
    assert any(line.split()[:2] == ["calls", str(asked)] for line in out.splitlines())
    assert refused[0] == 1
    assert "cannot be used" in refused[2]
