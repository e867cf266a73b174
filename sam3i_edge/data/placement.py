"""What a scene will hold and in which manner it is drawn, decided before the first pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from sam3i_edge.data.palette import COLORS, FILLS, RGB, Color, Fill, distance, luma, mark_color
from sam3i_edge.data.shapes import SHAPES, Shape
from sam3i_edge.data.stamp import Cutout, Look, Stamp

_COUNTS: Final = np.array(
    [0.04, 0.09, 0.15, 0.18, 0.18, 0.14, 0.1, 0.07, 0.03, 0.02]
)  # of 1, 2, … 10 objects


@dataclass(frozen=True, slots=True)
class Wish:
    """An object to be placed: what it will be called."""

    shape: Shape
    color: Color
    size: Literal["small", "large"]
    fill: Fill


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenePlan:
    """The manner of one scene.

    Attributes:
        wishes: objects in the order of drawing.
        overlap: whether objects may cover parts of each other.
        cells: pixels (x, y) near a grid's centres to put the objects in, or None for free places.
        margin: least distance of an object's box to the canvas's edge, px; negative lets the edge cut it.
        shading: strength of the shading on objects, 0 to 1.
        shadow: opacity of the shadows, 0 for none.
        outlined: share of the objects that get a contour.
    """

    wishes: tuple[Wish, ...]
    height: int
    width: int
    overlap: bool
    cells: tuple[tuple[int, int], ...] | None
    margin: float
    shading: float
    shadow: float
    outlined: float

    def spot(self, index: int, cutout: Cutout, attempt: int, rng: np.random.Generator) -> tuple[int, int]:
        """A pixel (x, y) to try for the centre of the object."""
        if self.cells is not None and index < len(self.cells) and attempt < 2:
            return self.cells[index]
        across, down = rng.random(2).tolist()
        x0, y0, x1, y1 = cutout.bounds
        left, top = self.margin - x0, self.margin - y0
        right, bottom = (
            max(self.width - self.margin - x1, left + 1),
            max(self.height - self.margin - y1, top + 1),
        )
        return math.floor(left + across * (right - left)), math.floor(top + down * (bottom - top))

    def look(
        self, stamp: Stamp, wish: Wish, color: RGB, behind: RGB, edged: bool, rng: np.random.Generator
    ) -> Look:
        """How one object of this scene is drawn over the mean colour `behind`; `edged` asks for a contour."""
        reduction = 160 / max(self.height, self.width)
        extent = stamp.cutout.extent
        mark = None
        if wish.fill != "plain":
            mark = mark_color(color, behind, extent * reduction < 30, rng)
            # Stripes of the background's colour would cut the object into pieces.
            edged = edged or distance(mark, behind) < 45
        dark = luma(behind) > 110 if edged else luma(color) > 60
        edge = np.full(3, rng.uniform(0, 60) if dark else rng.uniform(200, 255), np.float32)
        # A contour of the background's colour would only make the object smaller than its mask.
        edged = edged or (rng.random() < self.outlined and distance(edge, behind) > 60)
        return Look(
            color=color,
            fill=wish.fill,
            mark=mark,
            # A period of at least 5.5 px survives a reduction to 160 x 160.
            period=max(extent / rng.uniform(3.2, 6.5), 5.5 / reduction),
            edge=edge if edged else None,
            edge_width=min(0.006 * min(self.height, self.width) * rng.uniform(0.7, 2.0), 0.07 * extent),
            shading=self.shading,
            shadow=self.shadow,
        )


def plan(height: int, width: int, rng: np.random.Generator, objects: int | None = None) -> ScenePlan:
    """What a scene of this size holds; half of the scenes repeat few shapes and colours on purpose."""
    count = objects or 1 + int(rng.choice(10, p=_COUNTS))
    wishes = _odd_one_out(count, rng) if count >= 3 and rng.random() < 0.2 else _wishes(count, rng)
    flat = rng.random() < 0.45
    return ScenePlan(
        wishes=tuple(wishes),
        height=height,
        width=width,
        overlap=bool(rng.random() < 0.4),
        cells=_grid(count, height, width, rng) if rng.random() < 0.2 else None,
        margin=min(height, width) * (-0.04 if rng.random() < 0.08 else 0.015),
        shading=0.0 if flat else float(rng.uniform(0.3, 1.0)),
        shadow=float(rng.uniform(0.15, 0.45)) if not flat and rng.random() < 0.4 else 0.0,
        outlined=float(rng.choice([0.0, 0.3, 1.0], p=[0.72, 0.14, 0.14])),
    )


def _wishes(count: int, rng: np.random.Generator) -> list[Wish]:
    few = rng.random() < 0.55
    shapes: Sequence[Shape] = _some(SHAPES, int(rng.integers(1, 4)) if few else 10, rng)
    colors: Sequence[Color] = _some(COLORS, int(rng.integers(1, 4)) if few else 8, rng)
    fills = FILLS if rng.random() < 0.65 else ("plain",)
    plain = rng.uniform(0.3, 0.75)
    small = float(rng.choice([0.0, 0.5, 1.0], p=[0.12, 0.76, 0.12])) if count < 8 else 0.75
    return [
        Wish(
            shapes[int(rng.integers(len(shapes)))],
            colors[int(rng.integers(len(colors)))],
            "small" if rng.random() < small else "large",
            "plain" if rng.random() < plain else fills[int(rng.integers(len(fills)))],
        )
        for _ in range(count)
    ]


def _odd_one_out(count: int, rng: np.random.Generator) -> list[Wish]:
    """Equal in one property but for one object; the others vary or not."""
    wishes = _wishes(count, rng)
    prop = ("shape", "color", "size", "fill")[int(rng.integers(4))]
    values: Sequence[str] = {"shape": SHAPES, "color": COLORS, "size": ("small", "large"), "fill": FILLS}[
        prop
    ]
    usual, odd = _some(values, 2, rng)
    if prop == "fill" and "plain" not in (usual, odd):
        usual = "plain"  # striped against dotted is too fine a difference on small shapes
    if rng.random() < 0.3:  # equal in everything else as well
        wishes = [wishes[0]] * count
    wishes = [replace(wish, **{prop: usual}) for wish in wishes]
    at = int(rng.integers(count))
    wishes[at] = replace(wishes[at], **{prop: odd})
    return wishes


def _some(values: Sequence, count: int, rng: np.random.Generator) -> list:  # type: ignore[type-arg]
    order = rng.permutation(len(values))
    return [values[int(i)] for i in order[:count]]


def _grid(count: int, height: int, width: int, rng: np.random.Generator) -> tuple[tuple[int, int], ...]:
    columns = max(1, min(count, round((count * width / height) ** 0.5 * rng.uniform(0.7, 1.5))))
    rows = -(-count // columns)
    cells = [
        ((c + 0.5) * width / columns, (r + 0.5) * height / rows) for r in range(rows) for c in range(columns)
    ]
    jitter = rng.uniform(0, 0.1, 2) * (width / columns, height / rows)
    places = rng.permutation(len(cells))[:count]
    shifts = rng.uniform(-1, 1, (count, 2)) * jitter
    return tuple(
        (round(cells[int(i)][0] + float(shift[0])), round(cells[int(i)][1] + float(shift[1])))
        for i, shift in zip(places, shifts, strict=True)
    )
