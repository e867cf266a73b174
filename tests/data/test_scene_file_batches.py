from __future__ import annotations

import json
import pickle
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from sam3i_edge.data import scene_file_batches
from sam3i_edge.data.batch import BatchShape
from sam3i_edge.data.scene_file_batches import SceneFileBatches
from sam3i_edge.data.sources.scene_file import SceneFileSource
from sam3i_edge.data.vocabulary import load_vocabulary
from sam3i_edge.errors import DataError

SHAPE = BatchShape(images=2, instructions=3, mask_instructions=2, image_size=64, mask_size=32)
SHAPES = load_vocabulary("shapes")


def encode(text):
    return np.full(32, len(text), np.int64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_scene_folder):
    return write_scene_folder(tmp_path_factory.mktemp("scene-file") / "scenes", 22)


def batches(folder, shape=SHAPE, **settings):
    settings = {"seed": 0, "stream": 0, "level_weights": {"concept": 1.0}, **settings}
    return SceneFileBatches(SceneFileSource(folder, SHAPES), SHAPES, shape, encode, **settings)


def test_a_batch_depends_on_its_number_alone(folder):
    data = batches(folder)
    third = data[3]
    data[0], data[11]
    for again in (data[3], pickle.loads(pickle.dumps(batches(folder)))[3]):
        assert torch.equal(again.pixel_values, third.pixel_values)
        assert torch.equal(again.object_masks, third.object_masks)
        assert again.texts == third.texts
    assert not torch.equal(data[4].pixel_values, third.pixel_values)


def test_every_picture_once_a_turn_and_none_of_the_held_out(folder):
    data = batches(folder)
    assert data.pictures.tolist() == [n for n in range(22) if n not in (0, 20)]
    assert batches(folder, part="validation").pictures.tolist() == [0, 20]
    assert batches(folder, part=None).pictures.tolist() == list(range(22))
    turns = [[data._turns[20 * turn + place] for place in range(20)] for turn in range(2)]
    assert sorted(turns[0]) == sorted(turns[1]) == list(range(20))
    assert turns[0] != turns[1]


def test_a_file_of_one_picture_has_none_to_train_on(tmp_path, write_scene_folder):
    folder = write_scene_folder(tmp_path / "one", 1)
    assert len(batches(folder, part="validation").pictures) == 1
    with pytest.raises(DataError, match="its only picture is kept for validation, none is left for train"):
        batches(folder)


def test_objects_are_those_of_the_picture_and_what_is_unknown_is_left_open(folder):
    data = batches(folder, replace(SHAPE, images=1), augment=False)
    lines = [json.loads(line) for line in (folder / "scenes.jsonl").read_text().splitlines()]
    for number in range(5):
        batch, line = data[number], lines[data.pictures[data._turns[number]]]
        numbers = batch.object_attributes.tolist()
        assert numbers[0][1] == -1  # the file does not know the first one's colour
        for found, wanted in zip(numbers, line["objects"], strict=True):
            said = {**wanted["attributes"], "category": wanted["category"]}
            pairs = zip(SHAPES.attributes.values(), found, strict=True)
            classes = [None if number < 0 else names[number] for names, number in pairs]
            assert classes == [said[name] for name in SHAPES.attributes]
        x0, y0, x1, y1 = line["objects"][1]["box"]
        wanted = torch.tensor([(x0 + x1) / 256, (y0 + y1) / 192, (x1 - x0) / 128, (y1 - y0) / 96])
        torch.testing.assert_close(batch.object_boxes[1], wanted)


def test_instructions_are_drawn_anew_each_turn(folder):
    data = batches(folder, replace(SHAPE, images=20, instructions=3))
    texts = [Counter(data[turn].texts) for turn in range(2)]
    assert texts[0] != texts[1]


