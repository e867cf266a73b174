from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from sam3i_edge.model.boxes import cxcywh_to_xyxy, generalized_iou
from sam3i_edge.train.matcher import MatchCost, match


def problem(seed, counts, layers=3, queries=6):
    """Logits, boxes, targets of `counts` per pair; targets of a pair lie close, so that they compete."""
    generator = torch.Generator().manual_seed(seed)
    pairs = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    logits = torch.randn(layers, len(counts), queries, generator=generator)
    boxes = torch.rand(layers, len(counts), queries, 4, generator=generator) * 0.3 + 0.2
    targets = torch.rand(len(pairs), 4, generator=generator) * 0.05 + 0.3
    return logits, boxes, targets, pairs


def cost_of(logits, boxes, targets, weights):
    """[Q, N] written out for one layer and pair."""
    p = logits.sigmoid()
    l1 = (boxes[:, None] - targets[None]).abs().sum(-1)
    giou = generalized_iou(cxcywh_to_xyxy(boxes)[:, None], cxcywh_to_xyxy(targets)[None])
    return -weights.classification * p[:, None] + weights.box_l1 * l1 - weights.box_giou * giou


@pytest.mark.parametrize("seed", range(8))
def test_agrees_with_scipy_on_every_layer_and_pair(seed):
    counts, weights = [3, 0, 1, 6, 2], MatchCost()
    logits, boxes, targets, pairs = problem(seed, counts)
    found = match(logits, boxes, targets, pairs, weights)
    assert len(found.query) == 3 * sum(counts)
    for layer in range(3):
        for pair in range(len(counts)):
            cost = cost_of(logits[layer, pair], boxes[layer, pair], targets[pairs == pair], weights).numpy()
            at = (found.layer == layer) & (found.pair == pair)
            local = found.target[at] - int((pairs < pair).sum())
            assert sorted(local.tolist()) == list(range(counts[pair]))
            assert len(set(found.query[at].tolist())) == counts[pair]
            best = cost[linear_sum_assignment(cost)].sum()
            assert cost[found.query[at], local].sum() == pytest.approx(best, abs=1e-4)


def test_more_targets_than_queries_leaves_the_costliest_out():
    logits, boxes = torch.zeros(1, 1, 2), torch.tensor([[[[0.2, 0.2, 0.1, 0.1], [0.7, 0.7, 0.1, 0.1]]]])
    targets = torch.tensor([[0.5, 0.1, 0.3, 0.3], [0.7, 0.7, 0.1, 0.1], [0.2, 0.2, 0.1, 0.1]])
    found = match(logits, boxes, targets, torch.zeros(3, dtype=torch.int64), MatchCost())
    assert dict(zip(found.target.tolist(), found.query.tolist(), strict=True)) == {1: 1, 2: 0}


def test_nothing_to_find():
    logits, boxes, _, _ = problem(0, [1, 1])
    found = match(logits, boxes, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), MatchCost())
    assert [len(field) for field in (found.layer, found.pair, found.query, found.target)] == [0, 0, 0, 0]


def test_the_class_decides_between_equal_boxes():
    logits = torch.tensor([[[-1.0, 2.0, 0.0]]])
    boxes = torch.full((1, 1, 3, 4), 0.4)
    for focal in (False, True):
        found = match(
            logits, boxes, torch.full((1, 4), 0.4), torch.zeros(1, dtype=torch.int64), MatchCost(focal=focal)
        )
        assert found.query.tolist() == [1]


def test_focal_cost_is_that_of_sam3():
    logits, boxes, targets, pairs = problem(3, [4], layers=1)
    weights = MatchCost(focal=True)
    found = match(logits, boxes, targets, pairs, weights)
    p = logits[0, 0].sigmoid().double()
    focal = 0.25 * (1 - p) ** 2 * -torch.log(p) - 0.75 * p**2 * -torch.log(1 - p)
    plain = cost_of(torch.full_like(logits[0, 0], -200.0), boxes[0, 0], targets, weights).double()
    cost = (plain + 2 * focal[:, None]).numpy()
    assert cost[found.query, found.target].sum() == pytest.approx(
        cost[linear_sum_assignment(cost)].sum(), abs=1e-4
    )


def test_both_weights_of_the_focal_cost_decide():
    """A query far surer in its class, against one with the better box: .75 for the other class tips it."""
    logits = torch.tensor([[[0.0, 3.0]]])
    wanted = torch.tensor([[0.5, 0.5, 0.2, 0.2]])
    boxes = torch.tensor([[[[0.5, 0.5, 0.2, 0.2], [1.0, 0.5, 0.2, 0.2]]]])
    weights = MatchCost(focal=True, box_giou=0.0)
    found = match(logits, boxes, wanted, torch.zeros(1, dtype=torch.int64), weights)
    assert found.query.tolist() == [1]


def test_nan_is_left_to_the_loss():
    logits, boxes, targets, pairs = problem(0, [2, 1])
    boxes[0, 0] = float("nan")
    found = match(logits, boxes, targets, pairs, MatchCost())
    assert len(found.query) == 9
    assert np.unique(found.query[(found.layer == 0) & (found.pair == 0)].numpy()).size == 2
