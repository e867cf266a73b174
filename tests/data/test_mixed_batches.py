from __future__ import annotations

import pickle
from collections import Counter

import numpy as np
import pytest
import torch

from sam3i_edge.data.batch import BatchShape, Sample
from sam3i_edge.data.dataset import Batches
from sam3i_edge.data.instructions import Instruction
from sam3i_edge.data.mixed_batches import MixedBatches


class Numbered(Batches):
    """Samples that say which source they are of and at which place."""

    def __init__(self, name, images=4):
        shape = BatchShape(images=images, instructions=1, mask_instructions=1, image_size=8, mask_size=8)
        super().__init__(shape, encode, seed=0, stream=0)
        self.name = name

    def sample(self, position, rng):
        return Sample(
            image=np.zeros((8, 8, 3), np.uint8),
            masks=np.zeros((0, 8, 8), np.bool_),
            boxes=np.zeros((0, 4), np.float32),
            attributes=np.zeros((0, 4), np.int64),
            instructions=(Instruction(f"{self.name} {position}", "concept", "none", ()),),
        )


def encode(text):
    return np.full(32, len(text), np.int64)


def mixed(*weights, images=4):
    return MixedBatches([Numbered(name, images) for name in "abc"[: len(weights)]], weights)


def test_shares_and_each_source_in_its_own_order():
    data = mixed(3.0, 2.0, 1.0)
    texts = [text.split() for number in range(600) for text in data[number].texts]
    counts = Counter(name for name, _ in texts)
    assert [counts[name] for name in "abc"] == pytest.approx([1200, 800, 400], abs=2)
    for name in "abc":  # past the period of 1,000 too
        assert [int(place) for source, place in texts if source == name] == list(range(counts[name]))
    for number in range(600):  # never far from the shares within a batch
        assert Counter(text.split()[0] for text in data[number].texts)["a"] in (1, 2, 3)


def test_a_batch_depends_on_its_number_alone():
    data = mixed(1.0, 1.0)
    wanted = data[300].texts
    assert pickle.loads(pickle.dumps(mixed(1.0, 1.0)))[300].texts == wanted == data[300].texts
    assert wanted == ("a 600", "b 600", "a 601", "b 601")


@pytest.mark.parametrize("weights", [(1.0, 0.0), (1.0, -1.0), (1.0, 1e-4), (1.0,)])
def test_weights_that_show_a_source_never(weights):
    with pytest.raises(ValueError, match="every source needs a weight above 0 and an image in 1,000"):
        MixedBatches([Numbered("a"), Numbered("b")], weights)


def test_samples_make_one_batch():
    batch = mixed(1.0, 1.0)[0]
    assert torch.equal(batch.image_index, torch.arange(4))
