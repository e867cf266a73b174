import io
import json
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from sam3i_edge import Result, Segmenter
from sam3i_edge.cli.app import main


@pytest.fixture
def pixels():
    return np.random.default_rng(3).integers(0, 256, (50, 80, 3), np.uint8)


@pytest.fixture
def folder(tmp_path, monkeypatch, pixels):
    Image.fromarray(pixels).save(tmp_path / "scene.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(tiny_bundle, folder, capsys):
    def run(*arguments):
        code = main(["segment", *arguments, "--model", str(tiny_bundle.root)])
        shown = capsys.readouterr()
        assert code == 0, shown.err
        return shown

    return run


def test_json_is_the_result(run, tiny_bundle, pixels):
    printed = json.loads(run("scene.png", "the red star left of the ring", "--json", "-t", "0.3").out)
    assert {
        "image_size", "instruction", "level", "presence", "instances", "timings_ms",
        "device", "runtime", "precision",
    } <= set(printed)  # fmt: skip
    with Segmenter(tiny_bundle.root) as segmenter:
        want = segmenter.segment(pixels, "the red star left of the ring", threshold=0.3)
    assert len(want) > 0
    assert printed["image_size"] == [50, 80]
    assert {**printed, "timings_ms": None} == {**want.to_dict(), "timings_ms": None}
    assert np.array_equal(Result.from_dict(printed).masks, want.masks)
    mask = printed["instances"][0]["mask"]
    assert mask["size"] == [50, 80]
    assert isinstance(mask["counts"], str)


@pytest.fixture
def run_boxes(tiny_box_bundle, folder, capsys):
    def run(*arguments):
        code = main(["segment", *arguments, "--model", str(tiny_box_bundle.root)])
        return code, capsys.readouterr()

    return run


@pytest.mark.parametrize("instruction", [[], ["star"]], ids=["boxes alone", "with text"])
def test_boxes_and_their_signs(run_boxes, tiny_box_bundle, pixels, instruction):
    sides = ["--box", "5,4,30.5,20", "--box", "0, 0, 80, 50:-", "--box", "1e1,1,20,9:+"]
    code, shown = run_boxes("scene.png", *instruction, *sides, "--json", "-t", "0")
    assert code == 0, shown.err
    with Segmenter(tiny_box_bundle.root) as segmenter:
        want = segmenter.segment(
            pixels,
            *instruction,
            boxes=[[5, 4, 30.5, 20], [0, 0, 80, 50], [10, 1, 20, 9]],
            box_labels=[1, 0, 1],
            threshold=0.0,
        )
    assert len(want) == 4
    assert {**json.loads(shown.out), "timings_ms": None} == {**want.to_dict(), "timings_ms": None}


def test_boxes_for_people(run_boxes, folder):
    code, shown = run_boxes("scene.png", "--box", "5,4,30,20", "-t", "0")
    assert code == 0, shown.err
    assert shown.out.startswith("4 found by boxes (presence ")
    assert (folder / "scene-segmented.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give an INSTRUCTION, --box, or both"),
        (["--box", "1,2,3"], "--box '1,2,3': want x0,y0,x1,y1 in pixels and then :+, :- or nothing"),
        (["--box", "1,2,3,4,5"], "want x0,y0,x1,y1"),
        (["--box", "a,2,3,4"], "want x0,y0,x1,y1"),
        (["--box", "1,2,3,4:"], "want x0,y0,x1,y1"),
        (["--box", "1,2,3,4:0"], "want x0,y0,x1,y1"),
        (["--box", "1 2 3 4"], "want x0,y0,x1,y1"),
        (["--box", ""], "want x0,y0,x1,y1"),
        (["--box", "0,0,81,50"], "boxes[0] (0, 0, 81, 50) leaves the image of 80 x 50 pixels"),
        (["--box", "-1,0,8,5"], "leaves the image"),
        (["--box", "9,9,9,20"], "is empty"),
        (["--box", "nan,0,8,5"], "is not finite"),
        (["--box", "0,0,8,5"] * 4, "got 4 boxes, model 'tiny' takes at most 3"),
        (["--box", "0,0,8,5", "--level", "complex"], "asked at level concept, got level 'complex'"),
        ([" ", "--box", "0,0,8,5"], "the instruction is empty"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_wrong_boxes_are_wrong_usage(run_boxes, folder, arguments, message):
    code, shown = run_boxes("scene.png", *arguments)
    assert (code, shown.out) == (2, "")
    assert len(shown.err.splitlines()) == 1
    assert message in shown.err
    assert [path.name for path in folder.iterdir()] == ["scene.png"]


def test_a_model_without_a_box_encoder_says_so(tiny_bundle, folder, capsys):
    arguments = ["segment", "scene.png", "star", "--box", "0,0,8,5", "--model", str(tiny_bundle.root)]
    assert main(arguments) == 2
    assert "takes no boxes" in capsys.readouterr().err


def test_json_alone_writes_no_picture(run, folder):
    run("scene.png", "star", "--json")
    assert [path.name for path in folder.iterdir()] == ["scene.png"]


def test_without_json_the_overlay_lies_here_under_the_images_name(run, folder):
    shown = run("scene.png", "star", "--threshold", "0")
    assert sorted(path.name for path in folder.iterdir()) == ["scene-segmented.png", "scene.png"]
    assert np.asarray(Image.open("scene-segmented.png")).size > 50 * 80 * 3
    assert shown.out.startswith("4 found for 'star' (level concept, chosen by its wording; presence 0.")
    assert "tiny on cpu (onnxruntime, fp32)" in shown.out
    assert "overlay written to scene-segmented.png" in shown.err
    assert "every query of the detector passed the threshold" in shown.err


def test_the_models_note_is_shown(tiny_bundle, folder, capsys):
    shutil.copytree(tiny_bundle.root, folder / "model")
    manifest = json.loads((folder / "model" / "bundle.json").read_text())
    manifest["provenance"]["note"] = "trained on noise"
    (folder / "model" / "bundle.json").write_text(json.dumps(manifest))
    assert main(["segment", "scene.png", "star", "--json", "--model", "model"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["notes"] == ["trained on noise"]
    assert shown.err.splitlines()[0] == "tiny: trained on noise"


def test_overlap_is_suppressed_when_asked(run):
    every = json.loads(run("scene.png", "star", "--json", "-t", "0").out)["instances"]
    some = json.loads(run("scene.png", "star", "--json", "-t", "0", "--suppress", "0").out)["instances"]
    assert 0 < len(some) < len(every)


def test_nothing_found_is_an_answer(run):
    assert run("scene.png", "star", "--threshold", "1").out.startswith("0 found for 'star'")


def test_overlay_where_asked_also_with_json(run, folder):
    shown = run("scene.png", "star", "--json", "-o", "there.jpg")
    assert json.loads(shown.out)
    assert (folder / "there.jpg").exists()


def test_level_threshold_and_device_are_passed_on(run):
    printed = json.loads(
        run("scene.png", "star", "--json", "-l", "complex", "-t", "0.25", "-d", "cpu", "-p", "fp32").out
    )
    assert (printed["level"], printed["level_chosen_by"], printed["threshold"]) == ("complex", "caller", 0.25)
    assert (printed["device"], printed["precision"]) == ("cpu", "fp32")


def test_a_long_instruction_is_noted(run):
    shown = run("scene.png", "the red star " * 40, "--json")
    cut = json.loads(shown.out)["tokens_cut"]
    assert f"its last {cut} tokens were not read" in shown.err


def test_standard_input(run, folder, monkeypatch):
    want = json.loads(run("scene.png", "star", "--json").out)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((folder / "scene.png").read_bytes())))
    got = json.loads(run("-", "star", "--json").out)
    assert {**got, "timings_ms": 0} == {**want, "timings_ms": 0}


def test_markup_in_an_instruction_is_shown_as_it_is(run):
    assert "[red]star[/red]" in run("scene.png", "[red]star[/red]").out
