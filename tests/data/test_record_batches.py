from __future__ import annotations

import pickle
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from sam3i_edge.data.annotations import Annotation, Record, write_annotations, write_scenes
from sam3i_edge.data.batch import BatchShape
from sam3i_edge.data.record_batches import RecordBatches
from sam3i_edge.errors import DataError
from sam3i_edge.masks import rle

ALL = {"concept": 1.0, "simple": 1.0, "complex": 1.0}
SHAPE = BatchShape(images=2, instructions=3, mask_instructions=1, image_size=32, mask_size=16)


def encode(text):
    return np.full(32, len(text), np.int64)


def batches(folder, shape=SHAPE, **settings):
    return RecordBatches(folder, shape, encode, **{"seed": 0, "stream": 0, "level_weights": ALL, **settings})


def square(number, left, iscrowd=0, size=20):
    mask = np.zeros((40, 80), bool)
    mask[10 : 10 + size, left : left + size] = True
    return Annotation(id=number, category="square", bbox=None, segmentation=rle.encode(mask), iscrowd=iscrowd)


def record(number, name, annotations, granularity="one", **texts):
    given = {"concept": ["square"], "simple": [], "complex": [], **texts}
    return Record(
        image_id=number,
        file_name=name,
        width=80,
        height=40,
        granularity=granularity,
        annotations=tuple(annotations),
        **given,
    )


@pytest.fixture
def folder(tmp_path):
    """Picture a.png is held out; b.png has three records."""
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / "images" / name), np.full((40, 80, 3), (0, 0, 255), np.uint8))
    return tmp_path


def write(folder, *records):
    held_out = record(99, "a.png", [square(99, 0)], "all")
    write_annotations(folder / "annotations.json", [*records, held_out])


def test_texts_and_targets_belong_together(folder):
    write(
        folder,
        record(1, "b.png", [square(1, 0)], "one", simple=["the left square"]),
        record(2, "b.png", [square(2, 0), square(3, 40)], "all", complex=["what has four corners"]),
        record(3, "b.png", [], "none", concept=[], simple=["the cat"]),
    )
    batch = batches(folder, replace(SHAPE, images=1, instructions=4))[0]
    # The concept of record 1 names more than its target.
    assert sorted(batch.texts) == ["square", "the cat", "the left square", "what has four corners"]
    expected = {"square": [0.125, 0.625], "what has four corners": [0.125, 0.625], "the left square": [0.125]}
    for pair, text in enumerate(batch.texts):
        boxes = batch.target_boxes[batch.target_pair == pair]
        assert boxes[:, 0].tolist() == expected.get(text, [])
        assert boxes[:, 1:].tolist() == [[0.5, 0.25, 0.5]] * len(boxes)
        union = batch.union_masks(torch.tensor([pair]))
        assert float(union.mean()) == pytest.approx(0.125 * len(boxes), abs=0.01)
    assert dict(zip(batch.texts, batch.level.tolist(), strict=True))["what has four corners"] == 2
    assert dict(zip(batch.texts, batch.granularities, strict=True))["the cat"] == "none"
    # Red, in RGB.
    assert batch.pixel_values[0, :, 5, 5].tolist() == [1, -1, -1]


def test_levels_without_texts_and_weights_are_left_out(folder):
    write(folder, record(1, "b.png", [square(1, 0)], "all", simple=["the square"]))
    batch = batches(folder, level_weights={"simple": 1.0, "complex": 1.0}, part="train")[0]
    assert set(batch.texts) == {"the square"}


def test_crowds_are_no_targets(folder):
    write(
        folder,
        record(1, "b.png", [square(1, 0), square(2, 40, iscrowd=1)], "all"),
        record(2, "b.png", [square(3, 40, iscrowd=1)], "all", concept=["crowd"]),
    )
    batch = batches(folder)[0]
    assert set(batch.texts) == {"square"}
    assert batch.target_boxes[:, 0].tolist() == [0.125] * 6


