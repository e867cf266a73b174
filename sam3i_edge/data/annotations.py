"""SAM3-I's annotation JSON, read and written, and a folder of drawn scenes in it.

The layout is COCO's with the instructions on the image record:

    images[]:      {id, file_name, width, height, granularity?,
                    text_inst_input: {concept: [str], simple_query: [str], complex_query: [str]}}
    annotations[]: {id, image_id, category_id?, bbox?, iscrowd?, segmentation: polygons | run lengths}
    categories[]:  {id, name}

HMPL-Instruct and RefCOCO files in this layout are read too. `granularity` is this project's addition. All
annotations of an image record are its targets, whatever their category.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from sam3i_edge.data.checks import Field
from sam3i_edge.data.instructions import GRANULARITIES
from sam3i_edge.data.records import Annotation, Record, Segmentation, scene_records, targets_of
from sam3i_edge.data.scenes import draw_scene
from sam3i_edge.errors import DataError
from sam3i_edge.files import write_whole

__all__ = ["Annotation", "Record", "read_annotations", "targets_of", "write_annotations", "write_scenes"]

ANNOTATIONS: Final = "annotations.json"
IMAGES: Final = "images"

_TEXTS: Final = {"concept": "concept", "simple": "simple_query", "complex": "complex_query"}


def read_annotations(path: str | Path) -> list[Record]:
    """Reads a SAM3-I annotation file, in the order of its images.

    Masks are decoded by `Record.masks`, not here.

    Raises:
        DataError: the file is missing, no JSON, or a record breaks the layout; names file, record and field.
    """
    path = Path(path)
    top = Field(_loaded(path), str(path)).mapping()
    categories = {
        item["id"].whole(): item["name"].text()
        for item in (entry.mapping() for entry in top.get("categories", []).items())
    }
    images = [entry.mapping() for entry in top["images"].items()]
    targets: dict[int, list[Annotation]] = {}
    for number, image in enumerate(images):
        identity = image["id"].whole()
        if identity in targets:
            raise image["id"].error(f"{identity} appears twice; give every record its own id")
        targets[identity] = []
        images[number] = image.named(f"image {identity}")
    for number, entry in enumerate(top["annotations"].items()):
        item = entry.mapping()
        identity = item.get("id", number + 1).whole()
        item = item.named(f"annotation {identity}")
        image_id = item["image_id"].whole()
        if image_id not in targets:
            raise item["image_id"].error(f"{image_id} is the id of no image")
        category = item.get("category_id", None)
        targets[image_id].append(
            Annotation(
                id=identity,
                category=categories.get(category.whole(), "") if category.value is not None else "",
                bbox=item["bbox"].box() if item.get("bbox", None).value is not None else None,
                segmentation=_segmentation(item["segmentation"]),
                iscrowd=item.get("iscrowd", 0).whole(),
            )
        )
    return [_record(image, targets[image["id"].whole()], str(path)) for image in images]


def write_annotations(path: str | Path, records: Iterable[Record]) -> None:
    """Writes records as one annotation file, whole or not at all.

    Args:
        path: replaced when the new file is complete; its folder must exist.
        records: image ids and annotation ids must each be unique.

    Raises:
        ValueError: an id appears twice.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    categories: dict[str, int] = {}
    for record in records:
        images.append(
            {
                "id": record.image_id,
                "file_name": record.file_name,
                "width": record.width,
                "height": record.height,
                **({} if record.granularity is None else {"granularity": record.granularity}),
                "text_inst_input": {key: list(getattr(record, name)) for name, key in _TEXTS.items()},
            }
        )
        for target in record.annotations:
            entry: dict[str, Any] = {"id": target.id, "image_id": record.image_id}
            if target.category:
                entry["category_id"] = categories.setdefault(target.category, len(categories) + 1)
            if target.bbox is not None:
                entry["bbox"] = list(target.bbox)
            entry["iscrowd"] = target.iscrowd
            entry["segmentation"] = _plain(target.segmentation)
            annotations.append(entry)
    for kind, entries in (("image", images), ("annotation", annotations)):
        ids = [entry["id"] for entry in entries]
        if len(set(ids)) != len(ids):
            twice = next(i for i in ids if ids.count(i) > 1)
            raise ValueError(f"{kind} id {twice} appears twice; number the {kind}s anew before writing")
    whole = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for name, number in categories.items()],
    }
    write_whole(Path(path), json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode())


