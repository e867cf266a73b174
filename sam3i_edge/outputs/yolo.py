"""YOLO's segmentation text: a folder with data.yaml, images/ and labels/, a line an instance.

The format has one ring an instance. Parts and holes are joined to it by seams of no width, so that what the
ring encloses, by the even-odd rule or by its winding, is the mask.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.files import link_or_copy, write_whole
from sam3i_edge.masks import rle
from sam3i_edge.masks.outline import polygons
from sam3i_edge.outputs.answer import inner_path
from sam3i_edge.outputs.coco import readable


def write_yolo(
    folder: Path,
    lines: Iterable[Mapping[str, Any]],
    categories: Sequence[str],
    picture: Callable[[str], Path],
) -> None:
    """Writes the data set into a folder.

    Args:
        folder: exists, and is empty.
        lines: of pictures, see `coco.write_coco`.
        categories: names, by class from 0.
        picture: the file of a picture's name; it is linked, or copied where that cannot be.

    Raises:
        OSError: it cannot be written.
    """
    for line in readable(lines):
        name = inner_path(line["name"])
        image, text = folder / "images" / name, folder / "labels" / name.with_suffix(".txt")
        for path in (image, text):
            path.parent.mkdir(parents=True, exist_ok=True)
        link_or_copy(picture(line["name"]), image)
        height, width = line["size"]
        rows = [
            f"{number} " + " ".join(f"{side:.6f}" for side in (ring / (width, height)).ravel())
            for number, result in enumerate(line["results"])
            for instance in result["instances"]
            if len(ring := one_ring(instance["mask"]))
        ]
        write_whole(text, "".join(row + "\n" for row in rows))
    # JSON is YAML too, and any name is safe in it.
    names = "".join(f"  {number}: {json.dumps(name)}\n" for number, name in enumerate(categories))
    write_whole(folder / "data.yaml", f"path: .\ntrain: images\nval: images\nnames:\n{names}")


def one_ring(mask: Mapping[str, Any]) -> NDArray[np.float64]:
    """A mask's parts and holes as one ring, [P, 2] (x, y) px; empty where the mask is."""
    rings = [
        _directed(ring.astype(np.float64), outer=ring is exterior)
        for exterior, holes in polygons(rle.decode(mask))
        for ring in (exterior, *holes)
    ]
    if not rings:
        return np.zeros((0, 2))
    joined = rings[0]
    for ring in rings[1:]:
        # The first point of the ring, and the nearest of what is joined already: there and back.
        seam = int(np.square(joined - ring[0]).sum(axis=1).argmin())
        joined = np.concatenate([joined[: seam + 1], ring, ring[:1], joined[seam:]])
    return joined


def _directed(ring: NDArray[np.float64], *, outer: bool) -> NDArray[np.float64]:
    """The ring in the direction in which a hole takes from what is around it."""
    x, y = ring.T
    positive = float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) > 0
    return ring if positive is outer else ring[::-1]
