"""What is left of, nearest to or tallest in a scene, answered only where a person would not hesitate.

A predicate about one object is True, False, or None where it is too close to call. A question about a set is
answered by the indices of the objects, or by None where any object of the set is too close to call.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Final

import numpy as np

from sam3i_edge.data.query import Edge, Measure, Region, SideName
from sam3i_edge.data.scene import Scene, SceneObject

SIDE_MARGIN: Final = 0.06  # of the canvas's width or height, between two centres
HALF_MARGIN: Final = 0.05  # of the canvas's width or height, from a centre to the middle line
NEAR_FACTOR: Final = 1.2  # the second nearest is at least this much farther away
FAR_FACTOR: Final = 1.15  # the farthest is at least this much farther away than the next
DEPTH_FACTOR: Final = 1.1  # likewise, of two distances from the camera
MOSTLY_VISIBLE: Final = 0.75  # below it nobody can say how big a thing is, unless its whole size is known
SIZE_FACTOR: Final = 1.13  # the tallest is at least this much taller than the next
_LENSES: Final = (0.0, 0.7, 1.9)  # focal lengths in picture sides: wide angle to tele; 0: in the picture


class View:
    """A scene's objects as the phrases see them: by number, with positions in shares of the canvas."""

    def __init__(self, scene: Scene) -> None:
        self.scene, self.objects = scene, scene.objects
        self.height, self.width = scene.size
        self.x: list[float] = [item.center[0] / self.width for item in self.objects]
        self.y: list[float] = [item.center[1] / self.height for item in self.objects]
        self.everything = tuple(range(len(self.objects)))
        self.areas: dict[int, float] = {}

    def beside(self, index: int, side: SideName, other: int) -> bool | None:
        """Whether an object's centre lies clearly on that side of another's."""
        values = self.x if side in ("left", "right") else self.y
        gap = values[index] - values[other]
        if abs(gap) < SIDE_MARGIN:
            return None
        return (gap < 0) == (side in ("left", "above"))

    def related(self, index: int, name: str, other: int) -> bool | None:
        """What the scene says of a relation between two objects."""
        verdicts = self.objects[index].relations.get(name)
        return None if verdicts is None else verdicts.get(other, False)

    def between(self, index: int, first: int, second: int) -> bool | None:
        """Whether an object lies between two others: near the line that joins them, away from its ends."""
        (ax, ay), (bx, by), (cx, cy) = (self.objects[i].center for i in (first, second, index))
        dx, dy = bx - ax, by - ay
        length = math.hypot(dx, dy)
        if length < 0.2 * min(self.width, self.height):
            return None
        along = ((cx - ax) * dx + (cy - ay) * dy) / length**2
        aside = abs((cx - ax) * dy - (cy - ay) * dx) / length**2
        if 0.2 <= along <= 0.8 and aside <= 0.22:
            return self._depth_between(index, first, second)
        return False if along < 0.0 or along > 1.0 or aside > 0.5 else None

    def inside(self, index: int, region: Region) -> bool | None:
        """Whether an object's centre lies in a half, a corner or the centre of the picture."""
        x, y = self.x[index], self.y[index]
        if region == "center":
            far = max(abs(x - 0.5), abs(y - 0.5))
            return True if far < 0.14 else False if far > 0.24 else None
        if " " in region:
            u = x if "left" in region else 1 - x
            v = y if "top" in region else 1 - y
            return True if max(u, v) < 0.38 else False if max(u, v) > 0.54 else None
        value = x if region in ("left", "right") else y
        if abs(value - 0.5) < HALF_MARGIN:
            return None
        return (value < 0.5) == (region in ("left", "top"))

    def foremost(self, members: Iterable[int], edge: Edge, number: int = 1) -> tuple[int, ...] | None:
        """The `number` members whose centres are nearest to an edge, the next one clearly farther from it."""
        ranked, values = self._ranked(members, edge)
        if number > len(ranked) or (number > 1 and number == len(ranked)):
            return None
        if number < len(ranked) and abs(values[ranked[number - 1]] - values[ranked[number]]) < SIDE_MARGIN:
            return None
        return tuple(sorted(ranked[:number]))

    def ordinal(self, members: Iterable[int], edge: Edge, number: int) -> tuple[int, ...] | None:
        """The `number`-th member (from 1) from an edge; None when a neighbour in the order is close."""
        ranked, values = self._ranked(members, edge)
        close = any(abs(values[a] - values[b]) < SIDE_MARGIN for a, b in pairwise(ranked[: number + 1]))
        return None if close or number > len(ranked) else (ranked[number - 1],)

    def nearest(self, members: Iterable[int], other: int, farthest: bool = False) -> tuple[int, ...] | None:
        """The member nearest to (or farthest from) another object, by centres; None when two compete.

        Where depths are known it must be so in space, whatever the lens; else in the picture.
        """
        factor = FAR_FACTOR if farthest else NEAR_FACTOR
        others = [index for index in members if index != other]
        deep = all(self.objects[index].depth is not None for index in (*others, other))
        found = {
            _first([(self._gap(index, other, lens), index) for index in others], farthest, factor)
            for lens in (_LENSES if deep else (0.0,))
        }
        return found.pop() if len(found) == 1 else None

    def nearest_to_camera(self, members: Iterable[int], farthest: bool = False) -> tuple[int, ...] | None:
        """The member nearest to (or farthest from) the camera; None when two compete or one is unknown."""
        gaps = []
        for index in members:
            depth = self.objects[index].depth
            if depth is None:
                return None
            gaps.append((depth, index))
        return _first(gaps, farthest, DEPTH_FACTOR)

    def superlative(
        self, members: Sequence[int], measure: Measure, least: bool = False
    ) -> tuple[int, ...] | None:
        """The biggest, tallest or widest member (or smallest, shortest, narrowest); None when two compete."""
        choose = min if least else max
        best = choose(members, key=lambda index: self._side(index, measure))
        clear = all(self.exceeds(best, other, measure, least) for other in members if other != best)
        return (best,) if clear else None

    def exceeds(self, index: int, other: int, measure: Measure, less: bool = False) -> bool | None:
        """Whether an object is clearly bigger, taller or wider (or less so) than another.

        Compared are the upright boxes around the whole objects: their height, width or, for "big", the longer
        side. What shows of them (its box, for "big" its pixels) must not tell another story. Where only that
        is known (photographs), the apparent size decides, and its pixels need the same clear margin. Where
        depths are known, the size that they make of it must be clearly greater too: a cup in front of a car
        is neither bigger nor smaller. Nor is what is half hidden, nor things of two kinds where nothing but
        their apparent size is known: the book in front of the chair is not the larger one.
        """
        if index == other:
            return False
        if any(self._half_hidden(item) for item in (self.objects[index], self.objects[other])):
            return None
        ratios = [self._side(index, measure) / self._side(other, measure) / SIZE_FACTOR]
        inverse = [self._side(other, measure) / self._side(index, measure) / SIZE_FACTOR]
        one, two = self.objects[index], self.objects[other]
        whole = one.full_size is not None and two.full_size is not None
        deep = one.depth is not None and two.depth is not None
        if one.category != two.category and not (whole or deep):
            return None
        shown = self._shown(index, measure) / self._shown(other, measure)
        margin = 1.0 if whole else SIZE_FACTOR
        ratios.append(shown / margin)
        inverse.append(1 / shown / margin)
        if one.depth is not None and two.depth is not None:
            ratios.append(ratios[0] * one.depth / two.depth)
            inverse.append(inverse[0] * two.depth / one.depth)
        if min(ratios) > 1:
            return not less
        return less if min(inverse) > 1 else None

    @staticmethod
    def _half_hidden(item: SceneObject) -> bool:
        return item.full_size is None and item.visible is not None and item.visible < MOSTLY_VISIBLE

    def _gap(self, index: int, other: int, lens: float) -> float:
        """Distance of two centres, px at the depth of the second; `lens` 0 leaves depth out."""
        one, two = self.objects[index], self.objects[other]
        flat = math.dist(one.center, two.center)
        if not lens or one.depth is None or two.depth is None:
            return flat
        return math.hypot(flat, lens * max(self.width, self.height) * (one.depth / two.depth - 1))

    def _depth_between(self, index: int, first: int, second: int) -> bool | None:
        depths = [self.objects[i].depth for i in (index, first, second)]
        known = [depth for depth in depths if depth is not None]
        if len(known) < 3:
            return True
        one, *ends = known
        return True if min(ends) < one * DEPTH_FACTOR and one < max(ends) * DEPTH_FACTOR else None

    def _ranked(self, members: Iterable[int], edge: Edge) -> tuple[list[int], list[float]]:
        values = self.x if edge in ("left", "right") else self.y
        return sorted(members, key=values.__getitem__, reverse=edge in ("right", "bottom")), values

    def _side(self, index: int, measure: Measure) -> float:
        item = self.objects[index]
        x0, y0, x1, y1 = item.box
        width, height = item.full_size or (x1 - x0, y1 - y0)
        return {"big": max(width, height), "tall": height, "wide": width}[measure]

    def _shown(self, index: int, measure: Measure) -> float:
        item = self.objects[index]
        if measure == "big":
            if index not in self.areas:
                self.areas[index] = float(np.count_nonzero(item.mask))
            return self.areas[index]
        x0, y0, x1, y1 = item.box
        return y1 - y0 if measure == "tall" else x1 - x0


@lru_cache(maxsize=2)
def view_of(scene: Scene) -> View:
    """The view of a scene; that of the last ones is kept, as many instructions are written of one."""
    return View(scene)


def _first(gaps: list[tuple[float, int]], farthest: bool, factor: float) -> tuple[int, ...] | None:
    gaps.sort(reverse=farthest)
    if not gaps:
        return None
    if len(gaps) > 1:
        low, high = sorted((gaps[0][0], gaps[1][0]))
        if high < low * factor:
            return None
    return (gaps[0][1],)
