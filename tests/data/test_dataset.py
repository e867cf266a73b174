from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import time
from collections import Counter
from dataclasses import fields, replace
from multiprocessing import connection

import cv2
import numpy as np
import pytest
import torch

from sam3i_edge.data.batch import Batch, BatchShape, Sample, assemble, mask_boxes, shrink_mask
from sam3i_edge.data.batch_loading import load_batches
from sam3i_edge.data.dataset import SceneBatches
from sam3i_edge.data.instructions import Instruction
from sam3i_edge.data.palette import COLORS
from sam3i_edge.data.shapes import SHAPES
from sam3i_edge.errors import DataError, TrainingError
from sam3i_edge.pipeline.preprocess import to_pixel_values

ALL = {"concept": 1.0, "simple": 1.0, "complex": 1.0}
SHAPE = BatchShape(images=2, instructions=4, mask_instructions=2, image_size=64, mask_size=16)


def encode(text):
    ids = np.zeros(32, np.int64)
    ids[: min(len(text), 32)] = [ord(letter) for letter in text[:32]]
    return ids


def scenes(shape=SHAPE, **settings):
    return SceneBatches(shape, encode, **{"seed": 0, "stream": 0, "level_weights": ALL, **settings})


def same(one: Batch, other: Batch) -> bool:
    pairs = [(getattr(one, f.name), getattr(other, f.name)) for f in fields(Batch)]
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


def test_shapes_and_types():
    batch = scenes()[0]
    assert (batch.pixel_values.shape, batch.pixel_values.dtype) == ((2, 3, 64, 64), torch.float32)
    assert -1 <= float(batch.pixel_values.min()) < 0 < float(batch.pixel_values.max()) <= 1
    assert (batch.input_ids.shape, batch.input_ids.dtype) == ((8, 32), torch.int64)
    assert batch.image_index.tolist() == [0] * 4 + [1] * 4
    assert batch.object_masks.dtype == torch.uint8
    assert batch.object_masks.shape[1:] == (16, 16)
    assert len(batch.object_boxes) == len(batch.object_masks)
    assert batch.target_pair.tolist() == sorted(batch.target_pair.tolist())
    ids = [torch.from_numpy(encode(text)) for text in batch.texts]
    assert torch.equal(batch.input_ids, torch.stack(ids))
    for image in range(2):
        texts = [t for t, i in zip(batch.texts, batch.image_index.tolist(), strict=True) if i == image]
        assert len(set(texts)) == 4
        assert len([m for m in batch.mask_index.tolist() if m // 4 == image]) == 2


def test_a_batch_depends_on_its_number_alone():
    data = scenes()
    third = data[3]
    data[0], data[1]
    assert same(data[3], third)
    assert same(scenes()[3], third)
    assert not same(data[4], third)
    assert not same(scenes(seed=1)[3], third)
    assert not same(scenes(stream=1)[3], third)


def test_it_pickles_for_worker_processes():
    data = scenes()
    assert same(pickle.loads(pickle.dumps(data))[2], data[2])


@pytest.mark.parametrize("workers", [0, 1])
def test_the_loader_gives_them_in_order(workers):
    found = list(load_batches(scenes(), range(2, 5), workers=workers))
    assert [same(batch, scenes()[number]) for batch, number in zip(found, range(2, 5), strict=True)] == [
        True
    ] * 3


def test_batches_need_no_shared_memory(monkeypatch):
    """A container's /dev/shm has 64 MiB, and less: workers that could not write there waited for ever."""

    def full(*_):
        raise RuntimeError("unable to allocate shared memory")

    for name in ("_share_fd_cpu_", "_share_filename_cpu_"):
        monkeypatch.setattr(torch.UntypedStorage, name, full)
    (batch,) = load_batches(scenes(), range(1), workers=1)
    assert same(batch, scenes()[0])


class Faulty(SceneBatches):
    """Batch 1 is never made."""

    def __init__(self, fault):
        self.fault, self.made = fault, scenes()

    def __getitem__(self, number):
        return self.fault() if number == 1 else self.made[number]


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def refused():
    raise DataError("a.png is missing")


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (killed, TrainingError, "a process that makes batches has died: was it killed"),
        (refused, DataError, r"\Aa\.png is missing\Z"),
    ],
)
def test_what_ends_a_worker_ends_the_run_in_one_line(fault, error, message):
    batches = load_batches(Faulty(fault), range(3), workers=1)
    with pytest.raises(error, match=message):
        list(batches)


