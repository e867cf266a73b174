"""RefCOCO, RefCOCO+ and RefCOCOg as tables (Parquet), a row for each referred object, as on the Hub.

What a row may hold, by column:
    image: the picture's bytes, alone or as {bytes, path}; or its name as image_path or file_name
    answer, captions or sentences: texts, or {sent, raw}
    segmentation, or raw_anns (COCO's annotation as JSON): polygons, one polygon, or run lengths
    category, or category_id as COCO numbers them; height and width, or raw_image_info (COCO's image as JSON)
    split; where there is none, it is the beginning of the file's name ("testA-00000-of-00001.parquet")

The rows of a picture are its objects; what else is in it is not known. Pictures inside the table are read
when they are asked for, a group of rows at a time.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from sam3i_edge.bundle.manifest import first_problem
from sam3i_edge.data.annotation_schema import FileName, Target, field_name, field_path
from sam3i_edge.data.records import Annotation, Record
from sam3i_edge.data.scene import Scene
from sam3i_edge.data.segmentation import mask_of
from sam3i_edge.data.sources.refcoco import Sentences, texts
from sam3i_edge.data.sources.source import (
    Note,
    category_of,
    find_pictures,
    missing_pictures,
    unknown_categories,
    visible_object,
)
from sam3i_edge.data.vocabulary import Vocabulary, load_vocabulary
from sam3i_edge.errors import DataError, RuntimeUnavailable
from sam3i_edge.install_hint import install_hint
from sam3i_edge.pipeline.preprocess import load_image

_TEXTS: Final = ("answer", "captions", "sentences")
_NAMES: Final = ("image_path", "file_name")
_OUTLINES: Final = ("segmentation", "raw_anns")
_IMAGE: Final = "image"
_READ: Final = (
    *_TEXTS, *_NAMES, *_OUTLINES, "raw_image_info", "category", "category_id", "height", "width", "split",
)  # fmt: skip
_UNUSED_IDS: Final = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)  # of COCO's 90


@dataclass(frozen=True, slots=True)
class _Row:
    """A referred object, and where its picture is: file, group of rows, row in it."""

    number: int
    name: str
    sentences: list[str]
    target: Target
    category: str
    size: tuple[int, int] | None
    place: tuple[int, int, int]


class ParquetSource:
    """Scenes and records of tables; see `source.Source`.

    Args:
        path: a file, or a folder of files that end in .parquet.
        vocabulary: names the categories; an object without one is a thing of any kind.
        images: folder of the pictures, where the table has only their names.
        split: take its rows alone; None takes all.

    Raises:
        RuntimeUnavailable: pyarrow is not installed.
        DataError: a file is no table or lacks a column, a row breaks the layout, there is no such split, or
            no picture is there.
    """

    def __init__(
        self, path: Path, vocabulary: Vocabulary, *, images: Path | None = None, split: str | None = None
    ) -> None:
        self.path, self._thing = path, vocabulary.mixed
        self._files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        unknown: dict[str, None] = {}
        splits: set[str] = set()
        rows: dict[str, list[_Row]] = defaultdict(list)
        all_inside = True
        for row, its_split, inside in self._rows(vocabulary, unknown):
            splits.add(its_split)
            all_inside &= inside
            if split in (None, its_split):
                rows[row.name].append(row)
        if not rows:
            found = ", ".join(sorted(splits)) or "no rows"
            raise DataError(f"{path} has no split {split!r}; it has {found}")
        self.folder: Path | None = None
        names = list(rows)
        found_names: list[str | None] = list(names)
        if not all_inside:
            self.folder, found_names = find_pictures(self._files[0], images, names)
        self._pictures = [
            (name, tuple(rows[known]))
            for name, known in zip(found_names, names, strict=True)
            if name is not None
        ]
        self._group: tuple[tuple[int, int], Any] | None = None
        self.notes: tuple[Note, ...] = missing_pictures(names, found_names) + unknown_categories(
            vocabulary, unknown
        )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_group": None}

    def __len__(self) -> int:
        """Pictures."""
        return len(self._pictures)

    def file_name(self, number: int) -> str:
        """The picture's name in `folder`, or in the table."""
        return self._pictures[number][0]

    def scene(self, number: int) -> Scene:
        """The picture and the objects that are referred to.

        Raises:
            DataError: an outline does not decode, or the table has changed since it was opened.
            ImageError: a picture inside the table cannot be read.
        """
        name, rows = self._pictures[number]
        height, width = self._size(number)
        masks = {
            mask.tobytes(): (row, mask) for row in rows if (mask := self._mask(row, height, width)).any()
        }
        return Scene(
            image=self._pixels(rows[0]) if self.folder is None else self.folder / name,
            size=(height, width),
            objects=tuple(visible_object(row.category, {}, mask) for row, mask in masks.values()),
            complete=False,
        )

    def records(self, number: int) -> tuple[Record, ...]:
        """A record for each row; image and annotation have its number.

        Raises:
            DataError: the table has changed since it was opened.
            ImageError: a picture inside the table cannot be read.
        """
        name, rows = self._pictures[number]
        height, width = self._size(number)
        return tuple(
            Record(
                image_id=row.number,
                file_name=name,
                width=width,
                height=height,
                concept=[] if row.category == self._thing else [row.category],
                simple=row.sentences,
                complex=[],
                granularity="one",
                annotations=(
                    Annotation(
                        id=row.number,
                        category="" if row.category == self._thing else row.category,
                        bbox=None,
                        segmentation=row.target.outline,
                    ),
                ),
                source=str(self.path),
            )
            for row in rows
            if row.sentences
        )

    def _mask(self, row: _Row, height: int, width: int) -> NDArray[np.bool_]:
        return mask_of(row.target.outline, height, width, f"{self.path}: row {row.number}")

    def _size(self, number: int) -> tuple[int, int]:
        """(height, width), from the picture where the rows do not say it."""
        name, rows = self._pictures[number]
        if rows[0].size is not None:
            return rows[0].size
        pixels = self._pixels(rows[0]) if self.folder is None else load_image(self.folder / name)
        return pixels.shape[0], pixels.shape[1]

    def _pixels(self, row: _Row) -> NDArray[np.uint8]:
        """Of a picture inside the table; the group of rows that was read last is kept."""
        file, group, place = row.place
        if self._group is None or self._group[0] != (file, group):
            with _damage(self._files[file]) as parquet:
                rows = parquet.ParquetFile(self._files[file]).read_row_group(group, columns=[_IMAGE])
                self._group = ((file, group), [value.as_py() for value in rows.column(0)])
        value = self._group[1][place]
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise DataError(
                f"{self.path}: row {row.number}: its picture has no bytes; write it into the table"
            )
        return load_image(content)

    def _rows(self, vocabulary: Vocabulary, unknown: dict[str, None]) -> Iterator[tuple[_Row, str, bool]]:
        number = 0
        coco = list(load_vocabulary("coco").categories)
        numbers = dict(zip((i for i in range(1, 91) if i not in _UNUSED_IDS), coco, strict=True))
        for file, path in enumerate(self._files):
            for group, place, inside, values in _values(path):
                number += 1
                try:
                    row = _row(number, values, inside, numbers, (file, group, place))
                except ValueError as error:
                    raise DataError(f"{path}: row {number}: {_said(error)}") from error
                category, is_known = self._category(vocabulary, row.category)
                if not is_known:
                    unknown[category] = None
                split = values.get("split") or path.stem.partition("-")[0]
                yield replace(row, category=category), str(split), inside

    def _category(self, vocabulary: Vocabulary, name: str) -> tuple[str, bool]:
        return category_of(vocabulary, name) if name else (self._thing, True)


