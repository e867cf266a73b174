"""One object as pixels: its coverage in a window of the canvas, and how colour gets there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from sam3i_edge.data.backgrounds import Image
from sam3i_edge.data.palette import RGB, Fill, luma
from sam3i_edge.data.shapes import Contour

_SUPERSAMPLE: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How an object is drawn.

    Attributes:
        color: RGB 0..255.
        fill: "plain", "striped" or "dotted".
        mark: RGB of the stripes or dots; None for plain.
        period: px from one stripe or dot to the next.
        edge: RGB of a contour, or None.
        edge_width: px.
        shading: 0 (flat) to 1.
        shadow: opacity 0 to 1.
    """

    color: RGB
    fill: Fill
    mark: RGB | None
    period: float
    edge: RGB | None
    edge_width: float
    shading: float
    shadow: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cutout:
    """A shape rasterised once, to be tried at many places a whole number of pixels apart.

    Attributes:
        contours: the outline, px, about the origin.
        coverage: uint8 [h, w], 255 where the shape covers the pixel.
        corner: (x, y) px of the window's first pixel relative to the centre's pixel.
        fraction: (x, y) in 0..1, where in its pixel the centre lies.
        extent: px, see `SceneObject`.
        bounds: x0, y0, x1, y1 px of the outline about the origin.
        full_area: pixels of the whole shape.
    """

    contours: list[Contour]
    coverage: NDArray[np.uint8]
    corner: tuple[int, int]
    fraction: tuple[float, float]
    extent: float
    bounds: tuple[float, float, float, float]
    full_area: int

    @classmethod
    def of(cls, contours: list[Contour], extent: float, rng: np.random.Generator) -> Cutout:
        """Rasterises contours given in px about the origin, the outer one first."""
        fraction = rng.random(2)
        (x0, y0), (x1, y1) = contours[0].min(axis=0).tolist(), contours[0].max(axis=0).tolist()
        dx, dy = fraction.tolist()
        left, top, right, bottom = (
            math.floor(x0 + dx) - 1, math.floor(y0 + dy) - 1, math.ceil(x1 + dx) + 1, math.ceil(y1 + dy) + 1
        )  # fmt: skip
        fine = np.zeros(((bottom - top) * _SUPERSAMPLE, (right - left) * _SUPERSAMPLE), np.uint8)
        # 8 fractional bits; the centre of a fine pixel lies at an integer.
        shift = fraction - (left, top)
        polygons = [np.rint(((c + shift) * _SUPERSAMPLE - 0.5) * 256).astype(np.int32) for c in contours]
        cv2.fillPoly(fine, polygons, 255.0, cv2.LINE_8, 8)
        coverage = cv2.resize(fine, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
        return cls(
            contours=contours,
            coverage=coverage.astype(np.uint8, copy=False),
            corner=(left, top),
            fraction=(dx, dy),
            extent=extent,
            bounds=(x0, y0, x1, y1),
            full_area=int(np.count_nonzero(coverage > 127)),
        )

    def window(self, x: int, y: int) -> tuple[int, int, int, int]:
        """x0, y0, x1, y1 of its pixels with the centre in pixel (x, y); may leave the canvas."""
        x0, y0 = x + self.corner[0], y + self.corner[1]
        return x0, y0, x0 + self.coverage.shape[1], y0 + self.coverage.shape[0]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stamp:
    """A cutout at its place on the canvas.

    Attributes:
        cutout: the shape.
        window: rows and columns of the canvas that hold it.
        coverage: uint8 [h, w] over the window.
        inside: bool [h, w], coverage of at least half a pixel.
        center: (x, y) px.
    """

    cutout: Cutout
    window: tuple[slice, slice]
    coverage: NDArray[np.uint8]
    inside: NDArray[np.bool_]
    center: tuple[float, float]

    @classmethod
    def put(cls, cutout: Cutout, x: int, y: int, height: int, width: int) -> Stamp | None:
        """The cutout with its centre in pixel (x, y); None when the canvas's edge cuts off too much."""
        left, top, right, bottom = cutout.window(x, y)
        y0, y1, x0, x1 = max(top, 0), min(bottom, height), max(left, 0), min(right, width)
        if y0 >= y1 or x0 >= x1:
            return None
        coverage = cutout.coverage[y0 - top : y1 - top, x0 - left : x1 - left]
        inside = coverage > 127
        if np.count_nonzero(inside) < 0.75 * cutout.full_area:
            return None
        return cls(
            cutout=cutout,
            window=(slice(y0, y1), slice(x0, x1)),
            coverage=coverage,
            inside=inside,
            center=(x + cutout.fraction[0], y + cutout.fraction[1]),
        )

    def visible(self, labels: NDArray[np.int8], index: int) -> int:
        """Pixels that carry the object's label."""
        return int(np.count_nonzero(labels[self.window] == index))


def paint(canvas: Image, stamp: Stamp, look: Look, rng: np.random.Generator) -> None:
    """Draws the object on the canvas, in place: shadow, fill, shading, contour."""
    if look.shadow:
        _shadow(canvas, stamp, look.shadow, rng)
    height, width = stamp.coverage.shape
    x = np.arange(width, dtype=np.float32)[None, :] + np.float32(stamp.window[1].start - stamp.center[0])
    y = np.arange(height, dtype=np.float32)[:, None] + np.float32(stamp.window[0].start - stamp.center[1])
    if look.edge is not None and not _bold(stamp, look):
        _contour(canvas, stamp, look.edge, look.edge_width)
    ink = _ink(look, x, y, rng)
    if look.shading:
        ink = _shaded(ink, look, stamp.cutout.extent, x, y, rng)
    under = canvas[stamp.window].astype(np.float32)
    coverage = stamp.coverage[..., None] * np.float32(1 / 255)
    blend = under + coverage * (ink - under) + np.float32(0.5)
    if look.shading:
        np.clip(blend, 0, 255, out=blend)
    canvas[stamp.window] = blend.astype(np.uint8)
    if look.edge is not None and _bold(stamp, look):
        _contour(canvas, stamp, look.edge, look.edge_width)


def _ink(
    look: Look, x: NDArray[np.float32], y: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.float32]:
    if look.mark is None:
        return np.broadcast_to(look.color, (y.shape[0], x.shape[1], 3))
    angle = (
        rng.choice([0.0, math.pi / 2, math.pi / 4, -math.pi / 4])
        if rng.random() < 0.6
        else rng.uniform(0, math.pi)
    )
    cos, sin = math.cos(angle), math.sin(angle)
    period, phase = look.period, rng.uniform(0, 1, 2)
    u = (x * np.float32(cos) + y * np.float32(sin)) / np.float32(period) + np.float32(phase[0])
    if look.fill == "striped":
        share = rng.uniform(0.32, 0.46)  # less than half: the colour that names it dominates
        edge = (share / 2 - np.abs(u - np.floor(u) - 0.5)) * period
    else:
        v = (y * np.float32(cos) - x * np.float32(sin)) / np.float32(period) + np.float32(phase[1])
        if rng.random() < 0.5:  # every other row shifted by half
            u = u + 0.5 * (np.floor(v) % 2)
        radius = rng.uniform(0.25, 0.34)
        edge = (radius - np.hypot(u - np.floor(u) - 0.5, v - np.floor(v) - 0.5)) * period
    weight = np.clip(edge + 0.5, 0, 1).astype(np.float32)[..., None]
    mixed: NDArray[np.float32] = look.color + weight * (look.mark - look.color)
    return mixed


def _shaded(
    ink: NDArray[np.float32],
    look: Look,
    extent: float,
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """A linear gradient or a highlight, weak enough that the colour keeps its name."""
    if rng.random() < 0.55:
        angle = rng.uniform(0, math.tau)
        way = (x * np.float32(math.cos(angle)) + y * np.float32(math.sin(angle))) / np.float32(extent)
        light = way * np.float32(rng.uniform(0.1, 0.5) * look.shading)
    else:
        shift = rng.uniform(-0.25, 0.25, 2) * extent
        far = ((x - np.float32(shift[0])) ** 2 + (y - np.float32(shift[1])) ** 2) / np.float32(
            (0.55 * extent) ** 2
        )
        light = np.float32(rng.uniform(0.12, 0.3) * look.shading) * (1.2 - 2 * np.minimum(far, 1))
    if luma(look.color) > 215:
        light = light * 0.35 - 0.03  # a strongly shaded white would be grey
    lighter = (
        np.clip(light, 0, 0.3)[..., None] * (255 - ink) * np.float32(0.35 if luma(look.color) < 40 else 0.6)
    )
    return (ink * (1 + np.clip(light, -0.25, 0)[..., None]) + lighter).astype(np.float32, copy=False)


def _shadow(canvas: Image, stamp: Stamp, opacity: float, rng: np.random.Generator) -> None:
    reach = max(1, round(stamp.cutout.extent * 0.07))
    rows, columns = stamp.window
    dx, dy = (int(v) for v in rng.integers(-reach, reach + 1, 2))
    dy = abs(dy) + 1
    pad = 2 * reach
    top, left = rows.start - pad, columns.start - pad
    height, width = stamp.coverage.shape
    field = np.zeros((height + 2 * pad, width + 2 * pad), np.float32)
    field[pad + dy : pad + dy + height, pad + dx : pad + dx + width] = stamp.coverage * np.float32(1 / 255)
    field = cv2.blur(field, (reach * 2 + 1, reach * 2 + 1)).astype(np.float32)
    y0, x0 = max(0, -top), max(0, -left)
    y1, x1 = min(field.shape[0], canvas.shape[0] - top), min(field.shape[1], canvas.shape[1] - left)
    view = canvas[top + y0 : top + y1, left + x0 : left + x1]
    view[...] = np.rint(view * (1 - np.float32(opacity) * field[y0:y1, x0:x1, None])).astype(np.uint8)


def _bold(stamp: Stamp, look: Look) -> bool:
    """Whether the shape is thick enough to bear a contour on it; else only its outer half is left to see."""
    length = sum(cv2.arcLength(contour.astype(np.float32), True) for contour in stamp.cutout.contours)
    return 2 * stamp.cutout.full_area / length > 7 * max(1.0, look.edge_width)


def _contour(canvas: Image, stamp: Stamp, color: RGB, width: float) -> None:
    polygons = [np.rint((c + stamp.center - 0.5) * 16).astype(np.int32) for c in stamp.cutout.contours]
    ink = tuple(float(channel) for channel in color)
    cv2.polylines(canvas, polygons, True, ink, max(1, round(width)), cv2.LINE_AA, 4)
