"""Which query answers for which target: the optimal one-to-one assignment on every decoder layer.

Source: DETR, Carion et al. 2020, arXiv:2005.12872, section 3.1; SAM3 keeps the form with its own class cost.
The cost of query q for target t is `class + 5 |box_q - box_t|_1 - 2 GIoU(box_q, box_t)`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sam3i_edge.evaluate.assignment import linear_assignment
from sam3i_edge.model.boxes import cxcywh_to_xyxy, generalized_iou


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchCost:
    """Weights of the assignment cost.

    Attributes:
        classification: weight of the class cost, which is -p, or SAM3's focal difference where `focal`.
        box_l1: weight of the L1 distance of (cx, cy, w, h) in 0..1, summed over the four.
        box_giou: weight of -GIoU.
        focal: use `alpha (1-p)^2 (-ln p) - (1-alpha) p^2 (-ln(1-p))`, alpha 0.25, in place of -p.
    """

    classification: float = 2.0
    box_l1: float = 5.0
    box_giou: float = 2.0
    focal: bool = False


@dataclass(frozen=True, slots=True)
class Matches:
    """K assigned (layer, pair, query, target) quadruples; each field int64 [K], on the model's device.

    Attributes:
        layer: decoder layer, 0..L-1.
        pair: (image, instruction) pair, 0..P-1.
        query: query, 0..Q-1; no query appears twice within one layer and pair.
        target: row of the flat target list, 0..T-1.
    """

    layer: Tensor
    pair: Tensor
    query: Tensor
    target: Tensor


@torch.no_grad()
def match(
    logits: Tensor, boxes: Tensor, target_boxes: Tensor, target_pair: Tensor, cost: MatchCost
) -> Matches:
    """Assigns every target to one query of its pair, at the least total cost, on each layer by itself.

    A pair with more targets than queries leaves the costliest ones without a query.

    Args:
        logits: [L, P, Q] float, class logits (without presence).
        boxes: [L, P, Q, 4] float, cxcywh in 0..1.
        target_boxes: [T, 4] float, cxcywh in 0..1.
        target_pair: [T] int64, ascending: the pair that each target belongs to.
        cost: the weights.
    """
    device, queries = logits.device, logits.shape[2]
    target_boxes = target_boxes.to(device)
    pair = target_pair.to(device)
    matrix = _cost(logits[:, pair].float(), boxes[:, pair].float(), target_boxes, cost)  # [L, T, Q]
    # A diverged model gives NaN here; the assignment needs numbers, and the loss below still shows the NaN.
    costs = np.nan_to_num(matrix.cpu().numpy().astype(np.float64), nan=1e6, posinf=1e6, neginf=-1e6)
    layers, targets = costs.shape[:2]
    pairs = target_pair.cpu().numpy()
    query = costs.argmin(-1)  # [L, T]: optimal wherever no two targets of a pair want the same query
    layer = np.broadcast_to(np.arange(layers)[:, None], query.shape)
    kept = np.ones(query.shape, bool)
    group = layer * (int(pairs[-1]) + 1 if targets else 1) + pairs
    wanted, inverse, count = np.unique(group * queries + query, return_inverse=True, return_counts=True)
    del wanted
    contested = np.unique(group[(count[inverse] > 1).reshape(query.shape)])
    for value in contested:
        at, columns = np.nonzero(group == value)
        first, last = columns[0], columns[-1] + 1
        row, column = linear_assignment(costs[at[0], first:last])
        kept[at[0], first:last] = False
        kept[at[0], first + row] = True
        query[at[0], first + row] = column
    target = np.broadcast_to(np.arange(targets), query.shape)
    fields = (layer, np.broadcast_to(pairs, query.shape), query, target)
    return Matches(*(torch.from_numpy(field[kept].astype(np.int64)).to(device) for field in fields))


def _cost(logits: Tensor, boxes: Tensor, target_boxes: Tensor, cost: MatchCost) -> Tensor:
    """[L, T, Q] cost of each query for each target, from that target's pair's queries."""
    p = logits.sigmoid()
    if cost.focal:
        positive = 0.25 * (1 - p).square() * torch.nn.functional.softplus(-logits)
        chosen = positive - 0.75 * p.square() * torch.nn.functional.softplus(logits)
    else:
        chosen = -p
    wanted = target_boxes[None, :, None]  # [1, T, 1, 4]
    distance = (boxes - wanted).abs().sum(-1)
    overlap = generalized_iou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(wanted))
    return cost.classification * chosen + cost.box_l1 * distance - cost.box_giou * overlap
