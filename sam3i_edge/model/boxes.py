"""Box arithmetic on normalised coordinates, broadcasting and differentiable."""

from __future__ import annotations

import torch
from torch import Tensor

# Keeps 0 / 0 of two boxes without area at 0, in value and in gradient; areas are fractions of the image.
_EPS = 1e-7


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """[..., 4] centre and size -> [..., 4] corners."""
    cx, cy, w, h = boxes.unbind(-1)
    return torch.stack((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), dim=-1)


def inverse_sigmoid(x: Tensor, eps: float = 1e-3) -> Tensor:
    """Logit of x in 0..1, each side clamped to at least `eps` (Deformable DETR's helper, as SAM3 uses it)."""
    x = x.clamp(0.0, 1.0)
    return torch.log(x.clamp(min=eps) / (1.0 - x).clamp(min=eps))


def box_iou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU in 0..1 and union area of corner boxes, [..., 4] broadcast against each other."""
    inter = (
        (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    )
    union = _area(a) + _area(b) - inter
    return inter / (union + _EPS), union


def generalized_iou(a: Tensor, b: Tensor) -> Tensor:
    """GIoU in -1..1 of corner boxes, [..., 4] broadcast against each other.

    `IoU - (hull - union) / hull`, hull being the smallest box around both.
    Source: Rezatofighi et al. 2019, arXiv:1902.09630, algorithm 1.
    """
    iou, union = box_iou(a, b)
    hull = (
        (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    )
    return iou - (hull - union) / (hull + _EPS)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)
