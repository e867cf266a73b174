"""Pictures for a language model that sees: with numbers on the objects, and cut out around some."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from sam3i_edge.data.scene import Scene

_SIDE: Final = 1024  # px, the longer one at most
_MARGIN: Final = 0.25  # of a cut's sides, around it
_QUALITY: Final = 85
_INK: Final = (255, 255, 255)
_PAPER: Final = (0, 0, 0)


def marked(scene: Scene, order: Sequence[int]) -> str:
    """The picture with every object outlined and numbered, as a data address.

    Args:
        scene: the scene.
        order: indices of its objects, in the order of their numbers from 1.

    Raises:
        ImageError: the picture cannot be read.
    """
    return numbered(scene.pixels(), [scene.objects[index].mask for index in order])


def numbered(pixels: NDArray[np.uint8], masks: Sequence[NDArray[np.bool_]]) -> str:
    """A picture with masks outlined and numbered from 1, as a data address.

    Args:
        pixels: [H, W, 3] uint8 RGB.
        masks: [H, W] bool each, at least one pixel.
    """
    picture = _small(pixels)
    height, width = picture.shape[:2]
    middles = []
    for mask in masks:
        bits = mask.astype(np.uint8)
        small = cv2.resize(bits, (width, height), interpolation=cv2.INTER_AREA)
        outlines, _ = cv2.findContours(small, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        for color, thickness in ((_PAPER, 3), (_INK, 1)):
            cv2.drawContours(picture, outlines, -1, color, thickness, cv2.LINE_AA)
        middles.append(_inside(bits, width, height))
    for number, (x, y) in enumerate(middles, start=1):
        _draw_number(picture, str(number), x, y)
    return _address(picture)


def cut_out(scene: Scene, targets: Sequence[int]) -> str:
    """What is around some objects, as a data address.

    Raises:
        ImageError: the picture cannot be read.
    """
    boxes = np.array([scene.objects[index].box for index in targets])
    (x0, y0), (x1, y1) = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    across, down = _MARGIN * (x1 - x0), _MARGIN * (y1 - y0)
    height, width = scene.size
    left, right = int(max(0, x0 - across)), int(min(width, np.ceil(x1 + across)))
    top, bottom = int(max(0, y0 - down)), int(min(height, np.ceil(y1 + down)))
    return _address(_small(scene.pixels()[top:bottom, left:right]))


def _small(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = picture.shape[:2]
    scale = min(1.0, _SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def _inside(mask: NDArray[np.uint8], width: int, height: int) -> tuple[int, int]:
    """The point of a mask that is farthest from its edge, in a picture of another size."""
    distances = cv2.distanceTransform(np.pad(mask, 1), cv2.DIST_L2, 3)
    row, column = np.unravel_index(int(distances.argmax()), distances.shape)
    return round((column - 0.5) * width / mask.shape[1]), round((row - 0.5) * height / mask.shape[0])


def _draw_number(picture: NDArray[np.uint8], text: str, x: int, y: int) -> None:
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.5
    (across, down), _ = cv2.getTextSize(text, font, scale, 1)
    left = min(max(2, x - across // 2), picture.shape[1] - across - 2)
    base = min(max(down + 2, y + down // 2), picture.shape[0] - 3)
    cv2.rectangle(picture, (left - 2, base - down - 2), (left + across + 1, base + 2), _PAPER, -1)
    cv2.putText(picture, text, (left, base), font, scale, _INK, 1, cv2.LINE_AA)


def _address(picture: NDArray[np.uint8]) -> str:
    bgr = np.ascontiguousarray(picture[..., ::-1])
    encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode('ascii')}"
