import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam3i_edge import Segmenter
from sam3i_edge.cli.app import main
from sam3i_edge.cli.demo import _iou
from sam3i_edge.cli.examples import draw_example, table_example


@pytest.fixture(scope="module")
def facts(tmp_path_factory, tiny_bundle):
    """What one run prints, for scripts."""
    out = tmp_path_factory.mktemp("demo") / "pictures"
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        assert main(["demo", "-m", str(tiny_bundle.root), "--json", "--seed", "4", "-o", str(out)]) == 0
    return json.loads(shown.getvalue())


def test_answers_are_the_models(facts, tiny_bundle):
    for shown in facts["scenes"]:
        answers = shown["answers"]
        assert {answer["level"] for answer in answers} == {"concept", "simple", "complex"}
        assert len({answer["instruction"] for answer in answers}) == len(answers) >= 5
        with Segmenter(tiny_bundle.root) as segmenter:
            for answer in answers:
                result = segmenter.segment(shown["scene"], answer["instruction"], level=answer["level"])
                assert answer["found"] == len(result)
                assert answer["presence"] == pytest.approx(result.presence)


def test_writes_the_scenes_and_one_picture_an_answer(facts):
    wanted = {shown["scene"] for shown in facts["scenes"]}
    wanted |= {answer["overlay"] for shown in facts["scenes"] for answer in shown["answers"]}
    assert {str(path) for path in Path(min(wanted)).parent.iterdir()} == wanted
    for name in wanted:
        assert Image.open(name).size >= (448, 320)


@pytest.mark.parametrize("example", [draw_example, table_example])
def test_a_seed_decides_scene_and_questions(example):
    def asked(seed):
        return [one.text for one in example(seed)[1]]

    assert asked(4) == asked(4)
    assert asked(4) != asked(5)


def test_for_people_ends_with_what_to_try_next(tmp_path, monkeypatch, tiny_bundle, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sam3i_edge.cli.examples._ASKED", (("concept", "all"), ("complex", "none")))
    assert main(["demo", "--model", str(tiny_bundle.root)]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0] == "table.png: tiny on cpu (onnxruntime, fp32), seed 11"
    assert lines[-1].split()[:3] == ["sam3i-edge", "segment", "demo-output/table.png"]


@pytest.mark.parametrize(
    ("found", "target", "iou"), [([1, 1, 0], [0, 1, 1], 1 / 3), ([0], [0], 1), ([1], [0], 0)]
)
def test_iou(found, target, iou):
    assert _iou(np.array(found, bool), np.array(target, bool)) == pytest.approx(iou)
