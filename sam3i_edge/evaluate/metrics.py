"""Mask overlap and the figures that SAM3-I reports of it: gIoU, cIoU, P@0.5.

Source: the released SAM3-I evaluation scripts, mode 1to1. gIoU here is the mean mask IoU over
records, not the generalised IoU of boxes; cIoU is the sum of intersections over the sum of unions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Masks = NDArray[np.bool_]

# A block of 64 masks is 16 MiB in float32, and its sums of ones stay far inside float32's exact integers.
_PIXELS_AT_A_TIME = 1 << 16


@dataclass(frozen=True, slots=True)
class Overlap:
    """How far two masks coincide.

    Attributes:
        intersection: pixels in both.
        union: pixels in either.
    """

    intersection: int
    union: int

    def iou(self, empty: float = 0.0) -> float:
        """Intersection over union, 0 to 1.

        Args:
            empty: the value when both masks are empty. The official scripts count 0, which punishes a right
                "nothing here"; gRefCOCO counts 1.
        """
        return self.intersection / self.union if self.union else empty


def overlap(predicted: Masks, target: Masks) -> Overlap:
    """Counts the pixels that two masks, or the unions of two stacks of masks, share.

    Args:
        predicted: [H, W] bool, or [N, H, W], which are OR-merged first; N may be 0.
        target: [H, W] or [M, H, W] bool, of the same H and W.

    Raises:
        ValueError: a stack has another number of dimensions, or the sizes differ.
        TypeError: a stack is not bool.
    """
    _check_pair(predicted, target)
    one, other = _merged(predicted), _merged(target)
    return Overlap(int(np.count_nonzero(one & other)), int(np.count_nonzero(one | other)))


def iou(predicted: Masks, target: Masks, *, empty: float = 0.0) -> float:
    """Intersection over union of two masks or of the unions of two stacks: `overlap`, then `Overlap.iou`."""
    return overlap(predicted, target).iou(empty)


def pairwise_iou(predicted: Masks, target: Masks) -> NDArray[np.float64]:
    """IoU of every predicted with every target mask.

    Args:
        predicted: [N, H, W] bool.
        target: [M, H, W] bool.

    Returns:
        [N, M] float64, 0 where both masks are empty.

    Raises:
        ValueError: a stack is not three-dimensional, or the sizes differ.
        TypeError: a stack is not bool.
    """
    _check_pair(predicted, target)
    if predicted.ndim != 3 or target.ndim != 3:
        raise ValueError(f"masks must be stacks [N, H, W], got shapes {predicted.shape} and {target.shape}")
    height, width = target.shape[1:]
    one = predicted.reshape(len(predicted), height * width)
    other = target.reshape(len(target), height * width)
    shared = np.zeros((len(one), len(other)))
    for start in range(0, height * width, _PIXELS_AT_A_TIME):
        block = slice(start, start + _PIXELS_AT_A_TIME)
        shared += one[:, block].astype(np.float32) @ other[:, block].astype(np.float32).T
    union = np.count_nonzero(one, axis=1)[:, None] + np.count_nonzero(other, axis=1)[None, :] - shared
    ious = np.zeros_like(shared)
    np.divide(shared, union, out=ious, where=union > 0)
    return ious


def mean_iou(overlaps: Sequence[Overlap], *, empty: float = 0.0) -> float:
    """gIoU: the mean IoU over records, 0 to 1; `empty` as in `Overlap.iou`.

    Raises:
        ValueError: there is no record.
    """
    return float(np.mean([each.iou(empty) for each in _some(overlaps)]))


def cumulative_iou(overlaps: Sequence[Overlap]) -> float:
    """cIoU: the sum of intersections over the sum of unions, 0 to 1; 0 when every union is empty.

    Raises:
        ValueError: there is no record.
    """
    intersections = sum(each.intersection for each in _some(overlaps))
    unions = sum(each.union for each in overlaps)
    return intersections / unions if unions else 0.0


def precision_at(overlaps: Sequence[Overlap], threshold: float = 0.5, *, empty: float = 0.0) -> float:
    """P@threshold: the share of records with at least this IoU, 0 to 1; `empty` as in `Overlap.iou`.

    Raises:
        ValueError: there is no record.
    """
    return float(np.mean([each.iou(empty) >= threshold for each in _some(overlaps)]))


def _merged(masks: Masks) -> Masks:
    return masks if masks.ndim == 2 else np.logical_or.reduce(masks, axis=0, dtype=np.bool_)


def _some(overlaps: Sequence[Overlap]) -> Sequence[Overlap]:
    if not overlaps:
        raise ValueError("no record to average over: give at least one")
    return overlaps


def _check_pair(predicted: Masks, target: Masks) -> None:
    for name, masks in (("predicted", predicted), ("target", target)):
        if masks.dtype != np.bool_:
            raise TypeError(f"{name} masks must be bool, got {masks.dtype}: threshold them first")
        if masks.ndim not in (2, 3):
            raise ValueError(f"{name} masks must be [H, W] or [N, H, W], got shape {masks.shape}")
    if predicted.shape[-2:] != target.shape[-2:]:
        raise ValueError(
            f"predicted masks are {predicted.shape[-2]} x {predicted.shape[-1]} pixels but target masks "
            f"{target.shape[-2]} x {target.shape[-1]}: resize the predictions to the image first"
        )
