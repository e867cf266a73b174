from __future__ import annotations

import pytest
import torch
from torch import nn

from sam3i_edge.data.batch import BatchShape
from sam3i_edge.data.dataset import SceneBatches
from sam3i_edge.model.detector import Prediction
from sam3i_edge.train.validation import validate

SURE = 12.0


class Oracle(nn.Module):
    """Answers from the targets; `wrong` lists pairs for which it says the opposite about presence."""

    def __init__(self, batch, wrong=()):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.batch, self.wrong, self.levels = batch, wrong, []

    def forward(self, pixel_values, input_ids, level, image_index, mask_index):
        self.levels.append(level)
        batch, pairs = self.batch, len(self.batch.level)
        size = batch.object_masks.shape[-1]
        counts = torch.bincount(batch.target_pair, minlength=pairs)
        queries = int(counts.max()) + 1
        logits = torch.full((1, pairs, queries), -SURE)
        masks = torch.full((pairs, queries, size, size), -SURE)
        for pair in range(pairs):
            objects = batch.target_object[batch.target_pair == pair]
            logits[0, pair, : len(objects)] = SURE
            for query, target in enumerate(objects.tolist()):
                masks[pair, query][batch.object_masks[target] > 127] = SURE
            masks[pair, -1] = SURE  # of a query that no score keeps
        presence = torch.where(counts > 0, SURE, -SURE)[None]
        for pair in self.wrong:
            presence[0, pair] *= -1
            logits[0, pair, 0] = SURE
        empty = torch.zeros(0)
        return Prediction(
            logits=logits,
            boxes=torch.zeros(1, pairs, queries, 4),
            presence=presence,
            mask_logits=masks,
            semantic_logits=masks[:, 0],
            queries=empty,
            fused=empty,
            token_logits=empty,
        )


@pytest.fixture
def batch(encode):
    weights = {"concept": 1.0, "simple": 1.0, "complex": 1.0}
    shape = BatchShape(images=3, instructions=6, mask_instructions=1, image_size=64, mask_size=16)
    data = SceneBatches(shape, encode, seed=0, stream=0, level_weights=weights)
    found = data[1]
    assert {"none"} < set(found.granularities)
    return found


def test_the_right_answer_scores_one(batch):
    figures = validate(Oracle(batch), [batch], adapted=False)
    assert set(figures) == {"concept", "simple", "complex", "presence", "none"}
    assert set(figures.values()) == {1.0}


def test_presence_decides_alone_when_it_is_wrong(batch):
    nothing = [i for i, g in enumerate(batch.granularities) if g == "none"]
    something = [i for i, g in enumerate(batch.granularities) if g != "none"]
    figures = validate(Oracle(batch, wrong=[nothing[0], something[0]]), [batch], adapted=False)
    assert figures["presence"] == pytest.approx(1 - 2 / len(batch.texts))
    assert figures["none"] == pytest.approx(1 - 1 / len(nothing))
    level = ("concept", "simple", "complex")[int(batch.level[something[0]])]
    same = [i for i in something if batch.level[i] == batch.level[something[0]]]
    assert figures[level] == pytest.approx(1 - 1 / len(same))


def test_levels_reach_the_model_only_when_adapted(batch):
    model = Oracle(batch)
    validate(model, [batch], adapted=False)
    validate(model, [batch], adapted=True)
    assert model.levels[0] is None
    assert torch.equal(model.levels[1], batch.level)
