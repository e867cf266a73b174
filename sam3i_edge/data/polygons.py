"""COCO polygons to masks, pixel for pixel as pycocotools draws them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

_FINE: Final = 5  # the edges are walked on a grid this much finer than the pixels
_LONGEST: Final = 10_000_000  # px around a polygon


def polygon_mask(polygons: Sequence[Sequence[float]], height: int, width: int) -> NDArray[np.bool_]:
    """The union of polygons, bool [height, width].

    Source: pycocotools, `maskApi.c` (rleFrPoly). Each polygon's edge is walked in fifths of a pixel; where it
    passes the centre of a column of pixels, everything further down changes sides.

    Args:
        polygons: each a flat list x0, y0, x1, y1, … px, finite numbers. One or two points are drawn as
            pycocotools draws them: next to nothing.
        height: px.
        width: px.

    Raises:
        ValueError: the way around a polygon is longer than 10 million px.
    """
    union = np.zeros(height * width, np.bool_)
    for polygon in polygons:
        union |= _single(np.asarray(polygon, np.float64).reshape(-1, 2), height, width)
    columns = union.reshape(width, height)
    mask = np.zeros((height, width), np.bool_)
    used = np.flatnonzero(columns.any(axis=1))
    if len(used):  # turning the whole picture is most of the work for a small polygon
        mask[:, used[0] : used[-1] + 1] = columns[used[0] : used[-1] + 1].T
    return mask


def _single(points: NDArray[np.float64], height: int, width: int) -> NDArray[np.bool_]:
    length = np.abs(points - np.roll(points, -1, axis=0)).max(axis=1).sum()
    if not length <= _LONGEST:
        raise ValueError(f"the way around a polygon is {length:.3g} px, at most {_LONGEST:,} are allowed")
    grid = np.trunc(points * _FINE + 0.5).astype(np.int64)
    u, v = (np.concatenate(part) for part in zip(*_walk(grid), strict=True))
    turns = np.flatnonzero(u[1:] != u[:-1]) + 1
    column = (np.minimum(u[turns], u[turns - 1]) + 0.5) / _FINE - 0.5
    row = np.clip((np.minimum(v[turns], v[turns - 1]) + 0.5) / _FINE - 0.5, 0, height)
    met = (column == np.floor(column)) & (column >= 0) & (column <= width - 1)
    changes = column[met].astype(np.int64) * height + np.ceil(row[met]).astype(np.int64)
    inside = np.zeros(height * width, np.bool_)
    if len(changes):  # nothing changes before the first and after the last of them
        first, last = int(changes.min()), int(changes.max())
        sides = np.cumsum(np.bincount(changes - first)) % 2 == 1
        inside[first : last + 1] = sides[: height * width - first]
    return inside


def _walk(grid: NDArray[np.int64]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """The points of every edge, one per step along its longer direction, both ends included."""
    walked = []
    for (xs, ys), (xe, ye) in zip(grid.tolist(), np.roll(grid, -1, axis=0).tolist(), strict=True):
        dx, dy = abs(xe - xs), abs(ye - ys)
        flat = dx >= dy
        turned = xs > xe if flat else ys > ye
        # The original interpolates from the smaller coordinate upwards whichever way the edge runs.
        (x0, y0), (x1, y1) = ((xe, ye), (xs, ys)) if turned else ((xs, ys), (xe, ye))
        steps = np.arange(max(dx, dy) + 1)
        steps = steps[::-1] if turned else steps
        slope = ((y1 - y0) / dx if flat else (x1 - x0) / dy) if dx or dy else 0.0
        if flat:
            walked.append((steps + x0, np.trunc(y0 + slope * steps + 0.5).astype(np.int64)))
        else:
            walked.append((np.trunc(x0 + slope * steps + 0.5).astype(np.int64), steps + y0))
    return walked
