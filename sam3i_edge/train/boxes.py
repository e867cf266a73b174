"""IoU and generalised IoU of boxes, broadcasting and differentiable."""

from __future__ import annotations

import torch
from torch import Tensor

# Keeps 0 / 0 of two boxes without area at 0, in value and in gradient; areas are fractions of the image.
_EPS = 1e-7


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