def test_a_worker_that_hangs_goes_with_the_run():
    before = set(multiprocessing.active_children())
    batches = load_batches(Faulty(lambda: time.sleep(600)), range(3), workers=1)
    next(batches)
    (worker,) = set(multiprocessing.active_children()) - before
    batches.close()
    # Not join: where the pool has waited for it already, the process counts as alive.
    assert connection.wait([worker.sentinel], 60) == [worker.sentinel]


def test_targets_are_those_of_the_instruction():
    batch = scenes()[0]
    counts = torch.bincount(batch.target_pair, minlength=8).tolist()
    for granularity, count in zip(batch.granularities, counts, strict=True):
        assert (granularity == "none") == (count == 0)
        if granularity == "one":
            assert count == 1
        if granularity == "subset":
            assert count >= 2
    # An object's box encloses its mask.
    for box, mask in zip(batch.object_boxes, batch.object_masks, strict=True):
        rows, columns = torch.nonzero(mask, as_tuple=True)
        low, high = (box[:2] - box[2:] / 2) * 16, (box[:2] + box[2:] / 2) * 16
        assert columns.min() == int(low[0])
        assert rows.max() == pytest.approx(float(high[1]) - 0.5, abs=0.51)


def test_attributes_are_those_that_the_words_name():
    data = scenes(level_weights={"concept": 1.0})
    told = 0
    for number in range(6):
        batch = data[number]
        for pair, target in zip(batch.target_pair.tolist(), batch.target_object.tolist(), strict=True):
            words = batch.texts[pair].lower().split()
            assert batch.object_image[target] == batch.image_index[pair]
            named = [color for color in COLORS if color in words]
            if len(named) == 1:
                assert COLORS[batch.object_attributes[target, 1]] == named[0]
                told += 1
    assert told > 10


def test_frequencies():
    weights = {"concept": 0.2, "complex": 0.8}
    data = scenes(replace(SHAPE, instructions=6), level_weights=weights, none_share=0.3)
    batches = [data[i] for i in range(25)]
    levels = Counter(level for b in batches for level in b.level.tolist())
    kinds = Counter(kind for b in batches for kind in b.granularities)
    assert set(levels) == {0, 2}
    assert levels[0] / 300 == pytest.approx(0.2, abs=0.07)
    assert kinds["none"] / 300 == pytest.approx(0.3, abs=0.08)
    assert kinds["one"] > kinds["subset"] > 0


@pytest.mark.parametrize("weights", [{}, {"concept": 0.0}, {"concept": -1.0, "simple": 3.0}, {"other": 1.0}])
def test_bad_level_weights(weights):
    with pytest.raises(ValueError, match="level_weights must weigh some of concept, simple, complex"):
        scenes(level_weights=weights)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"images": 0}, "images must be at least 1, got 0"),
        ({"mask_instructions": 7}, "mask_instructions must be at most instructions, got 7 of 6"),
        ({"pairs": 2}, "pairs must be 0 to 1, half of mask_instructions, got 2"),
        ({"pairs": -1}, "pairs must be 0 to 1, half of mask_instructions, got -1"),
    ],
)
def test_bad_shapes(settings, message):
    with pytest.raises(ValueError, match=message):
        BatchShape(**settings)


def sample(height=90, width=130, count=3):
    """Three squares side by side; the first instruction wants the first two, the second nothing."""
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    masks = np.zeros((count, height, width), bool)
    for i in range(count):
        masks[i, 10:40, 10 + 40 * i : 40 + 40 * i] = True
    asked = (
        Instruction("the first two", "simple", "subset", (0, 1)),
        Instruction("a cat", "concept", "none", ()),
    )
    attributes = np.arange(4 * count).reshape(count, 4)
    return Sample(
        image=image, masks=masks, boxes=mask_boxes(masks), attributes=attributes, instructions=asked
    )


def test_assembling_by_hand():
    shape = BatchShape(images=2, instructions=2, mask_instructions=2, image_size=32, mask_size=10)
    batch = assemble([sample(), sample()], shape, encode, np.random.default_rng(0), augment=False)
    assert batch.target_pair.tolist() == [0, 0, 2, 2]
    assert batch.target_object.tolist() == [0, 1, 3, 4]
    assert batch.level.tolist() == [1, 0, 1, 0]
    assert batch.object_image.tolist() == [0, 0, 0, 1, 1, 1]
    assert batch.object_attributes[4].tolist() == [4, 5, 6, 7]
    torch.testing.assert_close(batch.target_boxes[1], torch.tensor([65 / 130, 25 / 90, 30 / 130, 30 / 90]))
    union = batch.union_masks(torch.tensor([2, 1]))
    area = 2 * 30 * 30 / (90 * 130)
    assert float(union[0].mean()) == pytest.approx(area, abs=0.002)
    assert float(union[1].sum()) == 0