def write_scenes(
    out: str | Path, count: int, seed: int, progress: Callable[[int], None] | None = None
) -> list[Record]:
    """Draws scenes into OUT/images/*.png and their records into OUT/annotations.json.

    The same count and seed write the same files. The annotation file comes last, so a folder without
    it is unfinished.

    Args:
        out: a folder that does not exist or is empty.
        count: scenes, at least 1.
        seed: 0 or more; scene i of a seed is the same whatever the count.
        progress: called with the number of scenes finished after each.

    Returns:
        The records written; their file names are relative to OUT/images.

    Raises:
        ValueError: a count below 1 or a negative seed.
        DataError: OUT is a file or holds something, or a picture cannot be written.
    """
    if count < 1 or seed < 0:
        raise ValueError(f"count must be at least 1 and seed at least 0, got {count} and {seed}")
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file; name a folder to write the scenes to")
    if out.is_dir() and any(out.iterdir()):
        raise DataError(f"{out} is not empty; name a new folder, or empty this one first")
    (out / IMAGES).mkdir(parents=True, exist_ok=True)
    records: list[Record] = []
    annotations = 0
    digits = max(6, len(str(count - 1)))
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        scene = draw_scene(rng)
        name = f"{number:0{digits}d}.png"
        written, encoded = cv2.imencode(".png", np.ascontiguousarray(scene.image[..., ::-1]))
        if not written:
            raise DataError(f"could not encode {name}; this OpenCV build writes no PNG")
        write_whole(out / IMAGES / name, encoded.tobytes())
        for record in scene_records(scene, rng, file_name=name, first_id=len(records) + 1):
            renumbered = tuple(replace(a, id=annotations + i + 1) for i, a in enumerate(record.annotations))
            annotations += len(renumbered)
            records.append(replace(record, annotations=renumbered))
        if progress is not None:
            progress(number + 1)
    write_annotations(out / ANNOTATIONS, records)
    return records


def _loaded(path: Path) -> object:
    try:
        loaded: object = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"{path}: {reason}; name an annotation file in the SAM3-I layout") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not text in UTF-8; name an annotation file in the SAM3-I layout"
        ) from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path} is not valid JSON (line {error.lineno}, column {error.colno}: {error.msg}); "
            "was it copied to its end?"
        ) from error
    return loaded


def _record(image: Field, targets: list[Annotation], source: str) -> Record:
    texts = image["text_inst_input"].mapping()
    granularity = image.get("granularity", None)
    if granularity.value is not None and granularity.value not in GRANULARITIES:
        raise granularity.error(f"{granularity.value!r} is none of {', '.join(GRANULARITIES)}")
    return Record(
        image_id=image["id"].whole(),
        file_name=image["file_name"].text(),
        width=image["width"].whole(least=1),
        height=image["height"].whole(least=1),
        granularity=granularity.value,
        annotations=tuple(targets),
        source=source,
        **{name: texts.get(key, []).texts() for name, key in _TEXTS.items()},
    )


def _segmentation(entry: Field) -> Segmentation:
    """Checked for its form here; whether run lengths fill the picture shows when they are decoded."""
    if not isinstance(entry.value, Mapping):
        return [polygon.polygon() for polygon in entry.items(least=1)]
    parts = entry.mapping()
    size = [side.whole(least=1) for side in parts["size"].items()]
    if len(size) != 2:
        raise parts["size"].error(f"must be [height, width], got {size}")
    counts = parts["counts"]
    if not isinstance(counts.value, str):
        return {"size": size, "counts": [count.whole(least=0) for count in counts.items()]}
    return {"size": size, "counts": counts.value}


def _plain(segmentation: Segmentation) -> object:
    if not isinstance(segmentation, Mapping):
        return [[float(value) for value in polygon] for polygon in segmentation]
    counts = segmentation["counts"]
    if isinstance(counts, bytes):
        counts = counts.decode("ascii")
    return {
        "size": [int(side) for side in segmentation["size"]],
        "counts": counts if isinstance(counts, str) else [int(count) for count in counts],
    }
