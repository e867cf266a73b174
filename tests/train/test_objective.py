from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from sam3i_edge.data.batch import BatchShape
from sam3i_edge.data.dataset import SceneBatches
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.train.alignment import SAM3I_ALIGNMENT, alignment_loss
from sam3i_edge.train.losses import LossWeights, enlarge
from sam3i_edge.train.objective import Objective
from sam3i_edge.train.projector import concept_numbers
from sam3i_edge.train.stages import freeze

CPU = torch.device("cpu")
BOTH = {"simple": 1.0, "complex": 1.0}
SHAPE = BatchShape(images=2, instructions=3, mask_instructions=2, pairs=1, image_size=64, mask_size=16)


@pytest.fixture(params=[16, 32])
def batch(encode, request):
    """Masks as fine as the model's, and twice as fine."""
    shape = replace(SHAPE, mask_size=request.param)
    return SceneBatches(shape, encode, seed=0, stream=0, level_weights=BOTH, none_share=0.0)[0]


@pytest.fixture
def model(tiny_model):
    """Adapters that do something: fresh ones answer alike at every level."""
    model = SAM3I(tiny_model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".adapter." in name:
                parameter.normal_(std=0.2)
    return model


def test_each_pair_is_compared_by_its_own_texts_and_maps(model, tiny_run, batch):
    stage = replace(tiny_run.stages[-1], pairs=1)
    objective = Objective(model, LossWeights(), CPU, SAM3I_ALIGNMENT)
    freeze(model, stage)
    model.eval()
    total, terms = objective.loss(batch, stage)
    without, _ = objective.loss(batch, replace(stage, pairs=0))

    alone = []
    texts = []
    for pair in batch.aligned:
        maps, features = [], []
        for index, level in zip(pair.tolist(), (1, 2), strict=True):
            one = torch.tensor([level])
            ids = batch.input_ids[index : index + 1]
            image = batch.pixel_values[batch.image_index[index]][None]
            maps.append(model(image, ids, one).semantic_logits[0])
            features.append(objective.projector(model.encode_text(ids, one))[0])
        alone.append(enlarge(torch.stack(maps), batch.object_masks))
        texts.append(features)
    for features, ids in zip(texts, batch.concept_ids, strict=True):
        features.append(objective.projector(model.encode_text(ids[None], None))[0])
    wanted, named = alignment_loss(
        torch.stack(alone),
        batch.union_masks(batch.aligned[:, 1].contiguous()),
        torch.stack([torch.stack(features) for features in texts]),
        concept_numbers(batch.concept_ids),
        SAM3I_ALIGNMENT,
    )
    for name, value in named.items():
        torch.testing.assert_close(terms[name], value, rtol=2e-4, atol=1e-6)
    torch.testing.assert_close(total - without, wanted, rtol=1e-3, atol=1e-4)


def test_both_branches_and_the_projector_learn_and_the_base_does_not(model, tiny_run, batch):
    stage = replace(tiny_run.stages[-1], pairs=1)
    nothing = LossWeights(
        classification=0, box_l1=0, box_giou=0, presence=0, mask_bce=0, mask_dice=0,
        semantic_bce=0, semantic_dice=0, grounding=0, attributes=0,
    )  # fmt: skip
    objective = Objective(model, nothing, CPU, SAM3I_ALIGNMENT)
    learns = freeze(model, stage)
    assert {name.split(".")[0] for name in objective.parameters(stage)} == {"projector"}
    objective.loss(batch, stage)[0].backward()
    for group in ("simple", "bridge", "complex"):
        name = f"text_encoder.layers.0.adapter.{group}.down_proj.weight"
        assert learns[name].grad.abs().sum() > 0, group
    assert all(parameter.grad.abs().sum() > 0 for parameter in objective.projector.parameters())
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)


def test_without_pairs_nothing_of_it_is_there(model, tiny_run, batch):
    stage = tiny_run.stages[-1]
    for objective, at in (
        (Objective(model, LossWeights(), CPU), replace(stage, pairs=1)),
        (Objective(model, LossWeights(), CPU, SAM3I_ALIGNMENT), stage),
    ):
        assert not objective.parameters(at)
        assert not [name for name in objective.loss(batch, at)[1] if name.startswith("align")]


def test_the_instructions_of_a_pair_share_their_targets(batch):
    simple, complex_ = batch.aligned.T
    assert batch.level[simple].tolist() == [1, 1]
    assert batch.level[complex_].tolist() == [2, 2]
    assert functional.mse_loss(batch.union_masks(simple), batch.union_masks(complex_)) == 0
