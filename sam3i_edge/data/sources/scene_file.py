"""Scene files: everything that is known of pictures, a line for each; what `tabletop/` renders is written so.

A line is JSON:
    file: the picture, in the folder `images` beside the scene file
    size: [height, width] px
    complete: whether all that can be seen is listed
    listed, crowds: categories, as in `Scene`; left out where there are none
    objects: category; attributes, null where it cannot be said; box [x0, y0, x1, y1] px, x1 and y1 exclusive;
        center [x, y] px; mask, run lengths as in COCO; visible 0..1, depth and full_size [width, height] px
        where known
    relations: [subject, name, object], numbers of objects, those that hold
    unsure: likewise, those that cannot be said
    judged: names of relations of which every pair that is in neither list does not hold; of other names
        nothing is known but what is listed. Where it is left out: "on" and "in".
What else a line has is not read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sam3i_edge.bundle.manifest import first_problem
from sam3i_edge.data.annotation_schema import (
    FileName,
    RunLengths,
    Side,
    Words,
    field_name,
    field_path,
    small_enough,
)
from sam3i_edge.data.records import Record
from sam3i_edge.data.scene import Scene, SceneObject
from sam3i_edge.data.segmentation import mask_of
from sam3i_edge.data.sources.source import (
    Note,
    category_of,
    find_pictures,
    missing_pictures,
    unknown_categories,
)
from sam3i_edge.data.vocabulary import Vocabulary
from sam3i_edge.errors import DataError
from sam3i_edge.files import whole_file, write_whole
from sam3i_edge.masks import rle

SCENES: Final = "scenes.jsonl"
IMAGES: Final = "images"
_JUDGED: Final = ("on", "in")

_Pixel = Annotated[float, Field(ge=-100_000, le=100_000)]
_Extent = Annotated[float, Field(gt=0, le=100_000)]
_Number = Annotated[int, Field(ge=0)]
_Relation = tuple[_Number, Words, _Number]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class _Object(_Part):
    category: Words
    attributes: dict[Words, Words | None] = {}
    box: tuple[_Pixel, _Pixel, _Pixel, _Pixel]
    center: tuple[_Pixel, _Pixel]
    mask: RunLengths
    visible: Annotated[float, Field(ge=0, le=1)] | None = None
    depth: float | None = None
    full_size: tuple[_Extent, _Extent] | None = None


class _Line(_Part):
    file: FileName
    size: tuple[Side, Side]
    complete: bool
    listed: list[Words] = []
    crowds: list[Words] = []
    objects: list[_Object]
    relations: list[_Relation] = []
    unsure: list[_Relation] = []
    judged: list[Words] = list(_JUDGED)

    @model_validator(mode="after")
    def _consistent(self) -> _Line:
        small_enough(self.size[1], self.size[0])
        for name in ("relations", "unsure"):
            for subject, _, other in getattr(self, name):
                if subject == other or max(subject, other) >= len(self.objects):
                    raise ValueError(
                        f"{name}: {subject} and {other} must be two of the {len(self.objects)} objects"
                    )
        for number, thing in enumerate(self.objects):
            if tuple(thing.mask.size) != self.size:
                raise ValueError(
                    f"objects[{number}].mask: its size is {thing.mask.size}, want {list(self.size)}"
                )
        return self


class SceneFileSource:
    """Scenes of a scene file; see `source.Source`.

    Args:
        path: the file, or the folder that holds it as `scenes.jsonl`.
        vocabulary: names its categories; one that it does not know keeps its name.
        images: folder of the pictures; None: `images` beside the file.
        whole: refuse a folder that lacks a picture, instead of leaving it out.

    Raises:
        DataError: the file is missing or a line breaks the layout, a picture is there twice, or none is.
    """

    def __init__(
        self, path: Path, vocabulary: Vocabulary, *, images: Path | None = None, whole: bool = False
    ) -> None:
        self.path = path / SCENES if path.is_dir() else path
        self._categories: dict[str, str] = {}
        unknown: dict[str, None] = {}
        spans, names = [], []
        for start, end, line in _lines(self.path):
            spans.append((start, end))
            names.append(line.file)
            for name in (*(thing.category for thing in line.objects), *line.listed, *line.crowds):
                if name not in self._categories:
                    self._categories[name], known = category_of(vocabulary, name)
                    if not known:
                        unknown[self._categories[name]] = None
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(f"{self.path}: {twice} is the picture of two lines; give every scene its own")
        self.folder: Path | None
        self.folder, found = find_pictures(self.path, images, names)
        self._places = [(name, *span) for name, span in zip(found, spans, strict=True) if name is not None]
        missing = missing_pictures(names, found)
        if whole and missing:
            raise DataError(
                f"{self.folder} lacks {missing[0].count:,} of the {len(names):,} pictures that "
                f"{self.path.name} names, the first is {missing[0].first[0]}; copy them there"
            )
        self.notes: tuple[Note, ...] = missing + unknown_categories(vocabulary, unknown)

    def __len__(self) -> int:
        """Pictures."""
        return len(self._places)

    def file_name(self, number: int) -> str:
        """The picture's name in `folder`."""
        return self._places[number][0]

    def records(self, number: int) -> tuple[Record, ...]:
        """None: the file has no instructions."""
        return ()

    def scene(self, number: int) -> Scene:
        """The picture and its objects.

        Raises:
            DataError: a mask does not decode or is empty, or the file has changed since it was opened.
        """
        name, start, end = self._places[number]
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                line = _Line.model_validate_json(file.read(end - start))
        except (OSError, ValidationError) as error:
            raise DataError(
                f"{self.path} has changed since it was opened; leave it alone while it is read"
            ) from error
        judged = [_verdicts(line, subject) for subject in range(len(line.objects))]
        return Scene(
            image=(self.folder or Path()) / name,
            size=line.size,
            objects=tuple(self._object(line, n, relations) for n, relations in enumerate(judged)),
            complete=line.complete,
            listed=self._renamed(line.listed, line),
            crowds=frozenset(self._categories[name] for name in line.crowds),
        )

    def _renamed(self, listed: list[str], line: _Line) -> frozenset[str]:
        """The listed categories; not those that share their name with one of the line that is not listed."""
        others = {self._categories[thing.category] for thing in line.objects if thing.category not in listed}
        return frozenset(self._categories[name] for name in listed) - others

    def _object(
        self, line: _Line, number: int, relations: Mapping[str, Mapping[int, bool | None]]
    ) -> SceneObject:
        thing = line.objects[number]
        where = f"{self.path}: {line.file}: objects[{number}]"
        mask = mask_of(thing.mask.model_dump(), *line.size, where)
        if not mask.any():
            raise DataError(f"{where}: its mask is empty; leave out what cannot be seen")
        return SceneObject(
            category=self._categories[thing.category],
            attributes=thing.attributes,
            box=thing.box,
            center=thing.center,
            mask=mask,
            full_size=thing.full_size,
            visible=thing.visible,
            depth=thing.depth,
            relations=relations,
        )


