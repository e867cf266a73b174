"""Draws a scene: shapes on a background, with exact masks of what remains visible of each.

Later objects lie over earlier ones. Every object keeps at least `MIN_VISIBLE` of its pixels, contrasts with
what is behind it, and has the size, colour and fill that it is called by. Between small and large is a gap.
"""

from __future__ import annotations

import math
from typing import Final, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from sam3i_edge.data.backgrounds import Image, background, degrade
from sam3i_edge.data.palette import distance, named_color
from sam3i_edge.data.placement import ScenePlan, Wish, plan
from sam3i_edge.data.scene import Scene, SceneObject
from sam3i_edge.data.shapes import outline, rotated, rotation
from sam3i_edge.data.stamp import Cutout, Look, Stamp, paint

Size = Literal["small", "large"]
SIZES: Final[tuple[Size, ...]] = get_args(Size)

SMALL: Final = (0.10, 0.17)  # extent of a small object as a share of the canvas's shorter side
LARGE: Final = (0.24, 0.42)
MIN_VISIBLE: Final = 0.6
SHORT_SIDE: Final = (160, 320)  # pixels, where the caller names no size
ASPECT: Final = (0.6, 1.7)  # width / height

_CONTRAST: Final = 54.0  # least colour distance to what is behind; an outline replaces it
_TRIES: Final = 24  # places tried for one object before it is left out


def draw_scene(
    rng: np.random.Generator, size: tuple[int, int] | None = None, *, objects: int | None = None
) -> Scene:
    """Draws one scene: every object with the attributes "color", "size" and "fill".

    Its center is the centroid of the full outline, whatever covers it; `full_size` the upright box of that
    outline as drawn (rotated). A small object has an extent, the longer side of the unrotated shape's box, of
    0.10 to 0.17 of the canvas's shorter side, a large one of 0.24 to 0.42. The masks do not overlap.

    Args:
        rng: decides everything; the same state draws the same scene.
        size: (height, width) px, each at least 64. None varies both.
        objects: how many to try to place, 1 to 16; the canvas may hold fewer. None draws the number too.

    Raises:
        ValueError: a size below 64 px or a number of objects outside 1..16.
    """
    if size is not None and min(size) < 64:
        raise ValueError(f"size must be (height, width) of at least 64 px each, got {size}")
    if objects is not None and not 1 <= objects <= 16:
        raise ValueError(f"objects must be 1 to 16, got {objects}")
    height, width = size or _canvas(rng)
    canvas = background(height, width, rng)
    planned = plan(height, width, rng, objects)
    drawing = _Drawing(canvas, planned)
    for wish in planned.wishes:
        drawing.place(wish, rng)
    if not drawing.stamps:  # nothing fitted or stood out from the background: begin again with another
        return draw_scene(rng, size, objects=objects)
    masks = drawing.labels[None] == np.arange(len(drawing.stamps), dtype=np.int8)[:, None, None]
    return Scene(
        image=degrade(canvas, rng),
        size=(height, width),
        objects=tuple(map(_described, drawing.stamps, drawing.wishes, masks)),
        complete=True,
    )


def _canvas(rng: np.random.Generator) -> tuple[int, int]:
    short = int(rng.integers(SHORT_SIDE[0], SHORT_SIDE[1] + 1))
    if rng.random() < 0.3:
        return short, short
    aspect = math.exp(rng.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
    return (short, round(short * aspect)) if aspect >= 1 else (round(short / aspect), short)


class _Drawing:
    """The canvas while objects are put on it."""

    def __init__(self, canvas: Image, plan: ScenePlan) -> None:
        self.canvas, self.plan = canvas, plan
        self.labels: NDArray[np.int8] = np.full(canvas.shape[:2], -1, np.int8)
        self.stamps: list[Stamp] = []
        self.wishes: list[Wish] = []

    def place(self, wish: Wish, rng: np.random.Generator) -> None:
        """Draws the wish at the first place that suits it, or not at all."""
        height, width = self.labels.shape
        low, high = SMALL if wish.size == "small" else LARGE
        if wish.size == "small" and (wish.fill != "plain" or wish.shape == "hexagon"):
            low += 0.03  # below this neither stripes nor six corners survive a reduction to 160 px
        extent = min(height, width) * rng.uniform(low, high)
        contours = [
            contour * extent for contour in rotated(outline(wish.shape, rng), rotation(wish.shape, rng))
        ]
        cutout = Cutout.of(contours, extent, rng)
        color = named_color(wish.color, rng)
        for attempt in range(_TRIES):
            x, y = self.plan.spot(len(self.stamps), cutout, attempt, rng)
            if not self._apart(cutout, x, y):
                continue
            stamp = Stamp.put(cutout, x, y, height, width)
            if stamp is None or (self.plan.overlap and self._hides(stamp)):
                continue
            look = self._look(stamp, wish, color, rng)
            if look is None:
                continue
            paint(self.canvas, stamp, look, rng)
            self.labels[stamp.window][stamp.inside] = len(self.stamps)
            self.stamps.append(stamp)
            self.wishes.append(wish)
            return

    def _apart(self, cutout: Cutout, x: int, y: int) -> bool:
        """Whether it keeps off the others' boxes, or, where overlap is allowed, off their centres."""
        if self.plan.overlap:
            return all(
                math.dist((x, y), other.center)
                > 0.42 * max(extent, cutout.extent) + 0.12 * min(extent, cutout.extent)
                for other in self.stamps
                for extent in [other.cutout.extent]
            )
        x0, y0, x1, y1 = cutout.window(x, y)
        return not any(
            y0 < rows.stop and rows.start < y1 and x0 < columns.stop and columns.start < x1
            for rows, columns in (other.window for other in self.stamps)
        )

    def _hides(self, stamp: Stamp) -> bool:
        """Whether something already drawn would be hidden too much."""
        beneath = np.bincount((self.labels[stamp.window] + 1)[stamp.inside], minlength=len(self.stamps) + 1)[
            1:
        ]
        for index in np.flatnonzero(beneath):
            other = self.stamps[index]
            left = np.count_nonzero(self.labels[other.window] == index) - beneath[index]
            if left < MIN_VISIBLE * other.cutout.full_area:
                return True
        return False

    def _look(
        self, stamp: Stamp, wish: Wish, color: NDArray[np.float32], rng: np.random.Generator
    ) -> Look | None:
        """How to draw it here, or None where it would not stand out."""
        means, deviations = cv2.meanStdDev(self.canvas[stamp.window])
        behind, spread = means.ravel().astype(np.float32), sum(deviations.ravel().tolist()) / 3
        contrast = distance(color, behind)
        if contrast >= _CONTRAST + 0.6 * spread:
            return self.plan.look(stamp, wish, color, behind, False, rng)
        # White on light grey, black on a dark wall: a contour makes it a fair question.
        if contrast < 20 or spread > 30 or rng.random() < 0.35:
            return None
        return self.plan.look(stamp, wish, color, behind, True, rng)


def _described(stamp: Stamp, wish: Wish, mask: NDArray[np.bool_]) -> SceneObject:
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    x0, y0, x1, y1 = stamp.cutout.bounds
    return SceneObject(
        category=wish.shape,
        attributes={"color": wish.color, "size": wish.size, "fill": wish.fill},
        box=(x, y, x + width, y + height),
        center=stamp.center,
        mask=mask,
        full_size=(x1 - x0, y1 - y0),
    )
