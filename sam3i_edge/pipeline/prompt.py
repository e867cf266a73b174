"""The detector's prompt: the text's slots, a slot for each box the bundle takes, and the CLS token.

Its size is fixed at export, so what a prompt leaves unused is masked: attention gives such slots no weight,
and the mean that scores use leaves them out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

# The text of a prompt that has boxes only, at level concept, as SAM3's own image processor sets it.
VISUAL = "visual"

_WANTED = "want [N, 4], N at least 1: x0, y0, x1, y1 of each box in pixels of the image"


@dataclass(frozen=True, slots=True)
class BoxPrompt:
    """Boxes to go by, and boxes to avoid.

    Attributes:
        corners: [N, 4] float64, (x0, y0, x1, y1), pixels of the image.
        labels: [N] int64, 1 positive, 0 negative.
    """

    corners: NDArray[np.float64]
    labels: NDArray[np.int64]

    @classmethod
    def of(cls, boxes: ArrayLike, labels: ArrayLike | None = None) -> BoxPrompt:
        """Checks all that can be checked without the image.

        Args:
            boxes: [N, 4], (x0, y0, x1, y1), pixels.
            labels: [N], 1 or 0; None makes all positive.

        Raises:
            ValueError: a shape or a label is wrong, or a box is not finite or empty.
        """
        try:
            corners = np.array(boxes, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"boxes are no array of numbers ({error}): {_WANTED}") from error
        if corners.ndim != 2 or corners.shape[1] != 4 or not len(corners):
            raise ValueError(f"boxes have the shape {list(corners.shape)}: {_WANTED}")
        for number, box in enumerate(corners):
            if not np.isfinite(box).all():
                raise ValueError(f"{_name(number, box)} is not finite: {_WANTED}")
            if box[0] >= box[2] or box[1] >= box[3]:
                raise ValueError(f"{_name(number, box)} is empty: want x0 < x1 and y0 < y1")
        return cls(corners, _check_labels(labels, len(corners)))

    def __len__(self) -> int:
        return len(self.corners)

    def check_inside(self, image_size: tuple[int, int]) -> None:
        """Raises ValueError where a box leaves the image of (H, W) pixels."""
        height, width = image_size
        for number, box in enumerate(self.corners):
            if box[:2].min() < 0 or box[2] > width or box[3] > height:
                raise ValueError(
                    f"{_name(number, box)} leaves the image of {width} x {height} pixels: clip x to "
                    f"0..{width} and y to 0..{height}"
                )

    def inputs(self, image_size: tuple[int, int], slots: int) -> dict[str, NDArray[Any]]:
        """What `box_encoder` takes beside the image's features.

        Args:
            image_size: (H, W) of the image, pixels.
            slots: boxes that the graph takes, at least N.

        Returns:
            boxes: [1, slots, 4] float32, cxcywh in 0..1; labels: [1, slots] int64, -1 in the unused slots.
        """
        height, width = image_size
        low, high = np.split(self.corners / [width, height, width, height], 2, axis=1)
        boxes = np.zeros((1, slots, 4), np.float32)
        boxes[0, : len(self)] = np.concatenate([(low + high) / 2, high - low], axis=1)
        labels = np.full((1, slots), -1, np.int64)
        labels[0, : len(self)] = self.labels
        return {"boxes": boxes, "labels": labels}


def join_prompt(
    text: NDArray[np.float32],
    text_mask: NDArray[np.bool_],
    geometry: NDArray[np.float32],
    geometry_mask: NDArray[np.bool_] | None = None,
    *,
    boxes: int,
) -> dict[str, NDArray[Any]]:
    """The detector's `prompt` and `prompt_mask`.

    Args:
        text: [1, T, C], features of the text's slots.
        text_mask: [1, T], True for real tokens.
        geometry: [1, boxes + 1, C], what `box_encoder` gave, or [1, 1, C], the image's CLS token: the box
            slots before it are then filled with zeros and masked.
        geometry_mask: of `box_encoder`; None for a CLS token alone.
        boxes: box slots of the bundle.

    Returns:
        prompt: [1, T + boxes + 1, C]; prompt_mask: [1, T + boxes + 1].
    """
    if geometry_mask is None:
        geometry_mask = np.ones(geometry.shape[:2], np.bool_)
    unused = boxes + 1 - geometry.shape[1]
    empty = np.zeros((1, unused, text.shape[2]), text.dtype)
    return {
        "prompt": np.concatenate([text, empty, geometry], axis=1),
        "prompt_mask": np.concatenate([text_mask, np.zeros((1, unused), np.bool_), geometry_mask], axis=1),
    }


def _check_labels(labels: ArrayLike | None, count: int) -> NDArray[np.int64]:
    if labels is None:
        return np.ones(count, np.int64)
    wanted = "want 1 (positive) or 0 (negative) for each box"
    try:
        given = np.array(labels, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"box_labels are no array of numbers ({error}): {wanted}") from error
    if given.shape != (count,):
        raise ValueError(f"box_labels have the shape {list(given.shape)} for {count} boxes: {wanted}")
    wrong = np.flatnonzero(~np.isin(given, (0, 1)))
    if len(wrong):
        raise ValueError(f"box_labels[{wrong[0]}] is {given[wrong[0]]:g}: {wanted}")
    return given.astype(np.int64)


def _name(number: int, box: NDArray[np.float64]) -> str:
    return f"boxes[{number}] ({', '.join(f'{side:g}' for side in box)})"
