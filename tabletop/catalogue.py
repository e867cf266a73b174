"""Every mesh under a name, with what the scene has to know of its size; a fifth is kept for validation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from makers import MAKERS, make
from mesh import Part, turn
from numpy.typing import NDArray
from objects import Object
from scipy.spatial import ConvexHull

MADE = 40  # meshes of our own for each category
_KEPT = 5  # one of so many is kept for validation, of ours and of those of others


@dataclass(frozen=True, slots=True)
class Entry:
    """One mesh.

    Attributes:
        name: "mug-3", or its source's key. thing: the mesh. held_out: only for validation.
        hull: [K, 2] metres, the convex outline of what it covers of the table, counter-clockwise.
        hull_lying: the same of the thing on its side, or None.
        radius: of the circle around the middle of `hull`, metres.
    """

    name: str
    thing: Object
    held_out: bool
    hull: NDArray[np.float64]
    hull_lying: NDArray[np.float64] | None
    radius: float

    def parts(self, lying: bool) -> tuple[Part, ...]:
        """The mesh, standing or on its side, on z = 0."""
        return _laid(self.thing) if lying else self.thing.parts

    def footprint(self, yaw: float, lying: bool) -> NDArray[np.float64]:
        """[K, 2] metres from the origin, after turning by `yaw` degrees."""
        hull = self.hull_lying if lying and self.hull_lying is not None else self.hull
        return hull @ turn("z", yaw)[:2, :2].T


class Catalogue:
    """All meshes, made once: our own, and those of others where they are given."""

    def __init__(self, others: list[Object] | None = None) -> None:
        self._entries: dict[str, Entry] = {}
        for category in MAKERS:
            for number in range(MADE):
                name = f"{category.replace(' ', '-')}-{number}"
                self._entries[name] = _entry(name, make(category, number), number % _KEPT == _KEPT - 1)
            theirs = [thing for thing in others or [] if thing.category == category]
            for number, thing in enumerate(theirs):
                if thing.source is not None:
                    name = thing.source.key
                    self._entries[name] = _entry(name, thing, number % _KEPT == 1)

    categories = tuple(MAKERS)

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def of(self, category: str, held_out: bool) -> list[Entry]:
        """The meshes of a category that one side may use."""
        return [e for e in self if e.thing.category == category and e.held_out == held_out]


def _entry(name: str, thing: Object, held_out: bool) -> Entry:
    hull = _hull(thing.parts)
    return Entry(name, thing, held_out, hull, _hull(_laid(thing)) if thing.lies else None, circle(hull)[1])


def _laid(thing: Object) -> tuple[Part, ...]:
    laid = [part.moved(matrix=turn("x", 90)) for part in thing.parts]
    every = np.concatenate([part.vertices for part in laid])
    low, high = every.min(0), every.max(0)
    shift = (-(low[0] + high[0]) / 2, -(low[1] + high[1]) / 2, -low[2])
    return tuple(part.moved(shift) for part in laid)


def _hull(parts: tuple[Part, ...]) -> NDArray[np.float64]:
    every = np.concatenate([part.vertices[:, :2] for part in parts])
    return every[ConvexHull(every).vertices]


def circle(hull: NDArray[np.float64]) -> tuple[tuple[float, float], float]:
    """Middle (x, y) of an outline's box, and the radius around it."""
    x, y = (hull.min(0) + hull.max(0)) / 2
    return (float(x), float(y)), float(np.linalg.norm(hull - (x, y), axis=1).max())
