"""The masks of one image, kept small and made at its size when they are asked for."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.masks import native, rle
from sam3i_edge.masks.outline import Polygon, polygons
from sam3i_edge.pipeline.postprocess import read_only

Index: TypeAlias = int | slice | Sequence[int] | NDArray[np.bool_] | NDArray[np.integer]


class LazyMasks:
    """N masks of an image, as logits or as run lengths. May be shared by threads; arrays are read-only."""

    def __init__(
        self,
        image_size: tuple[int, int],
        logits: NDArray[np.float32] | None,
        packed: tuple[str, ...] | None,
    ) -> None:
        """Keeps what is given; makes nothing yet.

        Args:
            image_size: (H, W), pixels.
            logits: [N, M, M] float32, above 0 inside; or None.
            packed: N strings, COCO's compressed run lengths, where there are no logits.
        """
        self.image_size, self.logits, self.packed = image_size, logits, packed

    @functools.cached_property
    def runs(self) -> tuple[native.MaskRuns, ...]:
        """The run lengths, area and box of each mask."""
        if self.logits is not None:
            return tuple(native.mask_rle(logits, self.image_size) for logits in self.logits)
        return tuple(
            {
                "size": list(self.image_size),
                "counts": rle.decompress(mask["counts"]),
                "area": rle.area(mask),
                "bbox": [int(side) for side in rle.box(mask)],
            }
            for mask in self.rle
        )

    @functools.cached_property
    def _counts(self) -> tuple[str, ...]:
        if self.packed is not None:
            return self.packed
        return tuple(rle.compress(runs["counts"]) for runs in self.runs)

    @property
    def rle(self) -> list[rle.Rle]:
        """COCO run lengths, with `counts` as text."""
        return [{"size": list(self.image_size), "counts": counts} for counts in self._counts]

    def __len__(self) -> int:
        return len(self.logits if self.logits is not None else self._counts)

    def __iter__(self) -> Iterator[NDArray[np.bool_]]:
        """The masks [H, W] bool one by one."""
        for runs in self.runs:
            yield rle.decode(runs)

    @functools.cached_property
    def stacked(self) -> NDArray[np.bool_]:
        """[N, H, W] bool."""
        masks = np.empty((len(self), *self.image_size), dtype=np.bool_)
        for number, mask in enumerate(self):
            masks[number] = mask
        return read_only(masks)

    @functools.cached_property
    def merged(self) -> NDArray[np.bool_]:
        """[H, W] bool, the union."""
        union = np.zeros(self.image_size, dtype=np.bool_)
        for mask in self:
            union |= mask
        return read_only(union)

    @functools.cached_property
    def areas(self) -> NDArray[np.int64]:
        """[N] int64, pixels."""
        return read_only(np.array([runs["area"] for runs in self.runs], dtype=np.int64))

    @functools.cached_property
    def polygons(self) -> tuple[tuple[Polygon, ...], ...]:
        """The outlines of each mask."""
        return tuple(polygons(mask) for mask in self)

    def take(self, rows: NDArray[np.int64]) -> LazyMasks:
        """Some of the masks; what was made already is not made again."""
        part = LazyMasks(
            self.image_size,
            None if self.logits is None else read_only(self.logits[rows]),
            None if self.packed is None else tuple(self.packed[row] for row in rows),
        )
        if "runs" in self.__dict__:
            part.__dict__["runs"] = tuple(self.runs[row] for row in rows)
        return part


def rows_of(index: Index, count: int) -> NDArray[np.int64]:
    """The positions among `count` that an index means: an int, a slice, positions, or `count` booleans.

    Raises:
        IndexError: a position is out of range, or there are not `count` booleans.
        TypeError: `index` is none of these.
    """
    every = np.arange(count, dtype=np.int64)
    if isinstance(index, slice):
        return every[index]
    wanted = np.atleast_1d(index)
    if wanted.size == 0 and wanted.dtype != np.bool_:
        wanted = wanted.astype(np.int64)  # an empty list comes as float64
    if isinstance(index, (bool, np.bool_)) or wanted.ndim != 1 or wanted.dtype.kind not in "biu":
        raise TypeError(f"index a Result by int, slice, positions or N booleans, not {index!r}")
    rows: NDArray[np.int64] = every[wanted]
    return rows
