"""Solids as triangles: turned profiles, swept tubes, extruded outlines, boxes and balls. Metres, z up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import trimesh
from numpy.typing import ArrayLike, NDArray
from shapely.geometry import Polygon
from surfaces import Paint

_AROUND = 40  # facets of a turned solid


@dataclass(frozen=True, slots=True)
class Part:
    """Triangles of one paint.

    Attributes:
        vertices: [V, 3] float64, metres. faces: [F, 3] int64, counter-clockwise from outside.
        paint: "main", which takes the object's colour, a name of `surfaces.PAINTS`, or a paint of its own.
        uv: [V, 2] float64, places in `picture`, from its lower left corner in 0..1; or None.
        picture: uint8 [H, W, 3] RGB that the part carries instead of its paint's colour, or None.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    paint: str | Paint = "main"
    uv: NDArray[np.float64] | None = None
    picture: NDArray[np.uint8] | None = None

    def moved(self, by: ArrayLike = (0, 0, 0), matrix: ArrayLike | None = None) -> Part:
        """The part turned (or scaled) by a 3x3 matrix, then moved."""
        vertices = self.vertices if matrix is None else self.vertices @ np.asarray(matrix, float).T
        flipped = matrix is not None and np.linalg.det(np.asarray(matrix, float)) < 0
        faces = self.faces[:, ::-1] if flipped else self.faces
        return replace(self, vertices=vertices + np.asarray(by, float), faces=faces)


def turn(axis: str, degrees: float) -> NDArray[np.float64]:
    """Rotation matrix around "x", "y" or "z"."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    rows = {
        "x": [[1, 0, 0], [0, c, -s], [0, s, c]],
        "y": [[c, 0, s], [0, 1, 0], [-s, 0, c]],
        "z": [[c, -s, 0], [s, c, 0], [0, 0, 1]],
    }
    return np.array(rows[axis])


def lathe(profile: Sequence[tuple[float, float]], paint: str = "main", around: int = _AROUND) -> Part:
    """A profile [(radius, z), ...] turned around z; upwards on the outside, downwards on the inside."""
    radius, height = np.array(profile, float).T
    angles = np.linspace(0, 2 * np.pi, around, endpoint=False)
    ring = np.stack([np.cos(angles), np.sin(angles), np.zeros(around)], axis=1)
    vertices = (
        radius[:, None, None] * ring + np.stack([0 * height, 0 * height, height], 1)[:, None]
    ).reshape(-1, 3)
    low = np.arange(len(profile) - 1)[:, None] * around + np.arange(around)
    right = np.arange(len(profile) - 1)[:, None] * around + (np.arange(around) + 1) % around
    faces = np.concatenate(
        [np.stack([low, right, right + around], -1), np.stack([low, right + around, low + around], -1)]
    )
    return _clean(vertices, faces.reshape(-1, 3), paint)


def smooth(points: Sequence[tuple[float, float]], steps: int = 6) -> list[tuple[float, float]]:
    """A Catmull-Rom curve through the points of a profile; radii never fall below 0."""
    p = np.array([points[0], *points, points[-1]], float)
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    curve = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        for a, b, c, d in zip(p, p[1:], p[2:], p[3:], strict=False)
    ]
    line = np.concatenate([*curve, p[-1:]])
    return [(max(float(r), 0.0), float(z)) for r, z in line]


def tube(path: ArrayLike, radius: float | ArrayLike, paint: str = "main", around: int = 12) -> Part:
    """A tube along points [P, 3], closed at both ends; one radius, or one for each point."""
    points = np.asarray(path, float)
    radii = np.broadcast_to(np.asarray(radius, float), len(points))
    ahead = np.gradient(points, axis=0)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    side = np.cross(ahead[0], [0.0, 0.0, 1.0] if abs(ahead[0, 2]) < 0.9 else [1.0, 0.0, 0.0])
    rings = []
    angles = np.linspace(0, 2 * np.pi, around, endpoint=False)
    for point, direction, r in zip(points, ahead, radii, strict=True):
        side = side - direction * (side @ direction)  # carried along without twist
        side /= np.linalg.norm(side)
        up = np.cross(side, direction)
        rings.append(point + r * (np.cos(angles)[:, None] * side + np.sin(angles)[:, None] * up))
    vertices = np.concatenate([*rings, points[:1], points[-1:]])
    faces = []
    for n in range(len(points) - 1):
        for k in range(around):
            a, b = n * around + k, n * around + (k + 1) % around
            faces += [[a, a + around, b + around], [a, b + around, b]]
    last = (len(points) - 1) * around
    for k in range(around):
        faces.append([len(vertices) - 2, k, (k + 1) % around])
        faces.append([len(vertices) - 1, last + (k + 1) % around, last + k])
    return _clean(vertices, np.array(faces), paint)


def arc(
    radius: tuple[float, float], start: float, end: float, centre: ArrayLike, points: int = 14
) -> NDArray[np.float64]:
    """Points [P, 3] of an ellipse's arc in the xz plane, degrees from x towards z."""
    angles = np.radians(np.linspace(start, end, points))
    line = np.stack([radius[0] * np.cos(angles), 0 * angles, radius[1] * np.sin(angles)], axis=1)
    return line + np.asarray(centre, float)


def box(size: ArrayLike, paint: str = "main", bevel: float = 0.0, at: ArrayLike = (0, 0, 0)) -> Part:
    """A box standing on `at`, its edges cut by `bevel`."""
    half = np.asarray(size, float) / 2
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
    if bevel:
        corners = np.concatenate([signs * (half - bevel * (np.arange(3) != axis)) for axis in range(3)])
    else:
        corners = signs * half
    hull = trimesh.convex.convex_hull(corners)
    return _clean(hull.vertices + np.asarray(at, float) + [0, 0, half[2]], hull.faces, paint)


def ball(radii: ArrayLike, paint: str = "main", at: ArrayLike = (0, 0, 0)) -> Part:
    """An ellipsoid around `at`; `radii` one number or three."""
    sphere = trimesh.creation.icosphere(subdivisions=3)
    return _clean(sphere.vertices * np.broadcast_to(radii, 3) + np.asarray(at, float), sphere.faces, paint)


def slab(
    outline: Sequence[tuple[float, float]], thickness: float, paint: str = "main", z: float = 0.0
) -> Part:
    """An outline in the xy plane, extruded upwards from `z`."""
    mesh = trimesh.creation.extrude_polygon(Polygon(outline).buffer(0), thickness)
    return _clean(np.asarray(mesh.vertices) + np.array([0, 0, z]), np.asarray(mesh.faces), paint)


def _clean(vertices: ArrayLike, faces: ArrayLike, paint: str) -> Part:
    """Without triangles that have no area, as at the tip of a profile."""
    v, f = np.asarray(vertices, float), np.asarray(faces, np.int64)
    a, b, c = v[f[:, 0]], v[f[:, 1]], v[f[:, 2]]
    return Part(v, f[np.linalg.norm(np.cross(b - a, c - a), axis=1) > 1e-12], paint)