def write_scene_file(out: str | Path, scenes: Iterable[Scene], *, names: Iterable[str] | None = None) -> int:
    """Writes OUT/scenes.jsonl and, of scenes whose picture is an array, OUT/images/*.png.

    Args:
        out: made if missing. A scene file in it is replaced when the new one is whole.
        scenes: taken one by one. Where a scene's picture is a file, it must lie in OUT/images.
        names: of the pictures, inside OUT/images; None: their file's, or 000000.png, 000001.png, …

    Returns:
        How many scenes were written.

    Raises:
        DataError: a picture lies elsewhere, is named twice, or an array is not of the scene's size.
    """
    out = Path(out)
    pictures = out / IMAGES
    pictures.mkdir(parents=True, exist_ok=True)
    given = None if names is None else iter(names)
    used: set[str] = set()
    with whole_file(out / SCENES) as part, part.open("w", encoding="utf-8") as file:
        for number, scene in enumerate(scenes):
            name = _name(pictures, scene, number) if given is None else next(given)
            if name in used:
                raise DataError(f"{name} is the name of two pictures; give every scene its own")
            used.add(name)
            if not isinstance(scene.image, Path):
                _write_picture(pictures / name, scene)
            file.write(json.dumps(_written(name, scene), ensure_ascii=False, separators=(",", ":")) + "\n")
    return len(used)


