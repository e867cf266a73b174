"""The ten shapes as outlines around their centroid, varied as drawings of a thing vary.

Coordinates: x to the right, y downwards. An outline is a list of closed contours filled by the even-odd rule,
so a ring is two circles. It is scaled so that the longer side of its upright box is 1 before it is rotated.
"""

from __future__ import annotations

import math
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Shape = Literal[
    "circle", "square", "triangle", "star", "ring", "cross", "heart", "hexagon", "diamond", "crescent"
]
SHAPES: Final[tuple[Shape, ...]] = get_args(Shape)

Contour = NDArray[np.float64]  # [V, 2]

_CIRCLE: Final = np.stack(
    [
        np.cos(np.linspace(0, math.tau, 72, endpoint=False)),
        np.sin(np.linspace(0, math.tau, 72, endpoint=False)),
    ],
    axis=1,
)


def outline(shape: Shape, rng: np.random.Generator) -> list[Contour]:
    """One drawing of a shape, upright, its centroid at the origin, the longer side of its box 1.

    Args:
        shape: one of `SHAPES`.
        rng: decides the proportions that may vary (thickness of a ring, waist of a star, rounded corners).

    Returns:
        Contours float64 [V, 2], the outer one first, to be filled by the even-odd rule.
    """
    contours = _BUILDERS[shape](rng)
    outer = contours[0]
    if shape in _CORNERED and rng.random() < 0.2:
        outer = _cut_corners(_cut_corners(outer, rng.uniform(0.05, 0.1)), 0.27)
    if outer is _CIRCLE:
        return [contour * 0.5 for contour in contours]
    scale = 1.0 / float((outer.max(axis=0) - outer.min(axis=0)).max())
    return [(outer - _centroid(outer)) * scale]


def rotated(contours: list[Contour], degrees: float) -> list[Contour]:
    """The contours turned about the origin, clockwise as seen in the image."""
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return [contour @ turn for contour in contours]


def rotation(shape: Shape, rng: np.random.Generator) -> float:
    """A rotation in degrees that leaves the shape recognisable as what it is called.

    A square on its corner is a diamond, so both stay near upright. Shapes with a natural "up" are mostly
    upright, because that is how other people draw them.
    """
    share, limit = _ROTATION[shape]
    return float(rng.uniform(-limit, limit) if rng.random() < share else rng.uniform(-180, 180))


_ROTATION: Final[dict[Shape, tuple[float, float]]] = {  # share of near-upright drawings, their limit
    "circle": (1.0, 180), "ring": (1.0, 180), "hexagon": (0.5, 6), "square": (1.0, 20),
    "diamond": (1.0, 12),
    "triangle": (0.65, 22), "star": (0.55, 12), "cross": (0.75, 22), "heart": (0.8, 28),
    "crescent": (0.55, 35),
}  # fmt: skip
_CORNERED: Final = frozenset({"square", "triangle", "star", "cross", "hexagon", "diamond"})


def _circle(rng: np.random.Generator) -> list[Contour]:
    return [_CIRCLE]


def _ring(rng: np.random.Generator) -> list[Contour]:
    return [_CIRCLE, _CIRCLE * rng.uniform(0.45, 0.74)]


def _regular(corners: int, first: float) -> Contour:
    angles = first + np.arange(corners) * (math.tau / corners)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _square(rng: np.random.Generator) -> list[Contour]:
    return [_regular(4, math.pi / 4)]


def _triangle(rng: np.random.Generator) -> list[Contour]:
    triangle = _regular(3, -math.pi / 2)
    if rng.random() < 0.4:  # isosceles rather than equilateral
        triangle = triangle * np.array([1.0, rng.uniform(0.85, 1.3)])
    return [triangle]


def _star(rng: np.random.Generator) -> list[Contour]:
    points = _regular(10, -math.pi / 2)
    points[1::2] *= rng.uniform(0.36, 0.5)
    return [points]


def _cross(rng: np.random.Generator) -> list[Contour]:
    arm = rng.uniform(0.26, 0.42)
    corners = [(-arm, -1), (arm, -1), (arm, -arm), (1, -arm), (1, arm), (arm, arm)]
    return [np.array([*corners, *((-x, -y) for x, y in corners)], dtype=np.float64)]


def _heart(rng: np.random.Generator) -> list[Contour]:
    if rng.random() < 0.6:
        t = np.linspace(0, math.tau, 72, endpoint=False)
        x = 16 * np.sin(t) ** 3
        y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
        return [np.stack([x, -y], axis=1)]
    # Two half circles over a wedge: the other common way to draw one.
    arc = np.linspace(math.pi, math.tau + 0.45, 24)
    right = np.stack([1 + np.cos(arc), np.sin(arc)], axis=1)
    left = right[::-1] * np.array([-1.0, 1.0])
    tip = np.array([[0.0, rng.uniform(1.9, 2.2)]])
    return [np.concatenate([right, tip, left])]


def _hexagon(rng: np.random.Generator) -> list[Contour]:
    return [_regular(6, 0.0 if rng.random() < 0.5 else math.pi / 6)]


def _diamond(rng: np.random.Generator) -> list[Contour]:
    width = rng.uniform(0.55, 0.82) if rng.random() < 0.85 else rng.uniform(0.82, 0.95)
    return [_regular(4, 0.0) * np.array([width, 1.0])]


def _crescent(rng: np.random.Generator) -> list[Contour]:
    # A unit disc less a disc of radius r at (d, 0); thickness 1 - r + d, open to the right.
    r = rng.uniform(0.78, 0.95)
    d = r - 1 + rng.uniform(0.5, 0.75)
    meet = (1 - r * r + d * d) / (2 * d)
    outer = np.linspace(math.acos(meet), math.tau - math.acos(meet), 48)
    bite = math.atan2(math.sqrt(1 - meet * meet), meet - d)
    inner = np.linspace(math.tau - bite, bite, 36)[1:-1]
    moon = np.concatenate(
        [
            np.stack([np.cos(outer), np.sin(outer)], axis=1),
            np.stack([d + r * np.cos(inner), r * np.sin(inner)], axis=1),
        ]
    )
    return [moon if rng.random() < 0.6 else moon * np.array([-1.0, 1.0])]


_BUILDERS: Final = {
    "circle": _circle, "square": _square, "triangle": _triangle, "star": _star, "ring": _ring,
    "cross": _cross, "heart": _heart, "hexagon": _hexagon, "diamond": _diamond, "crescent": _crescent,
}  # fmt: skip


def _cut_corners(contour: Contour, share: float) -> Contour:
    """Chaikin's step: each corner becomes two points, `share` of the way along its edges."""
    following = contour[_next(len(contour))]
    pairs = np.stack(
        [contour + share * (following - contour), following + share * (contour - following)], axis=1
    )
    return pairs.reshape(-1, 2)


def _centroid(contour: Contour) -> NDArray[np.float64]:
    following = contour[_next(len(contour))]
    cross = contour[:, 0] * following[:, 1] - following[:, 0] * contour[:, 1]
    center: NDArray[np.float64] = cross @ (contour + following) / (3 * cross.sum())
    return center


def _next(count: int) -> NDArray[np.intp]:
    return np.arange(1, count + 1) % count