def test_every_picture_once_a_turn_and_none_of_the_held_out(tmp_path):
    write_scenes(tmp_path / "data", count=22, seed=0)
    data = batches(tmp_path / "data", replace(SHAPE, images=3))
    names = [
        [list(data.questions)[data._turns[20 * turn + place]] for place in range(20)] for turn in range(2)
    ]
    held_out = batches(tmp_path / "data", part="validation")
    assert sorted(held_out.questions) == ["000000.png", "000020.png"]
    assert not set(held_out.questions) & set(data.questions)
    assert sorted(names[0]) == sorted(names[1]) == sorted(data.questions)
    assert names[0] != names[1]
    again = batches(tmp_path / "data", replace(SHAPE, images=3))
    assert torch.equal(data[5].pixel_values, again[5].pixel_values)
    assert data[5].texts == again[5].texts
    assert not torch.equal(data[5].pixel_values, data[6].pixel_values)


def test_it_pickles_for_worker_processes(folder):
    write(folder, record(1, "b.png", [square(1, 0)], "all"))
    data = batches(folder)
    data[0]
    assert torch.equal(pickle.loads(pickle.dumps(data))[3].input_ids, data[3].input_ids)


def test_few_texts_are_asked_again(folder):
    write(folder, record(1, "b.png", [square(1, 0)], "all"))
    assert batches(folder)[0].texts == ("square",) * 6


def test_bad_folders_are_named(folder):
    with pytest.raises(DataError, match=r"annotations\.json"):
        batches(folder)
    write(folder)
    with pytest.raises(
        DataError, match=r"none of the pictures for train has a text .* 1 of 1 are kept for validation"
    ):
        batches(folder)
    write(folder, record(1, "gone.png", [square(1, 0)], "all"))
    with pytest.raises(
        DataError, match=r"no image at .*gone\.png': check the path; annotations\.json names it in record 1"
    ):
        batches(folder)[0]
    cv2.imwrite(str(folder / "images" / "gone.png"), np.zeros((40, 40, 3), np.uint8))
    with pytest.raises(DataError, match=r"gone\.png is 40 x 40 px, record 1 says 80 x 40"):
        batches(folder)[0]


def test_pairs_are_two_texts_of_one_record(folder):
    texts = {"simple": ["the left square", "left square"], "complex": ["what stands on the left"]}
    write(
        folder,
        record(1, "b.png", [square(1, 0)], "one", **texts),
        record(2, "b.png", [square(2, 0), square(3, 40)], "all", simple=["all"], complex=["four corners"]),
        record(3, "b.png", [square(4, 40)], "one", simple=["the right square"]),
        record(4, "b.png", [], "none", simple=["the cat"], complex=["what purrs"]),
        record(5, "b.png", [square(5, 40, iscrowd=1)], "all", simple=["crowd"], complex=["many"]),
        record(6, "b.png", [square(6, 40)], "one", concept=[], simple=["bare"], complex=["naked"]),
    )
    shape = replace(SHAPE, images=1, instructions=6, mask_instructions=4, pairs=2)
    for number in range(4):
        batch = batches(folder, shape, level_weights={"simple": 1.0, "complex": 1.0})[number]
        assert batch.aligned.tolist() == [[0, 1], [2, 3]]
        assert set(batch.mask_index.tolist()) == {0, 1, 2, 3}
        found = {frozenset(batch.texts[p] for p in pair) for pair in batch.aligned.tolist()}
        assert frozenset({"all", "four corners"}) in found
        assert any("what stands on the left" in pair for pair in found)
        for one, other in batch.aligned.tolist():
            assert batch.level[[one, other]].tolist() == [1, 2]
            targets = [batch.target_object[batch.target_pair == p].tolist() for p in (one, other)]
            assert targets[0] == targets[1] != []
        assert batch.concept_ids.tolist() == [[len("square")] * 32] * 2
        assert len(set(batch.texts)) == 6


def test_pictures_with_too_few_pairs_are_left_out(folder):
    write(
        folder, record(1, "b.png", [square(1, 0)], simple=["the left square"], complex=["what stands left"])
    )
    shape = replace(SHAPE, instructions=2, mask_instructions=2, pairs=1)
    assert sorted(batches(folder, shape)[0].texts) == sorted(["the left square", "what stands left"] * 2)
    shape = replace(SHAPE, instructions=4, mask_instructions=4, pairs=2)
    with pytest.raises(
        DataError, match=r"simple, complex and 2 records to pair a simple and a complex text in"
    ):
        batches(folder, shape)
    write(folder, record(1, "b.png", [square(1, 0)], simple=["the left square"]))
    with pytest.raises(DataError, match="none of the pictures for train"):
        batches(folder, replace(SHAPE, instructions=2, mask_instructions=2, pairs=1))