def _name(pictures: Path, scene: Scene, number: int) -> str:
    if not isinstance(scene.image, Path):
        return f"{number:06d}.png"
    try:
        return scene.image.relative_to(pictures).as_posix()
    except ValueError:
        raise DataError(
            f"{scene.image} is not in {pictures}; copy it there, or give the scene its pixels"
        ) from None


def _write_picture(path: Path, scene: Scene) -> None:
    pixels = scene.pixels()
    if pixels.shape != (*scene.size, 3):
        raise DataError(f"{path.name}: its picture is {list(pixels.shape)}, want {[*scene.size, 3]}")
    encoded = cv2.imencode(".png", np.ascontiguousarray(pixels[..., ::-1]))[1]
    write_whole(path, encoded.tobytes())


def _written(name: str, scene: Scene) -> dict[str, Any]:
    relations: list[list[Any]] = []
    unsure: list[list[Any]] = []
    for subject, thing in enumerate(scene.objects):
        for relation, verdicts in thing.relations.items():
            for other, verdict in verdicts.items():
                if verdict is not False:
                    (relations if verdict else unsure).append([subject, relation, other])
    judged = _judged(scene, unsure)
    line: dict[str, Any] = {"file": name, "size": list(scene.size), "complete": scene.complete}
    for key in ("listed", "crowds"):
        if getattr(scene, key):
            line[key] = sorted(getattr(scene, key))
    line["objects"] = [_written_object(thing) for thing in scene.objects]
    return line | {"relations": sorted(relations), "unsure": sorted(unsure), "judged": judged}


def _judged(scene: Scene, unsure: list[list[Any]]) -> list[str]:
    """Names with a verdict of every object; where some have none, their pairs become unsure."""
    names = sorted({name for thing in scene.objects for name in thing.relations})
    for name in names:
        for subject, thing in enumerate(scene.objects):
            if name not in thing.relations:
                unsure += [[subject, name, other] for other in range(len(scene.objects)) if other != subject]
    return names


def _written_object(thing: SceneObject) -> dict[str, Any]:
    full_size = None if thing.full_size is None else _numbers(thing.full_size)
    known = {"visible": thing.visible, "depth": thing.depth, "full_size": full_size}
    return {
        "category": thing.category,
        "attributes": dict(thing.attributes),
        "box": _numbers(thing.box),
        "center": _numbers(thing.center),
        "mask": rle.encode(thing.mask),
    } | {key: value for key, value in known.items() if value is not None}


def _numbers(values: Iterable[float]) -> list[float]:
    """Whole ones without a point."""
    return [int(value) if float(value).is_integer() else float(value) for value in values]


def _verdicts(line: _Line, subject: int) -> dict[str, dict[int, bool | None]]:
    """What is said of an object's relations, in the form of `SceneObject.relations`."""
    found: dict[str, dict[int, bool | None]] = {name: {} for name in line.judged}
    open_names = sorted({name for _, name, _ in line.relations} - set(line.judged))
    others = [number for number in range(len(line.objects)) if number != subject]
    found |= {name: dict.fromkeys(others) for name in open_names}
    for relations, verdict in ((line.unsure, None), (line.relations, True)):
        for one, name, other in relations:
            if one == subject and name in found:
                found[name][other] = verdict
    return found


def _lines(path: Path) -> Iterator[tuple[int, int, _Line]]:
    """First and last byte of every line, and what it says."""
    try:
        with path.open("rb") as file:
            end = 0
            for number, content in enumerate(file, start=1):
                start, end = end, end + len(content)
                if not content.strip():
                    continue
                try:
                    yield start, end, _Line.model_validate_json(content)
                except ValidationError as error:
                    wrong = first_problem(error, f"line {number}" + field_name(field_path(error)))
                    raise DataError(f"{path}: {wrong}") from error
            if not end:
                raise DataError(f"{path} is empty; want a line for every picture")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"{path}: {reason}; name a scene file, or the folder that holds {SCENES}") from error
