"""How large an object would be in the picture if nothing hid it and the picture had no border."""

from __future__ import annotations

import cv2
import numpy as np
from mesh import Part, turn
from numpy.typing import NDArray
from setting import View

_FINE = 4  # drawn so many times larger
_FRACTION = 4  # bits of a drawn pixel's fraction
_NEAR = 0.02  # metres in front of the camera; what is nearer is not drawn


def projected(points: NDArray[np.float64], view: View, size: int) -> NDArray[np.float64]:
    """Places [V, 2] px of world points [V, 3] metres in a square picture, and behind them depths: [V, 3]."""
    forward = np.asarray(view.look_at) - view.position
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    seen = (points - view.position) @ np.stack([right, down, forward], axis=1)
    depth = np.maximum(seen[:, 2:], 1e-6)
    focal = size / 2 / np.tan(np.radians(view.fov) / 2)
    return np.hstack([seen[:, :2] / depth * focal + size / 2, seen[:, 2:]])


def reach(parts: tuple[Part, ...], position: tuple[float, float, float], yaw: float, view: View) -> float:
    """How far an object reaches from the middle of the picture: 1 at its border, more beyond."""
    every = np.concatenate([part.vertices for part in parts]) @ turn("z", yaw).T + position
    return float(np.abs(projected(every, view, 2)[:, :2] - 1).max())


def area(
    parts: tuple[Part, ...], position: tuple[float, float, float], yaw: float, view: View, size: int
) -> int:
    """Pixels that an object covers, those beyond the picture's border too."""
    triangles = []
    for part in parts:
        places = projected(part.vertices @ turn("z", yaw).T + position, view, size * _FINE)
        corners = places[part.faces]  # [F, 3, 3]
        triangles.append(corners[(corners[..., 2] > _NEAR).all(1), :, :2])
    every = np.concatenate(triangles)
    if not len(every):
        return 0
    low = np.floor(every.min((0, 1))) - 1
    width, height = (np.ceil(every.max((0, 1))) - low + 2).astype(int)
    canvas = np.zeros((height, width), np.uint8)
    # OpenCV's pixels have their centre at whole numbers, the projection's at halves.
    for corners in np.round((every - low - 0.5) * 2**_FRACTION).astype(np.int32):
        cv2.fillConvexPoly(canvas, corners, 1, shift=_FRACTION)
    # OpenCV also fills the pixels that a triangle only touches, half a pixel too many on average.
    inner = cv2.erode(canvas, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
    return round((np.count_nonzero(canvas) + np.count_nonzero(inner)) / 2 / _FINE**2)
