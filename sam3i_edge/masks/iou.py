"""Intersection over union of every mask, or box, with every other."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def mask_iou(a: NDArray[np.bool_], b: NDArray[np.bool_], *, empty: float = 0.0) -> NDArray[np.float64]:
    """IoU of every mask of `a` with every mask of `b`.

    Args:
        a: [N, H, W] or [N, P] bool.
        b: [M, H, W] or [M, P] bool.
        empty: what two masks without a pixel have.

    Returns:
        [N, M] float64, 0..1.
    """
    # Not -1, which no masks at all leave open.
    x, y = (masks.reshape(len(masks), math.prod(masks.shape[1:])).astype(np.float32) for masks in (a, b))
    shared = (x @ y.T).astype(np.float64)  # float32 counts exactly up to 2^24 pixels
    return _over_union(shared, x.sum(1, dtype=np.float64), y.sum(1, dtype=np.float64), empty)


def box_iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """IoU of every box of `a` with every box of `b`; boxes without area have 0.

    Args:
        a: [N, 4], (x0, y0, x1, y1).
        b: [M, 4], the same.

    Returns:
        [N, M] float64, 0..1.
    """
    x, y = a.astype(np.float64), b.astype(np.float64)
    low, high = np.maximum(x[:, None, :2], y[None, :, :2]), np.minimum(x[:, None, 2:], y[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    of_a, of_b = (np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1) for boxes in (x, y))
    return _over_union(shared, of_a, of_b, empty=0.0)


def _over_union(
    shared: NDArray[np.float64], a: NDArray[np.float64], b: NDArray[np.float64], empty: float
) -> NDArray[np.float64]:
    union = a[:, None] + b[None, :] - shared
    iou = np.full(shared.shape, empty)
    np.divide(shared, union, out=iou, where=union > 0)
    return iou
