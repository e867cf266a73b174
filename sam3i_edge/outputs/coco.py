"""COCO instances: one category an instruction, masks as run lengths or polygons, scores and track ids."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from sam3i_edge.files import whole_file
from sam3i_edge.masks import rle
from sam3i_edge.masks.outline import polygons


def write_coco(
    path: Path, lines: Iterable[Mapping[str, Any]], categories: Sequence[str], *, outlines: bool = False
) -> None:
    """Writes a COCO file, whole, of any number of pictures: none is held.

    Images are numbered from 1 in the order of the lines, categories from 1 in theirs.

    Args:
        path: to write.
        lines: of `Answer.line`, gone through twice; those with an error are left out.
        categories: names, in the order of each line's results.
        outlines: polygons instead of run lengths; they have no holes, so areas may differ.

    Raises:
        OSError: it cannot be written.
    """
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write('{"info": {"description": "written by sam3i-edge"}, "licenses": [], "categories": ')
        json.dump([{"id": n, "name": name} for n, name in enumerate(categories, start=1)], file)
        file.write(', "images": ')
        write_list(file, _images(lines))
        file.write(', "annotations": ')
        write_list(file, _annotations(lines, outlines))
        file.write("}\n")


def write_list(file: TextIO, items: Iterable[Mapping[str, Any]]) -> None:
    """Writes a JSON list, an item a line."""
    file.write("[")
    for number, item in enumerate(items):
        file.write(("," if number else "") + "\n" + json.dumps(item, allow_nan=False))
    file.write("]")


def _images(lines: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(readable(lines), start=1):
        height, width = line["size"]
        yield {"id": number, "file_name": line["name"], "width": width, "height": height}


def _annotations(lines: Iterable[Mapping[str, Any]], outlines: bool) -> Iterator[dict[str, Any]]:
    number = 0
    for image, line in enumerate(readable(lines), start=1):
        for category, result in enumerate(line["results"], start=1):
            for instance in result["instances"]:
                mask = instance["mask"]
                shape = exteriors(mask) if outlines else mask
                if not rle.area(mask) or not shape:
                    continue
                number += 1
                track = {"track_id": instance["track_id"]} if "track_id" in instance else {}
                yield {
                    "id": number,
                    "image_id": image,
                    "category_id": category,
                    "segmentation": shape,
                    "area": rle.area(mask),
                    "bbox": [float(side) for side in rle.box(mask)],
                    "iscrowd": 0,
                    "score": instance["score"],
                    **track,
                }


def readable(lines: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The lines of pictures that could be read."""
    return (line for line in lines if "error" not in line)


def exteriors(mask: Mapping[str, Any]) -> list[list[float]]:
    """The outer rings of a mask's parts: x0, y0, x1, y1, … in pixels."""
    return [polygon.exterior.ravel().tolist() for polygon in polygons(rle.decode(mask))]
