from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from sam3i_edge.data.batch import Batch
from sam3i_edge.model.detector import Prediction
from sam3i_edge.train.losses import (
    SAM3_LOSSES,
    LossWeights,
    enlarge,
    focal_classification,
    grounding,
    iou_aware_classification,
    pixel_bce,
    pixel_dice,
    segmentation_loss,
)
from sam3i_edge.train.matcher import Matches

EMPTY = torch.zeros(0, 1)


def batch_of(target_pair, target_object, boxes, masks, pairs, mask_index):
    return Batch(
        pixel_values=EMPTY,
        texts=("",) * pairs,
        granularities=("",) * pairs,
        input_ids=EMPTY,
        level=torch.zeros(pairs, dtype=torch.int64),
        image_index=torch.zeros(pairs, dtype=torch.int64),
        mask_index=torch.tensor(mask_index, dtype=torch.int64),
        object_image=torch.zeros(len(masks), dtype=torch.int64),
        object_attributes=torch.full((len(masks), 4), -1),
        object_boxes=torch.tensor(boxes).view(-1, 4),
        object_masks=masks,
        target_pair=torch.tensor(target_pair, dtype=torch.int64),
        target_object=torch.tensor(target_object, dtype=torch.int64),
    )


def random_case(layers=2, pairs=3, queries=4, size=6):
    """Pair 0 has two targets, pair 1 none, pair 2 one; masks for pairs 0 and 1."""
    torch.manual_seed(1)
    batch = batch_of(
        [0, 0, 2],
        [1, 0, 2],
        torch.rand(3, 4).mul(0.3).add(0.2).tolist(),
        torch.randint(0, 256, (3, size, size), dtype=torch.uint8),
        pairs,
        [0, 1],
    )
    prediction = Prediction(
        logits=torch.randn(layers, pairs, queries, requires_grad=True),
        boxes=(torch.rand(layers, pairs, queries, 4) * 0.4 + 0.2).requires_grad_(),
        presence=torch.randn(layers, pairs, requires_grad=True),
        mask_logits=torch.randn(2, queries, size, size, requires_grad=True),
        semantic_logits=torch.randn(2, size, size, requires_grad=True),
        token_logits=torch.randn(pairs, size * size // 4, requires_grad=True),
        queries=EMPTY,
        fused=EMPTY,
    )
    return prediction, batch


def test_one_target_by_hand():
    mask = torch.tensor([[[255, 0], [0, 0]]], dtype=torch.uint8)
    batch = batch_of([0], [0], [0.5, 0.5, 0.4, 0.2], mask, 1, [0])
    prediction = Prediction(
        logits=torch.tensor([[[0.0, -2.0]]]),
        boxes=torch.tensor([[[[0.5, 0.5, 0.2, 0.2], [0.1, 0.9, 0.1, 0.1]]]]),
        presence=torch.tensor([[1.0]]),
        mask_logits=torch.zeros(1, 2, 2, 2),
        semantic_logits=torch.full((1, 2, 2), -1.0),
        token_logits=torch.tensor([[1.0]]),
        queries=EMPTY,
        fused=EMPTY,
    )
    total, terms = segmentation_loss(prediction, batch, LossWeights())
    p, low = 0.5, 1 / (1 + math.exp(2.0))
    s = 1 / (1 + math.e)
    wanted = {
        "classification": 0.75 * -math.log(p) * 0.25 + 0.25 * -math.log(1 - low) * low**2,
        "box_l1": 0.2,
        "box_giou": 0.5,  # inside the target, half of it, hull = target
        "presence": math.log(1 + math.exp(-1.0)),
        "mask_bce": math.log(2),
        "mask_dice": 1 - (2 * 0.5 + 1) / (2 + 1 + 1),
        "semantic_bce": (-math.log(s) - 3 * math.log(1 - s)) / 4,
        "semantic_dice": 1 - (2 * s + 1) / (4 * s + 1 + 1),
        "grounding": -math.log(1 - s),
    }
    assert {name: float(value) for name, value in terms.items()} == pytest.approx(wanted, rel=1e-4)
    weights = LossWeights()
    assert float(total) == pytest.approx(sum(getattr(weights, n) * v for n, v in wanted.items()), rel=1e-4)


def test_every_part_of_a_prediction_learns_and_only_where_it_should():
    prediction, batch = random_case()
    total, _ = segmentation_loss(prediction, batch, LossWeights())
    total.backward()
    # The pair with nothing to find teaches presence and the union mask alone.
    assert prediction.logits.grad[:, 1].abs().sum() == 0
    assert (prediction.logits.grad[:, [0, 2]] != 0).all()
    assert (prediction.presence.grad != 0).all()
    assert prediction.boxes.grad.abs().sum((2, 3)).gt(0).tolist() == [[True, False, True]] * 2
    # Two of four queries are matched, and their masks learn; pair 1 has none.
    assert prediction.mask_logits.grad.abs().sum((2, 3)).gt(0).sum(1).tolist() == [2, 0]
    assert (prediction.semantic_logits.grad != 0).all()
    assert (prediction.token_logits.grad != 0).all()


def test_masks_are_compared_with_their_own_object():
    prediction, batch = random_case(layers=1, queries=2)
    # Queries 0 and 1 of pair 0 sit on the boxes of objects 1 and 0.
    boxes = prediction.boxes.detach().clone()
    boxes[0, 0] = batch.object_boxes[[1, 0]]
    masks = prediction.mask_logits.detach().clone()
    masks[0] = (batch.object_masks[[1, 0]].float() / 255).clamp(1e-4, 1 - 1e-4).logit()
    right = replace(prediction, boxes=boxes, mask_logits=masks)
    wrong = replace(prediction, boxes=boxes, mask_logits=masks.flip(1))
    terms = [segmentation_loss(case, batch, LossWeights())[1] for case in (right, wrong)]
    assert terms[0]["mask_bce"] < 0.8 * terms[1]["mask_bce"]


def test_the_union_is_what_the_semantic_map_learns():
    prediction, batch = random_case()
    union = (batch.object_masks[0].float() + batch.object_masks[1].float()).div(255).clamp(max=1)
    torch.testing.assert_close(batch.union_masks(batch.mask_index), torch.stack([union, 0 * union]))
    _, terms = segmentation_loss(prediction, batch, LossWeights())
    expected = functional.binary_cross_entropy_with_logits(
        prediction.semantic_logits, torch.stack([union, 0 * union])
    )
    torch.testing.assert_close(terms["semantic_bce"], expected.detach())


@pytest.mark.parametrize("weights", [LossWeights(), SAM3_LOSSES])
def test_nothing_to_find_anywhere(weights):
    prediction, batch = random_case()
    batch = replace(batch, target_pair=batch.target_pair[:0], target_object=batch.target_object[:0])
    total, terms = segmentation_loss(prediction, batch, weights)
    total.backward()
    for name in ("classification", "box_l1", "box_giou", "mask_bce", "mask_dice"):
        assert terms[name] == 0
    assert terms["presence"] > 0
    for tensor in (prediction.logits, prediction.boxes, prediction.mask_logits, prediction.presence):
        assert torch.isfinite(tensor.grad).all()


def test_grounding_asks_every_pair_about_every_object_of_its_image():
    _, batch = random_case(size=4)
    masks = torch.zeros(3, 4, 4, dtype=torch.uint8)
    masks[0, :2] = 255  # the upper two tokens of four
    masks[1, :2, :2], masks[1, :2, 2:] = 255, 85  # upper left, and a third of upper right
    masks[2, 2:] = 255
    batch = replace(
        batch,
        object_masks=masks,
        object_image=torch.tensor([0, 0, 1]),
        image_index=torch.tensor([0, 0, 1]),
    )
    logits = torch.tensor([[2.0, -2.0, 50.0, 50.0], [0.0, 4.0, 50.0, 50.0], [50.0, 50.0, 1.0, 3.0]])
    # Pair 0 means objects 0 and 1, pair 1 none of them, pair 2 object 2.
    seen = [(0.0, 1), (0.75 * 2 - 0.25 * 2, 1), (2.0, 0), (0.25 * 4, 0), (2.0, 1)]
    wanted = sum(math.log(1 + math.exp(-x if meant else x)) for x, meant in seen) / len(seen)
    assert float(grounding(logits, batch)) == pytest.approx(wanted, rel=1e-5)


def test_gradients_of_the_forms():
    torch.manual_seed(0)
    logits = torch.randn(2, 2, 3, dtype=torch.float64, requires_grad=True)
    at = Matches(*(torch.tensor(v) for v in ([0, 1, 1], [0, 0, 0], [1, 2, 0], [0, 0, 1])))
    here = torch.tensor([True, False])
    assert torch.autograd.gradcheck(lambda x: focal_classification(x, at, here, LossWeights()), (logits,))
    pixels = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
    target = torch.rand(2, 3, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: pixel_bce(x, target, 0.25, 2.0), (pixels,))
    assert torch.autograd.gradcheck(lambda x: pixel_dice(x, target), (pixels,))


def test_scores_where_nothing_is_there_count_as_often_as_asked():
    logits = torch.tensor([[[0.0, 1.0], [2.0, -1.0]]])
    at = Matches(*(torch.tensor([v]) for v in (0, 0, 0, 0)))
    here = torch.tensor([True, False])
    alone = focal_classification(logits, at, here, LossWeights())
    wrong = sum(0.25 / (1 + math.exp(-x)) ** 2 * math.log(1 + math.exp(x)) for x in (2.0, -1.0))
    half = focal_classification(logits, at, here, LossWeights(absent=0.5))
    assert float(half - alone) == pytest.approx(0.5 * wrong, rel=1e-5)


def test_without_a_focus_scores_cost_their_cross_entropy():
    logits = torch.tensor([[[0.0, 1.0]]])
    at = Matches(*(torch.tensor([v]) for v in (0, 0, 0, 0)))
    plain = LossWeights(class_alpha=0.6, class_gamma=0.0)
    wanted = 0.6 * math.log(2) + 0.4 * math.log(1 + math.exp(1.0))
    assert float(focal_classification(logits, at, torch.tensor([True]), plain)) == pytest.approx(wanted)


def test_finer_masks_are_met_by_enlarged_logits():
    coarse = torch.tensor([[[-40.0, 40.0], [-40.0, 40.0]]])
    fine = torch.zeros(1, 4, 4)
    fine[..., 2:] = 1.0
    enlarged = enlarge(coarse, fine)
    # Centres of cells are at 0, .25, .75 and 1 of the way from the left one to the right one.
    assert enlarged[0, 0].tolist() == [-40.0, -20.0, 20.0, 40.0]
    assert float(pixel_bce(enlarged, fine, -1.0, 0.0)) < 1e-6
    assert enlarge(coarse, coarse) is coarse


def test_iabce_by_hand():
    logits = torch.tensor([[[0.0, 1.0], [2.0, 2.0]]])
    at = Matches(*(torch.tensor([v]) for v in (0, 0, 0, 0)))
    found = iou_aware_classification(logits, at, torch.tensor([0.5]), torch.tensor([True, False]))
    target = 0.5**0.25 * 0.5**0.75
    p = 1 / (1 + math.exp(-1.0))
    wanted = 10 * -(target * math.log(0.5) + (1 - target) * math.log(0.5)) + p**2 * -math.log(1 - p)
    assert float(found) == pytest.approx(wanted / 4, rel=1e-5)


def test_a_worse_box_is_worth_a_lower_score():
    logits = torch.zeros(1, 1, 2)
    at = Matches(*(torch.tensor([v]) for v in (0, 0, 0, 0)))
    grads = []
    for iou in (0.9, 0.1):
        leaf = logits.clone().requires_grad_()
        iou_aware_classification(leaf, at, torch.tensor([iou]), torch.tensor([True])).backward()
        grads.append(float(leaf.grad[0, 0, 0]))
    assert grads[0] < 0 < grads[1]


def test_pixel_terms_reduce_to_the_known_ones():
    logits = torch.randn(3, 4, 4)
    target = torch.rand(3, 4, 4).round()
    plain = functional.binary_cross_entropy_with_logits(logits, target)
    torch.testing.assert_close(pixel_bce(logits, target, -1, 0).mean(), plain)
    p = logits.sigmoid()
    p_t = p * target + (1 - p) * (1 - target)
    alpha_t = 0.25 * target + 0.75 * (1 - target)
    focal = (alpha_t * (1 - p_t) ** 2 * -p_t.log()).mean()
    torch.testing.assert_close(pixel_bce(logits, target, 0.25, 2.0).mean(), focal)
    sure = torch.where(target > 0, 60.0, -60.0)
    torch.testing.assert_close(pixel_dice(sure, target), torch.zeros(3))


def test_half_precision_is_lifted():
    prediction, batch = random_case()
    names = ("logits", "boxes", "presence", "mask_logits", "semantic_logits", "token_logits")
    half = replace(prediction, **{n: getattr(prediction, n).detach().to(torch.bfloat16) for n in names})
    total, _ = segmentation_loss(half, batch, LossWeights())
    assert total.dtype == torch.float32
    wanted, _ = segmentation_loss(prediction, batch, LossWeights())
    assert float(total) == pytest.approx(float(wanted.detach()), rel=0.05)
    assert np.isfinite(float(total))
