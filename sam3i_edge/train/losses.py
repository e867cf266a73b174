"""What a prediction costs: SAM3's losses, in the numbers that train at nano size or in the official ones.

Source: DETR (arXiv:2005.12872) with a focal class term for the defaults; the released code of SAM3 and SAM3-I
(arXiv:2512.04585) for `SAM3_LOSSES`. Each term comes back unweighted, summed over its decoder layers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from sam3i_edge.model.boxes import box_iou, cxcywh_to_xyxy, generalized_iou
from sam3i_edge.model.detector import Prediction
from sam3i_edge.train.matcher import MatchCost, Matches, match

if TYPE_CHECKING:  # drawing scenes takes OpenCV, paying for predictions takes torch
    from sam3i_edge.data.batch import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class LossWeights:
    """Weights and shapes of the terms; every weight multiplies its term in the sum.

    Attributes:
        classification: query scores, every layer. box_l1, box_giou: matched boxes, every layer.
        presence: whether anything matches the instruction, every layer.
        mask_bce, mask_dice: matched masks, last layer. semantic_bce, semantic_dice: the union mask.
        grounding: which of the image's objects an instruction means, from the image tokens themselves.
        attributes: what is known of every object, category and colour first, from the image features:
            `AttributeHeads`.
        class_form: "focal" is `BCE |p - t|^class_gamma` with t = 1 on matched queries, weighted class_alpha
            there and the rest of 1 on the others, over the number of targets; "iabce" is SAM3's (see
            `iou_aware_classification`).
        class_alpha, class_gamma: of "focal". A gamma of 2 leaves scores between; 0 moves them apart, so that
            fewer lie where rounding takes one across the least score.
        absent: weight of the query scores of pairs with nothing to find, in the form "focal"; at 0 presence
            alone answers there, as SAM3 has it.
        presence_scale: factor inside the presence term (SAM3's focal form with alpha 0.5, gamma 0 halves it).
        mask_alpha, mask_gamma, semantic_alpha, semantic_gamma: focal form of the pixel terms; a gamma of 0
            and an alpha of -1 (none) is plain binary cross-entropy.
        match: weights of the assignment.
    """

    classification: float = 2.0
    box_l1: float = 5.0
    box_giou: float = 2.0
    presence: float = 2.0
    mask_bce: float = 5.0
    mask_dice: float = 5.0
    semantic_bce: float = 2.0
    semantic_dice: float = 2.0
    grounding: float = 5.0
    attributes: float = 1.0
    class_form: Literal["focal", "iabce"] = "focal"
    class_alpha: float = 0.75
    class_gamma: float = 2.0
    absent: float = 0.0
    presence_scale: float = 1.0
    mask_alpha: float = -1.0
    mask_gamma: float = 0.0
    semantic_alpha: float = -1.0
    semantic_gamma: float = 0.0
    match: MatchCost = field(default_factory=MatchCost)


# Without the one-to-many branch and the factor of the square root of the number of queries in the batch.
SAM3_LOSSES = LossWeights(
    classification=20.0,
    presence=20.0,
    mask_bce=200.0,
    mask_dice=10.0,
    semantic_bce=20.0,
    semantic_dice=30.0,
    grounding=0.0,
    attributes=0.0,
    class_form="iabce",
    presence_scale=0.5,
    mask_alpha=0.25,
    mask_gamma=2.0,
    semantic_alpha=0.6,
    semantic_gamma=2.0,
    match=MatchCost(classification=2.0, box_l1=5.0, box_giou=2.0, focal=True),
)


def segmentation_loss(
    prediction: Prediction, batch: Batch, weights: LossWeights
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a prediction, and its terms.

    Args:
        prediction: from a forward pass with `batch.mask_index`; half precision is computed on in float32.
        batch: the targets, on the prediction's device.
        weights: weights and forms.

    Returns:
        The weighted sum, float32 [], and every unweighted term by the name of its weight, float32 [],
        detached. Terms without a target are 0 and stay differentiable.
    """
    logits, boxes, presence = prediction.logits.float(), prediction.boxes.float(), prediction.presence.float()
    matches = match(logits, boxes, batch.target_boxes, batch.target_pair, weights.match)
    here = torch.zeros(presence.shape[1], dtype=torch.bool, device=presence.device)
    here[batch.target_pair] = True

    per_target = 1.0 / max(len(batch.target_pair), 1)
    found = cxcywh_to_xyxy(boxes[matches.layer, matches.pair, matches.query])
    wanted = cxcywh_to_xyxy(batch.target_boxes[matches.target])
    distance = boxes[matches.layer, matches.pair, matches.query] - batch.target_boxes[matches.target]
    terms = {
        "box_l1": distance.abs().sum() * per_target,
        "box_giou": (1 - generalized_iou(found, wanted)).sum() * per_target,
        "presence": weights.presence_scale
        * F.binary_cross_entropy_with_logits(presence, here.float().expand_as(presence), reduction="none")
        .mean(1)
        .sum(),
    }
    if weights.class_form == "focal":
        terms["classification"] = focal_classification(logits, matches, here, weights) * per_target
    else:
        overlap = box_iou(found.detach(), wanted)[0]
        terms["classification"] = iou_aware_classification(logits, matches, overlap, here)
    terms |= _mask_terms(prediction, batch, matches, weights) | _semantic_terms(prediction, batch, weights)
    terms["grounding"] = grounding(prediction.token_logits.float(), batch)
    total = torch.stack([getattr(weights, name) * term for name, term in terms.items()]).sum()
    return total, {name: term.detach() for name, term in terms.items()}


def focal_classification(logits: Tensor, matches: Matches, here: Tensor, weights: LossWeights) -> Tensor:
    """Sum of `w BCE(p, t) |p - t|^gamma`: t = 1, w = alpha on matched queries, else t = 0, w = 1 - alpha.

    Pairs with nothing to find count `absent` times; at 0 the presence logit alone answers there.
    Source: the focal loss (Lin et al. 2017, arXiv:1708.02002) in the form of the quality focal loss (Li et
    al. 2020, arXiv:2006.04388, equation 3).

    Args:
        logits: [L, P, Q] float32.
        matches: the assignment.
        here: [P] bool, pairs that have a target.
        weights: class_alpha, class_gamma and absent are read.
    """
    target = torch.zeros_like(logits)
    target[matches.layer, matches.pair, matches.query] = 1.0
    gap = (logits.sigmoid() - target).abs().pow(weights.class_gamma)
    weight = torch.where(target > 0, weights.class_alpha, 1 - weights.class_alpha)
    loss = F.binary_cross_entropy_with_logits(logits, target, weight, reduction="none") * gap
    share = torch.where(here, 1.0, weights.absent)
    return (loss * share[None, :, None]).sum()


def iou_aware_classification(logits: Tensor, matches: Matches, overlap: Tensor, here: Tensor) -> Tensor:
    """SAM3's IABCE, a cross-entropy whose positive target knows how well the box fits.

    `10 BCE(p, t)` with `t = max(p^0.25 IoU^0.75, 0.01)` on matched queries, `BCE(p, 0) p^2` elsewhere.
    Averaged over all pairs and queries of a layer, summed over layers; pairs with nothing to find count 0.

    Args:
        logits: [L, P, Q] float32.
        matches: K assignments.
        overlap: [K] box IoU of each match, without gradient.
        here: [P] bool, pairs that have a target.
    """
    p = logits.sigmoid()
    at = (matches.layer, matches.pair, matches.query)
    target = (p[at].detach().pow(0.25) * overlap.pow(0.75)).clamp(min=0.01)
    loss = F.softplus(logits) * p.square()
    positive = 10.0 * F.binary_cross_entropy_with_logits(logits[at], target, reduction="none")
    loss = loss.index_put(at, positive)
    return (loss * here[None, :, None]).mean((1, 2)).sum()


def pixel_bce(logits: Tensor, target: Tensor, alpha: float, gamma: float) -> Tensor:
    """Focal binary cross-entropy a mask, [N, M, M] -> [N]; soft targets allowed.

    `a BCE |p - t|^gamma`, averaged over pixels, with `a = alpha t + (1 - alpha)(1 - t)`, or 1 for alpha < 0.
    """
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    if gamma:
        loss = loss * (logits.sigmoid() - target).abs().pow(gamma)
    if alpha >= 0:
        loss = loss * (alpha * target + (1 - alpha) * (1 - target))
    return loss.flatten(1).mean(1)


def pixel_dice(logits: Tensor, target: Tensor) -> Tensor:
    """`1 - (2 sum(p t) + 1) / (sum p + sum t + 1)` a mask, [N, M, M] -> [N].

    Source: V-Net, Milletari et al. 2016, arXiv:1606.04797, smoothed by 1 as in DETR.
    """
    p, t = logits.sigmoid().flatten(1), target.flatten(1)
    return 1 - (2 * (p * t).sum(1) + 1) / (p.sum(1) + t.sum(1) + 1)


def enlarge(logits: Tensor, like: Tensor) -> Tensor:
    """Mask logits [N, m, m] at the size of `like` [..., M, M], bilinearly, as they are enlarged in use."""
    if logits.shape[-1] == like.shape[-1]:
        return logits
    return F.interpolate(logits[:, None], like.shape[-2:], mode="bilinear", align_corners=False)[:, 0]


def _mask_terms(
    prediction: Prediction, batch: Batch, matches: Matches, weights: LossWeights
) -> dict[str, Tensor]:
    row = torch.full((prediction.presence.shape[1],), -1, device=batch.mask_index.device)
    row[batch.mask_index] = torch.arange(len(batch.mask_index), device=row.device)
    last = (matches.layer == prediction.logits.shape[0] - 1) & (row[matches.pair] >= 0)
    logits = prediction.mask_logits[row[matches.pair[last]], matches.query[last]].float()
    target = batch.object_masks[batch.target_object[matches.target[last]]].float() / 255
    logits = enlarge(logits, target)
    per_mask = 1.0 / max(len(logits), 1)
    return {
        "mask_bce": pixel_bce(logits, target, weights.mask_alpha, weights.mask_gamma).sum() * per_mask,
        "mask_dice": pixel_dice(logits, target).sum() * per_mask,
    }


def _semantic_terms(prediction: Prediction, batch: Batch, weights: LossWeights) -> dict[str, Tensor]:
    target = batch.union_masks(batch.mask_index)
    logits = enlarge(prediction.semantic_logits.float(), target)
    per_pair = 1.0 / max(len(logits), 1)
    return {
        "semantic_bce": pixel_bce(logits, target, weights.semantic_alpha, weights.semantic_gamma).sum()
        * per_pair,
        "semantic_dice": pixel_dice(logits, target).sum() * per_pair,
    }


def grounding(token_logits: Tensor, batch: Batch) -> Tensor:
    """Mean BCE over every pair and every object of its image: is this object meant?

    An object's logit is the mean of its image tokens' logits, weighted by the share of the cell that it
    covers. Half of the objects are wrong ones, so only the words can lower it; the other terms are mostly
    about finding objects, and drown the words' gradient while those are not understood.

    Args:
        token_logits: [P, N] float32, rows of the 1x grid in reading order.
        batch: the objects and which of them are targets.

    Returns:
        float32 []; about ln 2 for a model that does not read.
    """
    grid = math.isqrt(token_logits.shape[1])
    share = F.adaptive_avg_pool2d(batch.object_masks[:, None].float(), grid).flatten(1)  # [O, N]
    logits = token_logits @ (share / share.sum(1, keepdim=True).clamp(min=1e-6)).T  # [P, O]
    meant = torch.zeros_like(logits)
    meant[batch.target_pair, batch.target_object] = 1.0
    same_image = batch.image_index[:, None] == batch.object_image[None]
    return F.binary_cross_entropy_with_logits(logits[same_image], meant[same_image])
