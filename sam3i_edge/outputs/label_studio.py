"""Label Studio's tasks with predictions, to be imported and corrected there; and the labelling interface."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from sam3i_edge.files import whole_file, write_whole
from sam3i_edge.outputs.coco import readable, write_list
from sam3i_edge.outputs.yolo import one_ring


def write_label_studio(
    path: Path, lines: Iterable[Mapping[str, Any]], categories: Sequence[str], *, model: str
) -> None:
    """Writes the tasks, and beside them the interface, FILE.xml.

    A task's picture is its name under local files (`/data/local-files/?d=`): serve the folder of the pictures
    as the local storage. An instance is one polygon, in percent.

    Args:
        path: to write, .json.
        lines: of pictures, see `coco.write_coco`.
        categories: names, in the order of each line's results.
        model: what made the predictions.

    Raises:
        OSError: it cannot be written.
    """
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        write_list(file, (_task(line, categories, model) for line in readable(lines)))
        file.write("\n")
    labels = "".join(f"    <Label value={quoteattr(name)}/>\n" for name in categories)
    write_whole(
        path.with_suffix(".xml"),
        '<View>\n  <Image name="image" value="$image"/>\n  <PolygonLabels name="label" toName="image">\n'
        f"{labels}  </PolygonLabels>\n</View>\n",
    )


def _task(line: Mapping[str, Any], categories: Sequence[str], model: str) -> dict[str, Any]:
    found = list(_regions(line, categories))
    scores = [region["score"] for region in found]
    prediction = {"model_version": model, "score": min(scores, default=1.0), "result": found}
    return {"data": {"image": f"/data/local-files/?d={line['name']}"}, "predictions": [prediction]}


def _regions(line: Mapping[str, Any], categories: Sequence[str]) -> Iterator[dict[str, Any]]:
    height, width = line["size"]
    for name, result in zip(categories, line["results"], strict=True):
        for place, instance in enumerate(result["instances"]):
            ring = one_ring(instance["mask"]) * (100 / width, 100 / height)
            if not len(ring):
                continue
            content = json.dumps([line["name"], name, place])
            yield {
                "id": hashlib.sha256(content.encode()).hexdigest()[:10],
                "type": "polygonlabels",
                "from_name": "label",
                "to_name": "image",
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "score": instance["score"],
                "value": {"points": ring.round(6).tolist(), "closed": True, "polygonlabels": [name]},
            }
