"""Charts as SVG text, for a report that is one file and needs no network."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from html import escape

from sam3i_edge.measure.pareto import Configuration, front
from sam3i_edge.measure.schema import Curve

_WIDTH, _HEIGHT = 720, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 32, 48
COLORS = ("#1b6ca8", "#d1495b", "#3a7d44", "#8a5fbf", "#c77d0a", "#3b3b58", "#0a8f8f", "#9c3587")


def pareto(found: Sequence[Configuration]) -> str:
    """Accuracy against p90 latency, bytes as the area of a numbered disk, the Pareto front as steps.

    The names are a list below, since disks lie close where little is lost.
    """
    xs, ys = [one.p90_ms for one in found], [one.giou for one in found]
    chart = _Chart(_range(xs), _range(ys, 0.02), "end to end, p90 of the slowest level, ms", "gIoU")
    best = front(found)
    chart.line(_steps([(one.p90_ms, one.giou) for one in best]), "#888", dashed=True)
    largest = max(one.size_bytes for one in found)
    for number, one in enumerate(found):
        x, y = chart.at(one.p90_ms, one.giou)
        radius = 4 + 16 * math.sqrt(one.size_bytes / largest)
        color = COLORS[number % len(COLORS)]
        label = escape(
            f"{one.name}: gIoU {one.giou:.3f}, p90 {one.p90_ms:.1f} ms, {one.size_bytes / 1e6:.1f} MB"
            + (", on the front" if one in best else "")
        )
        below = _HEIGHT + 14 + 18 * number
        chart.add(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{color}" fill-opacity="0.55" '
            f'stroke="{color}"><title>{label}</title></circle>'
            f'<text x="{x:.1f}" y="{y - radius - 3:.1f}" text-anchor="middle">{number + 1}</text>'
            f'<rect x="{_LEFT}" y="{below - 9}" width="10" height="10" fill="{color}" fill-opacity="0.55"/>'
            f'<text x="{_LEFT + 16}" y="{below}">{number + 1}  {label}</text>'
        )
    return chart.svg("Accuracy against latency", 18 * len(found) + 6)


def curve(one: Curve) -> str:
    """A curve: medians as a line, p90 as a paler one."""
    xs = [point.x for point in one.points]
    tops = [point.p90 for point in one.points]
    chart = _Chart((0, max(xs) * 1.03), (0, max(tops) * 1.08 or 1), one.x, one.y)
    if any(point.p90 != point.p50 for point in one.points):
        chart.line([(point.x, point.p90) for point in one.points], "#9fc3dd")
    chart.line([(point.x, point.p50) for point in one.points], COLORS[0])
    for point in one.points:
        x, y = chart.at(point.x, point.p50)
        chart.add(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{COLORS[0]}">'
            f"<title>{point.x:g} {escape(one.x)}: {point.p50:.1f} {escape(one.y)}</title></circle>"
        )
    return chart.svg(one.title)


def bars(rows: Mapping[str, Mapping[str, float]]) -> str:
    """One stacked bar a row: name -> step -> ms."""
    longest = max((sum(steps.values()) for steps in rows.values()), default=0) or 1
    left, height = 250, 24
    names = list(dict.fromkeys(step for steps in rows.values() for step in steps))
    parts = []
    for number, (name, steps) in enumerate(rows.items()):
        y, x = 30 + number * height, float(left)
        parts.append(f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{escape(name)}</text>')
        for step, spent in steps.items():
            width = (_WIDTH - left - 70) * spent / longest
            parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="16" '
                f'fill="{COLORS[names.index(step) % len(COLORS)]}">'
                f"<title>{escape(step)}: {spent:.2f} ms</title></rect>"
            )
            x += width
        parts.append(f'<text x="{x + 5:.1f}" y="{y + 13}">{sum(steps.values()):.1f} ms</text>')
    for number, step in enumerate(names):
        x = 10 + 140 * number
        parts.append(
            f'<rect x="{x}" y="6" width="11" height="11" fill="{COLORS[number % len(COLORS)]}"/>'
            f'<text x="{x + 16}" y="16">{escape(step)}</text>'
        )
    return _svg("".join(parts), 36 + len(rows) * height, "Medians of the steps")


class _Chart:
    """Axes with ticks, onto which marks are drawn."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], x_name: str, y_name: str) -> None:
        self._x, self._y = x, y
        self._parts: list[str] = []
        for value in _ticks(*x):
            at = self.at(value, y[0])[0]
            self._parts.append(
                f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" class="grid"/>'
                f'<text x="{at:.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{value:g}</text>'
            )
        for value in _ticks(*y):
            at = self.at(x[0], value)[1]
            self._parts.append(
                f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}" class="grid"/>'
                f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{value:g}</text>'
            )
        self._parts.append(
            f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 10}" text-anchor="middle">'
            f'{escape(x_name)}</text><text x="{_LEFT - 50}" y="{_TOP - 18}">{escape(y_name)}</text>'
        )

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Pixels of a value."""
        wide = (x - self._x[0]) / (self._x[1] - self._x[0])
        high = (y - self._y[0]) / (self._y[1] - self._y[0])
        return (
            _LEFT + wide * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - high * (_HEIGHT - _TOP - _BOTTOM),
        )

    def line(self, points: Sequence[tuple[float, float]], color: str, *, dashed: bool = False) -> None:
        """Joins points."""
        path = " ".join("{:.1f},{:.1f}".format(*self.at(*point)) for point in points)
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self._parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"{dash}/>')

    def add(self, mark: str) -> None:
        """Draws a mark."""
        self._parts.append(mark)

    def svg(self, title: str, below: int = 0) -> str:
        """The chart, with so many pixels more below it."""
        return _svg("".join(self._parts), _HEIGHT + below, title)


def _svg(content: str, height: int, title: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="{escape(title)}">{content}</svg>'
    )


def _steps(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points joined by steps: what lies between two of them is reached by the first alone."""
    found = list(points[:1])
    for before, after in itertools.pairwise(points):
        found += [(after[0], before[1]), after]
    return found


def _range(values: Sequence[float], least: float = 1.0) -> tuple[float, float]:
    """The values with a margin, and never narrower than `least`."""
    low, high = min(values), max(values)
    margin = max(0.15 * (high - low), least)
    return max(0.0, low - margin), high + margin


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers between two."""
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 6)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 10) for n in range(first, math.floor(high / step + 1e-9) + 1)]
