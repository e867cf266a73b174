"""One pass over an instances JSON: every entry is checked, and of each its place in the file is kept."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator

from sam3i_edge.bundle.manifest import first_problem
from sam3i_edge.data.annotation_schema import (
    Category,
    FileName,
    Identity,
    Side,
    Target,
    field_name,
    field_path,
    small_enough,
)
from sam3i_edge.data.sources.json_elements import EMPTY, WHOLE, Element, elements
from sam3i_edge.errors import DataError

_PICTURES: Final = "images"
_TARGETS: Final = "annotations"
_CATEGORIES: Final = "categories"
_ATTRIBUTES: Final = "attributes"
_TYPES: Final = "attr_type_to_attr_idxs"


class Picture(BaseModel):
    """An entry of `images`; LVIS has only an address, whose end is folder and file."""

    model_config = ConfigDict(frozen=True)

    id: Identity
    file_name: FileName
    width: Side
    height: Side
    neg_category_ids: list[Identity] | None = None
    not_exhaustive_category_ids: list[Identity] = []

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        if "text_inst_input" in value:
            raise ValueError(
                "it has instructions, the first image has none; give text_inst_input to every one"
            )
        if "file_name" not in value and isinstance(value.get("coco_url"), str):
            return {**value, "file_name": "/".join(value["coco_url"].split("/")[-2:])}
        return value

    @model_validator(mode="after")
    def _small_enough(self) -> Picture:
        small_enough(self.width, self.height)
        return self


class _Categorized(Target):
    """An entry of `annotations`."""

    category_id: Identity
    attribute_ids: list[Identity] | None = None


class _Attribute(BaseModel):
    id: Identity
    name: str


_IDS_BY_TYPE: Final = TypeAdapter(dict[str, list[Identity]])


@dataclass(slots=True)
class Index:
    """What one pass over the file keeps, in the file's order."""

    names: list[str] = field(default_factory=list)
    ids: list[int | str] = field(default_factory=list)
    sizes: array[int] = field(default_factory=lambda: array("i"))  # height and width of each picture
    pictures: array[int] = field(default_factory=lambda: array("q"))  # first and last byte of each
    targets: array[int] = field(default_factory=lambda: array("q"))  # likewise
    target_ids: list[int | str | None] = field(default_factory=list)
    of: list[int | str] = field(default_factory=list)  # image ids of the targets
    encoded: array[int] = field(default_factory=lambda: array("i"))  # height and width of run lengths, or 0
    used: dict[int | str, int | str] = field(default_factory=dict)  # category id: its first annotation
    counts: Counter[int | str] = field(default_factory=Counter)  # annotations by category id
    categories: dict[int | str, str] = field(default_factory=dict)
    category_ids: list[int | str] = field(default_factory=list)
    parts: set[int | str] = field(default_factory=set)  # category ids
    federated: bool = False
    attributes: dict[int | str, str] = field(default_factory=dict)
    types: dict[str, list[int | str]] = field(default_factory=dict)


def read_index(path: Path) -> Index:
    """Goes through the file once, checking every entry."""
    index, seen = Index(), set()
    for element in elements(path):
        seen.add(element.key)
        if element.key in (_PICTURES, _TARGETS, _CATEGORIES, _ATTRIBUTES):
            if element.place == WHOLE:
                raise DataError(f"{path}: {element.key}: must be a list")
            if element.place != EMPTY:
                try:
                    _KEEP[element.key](index, element)
                except ValidationError as error:
                    raise DataError(f"{path}: {first_problem(error, _place(element, error))}") from error
        elif element.key == _TYPES and element.place != EMPTY:
            try:
                index.types = _IDS_BY_TYPE.validate_python(element.value)
            except ValidationError as error:
                raise DataError(f"{path}: {first_problem(error, _TYPES)}") from error
    missing = [key for key in (_PICTURES, _TARGETS, _CATEGORIES) if key not in seen]
    if missing:
        raise DataError(f"{path}: {missing[0]} is missing; want COCO's instances JSON")
    return index


