"""Every mesh under a name, with what the scene has to know of its size; a fifth is kept for validation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from mesh import Part, turn
from objects import MAKERS, Object, make

MADE = 10  # meshes of our own for each category
_KEPT = 5  # one of so many is kept for validation


@dataclass(frozen=True, slots=True)
class Entry:
    """One mesh.

    Attributes:
        name: "mug-3". thing: the mesh. held_out: only for validation.
        middle: (x, y) of its footprint from its origin, metres; radius: of the footprint's circle.
        radius_lying: of the footprint of the thing on its side.
    """

    name: str
    thing: Object
    held_out: bool
    middle: tuple[float, float]
    radius: float
    radius_lying: float

    def parts(self, lying: bool) -> tuple[Part, ...]:
        """The mesh, standing or on its side, on z = 0."""
        if not lying:
            return self.thing.parts
        laid = [part.moved(matrix=turn("x", 90)) for part in self.thing.parts]
        every = np.concatenate([part.vertices for part in laid])
        low, high = every.min(0), every.max(0)
        shift = (-(low[0] + high[0]) / 2, -(low[1] + high[1]) / 2, -low[2])
        return tuple(part.moved(shift) for part in laid)

    def turned(self, yaw: float, lying: bool) -> np.ndarray:
        """Where the footprint's middle is, seen from the origin, after turning by `yaw` degrees."""
        return np.zeros(2) if lying else (turn("z", yaw) @ [*self.middle, 0.0])[:2]


class Catalogue:
    """All meshes, made once: our own, and those of others where they are given."""

    def __init__(self, others: list[Object] | None = None) -> None:
        self._entries: dict[str, Entry] = {}
        for category in MAKERS:
            things = [make(category, number) for number in range(MADE)]
            things += [thing for thing in others or [] if thing.category == category]
            for number, thing in enumerate(things):
                name = f"{category.replace(' ', '-')}-{number}"
                self._entries[name] = _entry(name, thing, number % _KEPT == _KEPT - 1)

    categories = tuple(MAKERS)

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def of(self, category: str, held_out: bool) -> list[Entry]:
        """The meshes of a category that one side may use."""
        return [e for e in self if e.thing.category == category and e.held_out == held_out]


def _entry(name: str, thing: Object, held_out: bool) -> Entry:
    low, high = thing.corners
    middle = (float(low[0] + high[0]) / 2, float(low[1] + high[1]) / 2)
    every = np.concatenate([part.vertices[:, :2] for part in thing.parts])
    radius = float(np.linalg.norm(every - middle, axis=1).max())
    lying = float(np.hypot(high[0] - low[0], high[2] - low[2]) / 2)
    return Entry(name, thing, held_out, middle, radius, lying)