def _values(path: Path) -> Iterator[tuple[int, int, bool, dict[str, Any]]]:
    """Every row but for its picture: group, row in it, whether the picture is there, values by column."""
    with _damage(path) as parquet:
        table = parquet.ParquetFile(path)
        names, groups = table.schema_arrow.names, table.num_row_groups
    columns = _columns(path, names)
    for group in range(groups):
        with _damage(path):
            rows = table.read_row_group(group, columns=columns).to_pylist()
        for place, values in enumerate(rows):
            yield group, place, _IMAGE in names, values


@contextlib.contextmanager
def _damage(path: Path) -> Iterator[Any]:
    """Gives pyarrow's module for Parquet, and says of which file it complains."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise RuntimeUnavailable(f"{path}: tables need pyarrow: {install_hint('parquet')}") from error
    try:
        yield parquet
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} is no Parquet file, or damaged: {reason}") from error


def _columns(path: Path, names: Sequence[str]) -> list[str]:
    """What is read of a table when it is opened; the pictures are not."""
    for wanted in (_TEXTS, _OUTLINES, (_IMAGE, *_NAMES)):
        if not set(wanted) & set(names):
            raise DataError(f"{path} has no column {' or '.join(wanted)}; it has {', '.join(names)}")
    return [name for name in _READ if name in names] + (
        [] if set(_NAMES) & set(names) else [f"{_IMAGE}.path"]
    )


def _row(
    number: int,
    values: Mapping[str, Any],
    inside: bool,
    numbers: Mapping[int, str],
    place: tuple[int, int, int],
) -> _Row:
    name = next((values[key] for key in _NAMES if values.get(key)), None)
    if name is None and not inside:
        raise ValueError("it names no picture")
    own = values.get(_IMAGE)
    name = name or (own.get("path") if isinstance(own, dict) else None) or str(number)
    # The Hub's copies number the references in the names of pictures: COCO_train2014_000000000036_0.jpg.
    name = re.sub(r"(COCO_\w+?_\d{12})_\d+(\.\w+)$", r"\1\2", str(name))
    said = next((values[key] for key in _TEXTS if values.get(key) is not None), None)
    image = json.loads(values.get("raw_image_info") or "{}")
    height, width = (values.get(key) or image.get(key) for key in ("height", "width"))
    return _Row(
        number=number,
        name=TypeAdapter(FileName).validate_python(name),
        sentences=texts(TypeAdapter(Sentences).validate_python(said)),
        target=Target.model_validate({"image_id": number, "segmentation": _outline(values)}),
        category=values.get("category") or numbers.get(values.get("category_id") or 0, ""),
        size=(height, width) if isinstance(height, int) and isinstance(width, int) else None,
        place=place,
    )


def _outline(values: Mapping[str, Any]) -> Any:
    shape = values.get("segmentation")
    if shape is None:
        shape = json.loads(values.get("raw_anns") or "{}").get("segmentation")
    if isinstance(shape, str):
        shape = json.loads(shape)
    # One polygon may lie there as it is.
    return [shape] if isinstance(shape, list) and shape and not isinstance(shape[0], list) else shape


def _said(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return first_problem(error, field_name(field_path(error)).removeprefix(": ") or "its picture")
    return str(error)
