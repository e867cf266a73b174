"""How cost grows: instructions on a picture, its size, instances, length of a stream, side of the input."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from sam3i_edge.measure.plan import Planned
from sam3i_edge.measure.process import RowProcess
from sam3i_edge.measure.questions import Question, questions
from sam3i_edge.measure.schema import END_TO_END, Curve, Point
from sam3i_edge.measure.sides import sides_curves

_COUNTS = (1, 2, 4, 8, 16, 32, 64)
_INSTANCES = (1, 2, 5, 10, 20, 50, 100, 200)
_SIDES = ((480, 640), (720, 1280), (1080, 1920), (2160, 3840))
_GRID = 288  # side of the mask logits at the official size


def curves(
    planned: Sequence[Planned], threads: int, *, turns: int, frames: int, tell: Callable[[str], None]
) -> tuple[Curve, ...]:
    """Measures all curves of each row.

    Args:
        planned: the rows, each asked at its last level.
        threads: as in the rows.
        turns: how often a point is measured, at least 1.
        frames: length of the stream.
        tell: called with a word on each curve. Sides are measured where a bundle has float weights and torch
            is installed.

    Raises:
        ExportError: a graph of another side cannot be exported.
        RuntimeUnavailable: a row does not run.
    """
    found = []
    for row in planned:
        asked = questions(row.levels[-1])
        texts = [asked[i % len(asked)].text for i in range(_COUNTS[-1])]
        with RowProcess(row, threads) as process:
            process.start(asked[0])
            tell(f"{row.name}: instructions on one picture")
            process.call("curve", asked[0].image, texts[:4], asked[0].level)
            spent = [process.call("curve", asked[t].image, texts, asked[t].level) for t in range(turns)]
            series: dict[float, list[float]] = {count: [one[count - 1] for one in spent] for count in _COUNTS}
            found.append(_curve(f"{row.name}: instructions on one picture", "instructions", "ms", series))
            tell(f"{row.name}: size of the picture")
            series = {}
            for size in _SIDES:
                picture = [Question(_stretched(q.image, size), q.text, q.level) for q in asked[:2]]
                process.call("load", picture)
                process.timed(2)
                series[size[0] * size[1] / 1e6] = process.timed(4 * turns)[0][END_TO_END]
            found.append(_curve(f"{row.name}: size of the picture", "megapixels", "ms", series))
            tell(f"{row.name}: {frames:,} frames of a stream")
            memory = process.call("stream", [q.image for q in asked[:16]], asked[0].text, frames)
            points = tuple(Point(x=x, p50=y, p90=y) for x, y in memory)
            found.append(Curve(title=f"{row.name}: memory over a stream", x="frames", y="MiB", points=points))
    for bundle in {row.bundle.root: row.bundle for row in planned}.values():
        weights = bundle.weights()
        if weights is not None:
            try:
                found += sides_curves(bundle.manifest.name, weights, threads, turns=turns, tell=tell)
            except ModuleNotFoundError as missing:
                tell(f"no curve of sides: {missing.name} is not installed ('sam3i-edge[export]')")
    tell("post-processing by instances")
    found.append(instances_curve(turns))
    return tuple(found)


def instances_curve(turns: int, size: tuple[int, int] = _SIDES[2]) -> Curve:
    """Milliseconds from the detector's 200 queries to run lengths, by how many pass the threshold."""
    from sam3i_edge.masks.native import mask_rle
    from sam3i_edge.pipeline.postprocess import select

    logits = disks(_INSTANCES[-1])
    boxes = np.tile(np.array([0.1, 0.1, 0.9, 0.9], np.float32), (len(logits), 1))
    series: dict[float, list[float]] = {}
    for count in _INSTANCES:
        scores = np.where(np.arange(len(logits)) < count, 0.9, 0.1).astype(np.float32)
        for turn in range(turns + 1):
            started = time.perf_counter()
            found = select(scores, boxes, logits, 3.0, size)
            for one in found.mask_logits:
                mask_rle(one, size)
            if turn:  # the first warms up
                series.setdefault(count, []).append(1e3 * (time.perf_counter() - started))
    return _curve(f"post-processing at {size[1]} x {size[0]}", "instances", "ms", series)


def disks(count: int, grid: int = _GRID, seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Mask logits float32 [count, grid, grid] of disks of many sizes, positive inside."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:grid, :grid].astype(np.float32)
    centers, radii = rng.uniform(0, grid, (count, 2)), rng.uniform(0.03, 0.2, count) * grid
    return np.stack(
        [r - np.hypot(x - cx, y - cy) for (cx, cy), r in zip(centers, radii, strict=True)]
    ).astype(np.float32)  # fmt: skip


def _stretched(
    image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], size: tuple[int, int]
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    rows = np.arange(size[0]) * image.shape[0] // size[0]
    columns = np.arange(size[1]) * image.shape[1] // size[1]
    return image[rows][:, columns]


def _curve(title: str, x: str, y: str, series: dict[float, list[float]]) -> Curve:
    points = tuple(
        Point(x=at, p50=float(np.median(values)), p90=float(np.percentile(values, 90)))
        for at, values in series.items()
    )
    return Curve(title=title, x=x, y=y, points=points)
