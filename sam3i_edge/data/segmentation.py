"""A target's outline as files write it, polygons or run lengths, and its mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.data.polygons import polygon_mask
from sam3i_edge.errors import DataError
from sam3i_edge.masks import rle

Segmentation = Sequence[Sequence[float]] | Mapping[str, Any]  # polygons, or COCO run lengths


def mask_of(segmentation: Segmentation, height: int, width: int, where: str) -> NDArray[np.bool_]:
    """The mask bool [height, width].

    Args:
        segmentation: polygons are united.
        height: of the picture, px.
        width: likewise.
        where: names file, image and annotation in errors.

    Raises:
        DataError: it does not decode to the picture's size.
    """
    try:
        if not isinstance(segmentation, Mapping):
            return polygon_mask(segmentation, height, width)
        if list(segmentation.get("size", ())) == [height, width]:
            return rle.decode(segmentation)
    except ValueError as error:
        raise DataError(f"{where}: segmentation: {error}; write it again with its real size") from error
    found = " x ".join(map(str, segmentation.get("size", ())))
    raise DataError(
        f"{where}: segmentation is {found} (height x width), its image {height} x {width}; "
        "correct the one that is wrong"
    )
