"""bindings/java: compiled, and asked in a virtual machine of a desktop what Python answered."""

from __future__ import annotations

import base64
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam3i_edge import Segmenter

ROOT = Path(__file__).parents[2]
JAVA = ROOT / "bindings/java"
NANO = ROOT / "sam3i_edge/assets/sam3i-nano"
PLANES = ("nv12", "nv21", "planes")  # of a YUV picture, in turn


@pytest.fixture(scope="session")
def jvm(building, built, made_once) -> list[Path | str]:
    """The command that runs a class of src/test with the library of `built`."""
    for tool in ("javac", "java"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool} (default-jdk-headless)")

    def make(folder: Path) -> None:
        building.run("cmake", "--install", built, "--prefix", folder / "prefix")
        command = ["cmake", "-S", JAVA, "-B", folder / "build", f"-DCMAKE_PREFIX_PATH={folder / 'prefix'}"]
        building.run(*command, *building.QUICK)
        building.run("cmake", "--build", folder / "build")
        sources = [
            path for part in ("src/main", "src/test", "examples") for path in (JAVA / part).rglob("*.java")
        ]
        told = building.run(
            "javac", "--release", "11", "-Xlint:all", "-Werror", "-d", folder / "classes", *sources
        )
        assert told == ""

    folder = made_once("java", make)
    # The glue names the place that libsam3i had before `made_once` renamed the folder.
    found, place = f"LD_LIBRARY_PATH={folder / 'prefix/lib'}", f"-Djava.library.path={folder / 'build'}"
    return ["env", found, "java", "-Xcheck:jni", place, "-cp", folder / "classes"]


def test_answers_are_pythons(building, jvm, recorded, fixtures, tmp_path):
    runtime = next(iter(building.runtimes()))
    bundle = fixtures / "tiny-boxes"
    recorded.record(
        tmp_path,
        "java",
        bundle,
        runtime="onnxruntime",
        precision="fp32",
        threshold=0.05,
        pictures=24,
        boxes=3,
    )
    asked = json.loads((tmp_path / "java.json").read_text())["pictures"]
    lines, wanted = [], []
    for number, picture in enumerate(asked):
        place = " ".join(str(picture[key]) for key in ("format", "width", "height", "stride", "rotation"))
        lines.append(f"picture {tmp_path / picture['file']} {place} {PLANES[number // 6 % 3]}")
        for one in picture["questions"]:
            lines.append(_line(one["question"]))
            wanted.append(one["answer"])
    command = [*jvm, "sam3i.Answers", bundle, runtime, "fp32"]
    found = [json.loads(line) for line in building.run(*command, input="\n".join(lines) + "\n").splitlines()]
    assert len(found) == len(wanted) == 120
    for got, want in zip(found, wanted, strict=True):
        _compare(got, want)
    assert sum(len(answer["instances"]) for answer in wanted) > 200


def test_the_example_tells_and_draws_what_python_finds(building, jvm, recorded, tmp_path):
    if "onnxruntime" not in building.runtimes():
        pytest.skip("needs ONNX Runtime (ORT_ROOT, see scripts/ort_root.py)")
    picture, drawn = tmp_path / "picture.png", tmp_path / "drawn.png"
    Image.fromarray(recorded.draw_scene(np.random.default_rng(1), (240, 320)).pixels()).save(picture)
    with Segmenter(NANO) as segmenter:
        text = "every shape"
        found = segmenter.segment(picture, text)
        model = segmenter.info.model
    first, *lines = building.run(*jvm, "SegmentPicture", NANO, picture, text, drawn).splitlines()
    assert first == f"{model}: {len(found)} found"
    told = [[float(number) for number in re.findall(r"[0-9.]+", line)] for line in lines]
    columns = found.scores[:, None], found.boxes, found.areas[:, None]
    np.testing.assert_allclose(told, np.hstack(columns), rtol=0, atol=0.06)  # of boxes one digit is told
    before, after = (np.array(Image.open(path).convert("RGB")) for path in (picture, drawn))
    assert len(found) > 0
    assert not (before != after).any(-1)[~found.masks.any(0)].any()
    assert (before != after).any(-1)[found.masks.any(0)].mean() > 0.99


def test_refusals(building, jvm, fixtures):
    told = building.run(*jvm, "sam3i.Refusals", fixtures / "tiny")
    assert "passed, 0 failed" in told
    assert "WARNING" not in told  # of -Xcheck:jni


def _line(question: dict) -> str:
    text = question["instruction"]
    words = ["-" if text is None else base64.b64encode(text.encode()).decode()]
    words += [str(question.get(key, "-")) for key in ("level", "threshold", "suppress")]
    boxes, labels = question.get("boxes", []), question.get("box_labels", [])
    words.append(",".join(repr(side) for box in boxes for side in box) or "-")
    words.append(",".join(map(str, labels)) or "-")
    return "ask " + " ".join(words)


def _compare(got: dict, want: dict) -> None:
    for key in ("width", "height", "level", "level_auto", "tokens_cut", "truncated"):
        assert got[key] == want[key]
    assert math.isclose(got["presence"], want["presence"], abs_tol=1e-6)
    assert len(got["instances"]) == len(want["instances"])
    for one, other in zip(got["instances"], want["instances"], strict=True):
        assert math.isclose(one["score"], other["score"], abs_tol=1e-6)
        assert one["box"] == pytest.approx(other["box"], abs=1e-3)
        for key in ("counts", "area", "bbox", "polygons"):
            assert one[key] == other[key]
