"""COCO's instances JSON, and what LVIS and PACO add to it.

COCO lists every instance of its categories, but for those that a picture marks as a crowd. LVIS says by
picture which categories are absent (`neg_category_ids`) and which are not counted to the end
(`not_exhaustive_category_ids`); of all that it neither annotates nor names there, nothing is known. PACO is
LVIS with parts, which are left out, and attributes of some objects.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.data.annotation_schema import Target
from sam3i_edge.data.records import Record
from sam3i_edge.data.scene import Scene
from sam3i_edge.data.segmentation import mask_of
from sam3i_edge.data.sources.coco_index import Index, Picture, by_picture, read_index
from sam3i_edge.data.sources.source import Names, Note, find_pictures, missing_pictures, noted, visible_object
from sam3i_edge.data.vocabulary import Vocabulary
from sam3i_edge.errors import DataError

_ALSO: Final = {"pattern_marking": ("pattern", "fill")}  # kinds that vocabularies call otherwise
_SHADES: Final = {  # PACO's shades that another colour's name could claim: pink, brown, olive
    "light red", "dark orange", "dark yellow", "dark pink",
}  # fmt: skip


class CocoSource:
    """Scenes of an instances JSON; see `source.Source`.

    Args:
        path: the file.
        vocabulary: names its categories and attributes.
        images: folder of the pictures; None looks for it, see `find_pictures`.

    Raises:
        DataError: the file is missing, no JSON or breaks the layout, or none of its pictures is there.
    """

    def __init__(self, path: Path, vocabulary: Vocabulary, *, images: Path | None = None) -> None:
        self.path = path
        index = read_index(path)
        self._size = path.stat().st_size
        order, self._starts = by_picture(path, index)
        self._targets = np.frombuffer(index.targets, np.int64).reshape(-1, 2)[order]
        self._pictures = np.frombuffer(index.pictures, np.int64).reshape(-1, 2)
        self._ids = index.ids
        self._target_ids = [index.target_ids[i] for i in order]
        self._names = Names(
            vocabulary, {i: name for i, name in index.categories.items() if i not in index.parts}
        )
        self._parts, self._federated = frozenset(index.parts), index.federated
        self._values = _attribute_values(index, vocabulary)
        self.folder: Path | None
        self.folder, found = find_pictures(path, images, index.names)
        self._files = cast("list[str]", found)
        self._kept = [i for i, name in enumerate(found) if name is not None]
        parts = [name for i, name in index.categories.items() if i in index.parts]
        count = sum(index.counts[i] for i in index.parts)
        self.notes: tuple[Note, ...] = (
            missing_pictures(index.names, found)
            + self._names.notes
            + noted(f"categories that are parts of objects, left out with {count:,} annotations", parts)
        )

    def __len__(self) -> int:
        """Pictures."""
        return len(self._kept)

    def file_name(self, number: int) -> str:
        """The picture's name in `folder`."""
        return self._files[self._kept[number]]

    def image_id(self, number: int) -> int | str:
        """The picture's id in the file."""
        return self._ids[self._kept[number]]

    def image_of(self) -> dict[int | str | None, int | str]:
        """The image id of every annotation, by its own."""
        counts = np.diff(self._starts)
        images = (identity for identity, count in zip(self._ids, counts, strict=True) for _ in range(count))
        return dict(zip(self._target_ids, images, strict=True))

    def category(self, target: Target) -> str:
        """The category of an annotation of this file."""
        return self._names.by_id[cast("int | str", target.category_id)]

    def records(self, number: int) -> tuple[Record, ...]:
        """None: the file has no instructions."""
        return ()

    def targets(self, number: int) -> tuple[tuple[int, int], list[tuple[Target, dict[str, Any]]]]:
        """The picture's (height, width), and its annotations without parts, checked and raw.

        Raises:
            DataError: the file has changed since it was opened.
        """
        picture, targets = self._read(self._kept[number])
        return (picture.height, picture.width), targets

    def scene(self, number: int) -> Scene:
        """The picture and its objects; a crowd is none of them.

        Raises:
            DataError: an outline does not decode, or the file has changed since it was opened.
        """
        picture, targets = self._read(self._kept[number])
        objects, crowds, unseen = [], set(), set()
        for target, raw in targets:
            category = self.category(target)
            if target.iscrowd:
                crowds.add(category)
                continue
            where = f"{self.path}: image {picture.id}, annotation {target.id}"
            mask = mask_of(target.outline, picture.height, picture.width, where)
            if mask.any():
                objects.append(visible_object(category, self._attributes(raw), mask))
            else:
                unseen.add(category)
        return Scene(
            image=cast("Path", self.folder) / self.file_name(number),
            size=(picture.height, picture.width),
            objects=tuple(objects),
            complete=False,
            listed=self._listed(picture, targets) - crowds - unseen,
            crowds=frozenset(crowds),
        )

    def _listed(self, picture: Picture, targets: list[tuple[Target, dict[str, Any]]]) -> frozenset[str]:
        if not self._federated:
            return self._names.listed(self._names.by_id)
        annotated = {cast("int | str", target.category_id) for target, _ in targets}
        absent = set(picture.neg_category_ids or ())
        # What is said to be absent and annotated all the same is not known.
        known = (annotated ^ absent) - set(picture.not_exhaustive_category_ids)
        return self._names.listed(known)

    def _attributes(self, raw: Mapping[str, Any]) -> dict[str, str | None]:
        """Values by attribute: None where two are given or it says that nobody can tell."""
        found: dict[str, str | None] = {}
        given = raw.get("attribute_ids") or ()
        for kind, (attribute, values) in self._values.items():
            if raw.get(f"unknown_{kind}"):
                found[attribute] = None
                continue
            own = {values[i] for i in given if i in values}
            if own:
                found[attribute] = own.pop() if len(own) == 1 else None
        return found

    def _read(self, place: int) -> tuple[Picture, list[tuple[Target, dict[str, Any]]]]:
        try:
            with self.path.open("rb") as file:
                if file.seek(0, 2) != self._size:
                    raise ValueError("its size is another")

                def parsed(span: NDArray[np.int64]) -> dict[str, Any]:
                    file.seek(int(span[0]))
                    return cast("dict[str, Any]", json.loads(file.read(int(span[1] - span[0]))))

                picture = Picture.model_validate(parsed(self._pictures[place]))
                raws = [parsed(span) for span in self._targets[self._starts[place] : self._starts[place + 1]]]
            found = [(Target.model_validate(raw), raw) for raw in raws]
            if any(target.image_id != picture.id for target, _ in found):
                raise ValueError("annotations are elsewhere")
        except (OSError, ValueError) as error:
            raise DataError(
                f"{self.path} has changed since it was opened ({error}); leave it alone while it is read"
            ) from error
        return picture, [(target, raw) for target, raw in found if target.category_id not in self._parts]


def _attribute_values(
    index: Index, vocabulary: Vocabulary
) -> dict[str, tuple[str, dict[int | str, str | None]]]:
    """By the file's kind of attribute: the vocabulary's, and the value of each id, None for one it lacks."""
    found = {}
    for kind, ids in index.types.items():
        attribute = next(
            (known for known in vocabulary.attributes if known == kind or known in _ALSO.get(kind, ())), None
        )
        if attribute is not None:
            values = {
                i: _value(vocabulary, attribute, index.attributes[i]) for i in ids if i in index.attributes
            }
            found[kind] = (attribute, values)
    return found


def _value(vocabulary: Vocabulary, attribute: str, name: str) -> str | None:
    words = name.replace("_", " ").lower()
    if words in _SHADES:
        return None
    plain = words.removeprefix("light ").removeprefix("dark ") if attribute == "color" else words
    return vocabulary.value_of(attribute, plain)