def _place(element: Element, error: ValidationError) -> str:
    """Names the entry by its id where it has one, and the field."""
    value, one = element.value, {"categories": "category"}.get(element.key, element.key.removesuffix("s"))
    identity = value.get("id") if isinstance(value, dict) else None
    whole = f"{one} {identity}" if isinstance(identity, int | str) else f"{element.key}[{element.place}]"
    return whole + field_name(field_path(error))


def _keep_picture(index: Index, element: Element) -> None:
    picture = Picture.model_validate(element.value)
    index.names.append(picture.file_name)
    index.ids.append(picture.id)
    index.sizes.extend((picture.height, picture.width))
    index.pictures.extend((element.start, element.end))
    index.federated |= picture.neg_category_ids is not None


def _keep_target(index: Index, element: Element) -> None:
    target = _Categorized.model_validate(element.value)
    index.targets.extend((element.start, element.end))
    index.target_ids.append(target.id)
    index.of.append(target.image_id)
    shape = target.segmentation
    index.encoded.extend((0, 0) if isinstance(shape, list) else shape.size)
    index.used.setdefault(target.category_id, element.place if target.id is None else target.id)
    index.counts[target.category_id] += 1


def _keep_category(index: Index, element: Element) -> None:
    category = Category.model_validate(element.value)
    index.category_ids.append(category.id)
    index.categories[category.id] = category.name
    if element.value.get("supercategory") == "PART" or ":" in category.name:  # "cup:handle"
        index.parts.add(category.id)


def _keep_attribute(index: Index, element: Element) -> None:
    attribute = _Attribute.model_validate(element.value)
    index.attributes[attribute.id] = attribute.name


_KEEP: Final = {
    _PICTURES: _keep_picture,
    _TARGETS: _keep_target,
    _CATEGORIES: _keep_category,
    _ATTRIBUTES: _keep_attribute,
}


def by_picture(path: Path, index: Index) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The order of the annotations by picture, int64 [N], and where each picture's begin in it, [P + 1].

    Raises:
        DataError: an id appears twice or is that of nothing, or run lengths are of another size than their
            picture.
    """
    number = {identity: i for i, identity in enumerate(index.ids)}
    target_ids = [identity for identity in index.target_ids if identity is not None]
    for kind, ids in (
        ("image", index.ids),
        ("annotation", target_ids),
        ("category", index.category_ids),
    ):
        if len(set(ids)) != len(ids):
            twice = next(identity for identity, count in Counter(ids).items() if count > 1)
            raise DataError(f"{path}: {kind} id {twice} appears twice; give every {kind} its own")
    strange = next((i for i in index.used if i not in index.categories), None)
    if strange is not None:
        raise DataError(
            f"{path}: annotation {index.used[strange]}: category_id: {strange} is the id of no category"
        )
    lost = next((i for i, identity in enumerate(index.of) if identity not in number), None)
    if lost is not None:
        raise DataError(
            f"{path}: annotation {index.target_ids[lost]}: image_id: {index.of[lost]} is the id of no image"
        )
    of = np.array([number[identity] for identity in index.of], np.int64)
    wanted = np.frombuffer(index.sizes, np.int32).reshape(-1, 2)[of]
    found = np.frombuffer(index.encoded, np.int32).reshape(-1, 2)
    wrong = np.flatnonzero((found != wanted).any(1) & (found > 0).all(1))
    if len(wrong):
        (h, w), (height, width) = found[wrong[0]].tolist(), wanted[wrong[0]].tolist()
        raise DataError(
            f"{path}: annotation {index.target_ids[wrong[0]]}: segmentation is {h} x {w} (height x width), "
            f"its image {height} x {width}; correct the one that is wrong"
        )
    order = np.argsort(of, kind="stable")
    return order, np.searchsorted(of[order], np.arange(len(index.ids) + 1))
