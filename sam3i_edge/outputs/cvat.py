"""CVAT for images 1.1: masks as run lengths of their boxes' rows, scores as attributes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.files import whole_file
from sam3i_edge.masks import rle
from sam3i_edge.outputs.coco import readable

_SCORE = (
    "<attribute><name>score</name><mutable>False</mutable><input_type>text</input_type>"
    "<default_value></default_value><values></values></attribute>"
)


def write_cvat(path: Path, lines: Iterable[Mapping[str, Any]], categories: Sequence[str]) -> None:
    """Writes the file, whole, of any number of pictures: none is held.

    Args:
        path: to write, .xml.
        lines: of pictures, see `coco.write_coco`.
        categories: names, in the order of each line's results.

    Raises:
        OSError: it cannot be written.
    """
    labels = "".join(
        f"<label><name>{escape(name)}</name><type>mask</type><attributes>{_SCORE}</attributes></label>"
        for name in categories
    )
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n')
        file.write(f"<meta><task><labels>{labels}</labels></task></meta>\n")
        for number, line in enumerate(readable(lines)):
            _write_image(file, number, line, categories)
        file.write("</annotations>\n")


def _write_image(file: TextIO, number: int, line: Mapping[str, Any], categories: Sequence[str]) -> None:
    height, width = line["size"]
    file.write(f'<image id="{number}" name={quoteattr(line["name"])} width="{width}" height="{height}">\n')
    for name, result in zip(categories, line["results"], strict=True):
        for instance in result["instances"]:
            mask = rle.decode(instance["mask"])
            if not mask.any():
                continue
            x, y, w, h = map(int, rle.box(instance["mask"]))
            runs = ", ".join(map(str, _row_runs(mask[y : y + h, x : x + w])))
            file.write(
                f'<mask label={quoteattr(name)} source="auto" occluded="0" rle="{runs}" left="{x}" top="{y}" '
                f'width="{w}" height="{h}" z_order="0">'
                f'<attribute name="score">{instance["score"]}</attribute></mask>\n'
            )
    file.write("</image>\n")


def _row_runs(mask: NDArray[np.bool_]) -> list[int]:
    """Lengths of the runs of a mask [H, W], row by row, background first."""
    return [int(count) for count in rle.counts_of(mask.T)]
