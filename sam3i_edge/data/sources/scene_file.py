"""Scene files, the project's own: a folder with `scenes.jsonl`, a line of JSON a picture, and `images/`.

    file; size [H, W]; complete, whether everything that can be seen is listed
    objects: category; attributes (null where it cannot be said); box [x0, y0, x1, y1] px, x1 and y1
        exclusive; center [x, y] px; depth or null; mask, run lengths as in COCO
    relations: [subject, name, object], numbers of objects

`on` and `in` are known of every pair. Of other relations those that are clear are listed; the rest is open.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sam3i_edge.bundle.manifest import first_problem
from sam3i_edge.data.annotation_schema import FileName, RunLengths
from sam3i_edge.data.scene import Scene, SceneObject
from sam3i_edge.data.vocabulary import Vocabulary
from sam3i_edge.errors import DataError
from sam3i_edge.masks import rle

SCENES: Final = "scenes.jsonl"
IMAGES: Final = "images"
_DECIDED: Final = ("on", "in")  # relations of which a pair that is not listed has none

_Side = Annotated[int, Field(ge=1, le=32_768)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class _Object(_Part):
    category: Annotated[str, Field(min_length=1)]
    attributes: dict[str, str | None] = {}
    box: tuple[float, float, float, float]
    center: tuple[float, float]
    depth: float | None = None
    mask: RunLengths


class _Picture(_Part):
    file: FileName
    size: tuple[_Side, _Side]
    complete: bool
    objects: list[_Object]
    relations: list[tuple[int, str, int]] = []


class SceneFileSource:
    """The scenes of a folder, read one at a time.

    Args:
        folder: holds `scenes.jsonl` and `images/`.
        vocabulary: names its categories; one that it does not know keeps its name.

    Raises:
        DataError: the file is missing or empty, a line breaks the layout, or a picture is missing.
    """

    def __init__(self, folder: Path, vocabulary: Vocabulary) -> None:
        self.folder, self._vocabulary = folder, vocabulary
        self.path = folder / SCENES
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise DataError(
                f"{self.path}: {error.strerror}; name a folder with {SCENES} and {IMAGES}/"
            ) from error
        ends = np.flatnonzero(np.frombuffer(content, np.uint8) == ord("\n")) + 1
        if content and not content.endswith(b"\n"):
            ends = np.append(ends, len(content))
        self._starts = np.concatenate([[0], ends])
        self.names: list[str] = []
        for number in range(len(ends)):
            line = content[self._starts[number] : self._starts[number + 1]]
            self.names.append(self._parsed(number, line).file)
        if not self.names:
            raise DataError(f"{self.path} is empty; was it written to its end?")
        there = {path.relative_to(folder / IMAGES).as_posix() for path in (folder / IMAGES).rglob("*")}
        missing = [name for name in self.names if name not in there]
        if missing:
            raise DataError(
                f"{folder / IMAGES} lacks {len(missing):,} of the {len(self.names):,} pictures that {SCENES} "
                f"names, the first is {missing[0]}; copy them there"
            )

    def __len__(self) -> int:
        return len(self.names)

    def file_name(self, number: int) -> str:
        """The picture's name in `images/`."""
        return self.names[number]

    def scene(self, number: int) -> Scene:
        """The scene of a line, counted from 0; its picture is left in its file.

        Raises:
            DataError: the file has changed, or a mask does not decode to the picture's size.
        """
        with self.path.open("rb") as file:
            file.seek(int(self._starts[number]))
            line = file.read(int(self._starts[number + 1] - self._starts[number]))
        picture = self._parsed(number, line)
        return Scene(
            image=self.folder / IMAGES / picture.file,
            size=picture.size,
            objects=tuple(self._object(picture, number, index) for index in range(len(picture.objects))),
            complete=picture.complete,
        )

    def _parsed(self, number: int, line: bytes) -> _Picture:
        try:
            picture = _Picture.model_validate_json(line)
        except ValidationError as error:
            raise DataError(f"{self.path}: line {number + 1}: {first_problem(error)}") from error
        count = len(picture.objects)
        for relation in picture.relations:
            if not all(0 <= index < count for index in relation[::2]):
                raise DataError(
                    f"{self.path}: line {number + 1}: relations: {list(relation)} names an object beyond the "
                    f"{count} that there are, counted from 0"
                )
        return picture

    def _object(self, picture: _Picture, number: int, index: int) -> SceneObject:
        found = picture.objects[index]
        where = f"{self.path}: line {number + 1}: objects[{index}].mask"
        try:
            mask = rle.decode(found.mask.model_dump())
        except ValueError as error:
            raise DataError(f"{where}: {error}; write it again with its real size") from error
        if mask.shape != picture.size or not mask.any():
            wanted = f"want {picture.size[0]} x {picture.size[1]} with at least one pixel set"
            raise DataError(f"{where} is {mask.shape[0]} x {mask.shape[1]}, {int(mask.sum())} set; {wanted}")
        return SceneObject(
            category=self._vocabulary.category_of(found.category) or found.category,
            attributes=found.attributes,
            box=found.box,
            center=found.center,
            mask=mask,
            depth=found.depth,
            relations=_relations(picture, index),
        )


def _relations(picture: _Picture, index: int) -> dict[str, dict[int, bool | None]]:
    named = {name for _, name, _ in picture.relations}
    open_: dict[int, Any] = {other: None for other in range(len(picture.objects)) if other != index}
    found: dict[str, dict[int, bool | None]] = {
        name: {} if name in _DECIDED else dict(open_) for name in sorted(named | set(_DECIDED))
    }
    for one, name, other in picture.relations:
        if one == index:
            found[name][other] = True
    return found