def test_union_of_overlapping_targets_stays_a_share():
    shape = BatchShape(images=1, instructions=2, mask_instructions=1, image_size=32, mask_size=10)
    case = sample()
    overlapping = replace(case, masks=case.masks[[0, 0, 2]])
    batch = assemble([overlapping], shape, encode, np.random.default_rng(0), augment=False)
    union = batch.union_masks(torch.tensor([0]))
    share = batch.object_masks[0].float() / 255
    torch.testing.assert_close(union[0], (2 * share).clamp(max=1))


def test_an_image_without_objects():
    shape = BatchShape(images=1, instructions=2, mask_instructions=2, image_size=32, mask_size=10)
    case = sample(count=0)
    empty = replace(case, boxes=np.zeros((0, 4), np.float32), instructions=case.instructions[1:])
    assert len(empty.attributes) == 0
    batch = assemble([empty], shape, encode, np.random.default_rng(0), augment=False)
    assert batch.object_masks.shape == (0, 10, 10)
    assert batch.mask_index.tolist() == [0]
    assert batch.union_masks(batch.mask_index).shape == (1, 10, 10)


def test_the_image_is_what_inference_would_see():
    shape = BatchShape(images=1, instructions=2, mask_instructions=1, image_size=32, mask_size=10)
    case = sample()
    batch = assemble([case], shape, encode, np.random.default_rng(0), augment=False)
    wanted = to_pixel_values(case.image, 32, (0.5,) * 3, (0.5,) * 3)
    np.testing.assert_array_equal(batch.pixel_values.numpy(), wanted)


def test_augmentation_varies_the_filter_but_nothing_else():
    shape = BatchShape(images=1, instructions=2, mask_instructions=1, image_size=64, mask_size=10)
    case = sample(100, 100)
    case = replace(case, image=cv2.GaussianBlur(case.image, (0, 0), 3))
    plain = assemble([case], shape, encode, np.random.default_rng(0), augment=False)
    found = [assemble([case], shape, encode, np.random.default_rng(i), augment=True) for i in range(20)]
    gaps = [float((b.pixel_values - plain.pixel_values).abs().max()) for b in found]
    assert min(gaps) == 0
    assert 0 < max(gaps) < 0.2
    assert all(torch.equal(b.object_boxes, plain.object_boxes) for b in found)


def test_masks_shrink_to_shares():
    mask = np.zeros((8, 8), bool)
    mask[:3, :4] = True
    assert shrink_mask(mask, 2).tolist() == [[191, 0], [0, 0]]
    assert shrink_mask(mask, 4).tolist() == [[255, 255, 0, 0], [128, 128, 0, 0], [0] * 4, [0] * 4]


def test_pairs_come_first_share_their_targets_and_get_masks():
    shape = replace(SHAPE, instructions=6, mask_instructions=5, pairs=2)
    data = scenes(shape, none_share=0.5)
    kinds = Counter()
    for number in range(4):
        batch = data[number]
        assert same(scenes(shape, none_share=0.5)[number], batch)
        assert batch.aligned.tolist() == [[0, 1], [2, 3], [6, 7], [8, 9]]
        assert batch.concept_ids.shape == (4, 32)
        assert {0, 1, 2, 3, 6, 7, 8, 9} < set(batch.mask_index.tolist())
        assert (len(batch.mask_index), batch.mask_index.tolist()) == (10, sorted(batch.mask_index.tolist()))
        asked = [batch.target_object[batch.target_pair == p].tolist() for p in range(12)]
        for (one, other), ids in zip(batch.aligned.tolist(), batch.concept_ids, strict=True):
            assert batch.level[[one, other]].tolist() == [1, 2]
            assert asked[one] == asked[other] != []
            shapes = {SHAPES[batch.object_attributes[target, 0]] for target in asked[one]}
            noun = shapes.pop() if len(shapes) == 1 else "shape"
            assert torch.equal(ids, torch.from_numpy(encode(noun)))
        assert asked[0] != asked[2]
        kinds.update(batch.granularities[p] for p in range(12) if p % 6 > 3)
    assert kinds["none"] > 0


def test_without_pairs_nothing_is_aligned():
    batch = scenes()[0]
    assert batch.aligned.shape == (0, 2)
    assert batch.concept_ids.shape == (0, 32)
    assert batch.concept_ids.dtype == batch.aligned.dtype == torch.int64


def test_moving_keeps_texts_and_moves_tensors():
    batch = scenes()[0].to("meta")
    assert batch.texts == scenes()[0].texts
    assert {
        getattr(batch, f.name).device.type for f in fields(Batch) if f.name not in ("texts", "granularities")
    } == {"meta"}