def test_targets_are_those_that_the_nouns_and_colors_mean(folder):
    data = batches(folder, replace(SHAPE, images=8), none_share=0.4)
    names = {form: name for name in SHAPES.categories for noun in SHAPES.nouns(name) for form in noun[:2]}
    kinds, told = Counter(), 0
    for number in range(4):
        batch = data[number]
        for pair, (text, granularity) in enumerate(zip(batch.texts, batch.granularities, strict=True)):
            color, _, noun = text.lower().rpartition(" ")
            kinds[granularity] += 1
            if noun not in names or color not in ("", *SHAPES.attributes["color"]):
                continue
            members = (batch.object_image == batch.image_index[pair]) & (
                batch.object_attributes[:, 0] == list(SHAPES.categories).index(names[noun])
            )
            if color:  # of which none is open, or it would not be asked
                wanted = SHAPES.attributes["color"].index(color)
                members &= batch.object_attributes[:, 1] == wanted
            found = batch.target_object[batch.target_pair == pair]
            assert torch.equal(found, torch.nonzero(members).ravel())
            assert (granularity == "none") == (len(found) == 0)
            told += 1
    assert told > 30
    assert 0.2 < kinds["none"] / kinds.total() < 0.6


def test_pairs_begin_an_image(folder):
    data = batches(folder, replace(SHAPE, instructions=4, pairs=1), level_weights={"complex": 1.0})
    batch = data[0]
    assert batch.aligned.tolist() == [[0, 1], [4, 5]]
    assert batch.level[batch.aligned].tolist() == [[1, 2], [1, 2]]
    for simple, complex_ in batch.aligned.tolist():
        one, other = (batch.target_object[batch.target_pair == pair] for pair in (simple, complex_))
        assert len(one) > 0
        assert torch.equal(one, other)


def test_half_of_the_pictures_are_mirrored_with_all_that_is_in_them(folder):
    plain, varied = (batches(folder, replace(SHAPE, images=1), augment=augment) for augment in (False, True))
    mirrored = 0
    for number in range(20):
        one, other = plain[number], varied[number]
        flipped = not torch.allclose(one.object_boxes, other.object_boxes)
        mirrored += flipped
        boxes, masks, pixels = other.object_boxes.clone(), other.object_masks, other.pixel_values
        if flipped:
            boxes[:, 0] = 1 - boxes[:, 0]
            masks, pixels = masks.flip(-1), pixels.flip(-1)
        torch.testing.assert_close(boxes, one.object_boxes)
        assert int((masks.int() - one.object_masks.int()).abs().max()) <= 1
        assert float((pixels - one.pixel_values).abs().mean()) < 0.1  # by another filter at times
    assert 4 < mirrored < 16


def test_classes_of_others_are_kept_apart(folder):
    classes = {"category": ("mug", "star"), "pose": ("standing", "lying"), "color": ("blue",)}
    batch = batches(folder, classes=classes)[0]
    assert batch.object_attributes.shape[1] == 3
    assert set(batch.object_attributes[:, 0].tolist()) <= {-1, 1}
    assert set(batch.object_attributes[:, 1].tolist()) == {-1}


def test_a_file_that_gives_too_few_instructions_ends_in_one_line(folder, monkeypatch):
    monkeypatch.setattr(scene_file_batches, "ask", lambda *_: None)
    with pytest.raises(
        DataError, match="20 pictures give no 3 instructions of the levels concept and 0 pairs"
    ):
        batches(folder)[0]


def test_a_mirrored_scene_has_everything_on_the_other_side(folder):
    scene = SceneFileSource(folder, SHAPES).scene(1)
    mirrored = scene_file_batches._mirrored(scene)
    assert np.array_equal(mirrored.pixels(), scene.pixels()[:, ::-1])
    for one, other in zip(mirrored.objects, scene.objects, strict=True):
        assert one.center == (128 - other.center[0], other.center[1])
        assert one.box == (128 - other.box[2], other.box[1], 128 - other.box[0], other.box[3])
        assert np.array_equal(one.mask, other.mask[:, ::-1])
