"""SAM3-I's own annotation JSON as a source: its instructions as they are, its targets as objects.

A picture's objects are the targets of all its records, each once. The file does not say what else is in the
picture, but for records whose `granularity` is "all" or "none" and whose concept is a category's name alone:
of that category they name every instance.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

from sam3i_edge.data.annotations import ANNOTATIONS, read_annotations
from sam3i_edge.data.records import Record
from sam3i_edge.data.scene import Scene, SceneObject
from sam3i_edge.data.sources.source import (
    Note,
    category_of,
    find_pictures,
    missing_pictures,
    unknown_categories,
    visible_object,
)
from sam3i_edge.data.vocabulary import Vocabulary
from sam3i_edge.errors import DataError


class Sam3iSource:
    """Scenes and records of a SAM3-I annotation file; see `source.Source`.

    Args:
        path: the file, or the folder that holds it as `annotations.json`.
        vocabulary: names its categories; one that it does not know keeps its name.
        images: folder of the pictures; None looks for it, see `find_pictures`.

    Raises:
        DataError: the file is missing or breaks the layout, its records disagree on a picture's size, or no
            picture is there.
    """

    def __init__(self, path: Path, vocabulary: Vocabulary, *, images: Path | None = None) -> None:
        self.path = path / ANNOTATIONS if path.is_dir() else path
        self._vocabulary = vocabulary
        by_name: dict[str, list[Record]] = defaultdict(list)
        for record in read_annotations(self.path):
            by_name[record.file_name].append(record)
        for name, records in by_name.items():
            sizes = {(record.height, record.width) for record in records}
            if len(sizes) > 1:
                raise DataError(
                    f"{self.path}: {name} is {' and '.join(f'{h} x {w}' for h, w in sorted(sizes))} (height "
                    "x width) in its records; correct the one that is wrong"
                )
        self.folder: Path | None
        self.folder, found = find_pictures(self.path, images, list(by_name))
        self._pictures = [
            (name, tuple(records))
            for name, records in zip(found, by_name.values(), strict=True)
            if name is not None
        ]
        names = {
            a.category for _, records in self._pictures for record in records for a in record.annotations
        }
        unknown = (
            name for name in sorted(names - {"", vocabulary.mixed}) if not category_of(vocabulary, name)[1]
        )
        self.notes: tuple[Note, ...] = missing_pictures(by_name, found) + unknown_categories(
            vocabulary, unknown
        )

    def __len__(self) -> int:
        """Pictures."""
        return len(self._pictures)

    def file_name(self, number: int) -> str:
        """The picture's name in `folder`."""
        return self._pictures[number][0]

    def records(self, number: int) -> tuple[Record, ...]:
        """The picture's records, as the file has them."""
        return self._pictures[number][1]

    def scene(self, number: int) -> Scene:
        """The picture, and the targets of its records.

        Raises:
            DataError: an outline does not decode to the picture's size.
        """
        name, records = self._pictures[number]
        masks, names = {}, defaultdict[bytes, Counter[str]](Counter)
        crowds: set[str] = set()
        all_of: dict[str, list[set[bytes]]] = defaultdict(list)
        for record in records:
            shown = record.masks()
            for category in self._said_to_be_all(record):
                all_of[category].append({mask.tobytes() for mask in shown})
            for annotation, mask in zip(record.annotations, shown, strict=True):
                category = self._category(annotation.category)
                if annotation.iscrowd:
                    crowds.add(category)
                elif mask.any():
                    masks[mask.tobytes()] = mask
                    names[mask.tobytes()][category] += 1
        objects: list[SceneObject] = []
        of: dict[str, set[bytes]] = defaultdict(set)
        for key, mask in masks.items():
            # An outline of two kinds is an object of the first, and neither can be counted to the end.
            known = [c for c in names[key] if c in self._vocabulary.categories] or list(names[key])
            objects.append(visible_object(known[0], {}, mask))
            for category in known:
                of[category].add(key if len(known) == 1 else b"")
        listed = {c for c, said in all_of.items() if all(targets == of.get(c, set()) for targets in said)}
        first = records[0]
        return Scene(
            image=(self.folder or Path()) / name,
            size=(first.height, first.width),
            objects=tuple(objects),
            complete=False,
            listed=frozenset(listed - crowds),
            crowds=frozenset(crowds),
        )

    def _category(self, name: str) -> str:
        return category_of(self._vocabulary, name)[0] if name else self._vocabulary.mixed

    def _said_to_be_all(self, record: Record) -> set[str]:
        if record.granularity not in ("all", "none"):
            return set()
        return {
            category
            for text in record.concept
            if (category := self._vocabulary.category_of(text)) is not None
        }
