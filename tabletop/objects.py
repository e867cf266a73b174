"""What a mesh on a table is: its category, its parts, and what may be done with it; sizes in metres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from mesh import Part

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "grey")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a mesh of others is from: a key of its own, title, author, and the licence with its address."""

    key: str
    title: str
    author: str
    licence: str
    link: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Object:
    """One mesh of a category.

    Attributes:
        category: its noun.
        parts: of the mesh.
        colors: what it may be painted, names of `COLORS`; empty where no single colour is right.
        materials: what it may be made of instead of being painted: "metal", "wood" or "glass".
        material: what it is made of in any case, or None.
        inside: radius and floor height of what it can hold, or None.
        top: half width, half depth and height of what can stand on it, or None.
        lies: whether it can also be laid on its side.
        source: of the mesh, where others made it.
    """

    category: str
    parts: tuple[Part, ...]
    colors: tuple[str, ...] = COLORS
    materials: tuple[str, ...] = ()
    material: str | None = None
    inside: tuple[float, float] | None = None
    top: tuple[float, float, float] | None = None
    lies: bool = False
    source: Source | None = None

    @property
    def corners(self) -> tuple[np.ndarray, np.ndarray]:
        """Least and greatest coordinates, [3] each."""
        every = np.concatenate([part.vertices for part in self.parts])
        return every.min(0), every.max(0)

    @property
    def flat(self) -> bool:
        """Whether nothing reaches above its top, so that a thin thing may lie across its edge."""
        return self.top is not None and self.corners[1][2] < self.top[2] + 0.001
