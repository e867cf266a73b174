"""Masks of one image as one picture of numbers, as ROS and annotation tools take them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def label_image(
    masks: Iterable[NDArray[np.bool_]], labels: Iterable[int], image_size: tuple[int, int]
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Writes each mask's label over its pixels; where masks overlap, the earlier one lies on top.

    Args:
        masks: N masks [H, W] bool, best first.
        labels: N labels, 1 to 65,534.
        image_size: (H, W), pixels.

    Returns:
        [H, W], 0 outside every mask: uint8, or uint16 where a label is above 254. The largest number of each
        is left free, because `vision_msgs/LabelInfo` keeps it for what has no label.

    Raises:
        ValueError: a label is out of range, or there is not one for each mask.
    """
    numbers = list(labels)
    if numbers and not 1 <= min(numbers) <= max(numbers) <= 65_534:
        raise ValueError(f"labels must be 1 to 65,534, got {min(numbers)} to {max(numbers)}")
    picture = np.zeros(image_size, np.uint8 if max(numbers, default=0) <= 254 else np.uint16)
    for number, mask in zip(numbers, masks, strict=True):
        picture[mask & (picture == 0)] = number
    return picture
