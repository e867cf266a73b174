from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from sam3i_edge.data.batch import BatchShape
from sam3i_edge.data.dataset import SceneBatches, drawn_classes
from sam3i_edge.train.attributes import AttributeHeads

WIDTH = 16


@pytest.fixture
def batch(encode):
    shape = BatchShape(images=2, instructions=2, mask_instructions=1, image_size=64, mask_size=16)
    return SceneBatches(shape, encode, seed=0, stream=0, level_weights={"concept": 1.0})[0]


def maps():
    return [torch.randn(2, WIDTH, side, side) for side in (16, 8, 4)]


def test_the_loss_by_hand(batch):
    heads, found = AttributeHeads(WIDTH, drawn_classes()), maps()
    wanted = 0.0
    for weight, features, norm, classes in zip(
        (0.3, 0.3, 1.0), found, heads.norms, heads.classes, strict=True
    ):
        side = features.shape[-1]
        share = batch.object_masks.float().view(-1, side, 16 // side, side, 16 // side).mean((2, 4))
        for index, image in enumerate(batch.object_image.tolist()):
            mean = (features[image] * share[index]).sum((1, 2)) / share[index].sum()
            logits = classes(norm(mean)).split((10, 8, 2, 3))
            for attribute, rows in zip(batch.object_attributes[index], logits, strict=True):
                wanted += weight * functional.cross_entropy(rows, attribute) / len(batch.object_image)
    torch.testing.assert_close(heads(found, batch), wanted)


def test_unknown_attributes_count_nothing(batch):
    heads, found = AttributeHeads(WIDTH, drawn_classes()), maps()
    nothing = replace(batch, object_attributes=torch.full_like(batch.object_attributes, -1))
    loss = heads(found, nothing)
    assert loss == 0
    loss.backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in heads.parameters())
    partly = batch.object_attributes.clone()
    partly[1:, 0] = -1
    one = heads.logits(found, batch)[-1][0][:1]
    terms = [
        heads(found, replace(batch, object_attributes=a))
        for a in (partly, torch.where(torch.arange(4) == 0, -1, partly))
    ]
    shapes = [
        weight * functional.cross_entropy(level[0][:1], partly[:1, 0])
        for weight, level in zip((0.3, 0.3, 1.0), heads.logits(found, batch), strict=True)
    ]
    assert len(one) == 1
    torch.testing.assert_close(terms[0] - terms[1], sum(shapes))


def test_accuracy_is_that_of_the_coarsest_map(batch):
    heads, found = AttributeHeads(WIDTH, drawn_classes()), maps()
    shape, color, *_ = heads.logits(found, batch)[-1]
    told = batch.object_attributes.clone()
    told[:, 0] = shape.argmax(1)
    told[:, 1] = (color.argmax(1) + 1) % 8
    accuracy = heads.accuracy(found, replace(batch, object_attributes=told))
    assert accuracy[:2].tolist() == [1.0, 0.0]


def test_an_object_reads_its_own_image_and_place(batch):
    heads, found = AttributeHeads(WIDTH, drawn_classes()), maps()
    for level in found:
        level.requires_grad_()
    heads.logits(found, batch)[-1][0][0].sum().backward()
    touched = found[-1].grad.abs().sum(1) > 0
    share = functional.adaptive_avg_pool2d(batch.object_masks[:1].float(), 4)[0]
    assert touched[1 - batch.object_image[0]].sum() == 0
    assert torch.equal(touched[batch.object_image[0]], share > 0)
