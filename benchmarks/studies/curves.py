"""How cost grows: instructions on a picture, its size, and instances.

The side of the input is in `sides`, memory over a stream in `stream_memory.py`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam3i_edge import Segmenter
from sam3i_edge.masks.native import mask_rle
from sam3i_edge.measure.plan import Planned
from sam3i_edge.measure.questions import questions
from sam3i_edge.pipeline.postprocess import select
from studies.findings import Curve, Point

_COUNTS = (1, 2, 4, 8, 16, 32, 64)
_INSTANCES = (1, 2, 5, 10, 20, 50, 100, 200)
_SIZES = ((480, 640), (720, 1280), (1080, 1920), (2160, 3840))
_GRID = 288  # side of the mask logits at the official size


def row_curves(row: Planned, threads: int, turns: int) -> tuple[Curve, Curve]:
    """Milliseconds by instructions on one picture, which is encoded once, and by its size; with masks.

    Args:
        row: asked at its last level; nothing is cached.
        threads: of the runtime.
        turns: how often a point is measured, at least 1.

    Raises:
        RuntimeUnavailable: the row does not run.
    """
    asked = questions(row.levels[-1])
    texts = [asked[i % len(asked)].text for i in range(_COUNTS[-1])]
    by_count: dict[float, list[float]] = {count: [] for count in _COUNTS}
    by_size: dict[float, list[float]] = {}
    where = (row.bundle.root, row.device, row.precision, row.runtime)
    with Segmenter(*where, threads=threads, image_cache=0, instruction_cache=0) as segmenter:
        for turn in range(turns + 1):
            spent = _instructions(segmenter, asked[turn].image, texts, asked[turn].level)
            for count, times in by_count.items() if turn else ():  # the first warms up
                times.append(spent[int(count) - 1])
        for size in _SIZES:
            picture = _stretched(asked[0].image, size)
            times = [
                _instructions(segmenter, picture, [text], row.levels[-1])[0] for text in texts[: turns + 1]
            ]
            by_size[size[0] * size[1] / 1e6] = times[1:]
    return (
        _curve(f"{row.name}: instructions on one picture", "instructions", by_count),
        _curve(f"{row.name}: size of the picture", "megapixels", by_size),
    )


def instances_curve(turns: int, size: tuple[int, int] = _SIZES[2]) -> Curve:
    """Milliseconds from the detector's 200 queries to run lengths, by how many pass the threshold."""
    logits = disks(_INSTANCES[-1])
    boxes = np.tile(np.array([0.1, 0.1, 0.9, 0.9], np.float32), (len(logits), 1))
    series: dict[float, list[float]] = {count: [] for count in _INSTANCES}
    for count, times in series.items():
        scores = np.where(np.arange(len(logits)) < count, 0.9, 0.1).astype(np.float32)
        for turn in range(turns + 1):
            started = time.perf_counter()
            for one in select(scores, boxes, logits, 3.0, size).mask_logits:
                mask_rle(one, size)
            if turn:  # the first warms up
                times.append(1e3 * (time.perf_counter() - started))
    return _curve(f"post-processing at {size[1]} x {size[0]}", "instances", series)


def disks(count: int, grid: int = _GRID, seed: int = 0) -> NDArray[np.float32]:
    """Mask logits float32 [count, grid, grid] of disks of many sizes, positive inside."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:grid, :grid].astype(np.float32)
    centers, radii = rng.uniform(0, grid, (count, 2)), rng.uniform(0.03, 0.2, count) * grid
    return np.stack(
        [r - np.hypot(x - cx, y - cy) for (cx, cy), r in zip(centers, radii, strict=True)]
    ).astype(np.float32)  # fmt: skip


def _instructions(segmenter: Segmenter, image: Any, texts: Sequence[str], level: Any) -> list[float]:
    """Milliseconds until 1, 2, ... instructions on a picture were answered."""
    started = time.perf_counter()
    scene = segmenter.encode(image)
    spent = []
    for text in texts:
        _ = scene.segment(text, level=level).mask_rle
        spent.append(1e3 * (time.perf_counter() - started))
    return spent


def _stretched(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    rows = np.arange(size[0]) * image.shape[0] // size[0]
    columns = np.arange(size[1]) * image.shape[1] // size[1]
    return image[rows][:, columns]


def _curve(title: str, x: str, series: Mapping[float, Sequence[float]]) -> Curve:
    points = tuple(
        Point(x=at, p50=float(np.median(values)), p90=float(np.percentile(values, 90)))
        for at, values in series.items()
    )
    return Curve(title=title, x=x, y="ms", points=points)
