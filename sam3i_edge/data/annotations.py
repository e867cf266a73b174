"""SAM3-I's annotation JSON, read and written, and a folder of drawn scenes in it.

The layout is COCO's with the instructions on the image record:

    images[]:      {id, file_name, width, height, granularity?,
                    text_inst_input: {concept: [str], simple_query: [str], complex_query: [str]}}
    annotations[]: {id, image_id, category_id?, bbox?, area?, iscrowd?, segmentation: polygons | run lengths}
    categories[]:  {id, name}
    info:          {description, version}; written, never read, as is area

HMPL-Instruct and RefCOCO files in this layout are read too. `granularity` is this project's addition. All
annotations of an image record are its targets, whatever their category.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from pydantic import ValidationError

import sam3i_edge
from sam3i_edge.data.annotation_schema import AnnotationFile, read_file
from sam3i_edge.data.polygons import polygon_mask
from sam3i_edge.data.records import Annotation, Record, scene_records, targets_of
from sam3i_edge.data.scenes import draw_scene
from sam3i_edge.data.segmentation import Segmentation
from sam3i_edge.data.vocabulary import load_vocabulary
from sam3i_edge.errors import DataError
from sam3i_edge.files import sweep, whole_file, write_whole
from sam3i_edge.masks import rle
from sam3i_edge.runtimes import Progress

__all__ = ["Annotation", "Record", "read_annotations", "targets_of", "write_annotations", "write_scenes"]

MOST_SCENES: Final = 10_000_000
ANNOTATIONS: Final = "annotations.json"
IMAGES: Final = "images"
_JOURNAL: Final = ".unfinished.jsonl"  # seed and version, then a line for each scene

_TEXTS: Final = {"concept": "concept", "simple": "simple_query", "complex": "complex_query"}


def read_annotations(path: str | Path) -> list[Record]:
    """Reads a SAM3-I annotation file, in the order of its images.

    Masks are decoded by `Record.masks`, not here.

    Raises:
        DataError: the file is missing, no JSON, or a record breaks the layout; names file, record and field.
    """
    path = Path(path)
    return _records(read_file(path), str(path))


def write_annotations(path: str | Path, records: Iterable[Record]) -> None:
    """Writes records as one annotation file, whole or not at all.

    Args:
        path: replaced when the new file is complete; its folder must exist.
        records: gone through twice, one at a time; image ids and annotation ids must each be unique.

    Raises:
        ValueError: an id appears twice.
        TypeError: `records` is an iterator, which can be gone through once.
    """
    if iter(records) is records:
        raise TypeError("records are gone through twice: give a list, not an iterator")
    with whole_file(Path(path)) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(_chunks(records))


def write_scenes(out: str | Path, count: int, seed: int, progress: Progress | None = None) -> list[Record]:
    """Draws scenes into OUT/images/*.png and their records into OUT/annotations.json.

    The same count and seed write the same files. The annotation file comes last; a folder without it is
    unfinished, keeps the records in a hidden file, and is continued by another call with its seed.

    Args:
        out: a folder that does not exist, is empty or unfinished.
        count: scenes, 1 to 10 million.
        seed: 0 or more; scene i of a seed is the same whatever the count.
        progress: called after each scene.

    Returns:
        The records written; their file names are relative to OUT/images.

    Raises:
        ValueError: a count outside of 1 to 10 million or a negative seed.
        DataError: OUT is a file or holds something else, or a picture cannot be written.
    """
    if not 1 <= count <= MOST_SCENES or seed < 0:
        raise ValueError(f"count must be 1 to {MOST_SCENES:,} and seed at least 0, got {count} and {seed}")
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file; name a folder to write the scenes to")
    journal = out / _JOURNAL
    scenes = _begun(journal, seed) if journal.exists() else []
    if not journal.exists() and out.is_dir() and any(out.iterdir()):
        raise DataError(f"{out} is not empty; name a new folder, or empty this one first")
    if len(scenes) > count:
        raise DataError(
            f"{out} holds {len(scenes):,} scenes already: give a --count of as many, or a new folder"
        )
    (out / IMAGES).mkdir(parents=True, exist_ok=True)
    sweep(out, out / IMAGES)
    # Without the line that the kill may have cut.
    head = json.dumps({"seed": seed, "version": sam3i_edge.__version__})
    write_whole(journal, "".join(f"{line}\n" for line in (head, *map(as_json, scenes))))
    annotations = sum(len(record.annotations) for scene in scenes for record in scene)
    first_id = sum(map(len, scenes)) + 1
    digits = max(6, len(str(count - 1)))
    vocabulary = load_vocabulary("shapes")
    for number in range(len(scenes), count):
        rng = np.random.default_rng((seed, number))
        drawn = draw_scene(rng)
        name = f"{number:0{digits}d}.png"
        written, encoded = cv2.imencode(".png", np.ascontiguousarray(drawn.pixels()[..., ::-1]))
        if not written:
            raise DataError(f"could not encode {name}; this OpenCV build writes no PNG")
        write_whole(out / IMAGES / name, encoded.tobytes())
        scene: list[Record] = []
        for record in scene_records(drawn, vocabulary, rng, file_name=name, first_id=first_id):
            renumbered = tuple(replace(a, id=annotations + i + 1) for i, a in enumerate(record.annotations))
            annotations += len(renumbered)
            scene.append(replace(record, annotations=renumbered))
        first_id += len(scene)
        scenes.append(scene)
        with journal.open("a", encoding="utf-8") as lines:
            lines.write(as_json(scene) + "\n")
        if progress is not None:
            progress(f"scene {number + 1:,} of {count:,}", (number + 1) / count)
    records = [record for scene in scenes for record in scene]
    write_annotations(out / ANNOTATIONS, records)
    journal.unlink()
    return records


def _begun(journal: Path, seed: int) -> list[list[Record]]:
    """The records of the scenes that an interrupted call has finished."""
    head, *lines = journal.read_text(encoding="utf-8").splitlines() or [""]
    found = json.loads(head) if head.endswith("}") else {}
    if found != {"seed": seed, "version": sam3i_edge.__version__}:
        raise DataError(
            f"{journal.parent} holds unfinished scenes of seed {found.get('seed')} and version "
            f"{found.get('version')}, not {seed} and {sam3i_edge.__version__}: name a new folder"
        )
    scenes = []
    for line in lines:
        try:
            scenes.append(from_json(line))
        except ValidationError:  # cut by the kill
            break
    return scenes


def as_json(records: Sequence[Record]) -> str:
    """The content of an annotation file of these records, on one line; `from_json` reads it."""
    return "".join(_chunks(records))


def from_json(line: str | bytes) -> list[Record]:
    """The records of a content.

    Raises:
        ValueError: it breaks the layout, or was cut.
    """
    return _records(AnnotationFile.model_validate_json(line), "")


def _chunks(records: Iterable[Record]) -> Iterator[str]:
    """The content in pieces, so that no more than one record is in memory."""
    info = {"description": "SAM3-I annotations", "version": sam3i_edge.__version__}
    yield f'{{"info":{_dumped(info)},"images":['
    seen: set[int | str] = set()
    for record in records:
        yield _comma(seen) + _dumped(_image_entry(record))
        _once(seen, "image", record.image_id)
    yield '],"annotations":['
    seen.clear()
    categories: dict[str, int] = {}
    for record in records:
        for target in record.annotations:
            yield _comma(seen) + _dumped(_annotation_entry(record, target, categories))
            _once(seen, "annotation", target.id)
    yield f'],"categories":{_dumped([{"id": n, "name": name} for name, n in categories.items()])}}}'


def _image_entry(record: Record) -> dict[str, Any]:
    return {
        "id": record.image_id,
        "file_name": record.file_name,
        "width": record.width,
        "height": record.height,
        **({} if record.granularity is None else {"granularity": record.granularity}),
        "text_inst_input": {key: list(getattr(record, name)) for name, key in _TEXTS.items()},
    }


def _annotation_entry(record: Record, target: Annotation, categories: dict[str, int]) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": target.id, "image_id": record.image_id}
    if target.category:
        entry["category_id"] = categories.setdefault(target.category, len(categories) + 1)
    if target.bbox is not None:
        entry["bbox"] = list(target.bbox)
    entry["area"] = _area(record, target)
    entry["iscrowd"] = target.iscrowd
    entry["segmentation"] = _plain(target.segmentation)
    return entry


def _comma(seen: set[int | str]) -> str:
    return "," if seen else ""


def _once(seen: set[int | str], kind: str, identity: int | str) -> None:
    if identity in seen:
        raise ValueError(f"{kind} id {identity} appears twice; number the {kind}s anew before writing")
    seen.add(identity)


def _dumped(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _area(record: Record, target: Annotation) -> int:
    shape = target.segmentation
    if isinstance(shape, Mapping):
        return rle.area(shape)
    return int(np.count_nonzero(polygon_mask(shape, record.height, record.width)))


def _records(file: AnnotationFile, source: str) -> list[Record]:
    categories = {category.id: category.name for category in file.categories}
    targets: dict[int | str, list[Annotation]] = {}
    for image in file.images:
        if image.id in targets:
            raise DataError(f"{source}: image {image.id}: id appears twice; give every record its own")
        targets[image.id] = []
    for number, target in enumerate(file.annotations, start=1):
        identity = number if target.id is None else target.id
        if target.image_id not in targets:
            raise DataError(
                f"{source}: annotation {identity}: image_id: {target.image_id} is the id of no image"
            )
        targets[target.image_id].append(
            Annotation(
                id=identity,
                category="" if target.category_id is None else categories.get(target.category_id, ""),
                bbox=target.bbox,
                segmentation=target.outline,
                iscrowd=target.iscrowd,
            )
        )
    return [
        Record(
            image_id=image.id,
            file_name=image.file_name,
            width=image.width,
            height=image.height,
            granularity=image.granularity,
            annotations=tuple(targets[image.id]),
            source=source,
            **{name: getattr(image.text_inst_input, key) for name, key in _TEXTS.items()},
        )
        for image in file.images
    ]


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
