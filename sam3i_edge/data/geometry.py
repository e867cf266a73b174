"""What is left of, nearest to or tallest in a scene, answered only where a person would not hesitate.

A predicate about one object is True, False, or None where it is too close to call. A question about a set is
answered by the indices of the objects, or by None where any object of the set is too close to call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Final, Literal

from sam3i_edge.data.scenes import DrawnScene, SceneObject

Side = Literal["left", "right", "above", "below"]
Edge = Literal["left", "right", "top", "bottom"]
Region = Literal[
    "left", "right", "top", "bottom", "top left", "top right", "bottom left", "bottom right", "center"
]
Measure = Literal["big", "tall", "wide"]

SIDE_MARGIN: Final = 0.06  # of the canvas's width or height, between two centres
HALF_MARGIN: Final = 0.05  # of the canvas's width or height, from a centre to the middle line
NEAR_FACTOR: Final = 1.2  # the second nearest is at least this much farther away
SIZE_FACTOR: Final = 1.13  # the tallest is at least this much taller than the next


class View:
    """A scene's objects as the phrases see them: by number, with positions in shares of the canvas."""

    def __init__(self, scene: DrawnScene) -> None:
        self.objects: tuple[SceneObject, ...] = scene.objects
        self.height, self.width = int(scene.image.shape[0]), int(scene.image.shape[1])
        self.x: list[float] = [item.center[0] / self.width for item in self.objects]
        self.y: list[float] = [item.center[1] / self.height for item in self.objects]
        self.everything = tuple(range(len(self.objects)))

    def select(self, members: Iterable[int], verdict: Callable[[int], bool | None]) -> tuple[int, ...] | None:
        """The members of which the verdict is True; None when one is undecided."""
        chosen = []
        for index in members:
            answer = verdict(index)
            if answer is None:
                return None
            if answer:
                chosen.append(index)
        return tuple(chosen)

    def beside(self, index: int, side: Side, other: int) -> bool | None:
        """Whether an object's centre lies clearly on that side of another's."""
        values = self.x if side in ("left", "right") else self.y
        gap = values[index] - values[other]
        if abs(gap) < SIDE_MARGIN:
            return None
        return (gap < 0) == (side in ("left", "above"))

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
            return True
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

    def outermost(self, members: Sequence[int], edge: Edge) -> int | None:
        """The member whose centre is nearest to an edge; None when two compete or there is none."""
        ranked = self.ranked(members, edge)
        if not ranked:
            return None
        values = self.x if edge in ("left", "right") else self.y
        if len(ranked) > 1 and abs(values[ranked[0]] - values[ranked[1]]) < SIDE_MARGIN:
            return None
        return ranked[0]

    def ranked(self, members: Iterable[int], edge: Edge) -> list[int]:
        """Members by distance from an edge, nearest first."""
        values = self.x if edge in ("left", "right") else self.y
        return sorted(members, key=values.__getitem__, reverse=edge in ("right", "bottom"))

    def ordinal(self, members: Sequence[int], edge: Edge, number: int) -> int | None:
        """The `number`-th member (from 1) from an edge; None when a neighbour in the order is close."""
        ranked = self.ranked(members, edge)
        if number > len(ranked):
            return None
        values = self.x if edge in ("left", "right") else self.y
        for a, b in pairwise(ranked[: number + 1]):
            if abs(values[a] - values[b]) < SIDE_MARGIN:
                return None
        return ranked[number - 1]

    def nearest(self, members: Iterable[int], other: int, farthest: bool = False) -> int | None:
        """The member nearest to (or farthest from) another object, by centres; None when two compete."""
        gaps = sorted(
            ((self.gap(index, other), index) for index in members if index != other), reverse=farthest
        )
        if not gaps:
            return None
        if len(gaps) > 1:
            low, high = sorted((gaps[0][0], gaps[1][0]))
            if high < low * (1.15 if farthest else NEAR_FACTOR):
                return None
        return gaps[0][1]

    def gap(self, index: int, other: int) -> float:
        """Distance between two centres, px."""
        return math.dist(self.objects[index].center, self.objects[other].center)

    def superlative(self, members: Sequence[int], measure: Measure, least: bool = False) -> int | None:
        """The biggest, tallest or widest member (or smallest, shortest, narrowest); None when two compete.

        Judged by the full outline; what shows of it must not tell another story.
        """
        if not members:
            return None
        order = sorted(members, key=lambda index: self._full(index, measure), reverse=not least)
        best, rest = order[0], order[1:]
        if rest:
            full, shown = self._full(best, measure), self._shown(best, measure)
            if least:
                clear = all(
                    self._full(i, measure) > SIZE_FACTOR * full and self._shown(i, measure) > shown
                    for i in rest
                )
            else:
                clear = all(
                    full > SIZE_FACTOR * self._full(i, measure) and shown > self._shown(i, measure)
                    for i in rest
                )
            if not clear:
                return None
        return best

    def exceeds(self, index: int, other: int, measure: Measure, less: bool = False) -> bool | None:
        """Whether an object is clearly bigger, taller or wider (or less so) than another."""
        if index == other:
            return False
        full = self._full(index, measure) / self._full(other, measure)
        shown = self._shown(index, measure) / self._shown(other, measure)
        if full > SIZE_FACTOR and shown > 1:
            return not less
        return less if full < 1 / SIZE_FACTOR and shown < 1 else None

    def foremost(self, members: Sequence[int], edge: Edge, number: int) -> tuple[int, ...] | None:
        """The `number` members nearest to an edge, where the next one is clearly farther from it."""
        ranked = self.ranked(members, edge)
        values = self.x if edge in ("left", "right") else self.y
        if number >= len(ranked) or abs(values[ranked[number - 1]] - values[ranked[number]]) < SIDE_MARGIN:
            return None
        return tuple(sorted(ranked[:number]))

    def _full(self, index: int, measure: Measure) -> float:
        item = self.objects[index]
        return {"big": item.extent, "tall": item.height, "wide": item.width}[measure]

    def _shown(self, index: int, measure: Measure) -> float:
        item = self.objects[index]
        x0, y0, x1, y1 = item.box
        return {"big": float(item.area), "tall": float(y1 - y0), "wide": float(x1 - x0)}[measure]
