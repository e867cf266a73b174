from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from sam3i_edge.data.annotations import write_scenes
from sam3i_edge.data.batch import BatchShape
from sam3i_edge.data.dataset import drawn_classes
from sam3i_edge.data.vocabulary import load_vocabulary
from sam3i_edge.errors import DataError, TrainingError
from sam3i_edge.pipeline.preprocess import load_image, to_pixel_values
from sam3i_edge.train.run_config import DataSource
from sam3i_edge.train.run_data import RunData
from sam3i_edge.train.trainer import run_training

SHAPE = BatchShape(images=2, instructions=2, mask_instructions=1, image_size=32, mask_size=16)
CONCEPTS = {"concept": 1.0}


class Killed(BaseException):
    """Leaves the trainer as a kill does."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_scene_folder):
    return str(write_scene_folder(tmp_path_factory.mktemp("run-data") / "scenes", 8))


@pytest.fixture(scope="module")
def annotated(tmp_path_factory):
    out = tmp_path_factory.mktemp("run-data") / "annotated"
    write_scenes(out, 4, 0)
    return str(out)


def train_batch(config, encode, part="train", **settings):
    settings = {"stream": 0, "level_weights": CONCEPTS, "none_share": 0.2, "part": part, **settings}
    return RunData(config).batches(SHAPE, encode, **settings)[0]


def test_a_mixture_has_the_classes_of_all_its_sources(tiny_run, folder, encode):
    sources = (DataSource(), DataSource(path=folder, vocabulary="tabletop"))
    data = RunData(replace(tiny_run, data=sources))
    tabletop = load_vocabulary("tabletop").attributes
    assert data.classes["category"] == (*drawn_classes()["category"], *tabletop["category"])
    assert data.classes["color"][:8] == drawn_classes()["color"]
    assert set(data.classes["color"]) == {*drawn_classes()["color"], *tabletop["color"]}
    assert data.classes["pose"] == tabletop["pose"]
    batch = train_batch(replace(tiny_run, data=(DataSource(), DataSource(path=folder))), encode)
    assert batch.object_attributes.shape[1] == len(data.classes)
    pose = list(data.classes).index("pose")
    assert set(batch.object_attributes[:, pose].tolist()) == {-1}


def test_one_folder_of_each_kind(tiny_run, folder, annotated, encode):
    for path in ("", folder, annotated):
        batch = train_batch(replace(tiny_run, data=path, stages=tiny_run.stages[1:]), encode)
        assert batch.pixel_values.shape == (2, 3, 32, 32)


def test_validation_takes_a_folder_of_its_own(tiny_run, tmp_path, folder, encode, write_scene_folder):
    other = str(write_scene_folder(tmp_path / "kept", 2, seed=1))
    kept = replace(tiny_run, data=(DataSource(path=folder, validation=other),))
    batch = train_batch(kept, encode, "validation")
    pixels = [load_image(tmp_path / "kept" / "images" / f"{n:03d}.png") for n in range(2)]
    wanted = {to_pixel_values(image, 32, (0.5,) * 3, (0.5,) * 3).tobytes() for image in pixels}
    assert {image.numpy().tobytes() for image in batch.pixel_values[:, None]} == wanted
    wanted = train_batch(replace(kept, data=(DataSource(path=other),)), encode, "validation")
    assert not torch.equal(batch.pixel_values, wanted.pixel_values)  # which shows its twentieth alone


def test_what_cannot_be_trained_on_is_refused_at_once(tiny_run, tmp_path, folder, annotated):
    with pytest.raises(DataError, match=r"holds neither scenes\.jsonl nor annotations\.json: name a folder"):
        RunData(replace(tiny_run, data=str(tmp_path)))
    with pytest.raises(TrainingError, match=r"stage 'image' learns what objects look like.* alone"):
        RunData(replace(tiny_run, data=annotated))
    with pytest.raises(DataError, match=r"annotated: validation is for folders with scenes\.jsonl"):
        RunData(replace(tiny_run, data=(DataSource(path=annotated, validation=folder),)))
    with pytest.raises(DataError, match="vocabulary none: "):
        RunData(replace(tiny_run, data=(DataSource(path=folder, vocabulary="none"),)))


def test_a_run_of_a_mixture_that_died_goes_on_to_the_same_numbers(tiny_run, tmp_path, folder, encode):
    config = replace(
        tiny_run,
        data=(DataSource(), DataSource(path=folder, weight=2.0, vocabulary="shapes")),
        images=2,
        stages=tuple(replace(s, level_weights=CONCEPTS) for s in tiny_run.stages[:2]),
    )

    def die(report):
        if (report.kind, report.stage, report.step) == ("step", "base", 4):
            raise Killed

    run_training(config, tmp_path / "whole", encode, device="cpu")
    with pytest.raises(Killed):
        run_training(config, tmp_path / "died", encode, device="cpu", progress=die)
    run_training(config, tmp_path / "died", encode, device="cpu")
    files = [(tmp_path / name / "weights" / "base.safetensors").read_bytes() for name in ("whole", "died")]
    assert files[0] == files[1]
    rows = [json.loads(line) for line in (tmp_path / "died" / "metrics.jsonl").read_text().splitlines()]
    image = next(row["validation"] for row in rows if "validation" in row and row["stage"] == "image")
    assert set(image) == {"category", "color", "size", "fill"}


def test_what_no_picture_of_the_validation_knows_has_no_figure(tiny_run, tmp_path, folder, encode):
    """Poses and materials, of which the file says nothing: not a number is no figure, nor JSON."""
    data = (DataSource(), DataSource(path=folder, vocabulary="tabletop"))
    config = replace(tiny_run, data=data, images=2, stages=tiny_run.stages[:1])
    run_training(config, tmp_path, encode, device="cpu")
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    image = next(row["validation"] for row in map(json.loads, lines) if "validation" in row)
    assert set(image) == {"category", "color", "size", "fill"}


def test_a_quantized_run_is_calibrated_on_its_own_pictures(tiny_run, tiny_model, tmp_path, folder, encode):
    pytest.importorskip("torchao")
    from sam3i_edge.train.quantized_run import QuantizedRun

    config = replace(tiny_run, data=(DataSource(), DataSource(path=folder, vocabulary="shapes")))
    run = QuantizedRun(config, tiny_model, encode, RunData(config), tmp_path)
    pairs = run._pairs(20)
    assert len(pairs) == 20
    sizes = [pair.image.shape[:2] for pair in pairs]
    assert 0 < sizes.count((96, 128)) < 20  # the file's, and drawn ones
    assert {pair.level for pair in pairs} == {"concept", "simple", "complex"}
    again = QuantizedRun(config, tiny_model, encode, RunData(config), tmp_path)._pairs(20)
    assert [pair.text for pair in again] == [pair.text for pair in pairs]
