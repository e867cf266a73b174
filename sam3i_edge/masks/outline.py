"""The outlines of a mask as polygons along the edges of its pixels, holes included."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Polygon(NamedTuple):
    """One connected part of a mask; `shapely.Polygon(*polygon)` takes it as it is, and finds it valid.

    A ring is [P, 2] float32, (x, y) in pixels, its last point not the first again. It lies on the edges of
    pixels, as boxes do: the pixel (x, y) covers x to x + 1 and y to y + 1. So the area of the outer ring
    less that of the holes is the number of pixels.

    Attributes:
        exterior: the outer ring. `exterior.ravel().tolist()` is a polygon of COCO, which knows no holes.
        holes: the rings of what is left out; a part that lies in a hole is a polygon of its own.
    """

    exterior: NDArray[np.float32]
    holes: tuple[NDArray[np.float32], ...]


def polygons(mask: NDArray[np.bool_]) -> tuple[Polygon, ...]:
    """The parts of a mask bool [H, W], from the top down. Pixels that touch at a corner alone are two."""
    found = []
    for part, corner in _parts(mask):
        # One row of background all around makes what surrounds the part a single region, the first.
        around = np.pad(~part, 1, constant_values=True)
        outside, *holes = _parts(around)
        filled = np.ones(around.shape, np.bool_)
        filled[_window(*outside)] &= ~outside[0]
        rings = [_ring(hole, corner + at - 1) for hole, at in holes]
        found.append(Polygon(_ring(filled, corner - 1), tuple(rings)))
    return tuple(found)


def _parts(mask: NDArray[np.bool_]) -> list[tuple[NDArray[np.bool_], NDArray[np.int64]]]:
    """The regions whose pixels share a side, each cut out, and the (x, y) of its cut's corner."""
    import cv2

    count, labels, boxes, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    parts = []
    for number in range(1, count):
        x, y, width, height = (int(value) for value in boxes[number, :4])
        cut = labels[y : y + height, x : x + width] == number
        parts.append((cut, np.array([x, y])))
    return parts


def _window(part: NDArray[np.bool_], corner: NDArray[np.int64]) -> tuple[slice, slice]:
    (x, y), (height, width) = corner.tolist(), part.shape
    return slice(y, y + height), slice(x, x + width)


def _ring(region: NDArray[np.bool_], corner: NDArray[np.int64]) -> NDArray[np.float32]:
    """The outer edge of one region.

    OpenCV follows the centres of pixels. On a grid twice as fine, in which pixel (x, y) covers the points 2x
    to 2x + 2, these centres lie on the edges; only inner corners are cut, and put back.
    """
    import cv2

    height, width = region.shape
    fine = np.zeros((2 * height + 1, 2 * width + 1), np.uint8)
    for down in range(3):
        for right in range(3):
            fine[down : down + 2 * height : 2, right : right + 2 * width : 2] |= region
    (contour,), _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    here = contour[:, 0].astype(np.int64)
    there = np.roll(here, -1, axis=0)
    # Corners have even coordinates, also the one between the middles of two edges where it was cut.
    corner_of = np.where((here % 2 == 0).all(1, keepdims=True), here, np.where(here % 2 == 0, here, there))
    points = corner_of[(corner_of != np.roll(corner_of, 1, axis=0)).any(1)]
    back, on = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    turns = points[(np.sign(back) != np.sign(on)).any(1)]
    ring: NDArray[np.float32] = (turns // 2 + corner).astype(np.float32)
    return ring
